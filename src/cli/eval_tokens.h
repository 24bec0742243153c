/* Tensors of whole numbers out of a safetensors file. */
#ifndef CLSPLAT_CLI_EVAL_TOKENS_H
#define CLSPLAT_CLI_EVAL_TOKENS_H

#include "cli/language.h"
#include "format/safetensors.h"

typedef struct int_tensor {
    size_t rows, columns;
    int32_t *numbers;
} int_tensor;

/* A tensor of two dimensions, neither 0, of type U8 or I32, with numbers from 0 to below `limit`. Ownership:
 * int_tensor_free. Returns: IO, FORMAT, SHAPE, INVALID, MEMORY, naming file and tensor. */
clsplat_status int_tensor_read(clsplat *lib, const safetensors *file, const char *name, size_t limit,
                               int_tensor *t);
void int_tensor_free(int_tensor *t);

/* The same with rows of the model's tokens, not longer than its context. */
clsplat_status token_tensor_read(const language *l, const safetensors *file, const char *name, int_tensor *t);

#endif
