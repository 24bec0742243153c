/* The story of attention of queries, keys and values in a tensor file: its batch entries stand for layers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/near_far.h"
#include "base/clock.h"
#include "base/half.h"
#include "cli/attend.h"
#include "cli/make_report.h"
#include "runtime/buffer.h"

typedef struct table {
    cli *c;
    clsplat_device *device;
    clsplat_attention attention;
    attend_problem p;
    uint32_t *positions; /* the last key that each chosen query sees; or the query, where all see all */
    size_t *queries;     /* which they are */
    size_t count;
    float *bias; /* [B,Hk,M] */
} table;

static clsplat_status read_options(table *t, const report_request *r) {
    static const char *const methods[] = {"softmax", "near-far", NULL};
    clsplat_status status = CLSPLAT_OK;
    cli *c = t->c;
    double scale = NAN;
    uint64_t topk = 0, chunk = 0;
    int method = 1;
    if (r->model.window || r->model.dtype || r->model.context)
        return cli_misuse(c, "--window, --dtype and --context are for models");
    TRY(cli_choice(c, "--attention", r->model.attention, methods, &method));
    TRY(cli_number(c, "--scale", r->scale, &scale));
    TRY(cli_tolerance(c, r->model.tolerance, &t->attention.tolerance));
    TRY(cli_count(c, "--sparse-topk", r->model.sparse_topk, 0, &topk));
    TRY(cli_count(c, "--chunk", r->model.chunk, 1, &chunk));
    t->attention.method = method == 1 ? CLSPLAT_NEAR_FAR : CLSPLAT_SOFTMAX;
    t->attention.sparse_topk = topk;
    t->attention.chunk = chunk;
    t->attention.causal = r->causal;
    t->attention.scale = (float)scale;
fail:
    return status;
}

/* The run itself, as `clsplat attend` makes it. */
static clsplat_status run(table *t, story *s) {
    clsplat_status status = CLSPLAT_OK;
    attend_problem *p = &t->p;
    const size_t *q = p->q.tensor.shape;
    clsplat_attention_tensors tensors = attend_tensors(p);
    clsplat_profile_set(t->device, true);
    double begin = clock_seconds();
    TRY(clsplat_attend(t->device, t->attention, tensors));
    s->seconds = clock_seconds() - begin;
    clsplat_profile_set(t->device, false);
    TRY(clsplat_profile_read(t->device, &s->kernels, &s->kernel_count));
    report_count_kernels(s);
    s->peak = clsplat_device_memory(t->device).peak;
    s->memory[0].name = "inputs, trees and results in blocks";
    s->memory[0].bytes = s->peak;
    for (size_t i = 0; t->attention.method == CLSPLAT_NEAR_FAR && i < q[0] * q[1] * q[2]; ++i) {
        double before = (double)(i % q[2]) + (double)p->k.tensor.shape[2] - (double)q[2];
        s->visible += t->attention.causal ? fmax(before + 1, 0) : (double)p->k.tensor.shape[2];
        s->exact += p->exact_keys[i];
    }
fail:
    return status;
}

/* Queries that see a key. */
static clsplat_status choose(table *t, const report_request *r) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *q = t->p.q.tensor.shape;
    size_t keys = t->p.k.tensor.shape[2], hidden = t->attention.causal && q[2] > keys ? q[2] - keys : 0;
    TRY(report_choose(t->c, r->rows, q[2] - hidden, q[0] * q[1], &t->positions, &t->count));
    t->queries = malloc(t->count * sizeof *t->queries);
    if (!t->queries)
        return log_error(t->c->lib, CLSPLAT_MEMORY, "there is no memory for %zu queries", t->count);
    for (size_t i = 0; i < t->count; ++i) {
        t->queries[i] = t->positions[i] + hidden;
        if (t->attention.causal)
            t->positions[i] = (uint32_t)(t->queries[i] + keys - q[2]);
    }
fail:
    return status;
}

/* Numbers as they are in the file, on the device. */
static clsplat_status bring(table *t, const void *numbers, clsplat_dtype dtype, size_t heads, size_t rows,
                            size_t columns, op_tensor *to) {
    size_t head = rows * columns;
    *to = (op_tensor){
        .dtype = dtype, .shape = {1, heads, rows, columns}, .stride = {heads * head, head, columns}};
    return buffer_create_from(t->device, heads * head * clsplat_dtype_size(dtype), numbers, &to->mem);
}

static void take_back(table *t, op_tensor *tensor) {
    if (tensor->mem)
        buffer_release(t->device, tensor->stride[0] * clsplat_dtype_size(tensor->dtype), &tensor->mem);
}

static clsplat_status bring_entry(table *t, const input *in, size_t batch, op_tensor *to) {
    const clsplat_tensor *x = &in->tensor;
    size_t entry = x->shape[1] * x->shape[2] * x->shape[3] * clsplat_dtype_size(x->dtype);
    return bring(t, (const char *)x->host + batch * entry, x->dtype, x->shape[1], x->shape[2], x->shape[3],
                 to);
}

static clsplat_status bring_queries(table *t, size_t batch, op_tensor *to) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_tensor *q = &t->p.q.tensor;
    size_t row = q->shape[3] * clsplat_dtype_size(q->dtype);
    char *chosen = malloc(q->shape[1] * t->count * row);
    if (!chosen)
        return log_error(t->c->lib, CLSPLAT_MEMORY, "there is no memory for %zu queries", t->count);
    for (size_t i = 0; i < q->shape[1] * t->count; ++i) {
        size_t from = (batch * q->shape[1] + i / t->count) * q->shape[2] + t->queries[i % t->count];
        memcpy(chosen + i * row, (const char *)q->host + from * row, row);
    }
    TRY(bring(t, chosen, q->dtype, q->shape[1], t->count, q->shape[3], to));
fail:
    free(chosen);
    return status;
}

/* The bias as numbers that the host can add. */
static clsplat_status read_bias(table *t) {
    const clsplat_tensor *b = &t->p.key_bias.tensor;
    size_t count = b->shape[0] * b->shape[1] * b->shape[2];
    if (!t->p.key_bias.entry)
        return CLSPLAT_OK;
    t->bias = malloc(count * sizeof *t->bias);
    if (!t->bias)
        return log_error(t->c->lib, CLSPLAT_MEMORY, "there is no memory for the bias of %zu keys", count);
    for (size_t i = 0; i < count; ++i)
        t->bias[i] = b->dtype == CLSPLAT_F32   ? ((const float *)b->host)[i]
                     : b->dtype == CLSPLAT_F16 ? half_from_f16(((const uint16_t *)b->host)[i])
                                               : half_from_bf16(((const uint16_t *)b->host)[i]);
    return CLSPLAT_OK;
}

static clsplat_status look_at_entry(table *t, story *s, size_t batch) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *k = t->p.k.tensor.shape;
    float scale = t->attention.scale;
    look_source from = {.scale = isnan(scale) ? 1 / sqrtf((float)k[3]) : scale,
                        .tolerance = t->attention.tolerance,
                        .sparse_topk = t->attention.sparse_topk,
                        .trees = t->p.k.tensor.dtype,
                        .bias = t->bias ? t->bias + batch * k[1] * k[2] : NULL};
    TRY(bring_queries(t, batch, &from.q));
    TRY(bring_entry(t, &t->p.k, batch, &from.k));
    TRY(bring_entry(t, &t->p.v, batch, &from.v));
    if (t->p.key_bias.entry)
        TRY(bring_entry(t, &t->p.key_bias, batch, &from.key_bias));
    TRY(look_layer(t->device, &s->look, batch, &from));
fail:
    take_back(t, &from.q);
    take_back(t, &from.k);
    take_back(t, &from.v);
    take_back(t, &from.key_bias);
    return status;
}

static clsplat_status look_closer(table *t, story *s) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *q = t->p.q.tensor.shape, *k = t->p.k.tensor.shape;
    look shape = {.layers = q[0],
                  .heads = q[1],
                  .kv_heads = k[1],
                  .count = t->count,
                  .keys = k[2],
                  .top = report_top(q[0] * q[1]),
                  .causal = t->attention.causal};
    double begin = clock_seconds();
    if (t->attention.method == CLSPLAT_NEAR_FAR) {
        shape.chunk = t->attention.chunk;
        TRY(near_far_choose(t->device, t->attention.tolerance, t->attention.sparse_topk, k[2], &shape.chunk));
    }
    TRY(look_create(t->c->lib, shape, t->positions, &s->look));
    TRY(read_bias(t));
    for (size_t i = 0; i < q[0]; ++i)
        TRY(look_at_entry(t, s, i));
    s->look_seconds = clock_seconds() - begin;
fail:
    return status;
}

static clsplat_status name(table *t, const char *path, story *s) {
    text what = {0};
    const size_t *q = t->p.q.tensor.shape;
    text_add(&what, "Attention of %zu queries to %zu keys, %s%s; %zu queries recorded; on %s", q[2],
             t->p.k.tensor.shape[2],
             t->attention.method == CLSPLAT_NEAR_FAR ? "near exactly and far through trees of splats"
                                                     : "exact",
             t->attention.causal ? ", causal" : "", t->count, s->device);
    s->title = text_copy(path);
    s->what = what.data;
    if (!s->title || !text_ok(&what))
        return log_error(t->c->lib, CLSPLAT_MEMORY, "there is no memory for the report");
    return CLSPLAT_OK;
}

clsplat_status report_tensors(cli *c, report_request *r, const char *path, story *s) {
    clsplat_status status = CLSPLAT_OK;
    table t = {.c = c, .attention = clsplat_attention_defaults()};
    TRY(read_options(&t, r));
    TRY(attend_load(
        c->lib, &(attend_request){.input = path, .near_far = t.attention.method == CLSPLAT_NEAR_FAR}, &t.p));
    TRY(choose(&t, r));
    progress_begin(&c->progress);
    TRY(clsplat_device_open(c->lib, c->device, &t.device));
    t.attention.progress = progress_step;
    t.attention.progress_user = &c->progress;
    s->layer_word = "batch entry";
    s->tolerance = t.attention.tolerance;
    s->bits_per_byte = NAN;
    snprintf(s->device, sizeof s->device, "%s", clsplat_device_describe(t.device)->name);
    TRY(run(&t, s));
    TRY(look_closer(&t, s));
    TRY(name(&t, path, s));
fail:
    free(t.positions);
    free(t.queries);
    free(t.bias);
    attend_free(&t.p);
    clsplat_device_close(&t.device);
    return status;
}
