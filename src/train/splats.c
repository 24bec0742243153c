#include "train/splats.h"

#include <math.h>
#include <stdlib.h>

#include "op/backward.h"
#include "op/kernel.h"
#include "op/layer/layer_backward.h"
#include "op/splat/splat_layer.h"
#include "runtime/buffer.h"
#include "train/product.h"

static size_t chunk_of(const pass *p) {
    return p->model->model->config.splat_chunk;
}

/* A dense tensor [n,Hk,S,columns]. */
static clsplat_status create_states(const pass *p, size_t columns, op_tensor *t) {
    const model_config *c = &p->model->model->config;
    size_t n = p->rows / c->splat_chunk;
    clsplat_status status =
        tensor_create(p->model->device, CLSPLAT_F32, n * c->kv_heads, c->splats, columns, t);
    t->shape[0] = n;
    t->shape[1] = c->kv_heads;
    t->stride[0] = c->kv_heads * c->splats * columns;
    return status;
}

static clsplat_status no_memory(const pass *p) {
    return log_error(p->model->device->lib, CLSPLAT_MEMORY, "no memory for a step of %zu tokens", p->rows);
}

clsplat_status pass_splats_open(const pass *p, pass_splats **made) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    const model_config *c = &p->model->model->config;
    pass_splats *s = *made = calloc(1, sizeof *s);
    if (!s)
        return no_memory(p);
    if (p->length % c->splat_chunk != 0)
        return log_error(device->lib, CLSPLAT_INVALID,
                         "windows of %zu tokens are no multiple of splat_chunk, %zu", p->length,
                         c->splat_chunk);
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, (c->heads + c->kv_heads) * 2 * c->head_dim,
                      &s->features));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->kv_heads, &s->strength));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 2 * c->head_dim, &s->g));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 1, &s->base));
    TRY(create_states(p, 1, &s->lse));
    TRY(create_states(p, c->head_dim, &s->value));
    TRY(create_states(p, 1, &s->prefix_lse));
    TRY(create_states(p, c->head_dim, &s->prefix));
    TRY(create_states(p, 1, &s->bias));
fail:
    return status;
}

static void release(const pass *p, op_tensor *const *tensors, size_t count) {
    for (size_t i = 0; i < count; ++i)
        tensor_release(p->model->device, tensors[i]);
}

void pass_splats_close(const pass *p, pass_splats **made) {
    pass_splats *s = *made;
    if (!s)
        return;
    op_tensor *const all[] = {&s->features, &s->strength,   &s->g,      &s->base, &s->lse,
                              &s->value,    &s->prefix_lse, &s->prefix, &s->bias};
    release(p, all, sizeof all / sizeof *all);
    free(s);
    *made = NULL;
}

clsplat_status pass_splats_scratch_open(const pass *p, pass_splats_scratch **made) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    const model_config *c = &p->model->model->config;
    pass_splats_scratch *s = *made = calloc(1, sizeof *s);
    if (!s)
        return no_memory(p);
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, (c->heads + c->kv_heads) * 2 * c->head_dim,
                      &s->dfeatures));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->kv_heads, &s->dstrength));
    TRY(tensor_create(device, p->type, 1, p->rows, (c->heads + 2 * c->kv_heads) * c->head_dim, &s->dqkv));
    TRY(create_states(p, 2 * c->head_dim, &s->dg_parts));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 2 * c->head_dim, &s->dg));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 1, &s->dbase));
    TRY(create_states(p, c->head_dim, &s->dprefix));
    TRY(create_states(p, 1, &s->dbias));
    TRY(create_states(p, 1, &s->dlse));
    TRY(create_states(p, c->head_dim, &s->dvalue));
fail:
    return status;
}

void pass_splats_scratch_close(const pass *p, pass_splats_scratch **made) {
    pass_splats_scratch *s = *made;
    if (!s)
        return;
    op_tensor *const all[] = {&s->dfeatures, &s->dstrength, &s->dqkv,  &s->dg_parts, &s->dg,
                              &s->dbase,     &s->dprefix,   &s->dbias, &s->dlse,     &s->dvalue};
    release(p, all, sizeof all / sizeof *all);
    free(s);
    *made = NULL;
}

/* Rows as chunks of heads of `dim` columns, from head `first` on: [n,heads,chunk,dim]. */
static op_tensor chunks(const pass *p, op_tensor rows, size_t first, size_t heads, size_t dim) {
    size_t width = rows.stride[2], chunk = chunk_of(p);
    rows.offset += first * dim;
    return (op_tensor){.mem = rows.mem,
                       .dtype = rows.dtype,
                       .offset = rows.offset,
                       .shape = {p->rows / chunk, heads, chunk, dim},
                       .stride = {chunk * width, dim, width}};
}

/* One row in all chunks. */
static op_tensor repeated(const pass *p, op_tensor t) {
    t.shape[0] = p->rows / chunk_of(p);
    t.stride[0] = 0;
    return t;
}

/* Attention's lse in a splat layer: [n,H,chunk,1]. */
static op_tensor lse_of(const pass *p, size_t layer) {
    size_t chunk = chunk_of(p), heads = p->model->model->config.heads;
    return (op_tensor){.mem = pass_layer_of(p, layer)->lse.mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {p->rows / chunk, heads, chunk, 1},
                       .stride = {heads * chunk, chunk, 1}};
}

clsplat_status pass_splats_look(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_layer *w = &p->model->model->weights.layers[layer];
    const pass_layer *kept = pass_layer_of(p, layer);
    const pass_splats *s = kept->splats;
    size_t heads = c->heads + c->kv_heads;
    TRY(op_token_features(q,
                          &(op_token_features_args){.x = chunks(p, kept->qkv, 0, heads, c->head_dim),
                                                    .f = chunks(p, s->features, 0, heads, 2 * c->head_dim)}));
    TRY(product_run(q, p, p->h, w->splat_strength, s->strength));
    TRY(op_activate(
        q, &(op_activate_args){.x = s->strength, .bias = w->splat_strength_bias, .out = s->strength}));
    TRY(op_splat_features(q, &(op_splat_features_args){.mean = w->splat_mean.mem,
                                                       .log_precision = w->splat_precision.mem,
                                                       .log_amplitude = w->splat_amplitude.mem,
                                                       .g = s->g.mem,
                                                       .base = s->base.mem,
                                                       .count = c->kv_heads * c->splats,
                                                       .dim = c->head_dim}));
fail:
    return status;
}

/* The three kinds of softmax in a layer: over the keys of the own chunk, of the one before, and over splats;
 * and what writes the splats. */
static op_softmax_args own_of(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_layer *kept = pass_layer_of(p, layer);
    return (op_softmax_args){.q = chunks(p, kept->qkv, 0, c->heads, c->head_dim),
                             .k = chunks(p, kept->qkv, c->heads, c->kv_heads, c->head_dim),
                             .v = chunks(p, kept->qkv, c->heads + c->kv_heads, c->kv_heads, c->head_dim),
                             .out = chunks(p, kept->attended, 0, c->heads, c->head_dim),
                             .lse = lse_of(p, layer),
                             .scale = 1 / sqrtf((float)c->head_dim)};
}

/* Of one window's chunks but the first: each sees the one before. */
static op_softmax_args before_of(const pass *p, size_t layer, size_t window) {
    op_softmax_args a = own_of(p, layer);
    size_t n = p->length / chunk_of(p), first = window * n;
    a.q = op_slice(a.q, 0, first + 1, n - 1);
    a.out = op_slice(a.out, 0, first + 1, n - 1);
    a.lse = op_slice(a.lse, 0, first + 1, n - 1);
    a.k = op_slice(a.k, 0, first, n - 1);
    a.v = op_slice(a.v, 0, first, n - 1);
    a.diagonal = OP_SEES_ALL;
    a.accumulate = true;
    return a;
}

static op_softmax_args read_of(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    op_softmax_args a = own_of(p, layer);
    a.q = chunks(p, s->features, 0, c->heads, 2 * c->head_dim);
    a.k = repeated(p, s->g);
    a.v = s->prefix;
    a.key_bias = s->bias;
    a.scale = 1;
    a.diagonal = OP_SEES_ALL;
    a.accumulate = true;
    return a;
}

static op_softmax_args write_of(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    return (op_softmax_args){.q = repeated(p, s->g),
                             .k = chunks(p, s->features, c->heads, c->kv_heads, 2 * c->head_dim),
                             .v = own_of(p, layer).v,
                             .key_bias = chunks(p, s->strength, 0, c->kv_heads, 1),
                             .out = s->value,
                             .lse = s->lse,
                             .scale = 1,
                             .diagonal = OP_SEES_ALL};
}

clsplat_status pass_splats_attend(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    size_t n = p->length / c->splat_chunk;
    op_softmax_args write = write_of(p, layer), own = own_of(p, layer), read = read_of(p, layer);
    TRY(op_softmax(q, &write));
    TRY(op_splat_scan(q, &(op_splat_scan_args){.base = s->base.mem,
                                               .lse = s->lse.mem,
                                               .value = s->value.mem,
                                               .prefix_lse = s->prefix_lse.mem,
                                               .prefix = s->prefix.mem,
                                               .bias = s->bias.mem,
                                               .batch = p->batch,
                                               .chunks = n,
                                               .room = n,
                                               .count = c->kv_heads * c->splats,
                                               .value_dim = c->head_dim}));
    TRY(op_softmax(q, &own));
    for (size_t window = 0; n > 1 && window < p->batch; ++window) {
        op_softmax_args before = before_of(p, layer, window);
        TRY(op_softmax(q, &before));
    }
    if (n > OP_SPLAT_LAG)
        TRY(op_softmax(q, &read));
fail:
    return status;
}

/* The gradient of one of several softmaxes under one normaliser: out and lse are all of theirs, and weights
 * are computed again from them. */
static op_softmax_backward_args back_of(const pass *p, op_softmax_args f, op_tensor dqkv) {
    const model_config *c = &p->model->model->config;
    return (op_softmax_backward_args){.q = f.q,
                                      .k = f.k,
                                      .v = f.v,
                                      .key_bias = f.key_bias,
                                      .out = f.out,
                                      .lse = f.lse,
                                      .dout = chunks(p, p->dattended, 0, c->heads, c->head_dim),
                                      .dq = chunks(p, dqkv, 0, c->heads, c->head_dim),
                                      .dk = chunks(p, dqkv, c->heads, c->kv_heads, c->head_dim),
                                      .dv = chunks(p, dqkv, c->heads + c->kv_heads, c->kv_heads, c->head_dim),
                                      .scale = f.scale,
                                      .diagonal = f.diagonal,
                                      .joint = true};
}

static clsplat_status clear(queue *q, op_tensor t) {
    return queue_fill(q, t.mem, 0, (size_t)tensor_bytes(&t), 0.0f);
}

static clsplat_status add(queue *q, op_tensor to, op_tensor more) {
    return op_norm(q, &(op_norm_args){.x = to, .add = more, .out = to});
}

/* Keys near by: what the own chunk and the one before receive. */
static clsplat_status near_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const pass_splats_scratch *t = p->splats;
    size_t n = p->length / chunk_of(p);
    op_softmax_backward_args own = back_of(p, own_of(p, layer), p->dqkv);
    TRY(op_softmax_backward(q, &own));
    if (n == 1)
        return CLSPLAT_OK;
    TRY(clear(q, t->dqkv));
    for (size_t window = 0; window < p->batch; ++window) {
        op_softmax_backward_args a = back_of(p, before_of(p, layer, window), t->dqkv);
        a.dout = op_slice(a.dout, 0, window * n + 1, n - 1);
        a.dq = op_slice(a.dq, 0, window * n + 1, n - 1);
        a.dk = op_slice(a.dk, 0, window * n, n - 1);
        a.dv = op_slice(a.dv, 0, window * n, n - 1);
        TRY(op_softmax_backward(q, &a));
    }
    TRY(add(q, p->dqkv, t->dqkv));
fail:
    return status;
}

/* Adds up what the splats' features receive in all chunks. */
static clsplat_status add_parts(queue *q, const pass *p) {
    const pass_splats_scratch *t = p->splats;
    op_tensor parts = t->dg_parts;
    parts.shape[3] = parts.shape[1] * parts.shape[2] * parts.shape[3];
    parts.shape[2] = parts.shape[0];
    parts.shape[0] = parts.shape[1] = 1;
    parts.stride[2] = parts.shape[3];
    return op_column_sums(q, &(op_column_sums_args){.x = parts, .sums = t->dg.mem});
}

/* read(q, scan(states)) */
static clsplat_status read_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    const pass_splats_scratch *t = p->splats;
    size_t count = c->kv_heads * c->splats, n = p->rows / c->splat_chunk;
    op_tensor rows = product_view(t->dbias, n, count);
    op_softmax_backward_args a = back_of(p, read_of(p, layer), p->dqkv);
    a.dq = chunks(p, t->dfeatures, 0, c->heads, 2 * c->head_dim);
    a.dk = t->dg_parts;
    a.dv = t->dprefix;
    a.dkey_bias = t->dbias;
    TRY(op_softmax_backward(q, &a));
    TRY(add_parts(q, p));
    TRY(op_column_sums(q, &(op_column_sums_args){.x = rows, .sums = t->dbase.mem}));
    TRY(op_splat_scan_backward(q, &(op_splat_scan_backward_args){.lse = s->lse.mem,
                                                                 .value = s->value.mem,
                                                                 .prefix_lse = s->prefix_lse.mem,
                                                                 .prefix = s->prefix.mem,
                                                                 .dprefix = t->dprefix.mem,
                                                                 .dbias = t->dbias.mem,
                                                                 .dlse = t->dlse.mem,
                                                                 .dvalue = t->dvalue.mem,
                                                                 .batch = p->batch,
                                                                 .chunks = p->length / c->splat_chunk,
                                                                 .count = count,
                                                                 .value_dim = c->head_dim}));
fail:
    return status;
}

/* states = write(keys): here out and lse are the states' own, and lse receives something, too. */
static clsplat_status write_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats_scratch *t = p->splats;
    op_softmax_backward_args a = back_of(p, write_of(p, layer), t->dqkv);
    op_tensor values = p->dqkv, more = t->dqkv;
    a.joint = false;
    a.dout = t->dvalue;
    a.dlse = t->dlse;
    a.dq = t->dg_parts;
    a.dk = chunks(p, t->dfeatures, c->heads, c->kv_heads, 2 * c->head_dim);
    a.dkey_bias = chunks(p, t->dstrength, 0, c->kv_heads, 1);
    TRY(op_softmax_backward(q, &a));
    TRY(add_parts(q, p));
    values.offset = more.offset = (c->heads + c->kv_heads) * c->head_dim;
    values.shape[3] = more.shape[3] = c->kv_heads * c->head_dim;
    TRY(add(q, values, more));
fail:
    return status;
}

/* What splats receive becomes their parameters', and what tokens' features receive their heads'. */
static clsplat_status features_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_layer *w = &p->model->model->weights.layers[layer], *g = &p->model->gradient.layers[layer];
    const pass_layer *kept = pass_layer_of(p, layer);
    const pass_splats_scratch *t = p->splats;
    size_t heads = c->heads + c->kv_heads;
    if (g->splat_mean.mem)
        TRY(op_splat_features_backward(
            q, &(op_splat_features_backward_args){.mean = w->splat_mean.mem,
                                                  .log_precision = w->splat_precision.mem,
                                                  .dg = t->dg.mem,
                                                  .dbase = t->dbase.mem,
                                                  .dmean = g->splat_mean.mem,
                                                  .dlog_precision = g->splat_precision.mem,
                                                  .dlog_amplitude = g->splat_amplitude.mem,
                                                  .count = c->kv_heads * c->splats,
                                                  .dim = c->head_dim}));
    TRY(op_token_features_backward(q, &(op_token_features_backward_args){
                                          .x = chunks(p, kept->qkv, 0, heads, c->head_dim),
                                          .f = chunks(p, kept->splats->features, 0, heads, 2 * c->head_dim),
                                          .df = chunks(p, t->dfeatures, 0, heads, 2 * c->head_dim),
                                          .dx = chunks(p, p->dqkv, 0, heads, c->head_dim)}));
fail:
    return status;
}

clsplat_status pass_splats_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats_scratch *t = p->splats;
    op_tensor turned = pass_heads(p, p->dqkv, 0, c->heads + c->kv_heads);
    TRY(near_back(q, p, layer));
    TRY(op_turn_back(q, &(op_turn_back_args){.dout = turned, .dx = turned, .turn = p->turn.mem}));
    if (p->length / c->splat_chunk <= OP_SPLAT_LAG)
        return clear(q, t->dstrength);
    TRY(clear(q, t->dg));
    TRY(clear(q, t->dbase));
    TRY(read_back(q, p, layer));
    TRY(write_back(q, p, layer));
    TRY(features_back(q, p, layer));
fail:
    return status;
}
