#include "model/encoder_splats.h"

#include <stdlib.h>

#include "model/block.h"
#include "model/pattern.h"
#include "model/splats.h"
#include "op/splat/splat_layer.h"

/* A dense tensor [ENCODER_TEXTS,Hk,S,columns]. */
static clsplat_status create_states(const clsplat_model *m, size_t columns, op_tensor *t) {
    return tensor_create_batch(m->device, CLSPLAT_F32, ENCODER_TEXTS, m->config.kv_heads, m->config.splats,
                               columns, t);
}

clsplat_status encoder_splats_open(const clsplat_model *m, encoder_splats **made) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &m->config;
    size_t rows = m->scratch.rows;
    *made = NULL;
    if (!pattern_has_splats(c))
        return CLSPLAT_OK;
    if (m->activations != CLSPLAT_F32)
        return log_error(m->device->lib, CLSPLAT_UNSUPPORTED, "a model with splat layers runs in f32 only");
    encoder_splats *s = *made = calloc(1, sizeof *s);
    if (!s)
        return log_error(m->device->lib, CLSPLAT_MEMORY, "no memory for the splats of a model");
    TRY(tensor_create(m->device, CLSPLAT_F32, 1, rows, c->heads * c->head_dim, &s->queries));
    TRY(tensor_create(m->device, CLSPLAT_F32, 1, rows, c->kv_heads * 2 * c->head_dim, &s->features));
    TRY(tensor_create(m->device, CLSPLAT_F32, 1, rows, c->kv_heads, &s->strength));
    TRY(tensor_create(m->device, CLSPLAT_F32, 1, rows, c->kv_heads, &s->mixture));
    TRY(tensor_create(m->device, CLSPLAT_F32, 1, rows, c->kv_heads * splat_share_columns(c), &s->shared));
    TRY(tensor_create(m->device, CLSPLAT_F32, c->kv_heads, c->splats, 2 * c->head_dim, &s->g));
    TRY(tensor_create(m->device, CLSPLAT_F32, c->kv_heads, c->splats, 1, &s->base));
    TRY(create_states(m, 1, &s->lse));
    TRY(create_states(m, c->head_dim, &s->value));
    TRY(create_states(m, 1, &s->bias));
fail:
    return status;
}

void encoder_splats_close(clsplat_device *device, encoder_splats **made) {
    encoder_splats *s = *made;
    if (!s)
        return;
    op_tensor *all[] = {&s->queries, &s->features, &s->strength, &s->mixture, &s->shared,
                        &s->g,       &s->base,     &s->lse,      &s->value,   &s->bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        tensor_release(device, all[i]);
    free(s);
    *made = NULL;
}

clsplat_status encoder_splats_look(queue *q, const clsplat_model *m, size_t layer, size_t rows) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &m->config;
    const model_layer *w = &m->weights.layers[layer];
    const encoder_splats *s = m->splats;
    size_t dim = c->head_dim;
    op_tensor qkv = op_slice(m->scratch.qkv, 2, 0, rows), features = op_slice(s->features, 2, 0, rows),
              queries = op_slice(s->queries, 2, 0, rows), strength = op_slice(s->strength, 2, 0, rows);
    TRY(op_norm(q, &(op_norm_args){.x = block_heads(qkv, 0, c->heads, dim),
                                   .out = block_heads(queries, 0, c->heads, dim)}));
    TRY(op_token_features(q, &(op_token_features_args){.x = block_heads(qkv, c->heads, c->kv_heads, dim),
                                                       .f = block_heads(features, 0, c->kv_heads, 2 * dim)}));
    TRY(op_gemm(
        q, &(op_gemm_args){.a = op_slice(m->scratch.h, 2, 0, rows), .b = w->splat_gates, .c = strength}));
    TRY(op_activate(q, &(op_activate_args){.x = strength, .bias = w->splat_gates_bias, .out = strength}));
    TRY(splat_layer_features(q, c, w, s->g.mem, s->base.mem));
fail:
    return status;
}

clsplat_status splat_read_bias(queue *q, op_tensor base, op_tensor lse, op_tensor bias) {
    clsplat_status status = CLSPLAT_OK;
    TRY(op_norm(q, &(op_norm_args){.x = splat_repeated(base, lse.shape[0]), .out = bias}));
    TRY(op_norm(q, &(op_norm_args){.x = bias, .add = lse, .out = bias}));
fail:
    return status;
}

clsplat_status encoder_splats_attend(queue *q, const clsplat_model *m, size_t layer, const encoder_group *g,
                                     const op_softmax_args *near) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &m->config;
    const encoder_splats *s = m->splats;
    op_tensor strength = encoder_heads(g, s->strength, 0, c->kv_heads, 1);
    op_tensor lse = op_slice(s->lse, 0, 0, g->count), value = op_slice(s->value, 0, 0, g->count),
              bias = op_slice(s->bias, 0, 0, g->count);
    op_softmax_args read = *near;
    op_softmax_args share =
        splat_share(encoder_heads(g, s->features, 0, c->kv_heads, 2 * c->head_dim), s->g, s->base,
                    encoder_heads(g, s->shared, 0, c->kv_heads, splat_share_columns(c)),
                    encoder_heads(g, s->mixture, 0, c->kv_heads, 1));
    op_softmax_args write = splat_write(s->g, share.q, near->v, strength, value, lse);
    if (g->padded)
        TRY(op_norm(q, &(op_norm_args){.x = strength, .add = near->key_bias, .out = strength}));
    TRY(op_softmax(q, &share));
    TRY(op_token_biases(
        q, &(op_token_biases_args){.strength = strength, .mixture = share.lse, .biases = strength}));
    TRY(op_softmax(q, &write));
    TRY(splat_read_bias(q, s->base, lse, bias));
    read.q = encoder_heads(g, s->queries, 0, c->heads, c->head_dim);
    read.k = splat_repeated(splat_layer_means(c, &m->weights.layers[layer]), g->count);
    read.v = value;
    read.key_bias = bias;
    read.window = 0;
    read.diagonal = OP_SEES_ALL;
    read.accumulate = true;
    TRY(op_softmax(q, &read));
fail:
    return status;
}
