/* Tensors out of a safetensors file, described first and read after all shapes have been found to fit, so
 * that a wrong file of any size is refused at once. */
#ifndef CLSPLAT_CLI_INPUT_H
#define CLSPLAT_CLI_INPUT_H

#include <clsplat/tensor.h>

#include "format/safetensors.h"

typedef struct input {
    const safetensors *file;
    const safetensors_entry *entry; /* NULL: absent */
    clsplat_tensor tensor;          /* host is NULL until input_read, and then input_free's */
    size_t run[2][2]; /* where runs of its rows begin in the file, and how many they are; 0s: all */
} input;

enum { INPUT_BATCH, INPUT_HEADS, INPUT_ROWS, INPUT_COLUMNS };

/* Finds [B,H,rows,columns], or with rank 3 [B,H,rows], of one of the three storage types. */
clsplat_status input_find(clsplat *lib, const safetensors *file, const char *name, size_t rank, input *in);
/* The same, but the tensor may be absent. */
clsplat_status input_find_optional(clsplat *lib, const safetensors *file, const char *name, size_t rank,
                                   input *in);
/* A tensor of any shape, which is left to the entry. */
clsplat_status input_find_any(clsplat *lib, const safetensors *file, const char *name, input *in);
/* Whether it has one of the three storage types. */
bool input_is_number(const safetensors_entry *entry);

/* Whether dimension `d` is the same in both. */
clsplat_status input_match(clsplat *lib, const input *in, const input *other, int d);
/* Whether q's heads are a multiple of k's. */
clsplat_status input_match_heads(clsplat *lib, const input *q, const input *k);

/* Reads the numbers, whatever they are. Nothing for an absent tensor. */
clsplat_status input_read(clsplat *lib, input *in);
/* Reads them and checks that every one is finite; with `padding`, −inf is allowed too. */
clsplat_status input_read_finite(clsplat *lib, input *in, bool padding);
/* The same of two runs of its rows, one behind the other: of the file only these are read, and the tensor has
 * no others. Each has where it begins and how many they are, perhaps 0. */
clsplat_status input_read_runs(clsplat *lib, input *in, const size_t run[2][2], bool padding);
/* Where a row of the tensor is in the file. */
size_t input_row(const input *in, size_t row);
void input_free(input *in);

#endif
