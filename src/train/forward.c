#include <math.h>

#include "model/encoder.h"
#include "model/pattern.h"
#include "op/layer/layer_backward.h"
#include "train/product.h"
#include "train/splats.h"
#include "train/trees.h"

pass_layer *pass_layer_of(const pass *p, size_t layer) {
    return &p->layers[p->again ? 0 : layer];
}

op_tensor pass_heads(const pass *p, op_tensor rows, size_t first, size_t heads) {
    size_t dim = p->model->model->config.head_dim, width = rows.stride[2];
    rows.offset += first * dim;
    rows.shape[0] = p->batch;
    rows.shape[1] = heads;
    rows.shape[2] = p->length;
    rows.shape[3] = dim;
    rows.stride[0] = p->length * width;
    rows.stride[1] = dim;
    return rows;
}

clsplat_status pass_norm(queue *q, const pass *p, op_tensor x, const model_norm *norm, op_tensor out) {
    const model_config *c = &p->model->model->config;
    return op_norm(q, &(op_norm_args){.x = x,
                                      .weight = norm->weight,
                                      .shift = norm->shift,
                                      .out = out,
                                      .epsilon = c->epsilon,
                                      .offset = c->layer.offset,
                                      .centred = c->layer.centred});
}

/* x += add, and the sum normalised. */
static clsplat_status add_and_norm(queue *q, const pass *p, op_tensor x, op_tensor add,
                                   const model_norm *norm) {
    const model_config *c = &p->model->model->config;
    return op_norm(q, &(op_norm_args){.x = x,
                                      .add = add,
                                      .weight = norm->weight,
                                      .shift = norm->shift,
                                      .out = p->h,
                                      .epsilon = c->epsilon,
                                      .offset = c->layer.offset,
                                      .centred = c->layer.centred});
}

op_softmax_args pass_attention(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_layer *kept = pass_layer_of(p, layer);
    op_softmax_args args = {.q = pass_heads(p, kept->qkv, 0, c->heads),
                            .k = pass_heads(p, kept->qkv, c->heads, c->kv_heads),
                            .v = pass_heads(p, kept->qkv, c->heads + c->kv_heads, c->kv_heads),
                            .out = pass_heads(p, kept->attended, 0, c->heads),
                            .lse = kept->lse,
                            .scale = 1 / sqrtf((float)c->head_dim),
                            .window = c->windowed[layer] && c->window < p->length ? (uint32_t)c->window : 0};
    if (c->layer.encoder)
        encoder_sees(c, layer, p->length, &args.diagonal, &args.window);
    return args;
}

/* The heads are turned where they are. */
static clsplat_status project(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_layer *l = &p->model->model->weights.layers[layer];
    op_tensor qkv = pass_layer_of(p, layer)->qkv, bias = l->qkv_bias;
    size_t all = c->heads + 2 * c->kv_heads;
    TRY(pass_is_splatted(p, layer) ? pass_splats_project(q, p, layer)
                                   : product_run(q, p, p->h, l->qkv[0], qkv));
    if (bias.mem) { /* [1,heads,1,D] */
        bias.shape[1] = all;
        bias.shape[3] = bias.stride[1] = c->head_dim;
    }
    if (pass_is_splatted(p, layer))
        TRY(pass_splats_look(q, p, layer));
    TRY(op_rope(q, &(op_rope_args){.x = pass_heads(p, qkv, 0, all),
                                   .bias = bias,
                                   .turn = p->turn.mem,
                                   .q = pass_heads(p, qkv, 0, c->heads),
                                   .k = pass_heads(p, qkv, c->heads, c->kv_heads),
                                   .v = pass_heads(p, qkv, c->heads + c->kv_heads, c->kv_heads),
                                   .epsilon = c->epsilon}));
fail:
    return status;
}

bool pass_is_splatted(const pass *p, size_t layer) {
    return pattern_is_splatted(&p->model->model->config, layer);
}

bool pass_is_near_far(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    return c->near_far && c->near_far[layer];
}

static clsplat_status attend(queue *q, const pass *p, size_t layer) {
    op_softmax_args args = pass_attention(p, layer);
    return pass_is_splatted(p, layer)   ? pass_splats_attend(q, p, layer)
           : pass_is_near_far(p, layer) ? pass_trees_attend(q, p, layer)
                                        : op_softmax(q, &args);
}

clsplat_status pass_attend(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    TRY(project(q, p, layer));
    TRY(attend(q, p, layer));
fail:
    return status;
}

clsplat_status pass_behind(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_weights *w = &p->model->model->weights;
    const model_layer *l = &w->layers[layer];
    const pass_layer *kept = pass_layer_of(p, layer);
    bool last = layer + 1 == c->layers;
    TRY(product_run(q, p, kept->attended, l->out[0], kept->mid));
    TRY(add_and_norm(q, p, kept->mid, p->x[layer], &l->mlp_norm));
    TRY(product_run(q, p, p->h, l->gate_up[0], kept->gate_up));
    TRY(op_activate(
        q, &(op_activate_args){
               .x = kept->gate_up, .out = p->gated, .activation = c->layer.activation, .gated = true}));
    TRY(product_run(q, p, p->gated, l->down[0], p->x[layer + 1]));
    TRY(add_and_norm(q, p, p->x[layer + 1], kept->mid,
                     last ? &w->norm : &w->layers[layer + 1].attention_norm));
fail:
    return status;
}

clsplat_status pass_layer_forward(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    TRY(pass_attend(q, p, layer));
    TRY(pass_behind(q, p, layer));
fail:
    return status;
}

clsplat_status pass_forward(queue *q, const pass *p, pass_visitor *visit, void *user) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_weights *w = &p->model->model->weights;
    TRY(op_embed(
        q, &(op_embed_args){
               .ids = p->ids, .table = w->embedding[0], .out = p->x[0], .scale = c->layer.embedding_scale}));
    TRY(pass_norm(q, p, p->x[0], &w->layers[0].attention_norm, p->h));
    for (size_t layer = 0; layer < c->layers; ++layer) {
        TRY(pass_layer_forward(q, p, layer));
        if (visit)
            TRY(visit(q, p, layer, user));
    }
fail:
    return status;
}
