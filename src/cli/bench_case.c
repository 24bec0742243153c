#include <math.h>
#include <stdlib.h>

#include "attention/gaussian.h"
#include "base/half.h"
#include "base/random.h"
#include "cli/bench.h"
#include "op/families.h"
#include "op/gemm/gemm.h"
#include "op/kernel.h"
#include "op/softmax/softmax.h"
#include "op/tree/near_far.h"
#include "runtime/buffer.h"
#include "splats/splats.h"

/* Random numbers are drawn once and repeated; no row length divides this, so that rows differ. */
enum { PERIOD = 1000003 };

static size_t count_of(const op_tensor *t) {
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

static size_t bytes_of(const op_tensor *t) {
    return count_of(t) * clsplat_dtype_size(t->dtype);
}

/* A dense tensor; `mem` is of its own. */
static clsplat_status make(clsplat_device *device, clsplat_dtype dtype, const bench_shape *s, size_t rows,
                           size_t columns, op_tensor *t) {
    clsplat_status status = CLSPLAT_OK;
    *t = (op_tensor){.dtype = dtype,
                     .shape = {s->batch, s->heads, rows, columns},
                     .stride = {s->heads * rows * columns, rows * columns, columns}};
    TRY(buffer_create(device, bytes_of(t), &t->mem));
fail:
    return status;
}

static void *draw(clsplat_dtype dtype, uint64_t seed, size_t count) {
    random_state random = random_seed(seed);
    void *values = malloc(count * clsplat_dtype_size(dtype));
    for (size_t i = 0; values && i < count; ++i) {
        float x = (float)random_normal(&random);
        if (dtype == CLSPLAT_F32)
            ((float *)values)[i] = x;
        else
            ((uint16_t *)values)[i] = dtype == CLSPLAT_F16 ? half_to_f16(x) : half_to_bf16(x);
    }
    return values;
}

static clsplat_status make_random(clsplat_device *device, const bench_request *r, size_t rows, size_t columns,
                                  uint64_t seed, op_tensor *t) {
    clsplat_status status = CLSPLAT_OK;
    void *values = NULL;
    queue q;
    TRY(make(device, r->dtype, &r->shape, rows, columns, t));
    size_t bytes = bytes_of(t), count = count_of(t) < PERIOD ? count_of(t) : PERIOD;
    size_t step = count * clsplat_dtype_size(t->dtype);
    if (!(values = draw(r->dtype, seed, count)))
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for %zu random numbers", count));
    queue_begin(device, 0, NULL, &q);
    for (size_t at = 0; at < bytes; at += step)
        TRY(queue_upload(&q, (queue_copy){.mem = t->mem,
                                          .mem_offset = at,
                                          .host = values,
                                          .row = bytes - at < step ? bytes - at : step,
                                          .rows = 1}));
fail:
    free(values);
    return status;
}

/* Means like the tokens, widths around 1, for every head its own. */
static clsplat_status make_splats(bench_case *b) {
    static const clsplat_covariance covariances[] = {[BENCH_GAUSSIAN] = CLSPLAT_DIAGONAL,
                                                     [BENCH_ISOTROPIC] = CLSPLAT_ISOTROPIC,
                                                     [BENCH_FULL] = CLSPLAT_FULL};
    clsplat_status status = CLSPLAT_OK;
    const bench_shape *n = &b->request.shape;
    clsplat_splats_shape shape = {covariances[b->request.op], n->heads, n->splats, n->dim, 1};
    random_state random = random_seed(4);
    TRY(clsplat_splats_create(b->device->lib, shape, &b->splats));
    clsplat_splats_parameters p = clsplat_splats_get(b->splats);
    size_t splats = n->heads * n->splats, size = splats_covariance_size(&shape);
    for (size_t i = 0; i < splats * n->dim; ++i)
        p.mean[i] = (float)random_normal(&random);
    for (size_t i = 0; i < splats * size && p.log_var; ++i)
        p.log_var[i] = (float)(0.2 * random_normal(&random));
    for (size_t i = 0; i < splats * size && p.precision_chol; ++i)
        if (i % (n->dim + 1) != 0)
            p.precision_chol[i] = (float)(0.05 * random_normal(&random));
    TRY(clsplat_splats_changed(b->splats));
    TRY(splats_upload(b->device, b->splats, &b->ready));
fail:
    return status;
}

/* The trees of all keys, which a cache would have. */
static clsplat_status make_forest(bench_case *b) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    b->forest =
        forest_shape(&b->k, &b->v, b->k.shape[2], forest_chunk(&b->device->info.limits, b->k.shape[2], 0), 0);
    TRY(forest_create(b->device, &b->forest));
    op_gather_args gather = {.forest = &b->forest, .k = b->k, .v = b->v};
    queue_begin(b->device, 0, NULL, &q);
    TRY(forest_clear(&q, &b->forest));
    TRY(op_gather(&q, &gather));
    TRY(clsplat_device_finish(b->device));
fail:
    return status;
}

clsplat_status bench_case_create(clsplat_device *device, const bench_request *request, bench_case *made) {
    clsplat_status status = CLSPLAT_OK;
    const bench_shape *s = &request->shape;
    bench_case *b = made;
    *b = (bench_case){.request = *request, .device = device};
    TRY(make_random(device, request, s->queries, s->dim, 1, &b->q));
    TRY(make_random(device, request, s->keys, s->dim, 2, &b->k));
    if (request->op == BENCH_GEMM)
        return make(device, request->dtype, s, s->queries, s->keys, &b->out);
    TRY(make_random(device, request, s->keys, s->value_dim, 3, &b->v));
    TRY(make(device, request->dtype, s, s->queries, s->value_dim, &b->out));
    TRY(make(device, CLSPLAT_F32, s, s->queries, 1, &b->lse));
    if (request->op == BENCH_NEAR_FAR)
        TRY(make_forest(b));
    else if (request->op != BENCH_SOFTMAX)
        TRY(make_splats(b));
fail:
    return status;
}

void bench_case_free(bench_case *b) {
    op_tensor *const all[] = {&b->q, &b->k, &b->v, &b->out, &b->lse};
    if (!b->device)
        return;
    clsplat_device_finish(b->device);
    clsplat_splats_destroy(&b->splats);
    forest_release(b->device, &b->forest);
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        buffer_release(b->device, bytes_of(all[i]), &all[i]->mem);
    *b = (bench_case){0};
}

static op_tensor last_rows(op_tensor t, size_t rows) {
    return t.mem ? op_slice(t, 2, t.shape[2] - rows, rows) : t;
}

/* The last query sees the last key. */
static int32_t diagonal_of(const bench_case *b, size_t rows) {
    return b->request.causal ? (int32_t)b->k.shape[2] - (int32_t)rows : OP_SEES_ALL;
}

static op_softmax_args softmax_args(const bench_case *b, size_t rows) {
    return (op_softmax_args){.q = last_rows(b->q, rows),
                             .k = b->k,
                             .v = b->v,
                             .out = last_rows(b->out, rows),
                             .lse = last_rows(b->lse, rows),
                             .scale = 1.0f / sqrtf((float)b->q.shape[3]),
                             .diagonal = diagonal_of(b, rows)};
}

static op_near_far_args near_far_args(const bench_case *b, size_t rows) {
    return (op_near_far_args){.forest = &b->forest,
                              .q = last_rows(b->q, rows),
                              .k = b->k,
                              .v = b->v,
                              .out = last_rows(b->out, rows),
                              .lse = last_rows(b->lse, rows),
                              .scale = 1.0f / sqrtf((float)b->q.shape[3]),
                              .diagonal = diagonal_of(b, rows),
                              .keys = b->k.shape[2],
                              .tolerance = clsplat_attention_defaults().tolerance};
}

static op_gemm_args gemm_args(const bench_case *b, size_t rows) {
    return (op_gemm_args){.a = last_rows(b->q, rows), .b = b->k, .c = last_rows(b->out, rows)};
}

clsplat_status bench_case_enqueue(const bench_case *b, size_t rows, queue *q) {
    if (b->request.op == BENCH_SOFTMAX) {
        op_softmax_args args = softmax_args(b, rows);
        return op_softmax(q, &args);
    }
    if (b->request.op == BENCH_NEAR_FAR) {
        op_near_far_args args = near_far_args(b, rows);
        return op_near_far(q, &args);
    }
    if (b->request.op == BENCH_GEMM) {
        op_gemm_args args = gemm_args(b, rows);
        return op_gemm(q, &args);
    }
    gaussian_call call = {.splats = b->ready,
                          .mixing = CLSPLAT_JOINT,
                          .diagonal = diagonal_of(b, rows),
                          .q = last_rows(b->q, rows),
                          .k = b->k,
                          .v = b->v,
                          .out = last_rows(b->out, rows),
                          .lse = last_rows(b->lse, rows)};
    return gaussian_enqueue(q, &call);
}

work bench_case_work(const bench_case *b, size_t rows) {
    op_softmax_args softmax = softmax_args(b, rows);
    op_gemm_args gemm = gemm_args(b, rows);
    work w = b->request.op == BENCH_GEMM ? gemm_work(&gemm)
                                         : softmax_work(&softmax); /* near-far: of what it replaces */
    if (b->ready)
        w.flops = (double)(b->q.shape[0] * b->q.shape[1]) * (double)b->ready->count *
                  (splat_flops(b->ready) + 2 * (double)b->v.shape[3]) * (double)(rows + b->k.shape[2]);
    return w;
}

/* Gaussian attention as the families see it; what does not decide whether a row fits is left out. */
static bool gaussian_has(const bench_case *b, const char *variant, const clsplat_limits *limits) {
    size_t heads = b->q.shape[1];
    op_write_args write = {
        .splats = b->ready, .heads = heads, .segment = b->k.shape[2], .k = b->k, .v = b->v};
    op_read_args read = {.splats = b->ready,
                         .kv_heads = heads,
                         .mixing = CLSPLAT_JOINT,
                         .q = b->q,
                         .out = b->out,
                         .lse = b->lse,
                         .causal = b->request.causal,
                         .diagonal = diagonal_of(b, b->q.shape[2]),
                         .chunk = GAUSSIAN_CHUNK,
                         .v = b->v};
    return op_row(&op_write_family, variant, limits, &write) ||
           op_row(&op_read_family, variant, limits, &read);
}

bool bench_case_has(const bench_case *b, const char *variant) {
    const clsplat_limits *limits = &b->device->info.limits;
    op_softmax_args softmax = softmax_args(b, b->q.shape[2]);
    op_gemm_args gemm = gemm_args(b, b->q.shape[2]);
    if (b->request.op == BENCH_NEAR_FAR) {
        op_near_far_args args = near_far_args(b, b->q.shape[2]);
        return op_row(&op_near_far_family, variant, limits, &args);
    }
    if (b->request.op == BENCH_SOFTMAX)
        return op_row(&op_softmax_family, variant, limits, &softmax);
    if (b->request.op == BENCH_GEMM)
        return op_row(&op_gemm_family, variant, limits, &gemm);
    return gaussian_has(b, variant, limits);
}

static float number_at(clsplat_dtype dtype, const void *stored, size_t i) {
    if (dtype == CLSPLAT_F32)
        return ((const float *)stored)[i];
    uint16_t bits = ((const uint16_t *)stored)[i];
    return dtype == CLSPLAT_F16 ? half_from_f16(bits) : half_from_bf16(bits);
}

clsplat_status bench_case_read(const bench_case *b, size_t rows, float *values) {
    clsplat_status status = CLSPLAT_OK;
    op_tensor last = last_rows(b->out, rows);
    size_t size = clsplat_dtype_size(last.dtype), head = rows * last.shape[3] * size;
    void *stored = malloc(bytes_of(&last));
    queue q;
    if (!stored)
        return log_error(b->device->lib, CLSPLAT_MEMORY, "no memory for %zu rows of results", rows);
    queue_begin(b->device, 0, NULL, &q);
    TRY(queue_download(&q, (queue_copy){.mem = last.mem,
                                        .mem_offset = last.offset * size,
                                        .mem_pitch = last.stride[1] * size,
                                        .host = stored,
                                        .host_pitch = head,
                                        .row = head,
                                        .rows = last.shape[0] * last.shape[1]}));
    for (size_t i = 0; i < count_of(&last); ++i)
        values[i] = number_at(last.dtype, stored, i);
fail:
    free(stored);
    return status;
}

clsplat_status bench_case_poison(const bench_case *b) {
    queue q;
    queue_begin(b->device, 0, NULL, &q);
    return queue_fill(&q, b->out.mem, 0, bytes_of(&b->out) / 4 * 4, NAN);
}
