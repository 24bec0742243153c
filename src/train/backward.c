/* Each function quotes what it is the gradient of: pass_layer_forward, from its end. */
#include "op/backward.h"
#include "op/layer/imitate.h"
#include "op/layer/layer_backward.h"
#include "train/product.h"
#include "train/splats.h"
#include "train/trees.h"

/* What is done with the gradient of a norm's rows. */
typedef struct norm_back_args {
    op_tensor x;
    const model_norm *norm, *grad;
    bool add;      /* x goes on beside its norm, and p->dx is its gradient so far */
    op_tensor out; /* receives the norm itself, unless it has no buffer */
} norm_back_args;

/* h = norm(x): p->dx receives from p->dh, and products_dx gives it as products take it. */
static clsplat_status norm_back(queue *q, const pass *p, norm_back_args a) {
    const model_config *c = &p->model->model->config;
    return op_norm_backward(
        q, &(op_norm_backward_args){.x = a.x,
                                    .weight = a.norm->weight,
                                    .shift = a.norm->shift,
                                    .dout = p->dh,
                                    .dx = p->dx,
                                    .dx_again = p->type == CLSPLAT_F32 ? (op_tensor){0} : p->narrow,
                                    .out = a.out,
                                    .dweight = a.grad->weight.mem,
                                    .dshift = a.grad->shift.mem,
                                    .stats = p->stats.mem,
                                    .epsilon = c->epsilon,
                                    .offset = c->layer.offset,
                                    .centred = c->layer.centred,
                                    .add = a.add});
}

static op_tensor products_dx(const pass *p) {
    return p->type == CLSPLAT_F32 ? p->dx : p->narrow;
}

/* What becomes of logits, where they are: rows from `first` on of all. */
static clsplat_status lose(queue *q, const pass *p, const pass *teacher, op_tensor logits, size_t first,
                           float scale) {
    clsplat_status status = CLSPLAT_OK;
    size_t count = logits.shape[2];
    op_tensor goal;
    if (!teacher)
        return op_cross_entropy(q, &(op_cross_entropy_args){.logits = logits,
                                                            .targets = p->targets,
                                                            .log_likelihood = p->log_likelihood,
                                                            .first = first,
                                                            .scale = scale});
    goal = op_slice(teacher->logits, 2, 0, count);
    TRY(product_run(q, teacher, op_slice(teacher->h, 2, first, count), teacher->model->model->weights.head[0],
                    goal));
    TRY(op_divergence(
        q, &(op_imitate_args){
               .x = logits, .goal = goal, .error = p->log_likelihood, .first = first, .scale = scale}));
fail:
    return status;
}

clsplat_status pass_head_like(queue *q, const pass *p, const pass *teacher, float scale) {
    clsplat_status status = CLSPLAT_OK;
    const model_weights *w = &p->model->model->weights, *g = &p->model->gradient;
    size_t at_once = p->logits.shape[2];
    if (p->asked_rows)
        TRY(op_embed(q, &(op_embed_args){.ids = p->asked_rows, .table = p->h, .out = p->head}));
    for (size_t first = 0, count; first < p->asked; first += count) {
        count = p->asked - first < at_once ? p->asked - first : at_once;
        op_tensor logits = op_slice(p->logits, 2, 0, count), h = op_slice(p->head, 2, first, count);
        TRY(product_run(q, p, h, w->head[0], logits));
        TRY(lose(q, p, teacher, logits, first, scale));
        if (scale == 0)
            continue;
        TRY(product_to_rows(q, p, logits, w->head[0], op_slice(p->dhead, 2, first, count)));
        TRY(product_to_weight(q, p, logits, h, g->head[0]));
    }
    if (p->asked_rows && scale != 0) /* rows that were not asked receive the row of zeros */
        TRY(op_embed(q, &(op_embed_args){.ids = p->places, .table = p->dhead, .out = p->dh}));
fail:
    return status;
}

clsplat_status pass_head(queue *q, const pass *p, float scale) {
    return pass_head_like(q, p, NULL, scale);
}

/* x[layer + 1] = mid + down(act(gate_up(norm(mid)))), and p->dx of x[layer + 1] becomes that of mid. */
static clsplat_status feed_forward_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_layer *l = &p->model->model->weights.layers[layer], *g = &p->model->gradient.layers[layer];
    const pass_layer *kept = pass_layer_of(p, layer);
    op_tensor dx = products_dx(p);
    TRY(product_to_rows(q, p, dx, l->down[0], p->dgated));
    TRY(op_activate_backward(q, &(op_activate_backward_args){.x = kept->gate_up,
                                                             .dout = p->dgated,
                                                             .dx = p->dgate_up,
                                                             .out = p->gated,
                                                             .activation = c->layer.activation,
                                                             .gated = true}));
    TRY(product_to_weight(q, p, dx, p->gated, g->down[0]));
    TRY(product_to_rows(q, p, p->dgate_up, l->gate_up[0], p->dh));
    TRY(norm_back(q, p, (norm_back_args){kept->mid, &l->mlp_norm, &g->mlp_norm, true, p->h}));
    TRY(product_to_weight(q, p, p->dgate_up, p->h, g->gate_up[0]));
fail:
    return status;
}

/* The heads' gradients in p->dqkv, turned back. */
static clsplat_status heads_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    op_softmax_args f = pass_attention(p, layer);
    op_tensor turned = pass_heads(p, p->dqkv, 0, c->heads + c->kv_heads);
    op_softmax_backward_args args = {.q = f.q,
                                     .k = f.k,
                                     .v = f.v,
                                     .out = f.out,
                                     .lse = f.lse,
                                     .dout = pass_heads(p, p->dattended, 0, c->heads),
                                     .dq = pass_heads(p, p->dqkv, 0, c->heads),
                                     .dk = pass_heads(p, p->dqkv, c->heads, c->kv_heads),
                                     .dv = pass_heads(p, p->dqkv, c->heads + c->kv_heads, c->kv_heads),
                                     .scale = f.scale,
                                     .diagonal = f.diagonal,
                                     .window = f.window};
    TRY(pass_is_near_far(p, layer) ? pass_trees_back(q, p, layer, &args) : op_softmax_backward(q, &args));
    TRY(op_turn_back(q, &(op_turn_back_args){.dout = turned, .dx = turned, .turn = p->turn.mem}));
fail:
    return status;
}

/* gates = norm(x[layer]) wᵀ + bias, beside the heads. */
static clsplat_status gates_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *l = &p->model->model->weights.layers[layer], *g = &p->model->gradient.layers[layer];
    op_tensor more = p->more, dgates;
    if (g->splat_gates_bias.mem)
        TRY(op_column_sums(q,
                           &(op_column_sums_args){.x = p->splats->dgates, .sums = g->splat_gates_bias.mem}));
    TRY(product_narrow(q, p, p->splats->dgates, &dgates));
    TRY(product_to_weight(q, p, dgates, p->h, g->splat_gates));
    TRY(product_to_rows(q, p, dgates, l->splat_gates, more));
    TRY(op_norm(q, &(op_norm_args){.x = p->dh, .add = more, .out = p->dh}));
fail:
    return status;
}

/* attended = attention(turn(qkv(norm(x[layer])))) */
clsplat_status pass_attend_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *l = &p->model->model->weights.layers[layer], *g = &p->model->gradient.layers[layer];
    bool splatted = pass_is_splatted(p, layer);
    op_tensor dqkv = p->dqkv;
    TRY(splatted ? pass_splats_back(q, p, layer) : heads_back(q, p, layer));
    if (g->qkv_bias.mem)
        TRY(op_column_sums(q, &(op_column_sums_args){.x = p->dqkv, .sums = g->qkv_bias.mem}));
    if (splatted) { /* which reads the norm, too */
        TRY(pass_norm(q, p, p->x[layer], &l->attention_norm, p->h));
        TRY(pass_splats_project_back(q, p, layer, &dqkv));
    }
    TRY(product_to_rows(q, p, dqkv, l->qkv[0], p->dh));
    if (splatted)
        TRY(gates_back(q, p, layer));
    TRY(norm_back(q, p,
                  (norm_back_args){p->x[layer], &l->attention_norm, &g->attention_norm, true,
                                   splatted ? (op_tensor){0} : p->h}));
    TRY(product_to_weight(q, p, dqkv, p->h, g->qkv[0]));
fail:
    return status;
}

/* mid = x[layer] + out(attended) */
static clsplat_status attention_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *l = &p->model->model->weights.layers[layer], *g = &p->model->gradient.layers[layer];
    op_tensor dx = products_dx(p);
    TRY(product_to_weight(q, p, dx, pass_layer_of(p, layer)->attended, g->out[0]));
    TRY(product_to_rows(q, p, dx, l->out[0], p->dattended));
    TRY(pass_attend_back(q, p, layer));
fail:
    return status;
}

/* What forward left of the layer, where layers share a place. */
static clsplat_status bring_back(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_weights *w = &p->model->model->weights;
    if (!p->again || layer + 1 == p->model->model->config.layers)
        return CLSPLAT_OK;
    TRY(pass_norm(q, p, p->x[layer], &w->layers[layer].attention_norm, p->h));
    TRY(pass_layer_forward(q, p, layer));
fail:
    return status;
}

clsplat_status pass_backward(queue *q, const pass *p) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_weights *w = &p->model->model->weights, *g = &p->model->gradient;
    TRY(norm_back(q, p, (norm_back_args){.x = p->x[c->layers], .norm = &w->norm, .grad = &g->norm}));
    for (size_t layer = c->layers; layer-- > 0;) {
        TRY(bring_back(q, p, layer));
        TRY(feed_forward_back(q, p, layer));
        TRY(attention_back(q, p, layer));
        if (p->behind)
            TRY(p->behind(q, p, layer, p->behind_user));
    }
    if (g->embedding[0].mem)
        TRY(op_embed_backward(q, &(op_embed_backward_args){.ids = p->ids,
                                                           .dtable = g->embedding[0].mem,
                                                           .vocabulary = c->vocabulary,
                                                           .dout = p->dx,
                                                           .scale = c->layer.embedding_scale}));
fail:
    return status;
}
