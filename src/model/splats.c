#include "model/splats_adapt.h"

#include <math.h>
#include <stdlib.h>

#include "model/pattern.h"
#include "op/splat/splat_layer.h"

/* Chunks before a token's own that stay: the scan goes on from the last but LAG. */
enum { KEPT = OP_SPLAT_LAG + 1 };

static size_t chunks_of(const splat_store *s) {
    return s->room / s->model->config.splat_chunk;
}

/* A dense tensor [chunks,Hk,rows,columns]. */
static clsplat_status create_parts(const splat_store *s, size_t chunks, size_t rows, size_t columns,
                                   op_tensor *tensor) {
    return tensor_create_batch(s->model->device, CLSPLAT_F32, chunks, s->model->config.kv_heads, rows,
                               columns, tensor);
}

static clsplat_status create_states(const splat_store *s, size_t columns, op_tensor *tensor) {
    return create_parts(s, chunks_of(s), s->model->config.splats, columns, tensor);
}

op_tensor splat_repeated(op_tensor t, size_t count) {
    t.shape[0] = count;
    t.stride[0] = 0;
    return t;
}

size_t splat_gates(const model_config *c) {
    return c->layer.encoder ? 1 : 2;
}

size_t splat_share_columns(const model_config *c) {
    enum { MOST = 16 }; /* as kernels for CPUs take them at once */
    return c->head_dim < MOST ? c->head_dim : MOST;
}

op_softmax_args splat_share(op_tensor features, op_tensor g, op_tensor base, op_tensor out, op_tensor lse) {
    size_t count = features.shape[0];
    op_tensor splats = splat_repeated(g, count), v = splats;
    v.shape[3] = out.shape[3];
    return (op_softmax_args){.q = features,
                             .k = splats,
                             .v = v,
                             .key_bias = splat_repeated(base, count),
                             .out = out,
                             .lse = lse,
                             .scale = 1,
                             .diagonal = OP_SEES_ALL};
}

op_softmax_args splat_write(op_tensor g, op_tensor features, op_tensor v, op_tensor biases, op_tensor value,
                            op_tensor lse) {
    return (op_softmax_args){.q = splat_repeated(g, features.shape[0]),
                             .k = features,
                             .v = v,
                             .key_bias = biases,
                             .out = value,
                             .lse = lse,
                             .scale = 1,
                             .diagonal = OP_SEES_ALL};
}

op_tensor splat_layer_means(const model_config *c, const model_layer *w) {
    size_t head = c->splats * c->head_dim;
    return (op_tensor){.mem = w->splat_mean.mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {1, c->kv_heads, c->splats, c->head_dim},
                       .stride = {c->kv_heads * head, head, c->head_dim}};
}

clsplat_status splat_layer_features(queue *q, const model_config *c, const model_layer *w, cl_mem g,
                                    cl_mem base) {
    return op_splat_features(q, &(op_splat_features_args){.mean = w->splat_mean.mem,
                                                          .log_precision = w->splat_precision.mem,
                                                          .log_amplitude = w->splat_amplitude.mem,
                                                          .g = g,
                                                          .base = base,
                                                          .count = c->kv_heads * c->splats,
                                                          .dim = c->head_dim});
}

static clsplat_status open_layer(const splat_store *s, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = s->model->device;
    const model_config *c = &s->model->config;
    const model_layer *w = &s->model->weights.layers[layer];
    splat_layer *l = &s->layers[layer];
    queue q;
    queue_begin(device, 0, NULL, &q);
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, c->head_dim, &l->mean));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 2 * c->head_dim, &l->g));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 1, &l->base));
    if (w->splat_shift.mem)
        TRY(tensor_create(device, CLSPLAT_F32, 1, s->room, w->splat_shift.shape[3], &l->unshifted));
    TRY(tensor_create(device, CLSPLAT_F32, 1, s->room, c->kv_heads * 2 * c->head_dim, &l->keys));
    TRY(tensor_create(device, CLSPLAT_F32, 1, s->room, 2 * c->kv_heads, &l->gates));
    TRY(tensor_create(device, CLSPLAT_F32, 1, s->room, c->kv_heads, &l->biases));
    TRY(create_parts(s, chunks_of(s), 1, 1, &l->falls));
    TRY(create_states(s, 1, &l->lse));
    TRY(create_states(s, c->head_dim, &l->value));
    TRY(create_states(s, 1, &l->prefix_lse));
    TRY(create_states(s, c->head_dim, &l->prefix));
    TRY(create_states(s, 1, &l->bias));
    TRY(op_norm(&q, &(op_norm_args){.x = splat_layer_means(c, w), .out = l->mean}));
    TRY(splat_layer_features(&q, c, w, l->g.mem, l->base.mem));
fail:
    return status;
}

/* A pass's tokens, and before them the chunks that stay and the beginning of their own: twice, so that what
 * stays never moves onto itself. */
size_t splat_store_room(const clsplat_model *m, size_t capacity, bool whole) {
    size_t chunk = m->config.splat_chunk, room = m->scratch.rows + 2 * (KEPT + 1) * chunk;
    room = whole || capacity < room ? capacity : room;
    return (room + chunk - 1) / chunk * chunk;
}

clsplat_status splat_store_open(const clsplat_model *m, size_t room, const op_tensor *k, const op_tensor *v,
                                splat_store **store) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &m->config;
    *store = NULL;
    if (!pattern_has_splats(c))
        return CLSPLAT_OK;
    if (m->activations != CLSPLAT_F32 || m->cache != CLSPLAT_F32)
        return log_error(m->device->lib, CLSPLAT_UNSUPPORTED, "a model with splat layers runs in f32 only");
    splat_store *s = calloc(1, sizeof *s);
    if (s)
        s->layers = calloc(c->layers, sizeof *s->layers);
    *store = s;
    if (!s || !s->layers)
        return log_error(m->device->lib, CLSPLAT_MEMORY, "no memory for a session");
    size_t most = m->scratch.rows / c->splat_chunk + 1; /* chunks that a pass completes */
    s->model = m;
    s->room = room;
    s->k = k;
    s->v = v;
    TRY(tensor_create(m->device, CLSPLAT_F32, 1, m->scratch.rows, c->heads * c->head_dim, &s->queries));
    TRY(create_parts(s, most, c->splat_chunk, 1, &s->mixture));
    TRY(create_parts(s, most, c->splat_chunk, splat_share_columns(c), &s->shared));
    for (size_t i = 0; i < c->layers; ++i)
        if (c->splatted[i])
            TRY(open_layer(s, i));
fail:
    return status;
}

void splat_store_close(splat_store **store) {
    splat_store *s = store ? *store : NULL;
    if (!s)
        return;
    for (size_t i = 0; s->model && i < s->model->config.layers; ++i) {
        splat_layer *l = &s->layers[i];
        op_tensor *all[] = {&l->mean,   &l->g,    &l->base,     &l->keys,  &l->gates,
                            &l->biases, &l->lse,  &l->value,    &l->falls, &l->prefix_lse,
                            &l->prefix, &l->bias, &l->unshifted};
        for (size_t t = 0; t < sizeof all / sizeof *all; ++t)
            tensor_release(s->model->device, all[t]);
    }
    if (s->model) {
        splat_adapting_close(s);
        tensor_release(s->model->device, &s->queries);
        tensor_release(s->model->device, &s->mixture);
        tensor_release(s->model->device, &s->shared);
    }
    free(s->layers);
    free(s);
    *store = NULL;
}

/* `count` slices from `from` on go to the beginning. */
static clsplat_status move(queue *q, op_tensor t, size_t axis, size_t from, size_t count) {
    return op_norm(q,
                   &(op_norm_args){.x = op_slice(t, axis, from, count), .out = op_slice(t, axis, 0, count)});
}

size_t splat_store_reach(const splat_store *s) {
    return s && s->base ? s->base + KEPT * s->model->config.splat_chunk : 0;
}

clsplat_status splat_store_begin(queue *q, splat_store *s, size_t first, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    if (first == 0)
        s->base = 0;
    if (first + count <= s->base + s->room)
        return CLSPLAT_OK;
    size_t chunk = c->splat_chunk, base = (first / chunk - KEPT) * chunk, from = base - s->base;
    for (size_t i = 0; i < c->layers; ++i) {
        const splat_layer *l = &s->layers[i];
        const op_tensor tokens[] = {s->k[i], s->v[i], l->keys, l->gates, l->biases, l->unshifted};
        const op_tensor states[] = {l->lse, l->value, l->falls, l->prefix_lse, l->prefix, l->bias};
        for (size_t t = 0; c->splatted[i] && t < sizeof tokens / sizeof *tokens && tokens[t].mem; ++t)
            TRY(move(q, tokens[t], 2, from, first - base));
        for (size_t t = 0; c->splatted[i] && t < sizeof states / sizeof *states; ++t)
            TRY(move(q, states[t], 0, from / chunk, (first - base + chunk - 1) / chunk));
    }
fail:
    s->base = base;
    if (status != CLSPLAT_OK) /* some has moved and some has not: whoever reads on begins anew */
        ++s->model->device->trail.failures;
    return status;
}

clsplat_status splat_store_shift(const block *b, splat_store *s, size_t layer, size_t first) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *w = &s->model->weights.layers[layer];
    op_tensor qkv = block_rows(b, s->model->scratch.qkv), own;
    if (!w->splat_shift.mem)
        return CLSPLAT_OK;
    own = op_slice(s->layers[layer].unshifted, 2, first, b->count);
    TRY(op_norm(b->q, &(op_norm_args){.x = qkv, .out = own}));
    TRY(op_token_shift(b->q, &(op_token_shift_args){.x = own,
                                                    .out = qkv,
                                                    .mix = w->splat_shift.mem,
                                                    .first = s->base + first,
                                                    .length = s->base + first + b->count}));
fail:
    return status;
}

clsplat_status splat_store_look(const block *b, splat_store *s, size_t layer, size_t first) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    const model_layer *w = &s->model->weights.layers[layer];
    const model_scratch *t = &s->model->scratch;
    op_tensor qkv = block_rows(b, t->qkv), h = block_rows(b, t->h);
    op_tensor keys = op_slice(s->layers[layer].keys, 2, first, b->count),
              gates = op_slice(s->layers[layer].gates, 2, first, b->count);
    TRY(op_norm(b->q, &(op_norm_args){.x = block_heads(qkv, 0, c->heads, c->head_dim),
                                      .out = block_heads(op_slice(s->queries, 2, 0, b->count), 0, c->heads,
                                                         c->head_dim)}));
    TRY(op_token_features(
        b->q, &(op_token_features_args){.x = block_heads(qkv, c->heads, c->kv_heads, c->head_dim),
                                        .f = block_heads(keys, 0, c->kv_heads, 2 * c->head_dim)}));
    TRY(op_gemm(b->q, &(op_gemm_args){.a = h, .b = w->splat_gates, .c = gates}));
    TRY(op_activate(b->q, &(op_activate_args){.x = gates, .bias = w->splat_gates_bias, .out = gates}));
fail:
    return status;
}

op_tensor splat_store_heads(op_tensor rows, size_t heads, size_t columns) {
    return block_heads(rows, 0, heads, columns);
}

op_tensor splat_store_chunks(op_tensor rows, size_t begin, size_t count, size_t chunk) {
    rows.offset += begin * chunk * rows.stride[2];
    rows.stride[0] = chunk * rows.stride[2];
    rows.shape[0] = count;
    rows.shape[2] = chunk;
    return rows;
}

clsplat_status splat_store_scan(queue *q, const splat_store *s, size_t layer, size_t begin, size_t end) {
    const model_config *c = &s->model->config;
    const splat_layer *l = &s->layers[layer];
    return op_splat_scan(q, &(op_splat_scan_args){.base = l->base.mem,
                                                  .lse = l->lse.mem,
                                                  .value = l->value.mem,
                                                  .falls = l->falls.mem,
                                                  .prefix_lse = l->prefix_lse.mem,
                                                  .prefix = l->prefix.mem,
                                                  .bias = l->bias.mem,
                                                  .batch = 1,
                                                  .first = begin,
                                                  .chunks = end,
                                                  .room = chunks_of(s),
                                                  .count = c->kv_heads * c->splats,
                                                  .splats = c->splats,
                                                  .value_dim = c->head_dim});
}

/* The states of so many chunks. */
static clsplat_status write_chunks(queue *q, const splat_store *s, const splat_layer *l, size_t begin,
                                   size_t count, op_tensor v) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    size_t heads = c->kv_heads, chunk = c->splat_chunk;
    op_tensor keys =
                  splat_store_chunks(splat_store_heads(l->keys, heads, 2 * c->head_dim), begin, count, chunk),
              gates = splat_store_chunks(splat_store_heads(l->gates, 2 * heads, 1), begin, count, chunk),
              biases = splat_store_chunks(splat_store_heads(l->biases, heads, 1), begin, count, chunk),
              mixture = op_slice(s->mixture, 0, 0, count);
    op_softmax_args share = splat_share(keys, l->g, l->base, op_slice(s->shared, 0, 0, count), mixture);
    op_softmax_args write =
        splat_write(l->g, keys, splat_store_chunks(v, begin, count, chunk), biases,
                    op_slice(l->value, 0, begin, count), op_slice(l->lse, 0, begin, count));
    TRY(op_softmax(q, &share));
    TRY(op_token_biases(q, &(op_token_biases_args){.strength = op_slice(gates, 1, 0, heads),
                                                   .decay = op_slice(gates, 1, heads, heads),
                                                   .mixture = mixture,
                                                   .biases = biases,
                                                   .falls = op_slice(l->falls, 0, begin, count)}));
    TRY(op_softmax(q, &write));
fail:
    return status;
}

clsplat_status splat_store_write(const block *b, splat_store *s, size_t layer, size_t first, op_tensor v) {
    clsplat_status status = CLSPLAT_OK;
    size_t chunk = s->model->config.splat_chunk, begin = first / chunk, end = (first + b->count) / chunk;
    TRY(splat_adapting_mend(b->q, s, layer, first));
    if (end > begin)
        TRY(write_chunks(b->q, s, &s->layers[layer], begin, end - begin, v));
    TRY(splat_store_scan(b->q, s, layer, begin, (first + b->count - 1) / chunk + 1));
fail:
    return status;
}

/* Queries [begin, begin + count) of the step, which are in one chunk. */
static clsplat_status attend_chunk(const block *b, const splat_store *s, const attention_step *step,
                                   size_t begin, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    const splat_layer *l = &s->layers[step->layer];
    size_t at = step->first + begin, chunk = at / c->splat_chunk;
    size_t from = chunk > 0 ? (chunk - 1) * c->splat_chunk : 0, skipped = b->count - b->live;
    op_softmax_args args = {.q = op_slice(step->q, 2, begin, count),
                            .k = op_slice(step->k, 2, from, at + count - from),
                            .v = op_slice(step->v, 2, from, at + count - from),
                            .out = op_slice(step->out, 2, begin, count),
                            .lse = op_slice(step->lse, 2, begin, count),
                            .scale = 1 / sqrtf((float)c->head_dim),
                            .diagonal = (int32_t)(at - from)};
    TRY(op_softmax(b->q, &args));
    if (chunk < OP_SPLAT_LAG)
        return CLSPLAT_OK;
    args.q = block_heads(op_slice(s->queries, 2, skipped + begin, count), 0, c->heads, c->head_dim);
    args.k = l->mean;
    args.v = op_slice(l->prefix, 0, chunk, 1);
    args.key_bias = op_slice(l->bias, 0, chunk, 1);
    args.diagonal = OP_SEES_ALL;
    args.accumulate = true;
    TRY(op_softmax(b->q, &args));
fail:
    return status;
}

clsplat_status splat_store_attend(const block *b, splat_store *s, const attention_step *step) {
    clsplat_status status = CLSPLAT_OK;
    size_t chunk = s->model->config.splat_chunk;
    for (size_t begin = 0, count; begin < step->q.shape[2]; begin += count) {
        count = chunk - (step->first + begin) % chunk;
        count = count < step->q.shape[2] - begin ? count : step->q.shape[2] - begin;
        TRY(attend_chunk(b, s, step, begin, count));
    }
fail:
    return status;
}
