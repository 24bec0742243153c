/* Types that tensors of operations have beyond clsplat_dtype: matrices of weights in blocks
 * (format/blocks.h), as `b` of op_gemm and `table` of op_embed. Offsets and strides count numbers there too,
 * in whole blocks. */
#ifndef CLSPLAT_OP_DTYPE_H
#define CLSPLAT_OP_DTYPE_H

#include <clsplat/tensor.h>
#include <stdbool.h>

enum { OP_Q8_0 = CLSPLAT_I32 + 1, OP_Q4_0, OP_Q4_1, OP_Q5_0, OP_Q5_1, OP_Q4_K, OP_Q5_K, OP_Q6_K, OP_TYPES };

/* "F32", "Q4_1", …: the same in files and kernels. */
const char *op_dtype_name(clsplat_dtype dtype);
/* False: there is none of that name, or it is no type of weights. */
bool op_dtype_named(const char *name, clsplat_dtype *dtype);
bool op_dtype_is_blocks(clsplat_dtype dtype);
/* Bytes of so many numbers, of blocks whole ones. */
double op_dtype_bytes(clsplat_dtype dtype, double numbers);

#endif
