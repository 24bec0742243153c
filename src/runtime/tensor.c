#include "runtime/tensor.h"

#include "runtime/buffer.h"

static const char *const dimension_names[4] = {"batch", "heads", "rows", "columns"};

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

/* Fills in the strides of a dense tensor, and finds where the tensor ends, in elements; 0 if that overflows.
 */
static size_t end_of(clsplat_tensor *t) {
    size_t *stride = t->stride;
    if (stride[0] == 0 && stride[1] == 0 && stride[2] == 0) {
        stride[2] = t->shape[3];
        if (__builtin_mul_overflow(stride[2], t->shape[2], &stride[1]) ||
            __builtin_mul_overflow(stride[1], t->shape[1], &stride[0]))
            return 0;
    }
    size_t end = 0, step;
    if (__builtin_add_overflow(t->offset, t->shape[3], &end))
        return 0;
    for (int d = 0; d < 3; ++d)
        if (__builtin_mul_overflow(stride[d], t->shape[d] - 1, &step) ||
            __builtin_add_overflow(end, step, &end))
            return 0;
    return end <= SIZE_MAX / 4 ? end : 0;
}

clsplat_status tensor_lay_out(clsplat *lib, const char *name, clsplat_tensor *t, bool on_host) {
    for (int d = 0; d < 4; ++d)
        if (t->shape[d] == 0)
            return log_error(lib, CLSPLAT_SHAPE, "%s has 0 %s; every dimension is at least 1", name,
                             dimension_names[d]);
    if (on_host ? !t->host || t->buffer : !t->buffer || t->host)
        return log_error(lib, CLSPLAT_INVALID, "%s must be %s here: set `%s` and nothing else", name,
                         on_host ? "in host memory" : "in a buffer", on_host ? "host" : "buffer");
    size_t end = end_of(t);
    if (end == 0)
        return log_error(lib, CLSPLAT_SHAPE,
                         "%s: its dimensions or strides multiply to more than memory can address", name);
    size_t held = on_host ? SIZE_MAX : buffer_bytes(t->buffer);
    if (end * clsplat_dtype_size(t->dtype) > held)
        return log_error(lib, CLSPLAT_SHAPE, "%s ends at byte %zu of its buffer, which has %zu", name,
                         end * clsplat_dtype_size(t->dtype), held);
    return CLSPLAT_OK;
}

clsplat_status tensor_check_place(clsplat *lib, const char *name, clsplat_tensor *t, bool on_host) {
    if (t->dtype != CLSPLAT_F32 && t->dtype != CLSPLAT_F16 && t->dtype != CLSPLAT_BF16)
        return log_error(lib, CLSPLAT_INVALID, "%s: there is no storage type %d", name, (int)t->dtype);
    return tensor_lay_out(lib, name, t, on_host);
}

/* One dimension of a tensor against what the others say it is. */
static clsplat_status check_dimension(clsplat *lib, const char *name, const clsplat_tensor *t, int d,
                                      size_t expected) {
    if (t->shape[d] == expected)
        return CLSPLAT_OK;
    return log_error(lib, CLSPLAT_SHAPE,
                     "%s has shape [%zu, %zu, %zu, %zu], but its %s must be %zu to fit the other tensors",
                     name, t->shape[0], t->shape[1], t->shape[2], t->shape[3], dimension_names[d], expected);
}

clsplat_status tensor_check_shape(clsplat *lib, const char *name, const clsplat_tensor *t,
                                  const size_t expected[4]) {
    clsplat_status status = CLSPLAT_OK;
    for (int d = 0; d < 4 && status == CLSPLAT_OK; ++d)
        status = check_dimension(lib, name, t, d, expected[d]);
    return status;
}

clsplat_status tensor_check_queries(clsplat *lib, const clsplat_tensor *q, const clsplat_tensor *k) {
    const size_t *a = q->shape, *b = k->shape;
    if (a[0] == b[0] && a[1] % b[1] == 0 && a[3] == b[3])
        return CLSPLAT_OK;
    return log_error(
        lib, CLSPLAT_SHAPE,
        "q [%zu, %zu, %zu, %zu] does not fit k [%zu, %zu, %zu, %zu]: the same batch and columns, and "
        "a multiple of its heads are needed",
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]);
}
