#include "model/decoder.h"

/* A chunk on its way. `live` rows, the last ones, are still needed: in the last layer perhaps only one, or
 * none beyond its keys and values. */
typedef struct passage {
    queue *q;
    clsplat_session *session;
    const model_config *config;
    const model_scratch *scratch;
    size_t first, count;
    size_t live;
} passage;

/* The live rows of a scratch tensor. */
static op_tensor rows_of(const passage *p, op_tensor tensor) {
    return op_slice(tensor, 2, p->count - p->live, p->live);
}

/* Rows whose columns are heads of D each: [1,1,n,heads·D] as [1,heads,n,D], without a copy. */
static op_tensor heads_of(op_tensor rows, size_t first, size_t heads, size_t dim) {
    rows.offset += first * dim;
    rows.shape[1] = heads;
    rows.shape[3] = dim;
    rows.stride[1] = dim;
    return rows;
}

/* A bias [1,1,1,heads·D] as [1,heads,1,D]; an absent one stays absent. */
static op_tensor heads_of_bias(op_tensor bias, size_t heads, size_t dim) {
    return bias.mem ? heads_of(bias, 0, heads, dim) : bias;
}

static clsplat_status multiply(const passage *p, op_tensor from, op_tensor matrix, op_tensor to) {
    return op_gemm(p->q, &(op_gemm_args){.a = rows_of(p, from), .b = matrix, .c = rows_of(p, to)});
}

/* Projects the rows into heads, turns them, and puts keys and values into the cache. */
static clsplat_status project(const passage *p, size_t layer, op_tensor *queries) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = p->config;
    const model_layer *l = &p->session->model->weights.layers[layer];
    size_t all = c->heads + 2 * c->kv_heads;
    op_tensor x = heads_of(rows_of(p, p->scratch->qkv), 0, all, c->head_dim);
    *queries = heads_of(rows_of(p, p->scratch->qkv), 0, c->heads, c->head_dim);
    TRY(multiply(p, p->scratch->h, l->qkv, p->scratch->qkv));
    TRY(op_rope(p->q, &(op_rope_args){.x = x,
                                      .bias = heads_of_bias(l->qkv_bias, all, c->head_dim),
                                      .q_weight = l->q_norm,
                                      .k_weight = l->k_norm,
                                      .turn = p->scratch->turn.mem,
                                      .q = *queries,
                                      .k = op_slice(p->session->k[layer], 2, p->first, p->count),
                                      .v = op_slice(p->session->v[layer], 2, p->first, p->count),
                                      .epsilon = c->epsilon}));
fail:
    return status;
}

/* Keys that the step's queries see, and attend to one by one, as far as the host can tell. */
static void count_keys(const passage *p, const attention_step *step) {
    clsplat_session *s = p->session;
    for (size_t i = 0; i < step->q.shape[2]; ++i) {
        size_t visible = step->first + i + 1;
        if (step->window && visible > step->window)
            visible = step->window;
        s->visible_keys += (double)(visible * p->config->heads);
        if (s->form->exact_keys)
            s->exact_keys += (double)(s->form->exact_keys(&s->attention, visible) * p->config->heads);
    }
}

static clsplat_status attend(const passage *p, size_t layer, op_tensor queries) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session *s = p->session;
    const model_config *c = p->config;
    size_t skipped = p->count - p->live, keys = p->first + p->count;
    attention_step step = {.layer = layer,
                           .first = p->first + skipped,
                           .q = op_slice(queries, 2, skipped, p->live),
                           .k = op_slice(s->k[layer], 2, 0, keys),
                           .v = op_slice(s->v[layer], 2, 0, keys),
                           .out = heads_of(rows_of(p, p->scratch->attended), 0, c->heads, c->head_dim),
                           .lse = op_slice(p->scratch->lse, 2, 0, p->live),
                           .window = c->windowed[layer] ? c->window : 0};
    TRY(s->form->attend(p->q, s->state, &s->attention, &step));
    if (s->distances)
        TRY(attention_compare(p->q, &step, &s->distances[layer]));
    count_keys(p, &step);
fail:
    return status;
}

/* x += y + bias, and x normalised for what comes next goes to `to`. */
static clsplat_status add_and_norm(const passage *p, op_tensor bias, op_tensor weight, op_tensor to) {
    return op_norm(p->q, &(op_norm_args){.x = rows_of(p, p->scratch->x),
                                         .add = rows_of(p, p->scratch->y),
                                         .bias = bias,
                                         .weight = weight,
                                         .out = to,
                                         .epsilon = p->config->epsilon});
}

/* Reads the normalised rows in h; leaves the live ones for the next layer in h, or for the head in `to`. */
static clsplat_status run_layer(passage *p, size_t layer, op_tensor to) {
    clsplat_status status = CLSPLAT_OK;
    const model_scratch *t = p->scratch;
    const model_weights *w = &p->session->model->weights;
    const model_layer *l = &w->layers[layer];
    bool last = layer + 1 == p->config->layers;
    size_t live = p->live;
    op_tensor queries;
    p->live = p->count;
    TRY(project(p, layer, &queries));
    if (p->session->form->append)
        TRY(p->session->form->append(p->q, p->session->state, layer, p->first,
                                     op_slice(p->session->k[layer], 2, 0, p->first + p->count),
                                     op_slice(p->session->v[layer], 2, 0, p->first + p->count)));
    if (last)
        p->live = live;
    if (p->live == 0)
        return CLSPLAT_OK;
    TRY(attend(p, layer, queries));
    TRY(multiply(p, t->attended, l->out, t->y));
    TRY(add_and_norm(p, l->out_bias, l->mlp_norm, rows_of(p, t->h)));
    TRY(multiply(p, t->h, l->gate_up, t->gate_up));
    TRY(op_activate(p->q, &(op_activate_args){.x = rows_of(p, t->gate_up),
                                              .bias = l->gate_up_bias,
                                              .out = rows_of(p, t->gated),
                                              .activation = OP_SILU,
                                              .gated = true}));
    TRY(multiply(p, t->gated, l->down, t->y));
    TRY(add_and_norm(p, l->down_bias, last ? w->norm : w->layers[layer + 1].norm,
                     last ? to : rows_of(p, t->h)));
    p->live = live;
fail:
    return status;
}

static clsplat_status begin(const passage *p) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = p->config;
    const model_weights *w = &p->session->model->weights;
    op_tensor x = op_slice(p->scratch->x, 2, 0, p->count), h = op_slice(p->scratch->h, 2, 0, p->count);
    TRY(op_embed(
        p->q, &(op_embed_args){.ids = p->session->ids, .first = p->first, .table = w->embedding, .out = x}));
    bool far = c->short_context && p->session->capacity > c->short_context;
    TRY(op_turn(p->q, &(op_turn_args){.frequencies = w->frequencies[far],
                                      .turn = p->scratch->turn.mem,
                                      .rows = p->count,
                                      .dim = c->head_dim,
                                      .first = (uint32_t)p->first,
                                      .factor = c->turn_factor}));
    TRY(op_norm(p->q, &(op_norm_args){.x = x, .weight = w->layers[0].norm, .out = h, .epsilon = c->epsilon}));
fail:
    return status;
}

clsplat_status decoder_run(queue *q, clsplat_session *session, size_t first, size_t count, decoder_rows rows,
                           op_tensor *out) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model *m = session->model;
    passage p = {.q = q,
                 .session = session,
                 .config = &m->config,
                 .scratch = &m->scratch,
                 .first = first,
                 .count = count,
                 .live = rows == DECODER_NONE   ? 0
                         : rows == DECODER_LAST ? 1
                                                : count};
    *out = p.live == 1 ? session->last : op_slice(m->scratch.h, 2, 0, p.live);
    TRY(begin(&p));
    for (size_t layer = 0; layer < m->config.layers; ++layer)
        TRY(run_layer(&p, layer, *out));
    if (p.live > 1)
        TRY(op_norm(q, &(op_norm_args){.x = op_slice(m->scratch.x, 2, count - 1, 1),
                                       .weight = m->weights.norm,
                                       .out = session->last,
                                       .epsilon = m->config.epsilon}));
fail:
    return status;
}

clsplat_status decoder_logits(queue *q, const clsplat_model *model, op_tensor rows, op_tensor logits) {
    return op_gemm(q, &(op_gemm_args){.a = rows, .b = model->weights.head, .c = logits});
}
