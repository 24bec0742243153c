/* The tokens of a layer, out of a file: q, k, v and, if it is there, key_bias. */
#ifndef CLSPLAT_CLI_LAYER_INPUT_H
#define CLSPLAT_CLI_LAYER_INPUT_H

#include <clsplat/attention.h>

#include "cli/input.h"

typedef struct layer_input {
    safetensors *file;
    input q, k, v, key_bias;
} layer_input;

/* Reads and checks them. Returns: IO, FORMAT, SHAPE, INVALID, naming file and tensor. */
clsplat_status layer_input_read(clsplat *lib, const char *path, layer_input *t);
clsplat_attention_tensors layer_input_tensors(const layer_input *t);
void layer_input_free(layer_input *t);

#endif
