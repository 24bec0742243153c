#include "train/splats.h"

#include <string.h>

#include "op/backward.h"
#include "op/kernel.h"
#include "op/layer/layer_backward.h"
#include "op/splat/splat_layer.h"
#include "train/product.h"

/* The gradient of one of several softmaxes under one normaliser: out and lse are all of theirs, and weights
 * are computed again from them. */
static op_softmax_backward_args back_of(const pass *p, op_softmax_args f, op_tensor dqkv) {
    const model_config *c = &p->model->model->config;
    return (op_softmax_backward_args){
        .q = f.q,
        .k = f.k,
        .v = f.v,
        .key_bias = f.key_bias,
        .out = f.out,
        .lse = f.lse,
        .dout = pass_splats_rows(p, p->dattended, 0, c->heads, c->head_dim),
        .dq = pass_splats_rows(p, dqkv, 0, c->heads, c->head_dim),
        .dk = pass_splats_rows(p, dqkv, c->heads, c->kv_heads, c->head_dim),
        .dv = pass_splats_rows(p, dqkv, c->heads + c->kv_heads, c->kv_heads, c->head_dim),
        .scale = f.scale,
        .diagonal = f.diagonal,
        .window = f.window,
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
    size_t n = p->length / pass_splats_chunk(p);
    op_softmax_backward_args own = back_of(p, pass_splats_own(p, layer), p->dqkv);
    TRY(op_softmax_backward(q, &own));
    if (n == 1)
        return CLSPLAT_OK;
    TRY(clear(q, t->dqkv));
    for (size_t window = 0; window < p->batch; ++window) {
        op_softmax_backward_args a = back_of(p, pass_splats_before(p, layer, window), t->dqkv);
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

/* Adds up what splats receive in all chunks. */
static clsplat_status add_parts(queue *q, op_tensor parts, cl_mem sums) {
    op_tensor rows = product_view(parts, parts.shape[0], parts.shape[1] * parts.shape[2] * parts.shape[3]);
    return op_column_sums(q, &(op_column_sums_args){.x = rows, .sums = sums});
}

/* A dense tensor of fewer columns in the same memory. */
static op_tensor columns_of(op_tensor t, size_t columns) {
    for (int i = 0; i < 3; ++i)
        t.stride[i] = t.stride[i] / t.shape[3] * columns;
    t.shape[3] = columns;
    return t;
}

/* Columns of heads `first` and following of t->dqkv come to those of p->dqkv. */
static clsplat_status add_columns(queue *q, const pass *p, size_t first, size_t heads) {
    size_t dim = p->model->model->config.head_dim;
    op_tensor to = p->dqkv, more = p->splats->dqkv;
    to.offset = more.offset = first * dim;
    to.shape[3] = more.shape[3] = heads * dim;
    return add(q, to, more);
}

/* read(q, scan(states)); of an encoder read(q, states). */
static clsplat_status read_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    const pass_splats_scratch *t = p->splats;
    size_t count = c->kv_heads * c->splats, n = p->rows / pass_splats_chunk(p);
    op_tensor dbias = c->layer.encoder ? t->dlse : t->dbias,
              mean = p->model->gradient.layers[layer].splat_mean;
    op_tensor rows = product_view(dbias, n, count);
    op_softmax_backward_args a = back_of(p, pass_splats_read(p, layer), t->dqkv);
    a.dk = columns_of(t->dg_parts, c->head_dim);
    a.dv = c->layer.encoder ? t->dvalue : t->dprefix;
    a.dkey_bias = dbias;
    TRY(op_softmax_backward(q, &a));
    if (mean.mem)
        TRY(add_parts(q, a.dk, mean.mem));
    TRY(add_columns(q, p, 0, c->heads));
    TRY(op_column_sums(q, &(op_column_sums_args){.x = rows, .sums = t->dbase.mem}));
    if (c->layer.encoder)
        return CLSPLAT_OK;
    TRY(op_splat_scan_backward(q, &(op_splat_scan_backward_args){.lse = s->lse.mem,
                                                                 .value = s->value.mem,
                                                                 .falls = s->falls.mem,
                                                                 .prefix_lse = s->prefix_lse.mem,
                                                                 .prefix = s->prefix.mem,
                                                                 .dprefix = t->dprefix.mem,
                                                                 .dbias = t->dbias.mem,
                                                                 .dlse = t->dlse.mem,
                                                                 .dvalue = t->dvalue.mem,
                                                                 .dfalls = t->dfalls.mem,
                                                                 .batch = p->batch,
                                                                 .chunks = p->length / pass_splats_chunk(p),
                                                                 .count = count,
                                                                 .splats = c->splats,
                                                                 .value_dim = c->head_dim}));
fail:
    return status;
}

/* states = write(keys): here out and lse are the states' own, and lse receives something, too. */
static clsplat_status write_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats_scratch *t = p->splats;
    op_softmax_backward_args a = back_of(p, pass_splats_write(p, layer), t->dqkv);
    a.joint = false;
    a.dout = t->dvalue;
    a.dlse = t->dlse;
    a.dq = t->dg_parts;
    a.dk = pass_splats_rows(p, t->dfeatures, 0, c->kv_heads, 2 * c->head_dim);
    a.dkey_bias = pass_splats_rows(p, t->dgates, 0, c->kv_heads, 1);
    TRY(op_softmax_backward(q, &a));
    TRY(add_parts(q, t->dg_parts, t->dg.mem));
    TRY(add_columns(q, p, c->heads + c->kv_heads, c->kv_heads));
fail:
    return status;
}

/* A key's share for each splat: what its biases receive goes on to decays, and to all densities of it. */
static clsplat_status share_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats_scratch *t = p->splats;
    op_softmax_backward_args a = back_of(p, pass_splats_share(p, layer), t->dqkv);
    op_token_biases_backward_args biases = {.dbiases = pass_splats_rows(p, t->dgates, 0, c->kv_heads, 1),
                                            .dmixture = t->dmixture,
                                            .dfalls = t->dfalls.mem,
                                            .splats = c->splats};
    if (!c->layer.encoder) {
        biases.decay =
            pass_splats_rows(p, pass_layer_of(p, layer)->splats->gates, c->kv_heads, c->kv_heads, 1);
        biases.ddecay = pass_splats_rows(p, t->dgates, c->kv_heads, c->kv_heads, 1);
    }
    TRY(op_token_biases_backward(q, &biases));
    a.joint = false;
    a.dout = a.out;
    a.dout.mem = t->none.mem;
    memset(a.dout.stride, 0, sizeof a.dout.stride);
    a.dlse = t->dmixture;
    a.dq = pass_splats_rows(p, t->more, 0, c->kv_heads, 2 * c->head_dim);
    a.dk = t->dg_parts;
    a.dv = columns_of(t->dprefix, a.v.shape[3]); /* is nothing */
    a.dkey_bias = t->dbias;
    TRY(op_softmax_backward(q, &a));
    TRY(add_parts(q, t->dg_parts, t->dg.mem));
    TRY(add_parts(q, t->dbias, t->dbase.mem));
    TRY(add(q, t->dfeatures, t->more));
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
    size_t dim = c->head_dim;
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
                                                  .dim = dim}));
    TRY(op_token_features_backward(
        q, &(op_token_features_backward_args){
               .x = pass_splats_rows(p, kept->qkv, c->heads, c->kv_heads, dim),
               .f = pass_splats_rows(p, kept->splats->features, 0, c->kv_heads, 2 * dim),
               .df = pass_splats_rows(p, t->dfeatures, 0, c->kv_heads, 2 * dim),
               .dx = pass_splats_rows(p, p->dqkv, c->heads, c->kv_heads, dim)}));
fail:
    return status;
}

clsplat_status pass_splats_project_back(queue *q, const pass *p, size_t layer, op_tensor *dqkv) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *w = &p->model->model->weights.layers[layer], *g = &p->model->gradient.layers[layer];
    const pass_splats_scratch *t = p->splats;
    if (!w->splat_shift.mem)
        return CLSPLAT_OK;
    TRY(product_run(q, p, p->h, w->qkv[0], t->unshifted));
    TRY(op_token_shift_backward(q, &(op_token_shift_backward_args){.x = t->unshifted,
                                                                   .dout = *dqkv,
                                                                   .dx = t->dqkv,
                                                                   .mix = w->splat_shift.mem,
                                                                   .parts = t->mix_parts.mem,
                                                                   .length = p->length,
                                                                   .runs = t->mix_parts.shape[2]}));
    if (g->splat_shift.mem)
        TRY(op_column_sums(q, &(op_column_sums_args){.x = t->mix_parts, .sums = g->splat_shift.mem}));
    *dqkv = t->dqkv;
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
    if (!pass_splats_reach(p))
        return clear(q, t->dgates);
    TRY(clear(q, t->dg));
    TRY(clear(q, t->dbase));
    TRY(read_back(q, p, layer));
    TRY(write_back(q, p, layer));
    TRY(share_back(q, p, layer));
    TRY(features_back(q, p, layer));
fail:
    return status;
}
