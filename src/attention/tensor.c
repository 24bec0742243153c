#include <clsplat/tensor.h>

size_t clsplat_dtype_size(clsplat_dtype dtype) {
    return dtype == CLSPLAT_F32 || dtype == CLSPLAT_I32 ? 4 : 2;
}

static clsplat_tensor described(clsplat_dtype dtype, const size_t shape[4]) {
    return (clsplat_tensor){.dtype = dtype, .shape = {shape[0], shape[1], shape[2], shape[3]}};
}

clsplat_tensor clsplat_tensor_host(clsplat_dtype dtype, size_t batch, size_t heads, size_t rows,
                                   size_t columns, const void *host) {
    clsplat_tensor tensor = described(dtype, (size_t[]){batch, heads, rows, columns});
    tensor.host = (void *)host; /* inputs are never written to */
    return tensor;
}

clsplat_tensor clsplat_tensor_device(clsplat_dtype dtype, size_t batch, size_t heads, size_t rows,
                                     size_t columns, cl_mem buffer, size_t offset) {
    clsplat_tensor tensor = described(dtype, (size_t[]){batch, heads, rows, columns});
    tensor.buffer = buffer;
    tensor.offset = offset;
    return tensor;
}
