/* A model's weights on a device, in the type they are stored in. */
#ifndef CLSPLAT_MODEL_WEIGHTS_H
#define CLSPLAT_MODEL_WEIGHTS_H

#include <clsplat/model.h>

#include "model/config.h"
#include "op/op.h"

/* Matrices are [1,1,out,in], vectors [1,1,1,C]; what a model does not have is absent. Projections that read
 * the same rows lie one after the other in one matrix. */
typedef struct model_layer {
    op_tensor norm, qkv, qkv_bias, q_norm, k_norm, out, out_bias; /* qkv [(H+2·Hk)·D, hidden] */
    op_tensor mlp_norm, gate_up, gate_up_bias, down, down_bias;   /* gate_up [2·I, hidden] */
} model_layer;

typedef struct model_weights {
    op_tensor embedding, norm, head; /* head may be the embedding */
    model_layer *layers;
    cl_mem frequencies[2]; /* float32 [D/2] each, as in the configuration; the second may be NULL */
    uint64_t parameters, bytes;
    struct weight_plan *plan; /* who owns the buffers */
} model_weights;

/* Finds every tensor and checks its shape and type, then whether the device has room for all, and uploads
 * them. Blocks. Returns: IO, FORMAT, UNSUPPORTED, MEMORY, OPENCL, CANCELLED. */
clsplat_status model_weights_load(clsplat_device *device, const char *folder, const model_config *config,
                                  const clsplat_model_options *options, model_weights *weights);
/* Accepts a zeroed struct. */
void model_weights_free(clsplat_device *device, model_weights *weights);

#endif
