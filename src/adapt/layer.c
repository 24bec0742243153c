#include "adapt/layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attend.h"
#include "base/half.h"
#include "runtime/buffer.h"
#include "runtime/tensor.h"

static clsplat_status no_memory(const layer *l) {
    return log_error(l->device->lib, CLSPLAT_MEMORY,
                     "no memory for the tokens of a layer of %zu queries and %zu keys", l->queries, l->keys);
}

static float element(const clsplat_tensor *t, size_t at) {
    if (t->dtype == CLSPLAT_F32)
        return ((const float *)t->host)[at];
    uint16_t bits = ((const uint16_t *)t->host)[at];
    return t->dtype == CLSPLAT_F16 ? half_from_f16(bits) : half_from_bf16(bits);
}

/* A dense float32 copy. Returns: INVALID, naming the place of a number that is not finite. */
static clsplat_status copy_dense(const layer *l, const char *name, const clsplat_tensor *t, float **copy) {
    const size_t *n = t->shape;
    *copy = malloc(n[0] * n[1] * n[2] * n[3] * sizeof **copy);
    if (!*copy)
        return no_memory(l);
    float *to = *copy;
    for (size_t row = 0; row < n[0] * n[1] * n[2]; ++row) {
        size_t b = row / (n[1] * n[2]), h = row / n[2] % n[1], i = row % n[2];
        size_t at = t->offset + b * t->stride[0] + h * t->stride[1] + i * t->stride[2];
        for (size_t d = 0; d < n[3]; ++d, ++to) {
            *to = element(t, at + d);
            if (!isfinite(*to) && !(strcmp(name, "key_bias") == 0 && *to == -INFINITY))
                return log_error(l->device->lib, CLSPLAT_INVALID,
                                 "%s holds %f at [%zu, %zu, %zu, %zu]; every number must be finite", name,
                                 (double)*to, b, h, i, d);
        }
    }
    return CLSPLAT_OK;
}

static clsplat_status upload(layer *l, const float *host, const size_t shape[4], op_tensor *to) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes = shape[0] * shape[1] * shape[2] * shape[3] * sizeof *host;
    *to = (op_tensor){.dtype = CLSPLAT_F32,
                      .shape = {shape[0], shape[1], shape[2], shape[3]},
                      .stride = {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3]}};
    TRY(buffer_create_from(l->device, bytes, host, &to->mem));
fail:
    return status;
}

static void choose_rows(layer *l, size_t sample) {
    size_t seeing = l->causal && l->keys < l->queries ? l->keys : l->queries; /* those before see nothing */
    l->step = (seeing + sample - 1) / sample;
    l->rows = (seeing - 1) / l->step + 1;
    l->first_row = l->queries - 1 - (l->rows - 1) * l->step;
    l->head_keys = l->causal ? l->keys - (l->rows - 1) * l->step : l->keys;
}

size_t layer_visible(const layer *l, size_t row) {
    return l->head_keys + (l->causal ? row * l->step : 0);
}

/* The looked-at rows from `begin` on of a tensor of all queries. */
op_tensor layer_rows_of(const layer *l, op_tensor t, size_t begin) {
    t.offset += (l->first_row + begin * l->step) * t.stride[2];
    t.stride[2] *= l->step;
    t.shape[2] = l->rows - begin;
    return t;
}

op_tensor layer_result(const layer *l, cl_mem mem, size_t rows, size_t columns) {
    return (op_tensor){.mem = mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {l->batch, l->heads, rows, columns},
                       .stride = {l->heads * rows * columns, rows * columns, columns}};
}

/* Softmax attention of the rows: the keys that all see, then for every row those that it and all later ones
 * see. */
static clsplat_status enqueue_target(layer *l) {
    clsplat_status status = CLSPLAT_OK;
    op_tensor out = layer_result(l, l->out, l->rows, l->value_dim), lse = layer_result(l, l->lse, l->rows, 1);
    op_softmax_args a = {.q = layer_rows_of(l, l->on_q, 0),
                         .k = op_slice(l->on_k, 2, 0, l->head_keys),
                         .v = op_slice(l->on_v, 2, 0, l->head_keys),
                         .key_bias = op_slice(l->on_bias, 2, 0, l->head_keys),
                         .out = out,
                         .lse = lse,
                         .scale = l->scale,
                         .diagonal = OP_SEES_ALL};
    if (l->causal && l->step == 1) { /* all of them are consecutive: one attention */
        a.k = l->on_k, a.v = l->on_v, a.key_bias = l->on_bias;
        a.diagonal = (int32_t)(l->keys - l->rows);
        return op_softmax(&l->queue, &a);
    }
    TRY(op_softmax(&l->queue, &a));
    for (size_t t = 1; l->causal && t < l->rows; ++t) {
        size_t begin = layer_visible(l, t - 1);
        a = (op_softmax_args){.q = layer_rows_of(l, l->on_q, t),
                              .k = op_slice(l->on_k, 2, begin, l->step),
                              .v = op_slice(l->on_v, 2, begin, l->step),
                              .key_bias = op_slice(l->on_bias, 2, begin, l->step),
                              .out = op_slice(out, 2, t, l->rows - t),
                              .lse = op_slice(lse, 2, t, l->rows - t),
                              .scale = l->scale,
                              .diagonal = OP_SEES_ALL,
                              .accumulate = true};
        TRY(op_softmax(&l->queue, &a));
    }
fail:
    return status;
}

static clsplat_status download(layer *l, cl_mem mem, size_t count, float *host) {
    return queue_download(&l->queue, (queue_copy){.mem = mem, .host = host, .row = 4 * count, .rows = 1});
}

static clsplat_status find_target(layer *l) {
    clsplat_status status = CLSPLAT_OK;
    size_t each = l->rows * l->value_dim, heads = l->batch * l->heads;
    l->target = malloc(heads * each * sizeof *l->target);
    l->norm = calloc(heads, sizeof *l->norm);
    if (!l->target || !l->norm)
        return no_memory(l);
    TRY(enqueue_target(l));
    TRY(download(l, l->out, heads * each, l->target));
    for (size_t i = 0; i < heads * each; ++i)
        l->norm[i / each] += (double)l->target[i] * (double)l->target[i];
fail:
    return status;
}

clsplat_status layer_check_tensors(clsplat *lib, clsplat_attention_tensors *t) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *k = t->k.shape;
    TRY(tensor_check_place(lib, "q", &t->q, true));
    TRY(tensor_check_place(lib, "k", &t->k, true));
    TRY(tensor_check_place(lib, "v", &t->v, true));
    TRY(tensor_check_queries(lib, &t->q, &t->k));
    TRY(tensor_check_shape(lib, "v", &t->v, (size_t[]){k[0], k[1], k[2], t->v.shape[3]}));
    if (t->key_bias.host || t->key_bias.buffer) {
        TRY(tensor_check_place(lib, "key_bias", &t->key_bias, true));
        TRY(tensor_check_shape(lib, "key_bias", &t->key_bias, (size_t[]){k[0], k[1], k[2], 1}));
    }
fail:
    return status;
}

static clsplat_status bring(layer *l, const char *name, const clsplat_tensor *t, float **host,
                            op_tensor *on) {
    clsplat_status status = CLSPLAT_OK;
    if (!t->host)
        return CLSPLAT_OK;
    TRY(copy_dense(l, name, t, host));
    TRY(upload(l, *host, t->shape, on));
fail:
    return status;
}

clsplat_status layer_open(clsplat_device *device, const clsplat_attention_tensors *tensors, bool causal,
                          float scale, size_t sample, layer *l) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention_tensors t = *tensors;
    *l = (layer){.device = device, .causal = causal};
    queue_begin(device, 0, NULL, &l->queue);
    TRY(layer_check_tensors(device->lib, &t));
    l->batch = t.q.shape[0], l->heads = t.q.shape[1], l->queries = t.q.shape[2], l->dim = t.q.shape[3];
    l->kv_heads = t.k.shape[1], l->keys = t.k.shape[2], l->value_dim = t.v.shape[3];
    l->scale = isnan(scale) ? 1 / sqrtf((float)l->dim) : scale;
    choose_rows(l, sample);
    TRY(bring(l, "q", &t.q, &l->q, &l->on_q));
    TRY(bring(l, "k", &t.k, &l->k, &l->on_k));
    TRY(bring(l, "v", &t.v, &l->v, &l->on_v));
    TRY(bring(l, "key_bias", &t.key_bias, &l->key_bias, &l->on_bias));
    size_t queries = l->batch * l->heads * l->queries;
    TRY(buffer_create(device, 4 * queries * l->value_dim, &l->out));
    TRY(buffer_create(device, 4 * queries, &l->lse));
    TRY(find_target(l));
fail:
    if (status != CLSPLAT_OK)
        layer_close(l);
    return status;
}

bool layer_is_padding(const layer *l, size_t head, size_t key) {
    return l->key_bias && l->key_bias[head * l->keys + key] == -INFINITY;
}

void layer_close(layer *l) {
    op_tensor *const tensors[] = {&l->on_q, &l->on_k, &l->on_v, &l->on_bias};
    size_t queries = l->batch * l->heads * l->queries;
    for (size_t i = 0; i < 4; ++i)
        buffer_release(l->device, 4 * tensors[i]->shape[0] * tensors[i]->stride[0], &tensors[i]->mem);
    buffer_release(l->device, 4 * queries * l->value_dim, &l->out);
    buffer_release(l->device, 4 * queries, &l->lse);
    free(l->q);
    free(l->k);
    free(l->v);
    free(l->key_bias);
    free(l->target);
    free(l->norm);
    *l = (layer){0};
}

clsplat_status layer_attend(layer *l, clsplat_splats *set, float *out, float *lse) {
    clsplat_status status = CLSPLAT_OK;
    gaussian_call call = {.diagonal = l->causal ? (int32_t)l->keys - (int32_t)l->queries : OP_SEES_ALL,
                          .q = l->on_q,
                          .k = l->on_k,
                          .v = l->on_v,
                          .key_bias = l->on_bias,
                          .out = layer_result(l, l->out, l->queries, l->value_dim),
                          .lse = layer_result(l, l->lse, l->queries, 1)};
    size_t row = 4 * l->value_dim;
    TRY(splats_upload(l->device, set, &call.splats));
    TRY(gaussian_enqueue(&l->queue, &call));
    for (size_t h = 0; h < l->batch * l->heads; ++h) {
        size_t first = h * l->queries + l->first_row;
        TRY(queue_download(&l->queue, (queue_copy){.mem = l->out,
                                                   .mem_offset = first * row,
                                                   .mem_pitch = l->step * row,
                                                   .host = out + h * l->rows * l->value_dim,
                                                   .host_pitch = row,
                                                   .row = row,
                                                   .rows = l->rows}));
        TRY(queue_download(&l->queue, (queue_copy){.mem = l->lse,
                                                   .mem_offset = 4 * first,
                                                   .mem_pitch = 4 * l->step,
                                                   .host = lse + h * l->rows,
                                                   .host_pitch = 4,
                                                   .row = 4,
                                                   .rows = l->rows}));
    }
fail:
    return status;
}

clsplat_status layer_download(layer *l, float *out, float *lse) {
    clsplat_status status = CLSPLAT_OK;
    size_t queries = l->batch * l->heads * l->queries;
    TRY(download(l, l->out, queries * l->value_dim, out));
    TRY(download(l, l->lse, queries, lse));
fail:
    return status;
}

size_t layer_state_heads(const layer *l, const clsplat_splats *set) {
    return set->parameters.shape.heads > 1 ? l->heads : l->kv_heads;
}

clsplat_status layer_check_set(const layer *l, clsplat_splats *splats) {
    clsplat_splats_shape s = clsplat_splats_get(splats).shape;
    if (s.dim != l->dim || (s.heads != 1 && s.heads != l->heads))
        return log_error(l->device->lib, CLSPLAT_SHAPE,
                         "the splats are of %zu heads and %zu dimensions; q has %zu heads and %zu columns",
                         s.heads, s.dim, l->heads, l->dim);
    return CLSPLAT_OK;
}

/* In parts, which compilers put into vectors. */
float layer_product(const float *q, const float *k, size_t dim) {
    enum { PARTS = 16 };
    float part[PARTS] = {0}, sum = 0;
    size_t whole = dim / PARTS * PARTS;
    for (size_t d = 0; d < whole; d += PARTS)
        for (size_t i = 0; i < PARTS; ++i)
            part[i] += q[d + i] * k[d + i];
    for (size_t i = 0; i < PARTS; ++i)
        sum += part[i];
    for (size_t d = whole; d < dim; ++d)
        sum += q[d] * k[d];
    return sum;
}
