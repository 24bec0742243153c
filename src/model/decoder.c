#include "model/decoder.h"

#include "model/block.h"

/* A chunk of a session's tokens on its way through the layers. */
typedef struct forward {
    clsplat_session *session;
    size_t first;      /* the first row's token, counted from the session's begin */
    op_tensor queries; /* of all rows, turned */
} forward;

/* Queries, or keys, biased and normalised over all of their heads, or head by head. */
static clsplat_status norm_heads(const block *b, size_t first, size_t heads, op_tensor weight) {
    const model_config *c = &b->model->config;
    bool each = c->layer.qk == QK_HEAD_BY_HEAD;
    op_tensor x = block_heads(block_rows(b, b->model->scratch.qkv), first, each ? heads : 1, c->head_dim);
    if (!each)
        x.shape[3] = heads * c->head_dim;
    return block_norm(b, x, &(model_norm){.weight = weight}, x);
}

static clsplat_status norm_all_heads(const block *b, const model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &b->model->config;
    op_tensor qkv = block_rows(b, b->model->scratch.qkv);
    if (l->qkv_bias.mem)
        TRY(op_activate(b->q, &(op_activate_args){.x = qkv, .bias = l->qkv_bias, .out = qkv}));
    TRY(norm_heads(b, 0, c->heads, l->q_norm));
    TRY(norm_heads(b, c->heads, c->kv_heads, l->k_norm));
fail:
    return status;
}

/* Where the tokens on their way begin in a layer's cache here. */
static size_t place_of(const forward *p, size_t layer) {
    const clsplat_session *s = p->session;
    return session_is_splatted(s, layer)  ? p->first - s->splats->base
           : session_is_divided(s, layer) ? s->divided->held
                                          : p->first;
}

/* Turns the heads, and puts keys and values into the cache. */
static clsplat_status take(const block *b, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    forward *p = b->user;
    clsplat_session *s = p->session;
    const model_config *c = &b->model->config;
    const model_layer *l = &b->model->weights.layers[layer];
    size_t all = c->heads + 2 * c->kv_heads, place = place_of(p, layer), keys = place + b->count;
    op_tensor qkv = block_rows(b, b->model->scratch.qkv);
    op_rope_args args = {.x = block_heads(qkv, 0, all, c->head_dim),
                         .bias = block_heads(l->qkv_bias, 0, all, c->head_dim),
                         .turn = c->local_turn && c->windowed[layer] ? b->model->scratch.local_turn.mem
                                                                     : b->model->scratch.turn.mem,
                         .q = block_heads(qkv, 0, c->heads, c->head_dim),
                         .k = op_slice(s->k[layer], 2, place, b->count),
                         .v = op_slice(s->v[layer], 2, place, b->count),
                         .epsilon = c->epsilon};
    if (session_is_splatted(s, layer))
        TRY(splat_store_shift(b, s->splats, layer, place));
    if (c->layer.qk == QK_HEAD_BY_HEAD && c->layer.offset == 0) {
        args.q_weight = l->q_norm;
        args.k_weight = l->k_norm;
    } else if (c->layer.qk != QK_AS_THEY_ARE) {
        TRY(norm_all_heads(b, l));
        args.bias = (op_tensor){0};
    }
    p->queries = args.q;
    if (session_is_splatted(s, layer))
        TRY(splat_store_look(b, s->splats, layer, place));
    TRY(op_rope(b->q, &args));
    if (session_is_splatted(s, layer))
        TRY(splat_store_write(b, s->splats, layer, place, op_slice(s->v[layer], 2, 0, keys)));
    else if (s->form->append && session_keeps(s, layer))
        TRY(s->form->append(b->q, s->state, layer, place, op_slice(s->k[layer], 2, 0, keys),
                            op_slice(s->v[layer], 2, 0, keys)));
fail:
    return status;
}

/* Keys that the step's queries see, and attend to one by one, as far as the host can tell. */
static void count_keys(clsplat_session *s, const attention_step *step) {
    size_t heads = step->q.shape[1];
    for (size_t i = 0; i < step->q.shape[2]; ++i) {
        size_t visible = step->first + i + 1;
        if (step->window && visible > step->window)
            visible = step->window;
        s->visible_keys += (double)(visible * heads);
        if (s->form->exact_keys)
            s->exact_keys += (double)(s->form->exact_keys(&s->attention, visible) * heads);
    }
}

static clsplat_status attend(const block *b, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const forward *p = b->user;
    clsplat_session *s = p->session;
    const model_config *c = &b->model->config;
    const model_scratch *t = &b->model->scratch;
    size_t skipped = b->count - b->live, keys = place_of(p, layer) + b->count;
    attention_step step = {.layer = layer,
                           .first = p->first + skipped,
                           .q = op_slice(p->queries, 2, skipped, b->live),
                           .k = op_slice(s->k[layer], 2, 0, keys),
                           .v = op_slice(s->v[layer], 2, 0, keys),
                           .out = block_heads(block_rows(b, t->attended), 0, c->heads, c->head_dim),
                           .lse = op_slice(t->lse, 2, 0, b->live),
                           .window = c->windowed[layer] ? c->window : 0,
                           .scale = c->score_scale,
                           .cap = c->layer.score_cap,
                           .sinks = b->model->weights.layers[layer].sinks,
                           .zeros = t->zeros};
    if (session_is_splatted(s, layer)) {
        step.first = place_of(p, layer) + skipped;
        return splat_store_attend(b, s->splats, &step);
    }
    TRY(session_is_divided(s, layer) ? divided_attend(b->q, s->divided, p->first, &step)
                                     : s->form->attend(b->q, s->state, &s->attention, &step));
    if (s->distances)
        TRY(attention_compare(b->q, &step, &s->distances[layer]));
    if (step.sinks.mem)
        TRY(attention_sink(b->q, &step));
    if (s->keeper)
        TRY(query_keep(b->q, &step, s->keeper));
    count_keys(s, &step);
fail:
    return status;
}

static const block_driver decoder = {.take = take, .attend = attend};

static clsplat_status begin(const block *b, size_t first) {
    clsplat_status status = CLSPLAT_OK;
    const forward *p = b->user;
    const model_config *c = &b->model->config;
    const model_weights *w = &b->model->weights;
    op_tensor x = op_slice(b->model->scratch.x, 2, 0, b->count);
    bool far = c->short_context && p->session->capacity > c->short_context;
    TRY(block_embed(b, p->session->ids, first, c->layer.embedding_scale, x));
    TRY(op_turn(b->q, &(op_turn_args){.frequencies = w->frequencies[far],
                                      .turn = b->model->scratch.turn.mem,
                                      .rows = b->count,
                                      .dim = c->head_dim,
                                      .first = (uint32_t)first,
                                      .factor = c->attention_scaling}));
    if (c->local_turn)
        TRY(op_turn(b->q, &(op_turn_args){.frequencies = w->frequencies[1],
                                          .turn = b->model->scratch.local_turn.mem,
                                          .rows = b->count,
                                          .dim = c->head_dim,
                                          .first = (uint32_t)first,
                                          .factor = c->attention_scaling}));
    TRY(block_begin(b, (op_tensor){0}, (op_tensor){0}));
fail:
    return status;
}

clsplat_status decoder_run(queue *q, clsplat_session *session, size_t first, size_t count, decoder_rows rows,
                           op_tensor *out) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model *m = session->model;
    forward p = {.session = session, .first = first};
    block b = {.q = q,
               .model = m,
               .driver = &decoder,
               .user = &p,
               .count = count,
               .live = rows == DECODER_NONE   ? 0
                       : rows == DECODER_LAST ? 1
                                              : count};
    if (session->splats)
        TRY(splat_store_begin(q, session->splats, first, count));
    *out = b.live == 1 ? session->last : op_slice(m->scratch.h, 2, 0, b.live);
    TRY(begin(&b, first));
    for (size_t layer = 0; layer < m->config.layers; ++layer)
        TRY(block_layer(&b, layer, *out));
    if (b.live > 1)
        TRY(block_norm(&b, op_slice(m->scratch.x, 2, count - 1, 1), &m->weights.norm, session->last));
fail:
    return status;
}

clsplat_status decoder_logits(queue *q, const clsplat_model *model, op_tensor rows, op_tensor logits) {
    return block_logits(q, model, rows, logits);
}
