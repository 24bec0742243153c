#include "train/splats.h"

#include <math.h>
#include <stdlib.h>

#include "model/encoder_splats.h"
#include "model/splats.h"
#include "op/kernel.h"
#include "op/splat/splat_layer.h"
#include "runtime/buffer.h"
#include "train/product.h"

size_t pass_splats_chunk(const pass *p) {
    const model_config *c = &p->model->model->config;
    return c->layer.encoder ? p->length : c->splat_chunk;
}

/* A dense tensor [n,Hk,rows,columns]. */
static clsplat_status create_parts(const pass *p, clsplat_dtype type, size_t rows, size_t columns,
                                   op_tensor *t) {
    return tensor_create_batch(p->model->device, type, p->rows / pass_splats_chunk(p),
                               p->model->model->config.kv_heads, rows, columns, t);
}

static clsplat_status create_states(const pass *p, size_t columns, op_tensor *t) {
    return create_parts(p, CLSPLAT_F32, p->model->model->config.splats, columns, t);
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
    if (p->length % pass_splats_chunk(p) != 0)
        return log_error(device->lib, CLSPLAT_INVALID,
                         "windows of %zu tokens are no multiple of splat_chunk, %zu", p->length,
                         c->splat_chunk);
    TRY(tensor_create(device, p->type, 1, p->rows, c->heads * c->head_dim, &s->queries));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->kv_heads * 2 * c->head_dim, &s->features));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, splat_gates(c) * c->kv_heads, &s->gates));
    TRY(create_parts(p, CLSPLAT_F32, pass_splats_chunk(p), 1, &s->mixture));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->kv_heads, &s->biases));
    TRY(create_parts(p, CLSPLAT_F32, 1, 1, &s->falls));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 2 * c->head_dim, &s->g));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 1, &s->base));
    TRY(create_states(p, 1, &s->lse));
    TRY(create_states(p, c->head_dim, &s->value));
    TRY(create_states(p, 1, &s->prefix_lse));
    TRY(create_states(p, c->head_dim, &s->prefix));
    TRY(create_states(p, 1, &s->bias));
    if (p->type == CLSPLAT_F32)
        return CLSPLAT_OK;
    TRY(tensor_create(device, p->type, c->kv_heads, c->splats, c->head_dim, &s->narrow_mean));
    TRY(create_parts(p, p->type, c->splats, c->head_dim, &s->narrow_value));
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
    op_tensor *const all[] = {&s->queries,    &s->features, &s->gates, &s->mixture,     &s->biases,
                              &s->falls,      &s->g,        &s->base,  &s->lse,         &s->value,
                              &s->prefix_lse, &s->prefix,   &s->bias,  &s->narrow_mean, &s->narrow_value};
    release(p, all, sizeof all / sizeof *all);
    free(s);
    *made = NULL;
}

clsplat_status pass_splats_scratch_open(const pass *p, pass_splats_scratch **made) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    const model_config *c = &p->model->model->config;
    size_t all = (c->heads + 2 * c->kv_heads) * c->head_dim;
    pass_splats_scratch *s = *made = calloc(1, sizeof *s);
    if (!s)
        return no_memory(p);
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->kv_heads * 2 * c->head_dim, &s->dfeatures));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->kv_heads * 2 * c->head_dim, &s->more));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, splat_gates(c) * c->kv_heads, &s->dgates));
    TRY(create_parts(p, CLSPLAT_F32, pass_splats_chunk(p), 1, &s->dmixture));
    TRY(create_parts(p, CLSPLAT_F32, pass_splats_chunk(p), splat_share_columns(c), &s->shared));
    TRY(tensor_create_zeros(device, splat_share_columns(c), &s->none));
    TRY(tensor_create(device, p->type, 1, p->rows, all, &s->dqkv));
    TRY(tensor_create(device, p->type, 1, p->rows, all, &s->unshifted));
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows / pass_splats_chunk(p), all, &s->mix_parts));
    TRY(create_states(p, 2 * c->head_dim, &s->dg_parts));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 2 * c->head_dim, &s->dg));
    TRY(tensor_create(device, CLSPLAT_F32, c->kv_heads, c->splats, 1, &s->dbase));
    TRY(create_states(p, c->head_dim, &s->dprefix));
    TRY(create_states(p, 1, &s->dbias));
    TRY(create_states(p, 1, &s->dlse));
    TRY(create_states(p, c->head_dim, &s->dvalue));
    TRY(create_states(p, 1, &s->dfalls));
fail:
    return status;
}

void pass_splats_scratch_close(const pass *p, pass_splats_scratch **made) {
    pass_splats_scratch *s = *made;
    if (!s)
        return;
    op_tensor *const all[] = {&s->shared,   &s->dfeatures, &s->more,  &s->dgates,    &s->dmixture, &s->dqkv,
                              &s->dg_parts, &s->dg,        &s->dbase, &s->dprefix,   &s->dbias,    &s->dlse,
                              &s->dvalue,   &s->dfalls,    &s->none,  &s->unshifted, &s->mix_parts};
    release(p, all, sizeof all / sizeof *all);
    free(s);
    *made = NULL;
}

op_tensor pass_splats_rows(const pass *p, op_tensor rows, size_t first, size_t heads, size_t dim) {
    size_t width = rows.stride[2], chunk = pass_splats_chunk(p);
    rows.offset += first * dim;
    return (op_tensor){.mem = rows.mem,
                       .dtype = rows.dtype,
                       .offset = rows.offset,
                       .shape = {p->rows / chunk, heads, chunk, dim},
                       .stride = {chunk * width, dim, width}};
}

/* Attention's lse in a splat layer: [n,H,chunk,1]. */
static op_tensor lse_of(const pass *p, size_t layer) {
    size_t chunk = pass_splats_chunk(p), heads = p->model->model->config.heads;
    return (op_tensor){.mem = pass_layer_of(p, layer)->lse.mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {p->rows / chunk, heads, chunk, 1},
                       .stride = {heads * chunk, chunk, 1}};
}

clsplat_status pass_splats_project(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *w = &p->model->model->weights.layers[layer];
    op_tensor qkv = pass_layer_of(p, layer)->qkv;
    if (!w->splat_shift.mem)
        return product_run(q, p, p->h, w->qkv[0], qkv);
    TRY(product_run(q, p, p->h, w->qkv[0], p->splats->unshifted));
    TRY(op_token_shift(
        q, &(op_token_shift_args){
               .x = p->splats->unshifted, .out = qkv, .mix = w->splat_shift.mem, .length = p->length}));
fail:
    return status;
}

clsplat_status pass_splats_look(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const model_layer *w = &p->model->model->weights.layers[layer];
    const pass_layer *kept = pass_layer_of(p, layer);
    const pass_splats *s = kept->splats;
    size_t dim = c->head_dim;
    TRY(op_norm(q, &(op_norm_args){.x = pass_splats_rows(p, kept->qkv, 0, c->heads, dim),
                                   .out = pass_splats_rows(p, s->queries, 0, c->heads, dim)}));
    TRY(op_token_features(
        q, &(op_token_features_args){.x = pass_splats_rows(p, kept->qkv, c->heads, c->kv_heads, dim),
                                     .f = pass_splats_rows(p, s->features, 0, c->kv_heads, 2 * dim)}));
    TRY(product_run(q, p, p->h, w->splat_gates, s->gates));
    TRY(op_activate(q, &(op_activate_args){.x = s->gates, .bias = w->splat_gates_bias, .out = s->gates}));
    TRY(splat_layer_features(q, c, w, s->g.mem, s->base.mem));
fail:
    return status;
}

op_softmax_args pass_splats_own(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_layer *kept = pass_layer_of(p, layer);
    op_softmax_args a = {.q = pass_splats_rows(p, kept->qkv, 0, c->heads, c->head_dim),
                         .k = pass_splats_rows(p, kept->qkv, c->heads, c->kv_heads, c->head_dim),
                         .v =
                             pass_splats_rows(p, kept->qkv, c->heads + c->kv_heads, c->kv_heads, c->head_dim),
                         .out = pass_splats_rows(p, kept->attended, 0, c->heads, c->head_dim),
                         .lse = lse_of(p, layer),
                         .scale = 1 / sqrtf((float)c->head_dim)};
    if (c->layer.encoder)
        encoder_sees(c, layer, p->length, &a.diagonal, &a.window);
    return a;
}

op_softmax_args pass_splats_before(const pass *p, size_t layer, size_t window) {
    op_softmax_args a = pass_splats_own(p, layer);
    size_t n = p->length / pass_splats_chunk(p), first = window * n;
    a.q = op_slice(a.q, 0, first + 1, n - 1);
    a.out = op_slice(a.out, 0, first + 1, n - 1);
    a.lse = op_slice(a.lse, 0, first + 1, n - 1);
    a.k = op_slice(a.k, 0, first, n - 1);
    a.v = op_slice(a.v, 0, first, n - 1);
    a.diagonal = OP_SEES_ALL;
    a.accumulate = true;
    return a;
}

bool pass_splats_reach(const pass *p) {
    return p->model->model->config.layer.encoder || p->length / pass_splats_chunk(p) > OP_SPLAT_LAG;
}

static op_tensor means_of(const pass *p, size_t layer) {
    return splat_layer_means(&p->model->model->config, &p->model->model->weights.layers[layer]);
}

static op_tensor read_value(const pass *p, const pass_splats *s) {
    return p->model->model->config.layer.encoder ? s->value : s->prefix;
}

/* Matrix units want all that they multiply in one type. */
static clsplat_status narrow(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    if (p->type == CLSPLAT_F32)
        return CLSPLAT_OK;
    TRY(op_norm(q, &(op_norm_args){.x = means_of(p, layer), .out = s->narrow_mean}));
    TRY(op_norm(q, &(op_norm_args){.x = read_value(p, s), .out = s->narrow_value}));
fail:
    return status;
}

op_softmax_args pass_splats_read(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    op_softmax_args a = pass_splats_own(p, layer);
    a.q = pass_splats_rows(p, s->queries, 0, c->heads, c->head_dim);
    a.k = splat_repeated(p->type == CLSPLAT_F32 ? means_of(p, layer) : s->narrow_mean, a.q.shape[0]);
    a.v = p->type == CLSPLAT_F32 ? read_value(p, s) : s->narrow_value;
    a.key_bias = s->bias;
    a.window = 0;
    a.diagonal = OP_SEES_ALL;
    a.accumulate = true;
    return a;
}

op_softmax_args pass_splats_write(const pass *p, size_t layer) {
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    return splat_write(s->g, pass_splats_rows(p, s->features, 0, c->kv_heads, 2 * c->head_dim),
                       pass_splats_own(p, layer).v, pass_splats_rows(p, s->biases, 0, c->kv_heads, 1),
                       s->value, s->lse);
}

op_softmax_args pass_splats_share(const pass *p, size_t layer) {
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    const model_config *c = &p->model->model->config;
    return splat_share(pass_splats_rows(p, s->features, 0, c->kv_heads, 2 * c->head_dim), s->g, s->base,
                       p->splats->shared, s->mixture);
}

/* With what bias each key is written. */
static clsplat_status bias_keys(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    op_softmax_args share = pass_splats_share(p, layer);
    op_token_biases_args a = {.strength = pass_splats_rows(p, s->gates, 0, c->kv_heads, 1),
                              .mixture = s->mixture,
                              .biases = pass_splats_rows(p, s->biases, 0, c->kv_heads, 1),
                              .falls = s->falls};
    if (!c->layer.encoder)
        a.decay = pass_splats_rows(p, s->gates, c->kv_heads, c->kv_heads, 1);
    TRY(op_softmax(q, &share));
    TRY(op_token_biases(q, &a));
fail:
    return status;
}

clsplat_status pass_splats_attend(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    const pass_splats *s = pass_layer_of(p, layer)->splats;
    size_t n = p->length / pass_splats_chunk(p);
    op_softmax_args write = pass_splats_write(p, layer), own = pass_splats_own(p, layer),
                    read = pass_splats_read(p, layer);
    TRY(bias_keys(q, p, layer));
    TRY(op_softmax(q, &write));
    if (c->layer.encoder)
        TRY(splat_read_bias(q, s->base, s->lse, s->bias));
    else
        TRY(op_splat_scan(q, &(op_splat_scan_args){.base = s->base.mem,
                                                   .lse = s->lse.mem,
                                                   .value = s->value.mem,
                                                   .falls = s->falls.mem,
                                                   .prefix_lse = s->prefix_lse.mem,
                                                   .prefix = s->prefix.mem,
                                                   .bias = s->bias.mem,
                                                   .batch = p->batch,
                                                   .chunks = n,
                                                   .room = n,
                                                   .count = c->kv_heads * c->splats,
                                                   .splats = c->splats,
                                                   .value_dim = c->head_dim}));
    TRY(op_softmax(q, &own));
    for (size_t window = 0; n > 1 && window < p->batch; ++window) {
        op_softmax_args before = pass_splats_before(p, layer, window);
        TRY(op_softmax(q, &before));
    }
    if (!pass_splats_reach(p))
        return CLSPLAT_OK;
    TRY(narrow(q, p, layer));
    TRY(op_softmax(q, &read));
fail:
    return status;
}
