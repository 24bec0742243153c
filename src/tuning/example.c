#include "tuning/example.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/half.h"
#include "op/tree/forest.h"
#include "runtime/buffer.h"
#include "tuning/make.h"

const example_operation example_operations[EXAMPLE_OPERATIONS] = {
    {"softmax", &example_softmax, CLSPLAT_DIAGONAL, 4096, 64, 4},
    {"gaussian", &example_gaussian, CLSPLAT_DIAGONAL, 65536, 64, 1},
    {"gaussian-isotropic", &example_gaussian, CLSPLAT_ISOTROPIC, 65536, 64, 1},
    {"gaussian-full", &example_gaussian, CLSPLAT_FULL, 4096, 64, 1},
    {"near-far", &example_near_far, CLSPLAT_DIAGONAL, 4096, 64, 4},
    {"gemm", &example_gemm, CLSPLAT_DIAGONAL, 2048, 2048, 1},
    {"softmax-backward", &example_softmax_backward, CLSPLAT_DIAGONAL, 4096, 64, 4},
    {"gaussian-backward", &example_gaussian_backward, CLSPLAT_DIAGONAL, 16384, 64, 1},
    {"gaussian-isotropic-backward", &example_gaussian_backward, CLSPLAT_ISOTROPIC, 16384, 64, 1},
    {"gaussian-full-backward", &example_gaussian_backward, CLSPLAT_FULL, 2048, 64, 1},
    {"near-far-backward", &example_near_far_backward, CLSPLAT_DIAGONAL, 4096, 64, 4},
};

double example_pairs(const example_kind *kind, const example_shape *s) {
    double heads = (double)(s->batch * s->heads), rows = (double)(kind->by_key ? s->keys : s->queries);
    return heads * rows * (double)(kind->of_splats ? s->splats : s->keys);
}

/* Tokens before heads, since heads run side by side. */
bool example_shrink(const example_kind *kind, example_shape *s) {
    enum { FEW = 256, LEAST = 32 };
    bool by_key = kind->of_splats ? kind->by_key : s->keys > s->queries;
    size_t *tokens = by_key ? &s->keys : &s->queries;
    size_t *smaller = *tokens > FEW     ? tokens
                      : s->batch > 1    ? &s->batch
                      : s->heads > 1    ? &s->heads
                      : *tokens > LEAST ? tokens
                                        : NULL;
    if (smaller)
        *smaller /= 2;
    return smaller != NULL;
}

clsplat_status example_create(clsplat_device *device, const example_kind *kind, const example_shape *shape,
                              example *made) {
    *made = (example){.device = device, .kind = kind, .shape = *shape};
    clsplat_status status = kind->make(made);
    made->family = made->parts[0].family;
    if (status == CLSPLAT_OK)
        example_take(made, shape->queries);
    return status;
}

void example_free(example *e) {
    if (!e->device)
        return;
    clsplat_device_finish(e->device);
    clsplat_splats_destroy(&e->splats);
    forest_release(e->device, &e->forest);
    for (size_t i = 0; i < e->count; ++i)
        buffer_release(e->device, e->buffers[i].bytes, &e->buffers[i].whole.mem);
    *e = (example){0};
}

static op_tensor last_rows(const example_buffer *b, size_t rows) {
    return op_slice(b->whole, 2, b->whole.shape[2] - rows, rows);
}

void example_take(example *e, size_t rows) {
    for (example_buffer *b = e->buffers; b < e->buffers + e->count; ++b)
        if (b->rows)
            *b->tensor = last_rows(b, rows);
    if (e->diagonal)
        *e->diagonal = e->shape.causal ? (int32_t)e->shape.keys - (int32_t)rows : OP_SEES_ALL;
}

clsplat_status example_run(example *e, const op_variant *variant, const tune_point *point, size_t times,
                           double *seconds) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    TRY(clsplat_device_finish(e->device));
    double begun = clock_seconds();
    queue_begin(e->device, 0, NULL, &q);
    q.strict = point && tune_point_index(variant->space, point) != 0; /* the default is what any call runs */
    for (size_t i = 0; i < times; ++i)
        TRY(op_run(&q, variant, point, &e->args));
    TRY(clsplat_device_finish(e->device));
    *seconds = (clock_seconds() - begun) / (double)times;
fail:
    return status;
}

clsplat_status example_call(example *e, const char *variant, size_t times, double *seconds) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    queue_begin(e->device, 0, NULL, &q);
    q.variant = variant;
    double begun = clock_seconds();
    for (size_t i = 0; i < times; ++i)
        TRY(e->kind->enqueue ? e->kind->enqueue(&q, &e->args) : op_dispatch(&q, e->family, &e->args));
    TRY(clsplat_device_finish(e->device));
    *seconds = (clock_seconds() - begun) / (double)times;
fail:
    return status;
}

clsplat_status example_poison(example *e) {
    clsplat_status status = CLSPLAT_OK;
    for (const example_buffer *b = e->buffers; b < e->buffers + e->count; ++b)
        if (b->result)
            TRY(make_poison(e, b));
fail:
    return status;
}

static float load(clsplat_dtype dtype, const void *bytes, size_t i) {
    if (dtype == CLSPLAT_F32)
        return ((const float *)bytes)[i];
    uint16_t bits = ((const uint16_t *)bytes)[i];
    return dtype == CLSPLAT_F16 ? half_from_f16(bits) : half_from_bf16(bits);
}

static size_t count_of(const op_tensor *t) {
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

/* What is left of a result; NULL: it is not of this call's rows alone, or not asked for. */
static op_tensor left(const example *e, const example_buffer *b) {
    size_t rows = e->buffers[0].rows ? e->buffers[0].tensor->shape[2] : e->shape.queries;
    if (!b->result || (!b->rows && rows < e->shape.queries))
        return (op_tensor){0};
    return b->rows ? last_rows(b, rows) : b->whole;
}

static clsplat_status check(example *e, const example_buffer *b, const op_tensor *t, const char *bytes,
                            float *values) {
    size_t size = clsplat_dtype_size(t->dtype), begin = b->whole.offset * size,
           end = begin + count_of(&b->whole) * size;
    for (size_t i = 0; i < b->bytes; ++i)
        if ((i < begin || i >= end) && bytes[i] != (char)0xFF)
            return log_error(e->device->lib, CLSPLAT_OPENCL, "it writes outside of its results");
    size_t head = t->shape[2] * t->shape[3];
    for (size_t i = 0; i < count_of(t); ++i) {
        values[i] = load(t->dtype, bytes, t->offset + i / head * t->stride[1] + i % head);
        if (isnan(values[i]))
            return log_error(e->device->lib, CLSPLAT_OPENCL, "a result is not a number");
    }
    return CLSPLAT_OK;
}

static clsplat_status read_buffer(example *e, const example_buffer *b, const op_tensor *t, float *values) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = malloc(b->bytes);
    queue q;
    if (!bytes)
        return log_error(e->device->lib, CLSPLAT_MEMORY, "no memory for %zu bytes of results", b->bytes);
    queue_begin(e->device, 0, NULL, &q);
    TRY(queue_download(&q, (queue_copy){.mem = t->mem, .host = bytes, .row = b->bytes, .rows = 1}));
    TRY(check(e, b, t, bytes, values));
fail:
    free(bytes);
    return status;
}

clsplat_status example_results(example *e, float **values) {
    clsplat_status status = CLSPLAT_OK;
    size_t count = 0;
    for (const example_buffer *b = e->buffers; b < e->buffers + e->count; ++b) {
        op_tensor t = left(e, b);
        count += count_of(&t);
    }
    float *at = *values = malloc(count * sizeof *at);
    if (!at)
        return log_error(e->device->lib, CLSPLAT_MEMORY, "no memory for %zu results", count);
    for (const example_buffer *b = e->buffers; b < e->buffers + e->count; ++b) {
        op_tensor t = left(e, b);
        if (t.mem)
            TRY(read_buffer(e, b, &t, at));
        at += count_of(&t);
    }
    return CLSPLAT_OK;
fail:
    free(*values);
    *values = NULL;
    return status;
}

clsplat_status example_fresh(example *e, const op_variant *variant, const tune_point *point, float **values) {
    clsplat_status status = CLSPLAT_OK;
    double seconds;
    *values = NULL;
    TRY(example_poison(e));
    TRY(example_run(e, variant, point, 1, &seconds));
    TRY(example_results(e, values));
fail:
    return status;
}

double example_error(const example *e, const float *values, const float *reference) {
    double worst = 0;
    for (const example_buffer *b = e->buffers; b < e->buffers + e->count; ++b) {
        op_tensor t = left(e, b);
        double error = 0, norm = 0;
        for (size_t j = 0; j < count_of(&t); ++j) {
            double difference = values[j] == reference[j] ? 0 : (double)values[j] - (double)reference[j];
            error += difference * difference;
            norm += isfinite(reference[j]) ? (double)reference[j] * (double)reference[j] : 0;
        }
        if (error > 0)
            worst = fmax(worst, sqrt(error / norm));
        values += count_of(&t);
        reference += count_of(&t);
    }
    return worst;
}

clsplat_status example_read_tensor(example *e, const op_tensor *tensor, float **values) {
    clsplat_status status = CLSPLAT_OK;
    const example_buffer *b = e->buffers;
    while (b->whole.mem != tensor->mem)
        ++b;
    *values = malloc(count_of(tensor) * sizeof **values);
    if (!*values)
        return log_error(e->device->lib, CLSPLAT_MEMORY, "no memory for %zu numbers", count_of(tensor));
    TRY(read_buffer(e, b, tensor, *values));
fail:
    return status;
}
