#include "model/encoder.h"

#include <math.h>
#include <stdlib.h>

#include "model/attention.h"
#include "model/block.h"
#include "model/encoder_splats.h"
#include "model/pattern.h"

/* Texts of one length are one launch, without padding; texts of nearly one length are one launch too, since a
 * launch costs as much as some rows do. */
static size_t shortest_beside(size_t longest) {
    size_t room = longest / 8;
    return longest - (room < 1 ? 1 : room);
}

size_t encoder_lay_out(const clsplat_model *model, const token_list *const *texts, size_t count,
                       encoder_pass *pass) {
    size_t taken = 0;
    *pass = (encoder_pass){.texts = texts};
    encoder_group *g = NULL;
    for (; taken < count && taken < ENCODER_TEXTS; ++taken) {
        size_t length = texts[taken]->count;
        bool fits = g && length >= shortest_beside(g->length);
        size_t padded = fits ? g->length : length;
        if (taken > 0 && pass->rows + padded > model->scratch.rows)
            break;
        if (!fits) {
            g = &pass->groups[pass->group_count++];
            *g = (encoder_group){.first_row = pass->rows, .length = length};
        }
        g->padded = g->padded || length < g->length;
        ++g->count;
        pass->rows += g->length;
    }
    pass->count = taken;
    return taken;
}

op_tensor encoder_heads(const encoder_group *g, op_tensor rows, size_t first, size_t heads, size_t dim) {
    op_tensor t = block_heads(rows, first, heads, dim);
    t.offset += g->first_row * t.stride[2];
    t.shape[0] = g->count;
    t.shape[2] = g->length;
    t.stride[0] = g->length * t.stride[2];
    return t;
}

op_tensor encoder_bias(const encoder_group *g, op_tensor biases, size_t heads) {
    if (!g->padded)
        return (op_tensor){0};
    biases.offset += g->first_row;
    biases.shape[0] = g->count;
    biases.shape[1] = heads;
    biases.shape[2] = g->length;
    biases.stride[0] = g->length;
    biases.stride[1] = 0;
    biases.stride[2] = 1;
    return biases;
}

/* What a pass's layers have in common. */
typedef struct reading {
    const encoder_pass *pass;
    const clsplat_model_attention *attention;
} reading;

/* The heads of a group's texts, each of which begins at position 0. */
static clsplat_status turn(const block *b, size_t layer, const encoder_group *g) {
    const model_config *c = &b->model->config;
    const model_scratch *t = &b->model->scratch;
    size_t all = c->heads + 2 * c->kv_heads, dim = c->head_dim;
    return op_rope(b->q,
                   &(op_rope_args){.x = encoder_heads(g, t->qkv, 0, all, dim),
                                   .bias = block_heads(b->model->weights.layers[layer].qkv_bias, 0, all, dim),
                                   .turn = t->turn.mem,
                                   .q = encoder_heads(g, t->qkv, 0, c->heads, dim),
                                   .k = encoder_heads(g, t->qkv, c->heads, c->kv_heads, dim),
                                   .v = encoder_heads(g, t->qkv, c->heads + c->kv_heads, c->kv_heads, dim),
                                   .epsilon = c->epsilon});
}

/* Keys and values stay where they are. */
static clsplat_status take(const block *b, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const reading *r = b->user;
    op_tensor qkv = block_rows(b, b->model->scratch.qkv);
    if (pattern_is_splatted(&b->model->config, layer))
        TRY(encoder_splats_look(b->q, b->model, layer, b->count));
    if (!b->model->config.frequencies)
        return op_activate(b->q, &(op_activate_args){
                                     .x = qkv, .bias = b->model->weights.layers[layer].qkv_bias, .out = qkv});
    for (size_t i = 0; i < r->pass->group_count; ++i)
        TRY(turn(b, layer, &r->pass->groups[i]));
fail:
    return status;
}

void encoder_sees(const model_config *c, size_t layer, size_t length, int32_t *diagonal, uint32_t *window) {
    size_t half = c->window / 2;
    bool all = !c->windowed[layer] || half + 1 >= length;
    *diagonal = all ? OP_SEES_ALL : (int32_t)half;
    *window = all ? 0 : (uint32_t)(2 * half + 1);
}

static clsplat_tensor public_tensor(op_tensor t) {
    return (clsplat_tensor){.dtype = t.dtype,
                            .shape = {t.shape[0], t.shape[1], t.shape[2], t.shape[3]},
                            .stride = {t.stride[0], t.stride[1], t.stride[2]},
                            .buffer = t.mem,
                            .offset = t.offset};
}

/* Through a tree per head, made for this layer and this text. */
static clsplat_status near_far(clsplat_device *device, const clsplat_model_attention *a,
                               const op_softmax_args *s) {
    clsplat_attention how = clsplat_attention_defaults();
    how.method = CLSPLAT_NEAR_FAR;
    how.tolerance = a->tolerance;
    how.sparse_topk = a->sparse_topk;
    how.chunk = a->chunk;
    how.scale = s->scale;
    return clsplat_attend_enqueue(device, how,
                                  (clsplat_attention_tensors){.q = public_tensor(s->q),
                                                              .k = public_tensor(s->k),
                                                              .v = public_tensor(s->v),
                                                              .key_bias = public_tensor(s->key_bias),
                                                              .out = public_tensor(s->out)},
                                  0, NULL, NULL);
}

static clsplat_status attend_group(const block *b, size_t layer, const clsplat_model_attention *a,
                                   const encoder_group *g) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &b->model->config;
    const model_scratch *t = &b->model->scratch;
    size_t dim = c->head_dim;
    op_tensor lse = t->lse;
    lse.shape[0] = g->count;
    lse.shape[2] = g->length;
    lse.stride[0] = c->heads * g->length;
    lse.stride[1] = g->length;
    op_softmax_args args = {.q = encoder_heads(g, t->qkv, 0, c->heads, dim),
                            .k = encoder_heads(g, t->qkv, c->heads, c->kv_heads, dim),
                            .v = encoder_heads(g, t->qkv, c->heads + c->kv_heads, c->kv_heads, dim),
                            .key_bias = encoder_bias(g, t->key_bias, c->kv_heads),
                            .out = encoder_heads(g, t->attended, 0, c->heads, dim),
                            .lse = lse,
                            .scale = c->score_scale};
    encoder_sees(c, layer, g->length, &args.diagonal, &args.window);
    if (a->method == CLSPLAT_MODEL_NEAR_FAR && !c->windowed[layer])
        return near_far(b->q->device, a, &args);
    TRY(op_softmax(b->q, &args));
    if (pattern_is_splatted(c, layer))
        TRY(encoder_splats_attend(b->q, b->model, layer, g, &args));
fail:
    return status;
}

static clsplat_status attend(const block *b, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const reading *r = b->user;
    for (size_t i = 0; i < r->pass->group_count; ++i)
        TRY(attend_group(b, layer, r->attention, &r->pass->groups[i]));
fail:
    return status;
}

static const block_driver encoder = {.take = take, .attend = attend};

/* Tokens, positions and biases of all rows, one after the other. */
static clsplat_status upload(queue *q, const clsplat_model *m, const encoder_pass *pass) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &m->config;
    const model_scratch *t = &m->scratch;
    int32_t *ids = malloc(pass->rows * 3 * sizeof *ids), *positions = ids + pass->rows;
    float *biases = (float *)(positions + pass->rows);
    size_t row = 0, nth = 0;
    if (!ids)
        return log_error(m->device->lib, CLSPLAT_MEMORY, "no memory for %zu tokens", pass->rows);
    for (size_t g = 0; g < pass->group_count; ++g)
        for (size_t i = 0; i < pass->groups[g].count; ++i, ++nth)
            for (size_t at = 0; at < pass->groups[g].length; ++at, ++row) {
                bool is_token = at < pass->texts[nth]->count;
                ids[row] = is_token ? pass->texts[nth]->tokens[at] : c->pad;
                positions[row] = (int32_t)(c->first_position + at);
                biases[row] = is_token ? 0 : -INFINITY;
            }
    const struct {
        cl_mem mem;
        void *host;
    } lists[] = {{t->ids, ids}, {t->positions, positions}, {t->key_bias.mem, biases}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; ++i)
        TRY(queue_upload(
            q, (queue_copy){.mem = lists[i].mem, .host = lists[i].host, .row = 4 * pass->rows, .rows = 1}));
fail:
    free(ids);
    return status;
}

static clsplat_status begin(const block *b) {
    clsplat_status status = CLSPLAT_OK;
    const model_weights *w = &b->model->weights;
    const model_scratch *t = &b->model->scratch;
    const model_config *c = &b->model->config;
    op_tensor x = op_slice(t->x, 2, 0, b->count), y = op_slice(t->y, 2, 0, b->count);
    TRY(block_embed(b, t->ids, 0, c->layer.embedding_scale, x));
    if (c->frequencies) {
        size_t longest = ((const reading *)b->user)->pass->groups[0].length;
        bool far = c->short_context && longest > c->short_context;
        TRY(op_turn(b->q, &(op_turn_args){.frequencies = w->frequencies[far],
                                          .turn = t->turn.mem,
                                          .rows = longest,
                                          .dim = c->head_dim,
                                          .factor = c->attention_scaling}));
        return block_begin(b, (op_tensor){0}, (op_tensor){0});
    }
    TRY(op_embed(b->q, &(op_embed_args){.ids = t->positions, .table = w->positions, .out = y}));
    TRY(block_begin(b, y, w->types.mem ? op_slice(w->types, 2, 0, 1) : w->types));
fail:
    return status;
}

clsplat_status encoder_check(const clsplat_model *m, const clsplat_model_attention *a) {
    clsplat *lib = m->device->lib;
    if (!m->config.layer.encoder)
        return log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "a model of type %s writes texts on and is no encoder: vectors of texts are made with models "
            "like bert, roberta, xlm-roberta, distilbert and eurobert",
            m->config.family);
    if (a->method != CLSPLAT_MODEL_EXACT && a->method != CLSPLAT_MODEL_NEAR_FAR)
        return log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "an encoder attends by softmax or near-far; the other methods are for models that write");
    if (a->measure_errors)
        return log_error(lib, CLSPLAT_UNSUPPORTED, "measuring errors is for sessions");
    return CLSPLAT_OK;
}

clsplat_status encoder_run(queue *q, clsplat_model *m, const clsplat_model_attention *attention,
                           const encoder_pass *pass) {
    clsplat_status status = CLSPLAT_OK;
    reading r = {.pass = pass, .attention = attention};
    block b = {.q = q, .model = m, .driver = &encoder, .user = &r, .count = pass->rows, .live = pass->rows};
    TRY(upload(q, m, pass));
    TRY(begin(&b));
    for (size_t layer = 0; layer < m->config.layers; ++layer)
        TRY(block_layer(&b, layer, op_slice(m->scratch.h, 2, 0, pass->rows)));
fail:
    return status;
}
