/* A model as the floor sees it: configuration, tokeniser, weights, and the buffers that its sessions share.
 */
#ifndef CLSPLAT_MODEL_MODEL_H
#define CLSPLAT_MODEL_MODEL_H

#include <clsplat/model.h>

#include "model/config.h"
#include "model/pooling.h"
#include "model/scratch.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

struct clsplat_model {
    clsplat_device *device;
    model_config config;
    clsplat_model_info info;
    clsplat_dtype activations, cache;
    size_t context; /* of the longest session */
    tokenizer *tokenizer;
    model_pooling pooling; /* encoders */
    model_weights weights;
    model_scratch scratch;
    struct encoder_splats *splats; /* of an encoder with such layers; else NULL */
};

#endif
