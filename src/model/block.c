#include "model/block.h"

op_tensor block_rows(const block *b, op_tensor tensor) {
    return op_slice(tensor, 2, b->count - b->live, b->live);
}

op_tensor block_heads(op_tensor rows, size_t first, size_t heads, size_t dim) {
    if (!rows.mem)
        return rows;
    rows.offset += first * dim;
    rows.shape[1] = heads;
    rows.shape[3] = dim;
    rows.stride[1] = dim;
    return rows;
}

/* By a matrix in parts, whose columns lie side by side in c. */
static clsplat_status multiply_parts(queue *q, op_tensor a, const op_tensor parts[MATRIX_PARTS],
                                     op_tensor c) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0; i < MATRIX_PARTS && parts[i].mem; ++i) {
        c.shape[3] = parts[i].shape[2];
        TRY(op_gemm(q, &(op_gemm_args){.a = a, .b = parts[i], .c = c}));
        c.offset += c.shape[3];
    }
fail:
    return status;
}

static clsplat_status multiply(const block *b, op_tensor from, const op_tensor parts[MATRIX_PARTS],
                               op_tensor to) {
    return multiply_parts(b->q, block_rows(b, from), parts, block_rows(b, to));
}

clsplat_status block_embed(const block *b, cl_mem ids, size_t first, float scale, op_tensor out) {
    clsplat_status status = CLSPLAT_OK;
    const op_tensor *parts = b->model->weights.embedding;
    for (size_t i = 0, row = 0; i < MATRIX_PARTS && parts[i].mem; row += parts[i++].shape[2])
        TRY(op_embed(b->q, &(op_embed_args){.ids = ids,
                                            .first = first,
                                            .table = parts[i],
                                            .table_row = row,
                                            .out = out,
                                            .scale = scale}));
fail:
    return status;
}

/* What all norms of a model have in common. */
static op_norm_args norm_args(const clsplat_model *m, op_tensor x, const model_norm *norm, op_tensor out) {
    return (op_norm_args){.x = x,
                          .weight = norm->weight,
                          .shift = norm->shift,
                          .out = out,
                          .epsilon = m->config.epsilon,
                          .offset = m->config.layer.offset,
                          .centred = m->config.layer.centred};
}

clsplat_status block_norm(const block *b, op_tensor x, const model_norm *norm, op_tensor out) {
    op_norm_args args = norm_args(b->model, x, norm, out);
    return op_norm(b->q, &args);
}

clsplat_status block_begin(const block *b, op_tensor added, op_tensor bias) {
    const clsplat_model *m = b->model;
    op_tensor x = op_slice(m->scratch.x, 2, 0, b->count), h = op_slice(m->scratch.h, 2, 0, b->count);
    bool normed = m->weights.embedding_norm.weight.mem != NULL;
    op_norm_args args =
        norm_args(m, x, normed ? &m->weights.embedding_norm : &m->weights.layers[0].attention_norm, h);
    args.add = added;
    args.bias = bias;
    args.replace = normed;
    clsplat_status status = op_norm(b->q, &args);
    if (status != CLSPLAT_OK || !normed || !m->weights.layers[0].attention_norm.weight.mem)
        return status;
    return block_norm(b, x, &m->weights.layers[0].attention_norm, h);
}

/* The rows in scratch.y, biased, are a part's result and go into the stream; what comes next reads it as
 * `next` has it, in `to`. */
static clsplat_status finish(const block *b, op_tensor bias, const model_norm *result, const model_norm *next,
                             op_tensor to) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model *m = b->model;
    op_tensor x = block_rows(b, m->scratch.x), y = block_rows(b, m->scratch.y);
    bool sums = m->config.layer.sums;
    if (result->weight.mem && !sums) {
        if (bias.mem)
            TRY(op_activate(b->q, &(op_activate_args){.x = y, .bias = bias, .out = y}));
        TRY(block_norm(b, y, result, y));
        bias = (op_tensor){0};
    }
    op_norm_args args = norm_args(m, x, sums ? result : next, to);
    args.add = y;
    args.bias = bias;
    args.replace = sums;
    TRY(op_norm(b->q, &args));
fail:
    return status;
}

static clsplat_status feed_forward(const block *b, const model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const model_scratch *t = &b->model->scratch;
    const layer_kind *kind = &b->model->config.layer;
    op_tensor to = kind->gated ? t->gated : t->gate_up;
    TRY(multiply(b, t->h, l->gate_up, t->gate_up));
    TRY(op_activate(b->q, &(op_activate_args){.x = block_rows(b, t->gate_up),
                                              .bias = l->gate_up_bias,
                                              .out = block_rows(b, to),
                                              .activation = kind->activation,
                                              .gated = kind->gated}));
    TRY(multiply(b, to, l->down, t->y));
fail:
    return status;
}

clsplat_status block_layer(block *b, size_t layer, op_tensor to) {
    clsplat_status status = CLSPLAT_OK;
    const model_scratch *t = &b->model->scratch;
    const model_weights *w = &b->model->weights;
    const model_layer *l = &w->layers[layer];
    bool last = layer + 1 == b->model->config.layers;
    size_t live = b->live;
    b->live = b->count;
    TRY(multiply(b, t->h, l->qkv, t->qkv));
    TRY(b->driver->take(b, layer));
    if (last)
        b->live = live;
    if (b->live == 0)
        return CLSPLAT_OK;
    TRY(b->driver->attend(b, layer));
    TRY(multiply(b, t->attended, l->out, t->y));
    TRY(finish(b, l->out_bias, &l->attention_result, &l->mlp_norm, block_rows(b, t->h)));
    TRY(feed_forward(b, l));
    TRY(finish(b, l->down_bias, &l->mlp_result, last ? &w->norm : &w->layers[layer + 1].attention_norm,
               last ? to : block_rows(b, t->h)));
    b->live = live;
fail:
    return status;
}

/* An encoder's head has a layer before it: rows = norm(f(dense rows + bias)). */
static clsplat_status transform(queue *q, const clsplat_model *m, op_tensor rows) {
    clsplat_status status = CLSPLAT_OK;
    const model_weights *w = &m->weights;
    op_tensor y = op_slice(m->scratch.y, 2, 0, rows.shape[2]);
    TRY(op_gemm(q, &(op_gemm_args){.a = rows, .b = w->head_dense, .c = y}));
    TRY(op_activate(
        q, &(op_activate_args){
               .x = y, .bias = w->head_dense_bias, .out = y, .activation = m->config.layer.head_activation}));
    op_norm_args args = norm_args(m, y, &w->head_norm, rows);
    TRY(op_norm(q, &args));
fail:
    return status;
}

clsplat_status block_logits(queue *q, const clsplat_model *m, op_tensor rows, op_tensor logits) {
    clsplat_status status = CLSPLAT_OK;
    const model_weights *w = &m->weights;
    float cap = m->config.layer.logit_cap;
    if (w->head_dense.mem)
        TRY(transform(q, m, rows));
    TRY(multiply_parts(q, rows, w->head, logits));
    if (w->head_bias.mem || cap != 0)
        TRY(op_activate(q, &(op_activate_args){.x = logits,
                                               .bias = w->head_bias,
                                               .out = logits,
                                               .activation = cap != 0 ? OP_SOFT_CAP : OP_IDENTITY,
                                               .cap = cap}));
fail:
    return status;
}
