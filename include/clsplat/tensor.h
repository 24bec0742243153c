/* Tensors: how the caller's numbers are described to the library. Nothing is copied or owned. */
#ifndef CLSPLAT_TENSOR_H
#define CLSPLAT_TENSOR_H

#include <clsplat/device.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Storage types. Arithmetic is always float32. */
typedef enum clsplat_dtype {
    CLSPLAT_F32,
    CLSPLAT_F16,  /* IEEE binary16 */
    CLSPLAT_BF16, /* the upper half of a float32 */
    CLSPLAT_I32   /* counts, where a comment asks for them; no input is of this type */
} clsplat_dtype;

/* Returns: bytes per element. */
CLSPLAT_API size_t clsplat_dtype_size(clsplat_dtype dtype);

/* Four dimensions [batch, head, row, column]; a tensor of one number per row has 1 column.
 *
 * The numbers lie in host memory (`host`) or in an OpenCL buffer (`buffer`), `offset` elements from
 * its start; exactly one of the two is set. A tensor with neither is absent. Rows are contiguous;
 * `stride` gives the elements from one batch entry, head and row to the next, and all 0 means
 * densely packed. So q of a layer that keeps [token, head, column] is described without a copy. */
typedef struct clsplat_tensor {
    clsplat_dtype dtype;
    size_t shape[4];
    size_t stride[3];
    void *host;
    cl_mem buffer;
    size_t offset;
} clsplat_tensor;

/* Densely packed tensors in host memory and in a buffer. */
CLSPLAT_API clsplat_tensor clsplat_tensor_host(clsplat_dtype dtype, size_t batch, size_t heads, size_t rows,
                                               size_t columns, const void *host);
CLSPLAT_API clsplat_tensor clsplat_tensor_device(clsplat_dtype dtype, size_t batch, size_t heads, size_t rows,
                                                 size_t columns, cl_mem buffer, size_t offset);

#ifdef __cplusplus
}
#endif
#endif
