#include "tuning/make.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/random.h"
#include "runtime/buffer.h"
#include "splats/splats.h"

/* In elements. Random numbers are drawn once and repeated; no row length divides this, so that rows differ.
 */
enum { GUARD = 256, PERIOD = 1000003 };

static void store(clsplat_dtype dtype, void *bytes, size_t i, float value) {
    if (dtype == CLSPLAT_F32)
        ((float *)bytes)[i] = value;
    else
        ((uint16_t *)bytes)[i] = dtype == CLSPLAT_F16 ? half_to_f16(value) : half_to_bf16(value);
}

/* Normal; or, of vectors that are alike, even up to 4, and an eighth of that in most columns. */
static void draw(random_state *random, bool alike, size_t count, float *values) {
    for (size_t i = 0; i < count; ++i)
        values[i] = alike ? 8 * (float)random_uniform(random) - 4 : (float)random_normal(random);
}

/* Numbers between the guards. */
static clsplat_status fill(example *e, const op_tensor *t, bool alike) {
    clsplat_status status = CLSPLAT_OK;
    size_t count = t->shape[0] * t->stride[0], step = count < PERIOD ? count : PERIOD,
           size = clsplat_dtype_size(t->dtype), columns = t->shape[3], wide = columns / 8 + 1;
    random_state random = random_seed(e->count + 1);
    float *values = malloc(step * sizeof *values);
    char *bytes = malloc(step * size);
    queue q;
    if (!values || !bytes)
        TRY(log_error(e->device->lib, CLSPLAT_MEMORY, "no memory for %zu random numbers", step));
    draw(&random, alike, step, values);
    queue_begin(e->device, 0, NULL, &q);
    for (size_t at = 0; at < count; at += step) {
        size_t part = count - at < step ? count - at : step;
        for (size_t i = 0; i < part; ++i)
            store(t->dtype, bytes, i, alike && (at + i) % columns >= wide ? values[i] / 8 : values[i]);
        TRY(queue_upload(&q, (queue_copy){.mem = t->mem,
                                          .mem_offset = (t->offset + at) * size,
                                          .host = bytes,
                                          .row = part * size,
                                          .rows = 1}));
    }
fail:
    free(values);
    free(bytes);
    return status;
}

clsplat_status make_poison(example *e, const example_buffer *b) {
    const uint32_t bits = UINT32_MAX; /* NaN in every type */
    float nan;
    queue q;
    memcpy(&nan, &bits, sizeof nan);
    queue_begin(e->device, 0, NULL, &q);
    return queue_fill(&q, b->whole.mem, 0, b->bytes, nan);
}

/* To *mem, or to the tensor of b. */
static clsplat_status add(example *e, example_buffer b, make_what what, bool alike, cl_mem *mem) {
    clsplat_status status = CLSPLAT_OK;
    op_tensor *t = &b.whole;
    size_t count = t->shape[0] * t->stride[0];
    b.result = what == MAKE_RESULT;
    b.bytes = (t->offset + count + GUARD + count % 2) * clsplat_dtype_size(t->dtype); /* divides by 4 */
    TRY(buffer_create(e->device, b.bytes, &t->mem));
    TRY(make_poison(e, &b));
    if (!b.result)
        TRY(fill(e, t, alike));
fail:
    if (t->mem)
        e->buffers[e->count++] = b;
    if (b.tensor)
        *b.tensor = *t;
    else
        *mem = t->mem;
    return status;
}

/* Dense, behind a guard. */
static clsplat_status add_tensor(example *e, example_buffer b, make_what what) {
    op_tensor *t = &b.whole;
    t->offset = GUARD;
    t->stride[2] = t->shape[3];
    t->stride[1] = t->shape[2] * t->stride[2];
    t->stride[0] = t->shape[1] * t->stride[1];
    return add(e, b, what, e->shape.alike, NULL);
}

static clsplat_status add_rows(example *e, clsplat_dtype dtype, make_what what, size_t columns,
                               op_tensor *t) {
    const example_shape *s = &e->shape;
    example_buffer b = {.whole = {.dtype = dtype, .shape = {s->batch, s->heads, s->queries, columns}},
                        .tensor = t,
                        .rows = true};
    return add_tensor(e, b, what);
}

clsplat_status make_rows(example *e, make_what what, size_t columns, op_tensor *t) {
    return add_rows(e, e->shape.dtype, what, columns, t);
}

clsplat_status make_keys(example *e, make_what what, size_t columns, op_tensor *t) {
    const example_shape *s = &e->shape;
    size_t heads = s->alike && s->heads % 2 == 0 ? s->heads / 2 : s->heads;
    example_buffer b = {.whole = {.dtype = s->dtype, .shape = {s->batch, heads, s->keys, columns}},
                        .tensor = t};
    return add_tensor(e, b, what);
}

clsplat_status make_tokens(example *e, op_tensor *q, op_tensor *k, op_tensor *v) {
    clsplat_status status = CLSPLAT_OK;
    TRY(make_rows(e, MAKE_RANDOM, e->shape.dim, q));
    TRY(make_keys(e, MAKE_RANDOM, e->shape.dim, k));
    TRY(make_keys(e, MAKE_RANDOM, e->shape.value_dim, v));
fail:
    return status;
}

clsplat_status make_outputs(example *e, op_tensor *out, op_tensor *lse) {
    clsplat_status status = make_rows(e, MAKE_RESULT, e->shape.value_dim, out);
    return status == CLSPLAT_OK ? add_rows(e, CLSPLAT_F32, MAKE_RESULT, 1, lse) : status;
}

clsplat_status make_gradients(example *e, op_tensor *dq, op_tensor *dk, op_tensor *dv) {
    clsplat_status status = CLSPLAT_OK;
    TRY(make_rows(e, MAKE_RESULT, e->shape.dim, dq));
    TRY(make_keys(e, MAKE_RESULT, e->shape.dim, dk));
    TRY(make_keys(e, MAKE_RESULT, e->shape.value_dim, dv));
fail:
    return status;
}

clsplat_status make_array(example *e, make_what what, size_t count, cl_mem *mem) {
    example_buffer b = {
        .whole = {.dtype = CLSPLAT_F32, .shape = {1, 1, 1, count}, .stride = {count, count, count}}};
    return add(e, b, what, false, mem);
}

clsplat_status make_splats(example *e, const op_splats **ready) {
    clsplat_status status = CLSPLAT_OK;
    const example_shape *n = &e->shape;
    clsplat_splats_shape shape = {n->covariance, n->heads, n->splats, n->dim, 1};
    random_state random = random_seed(4);
    TRY(clsplat_splats_create(e->device->lib, shape, &e->splats));
    clsplat_splats_parameters p = clsplat_splats_get(e->splats);
    size_t splats = n->heads * n->splats, size = splats_covariance_size(&shape);
    for (size_t i = 0; i < splats * n->dim; ++i)
        p.mean[i] = (float)random_normal(&random);
    for (size_t i = 0; i < splats * size && p.log_var; ++i)
        p.log_var[i] = (float)(0.2 * random_normal(&random));
    for (size_t i = 0; i < splats * size && p.precision_chol; ++i)
        if (i % (n->dim + 1) != 0)
            p.precision_chol[i] = (float)(0.05 * random_normal(&random));
    TRY(clsplat_splats_changed(e->splats));
    TRY(splats_upload(e->device, e->splats, &e->ready));
    *ready = e->ready;
fail:
    return status;
}
