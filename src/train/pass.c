#include "train/pass.h"

#include <stdlib.h>

#include "runtime/buffer.h"
#include "train/product.h"
#include "train/splats.h"
#include "train/trees.h"

enum { LOGITS_LIMIT = 1 << 23 };

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static clsplat_status open_layer(const pass *p, pass_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    const model_config *c = &p->model->model->config;
    TRY(tensor_create(device, CLSPLAT_F32, 1, p->rows, c->hidden, &l->mid));
    TRY(tensor_create(device, p->type, 1, p->rows, (c->heads + 2 * c->kv_heads) * c->head_dim, &l->qkv));
    TRY(tensor_create(device, p->type, 1, p->rows, c->heads * c->head_dim, &l->attended));
    TRY(tensor_create(device, p->type, 1, p->rows, 2 * c->intermediate, &l->gate_up));
    TRY(tensor_create(device, CLSPLAT_F32, p->batch * c->heads, p->length, 1, &l->lse));
    l->lse = (op_tensor){.mem = l->lse.mem,
                         .dtype = CLSPLAT_F32,
                         .shape = {p->batch, c->heads, p->length, 1},
                         .stride = {c->heads * p->length, p->length, 1}};
fail:
    return status;
}

/* Rows of the widest product, and its numbers. */
static clsplat_status open_scratch(pass *p) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    const model_config *c = &p->model->model->config;
    size_t heads = c->heads * c->head_dim, all = (c->heads + 2 * c->kv_heads) * c->head_dim;
    size_t at_once = larger(LOGITS_LIMIT / c->vocabulary, 1), most = 0;
    at_once = at_once < p->asked ? at_once : p->asked;
    for (size_t i = 0; i < p->model->count; ++i)
        most = larger(most, p->model->parameters[i].count);
    struct {
        op_tensor *tensor;
        clsplat_dtype type;
        size_t rows, columns;
    } all_of_them[] = {
        {&p->h, p->type, p->rows, c->hidden},
        {&p->gated, p->type, p->rows, c->intermediate},
        {&p->dx, CLSPLAT_F32, p->rows, c->hidden},
        {&p->dh, p->type, p->rows, c->hidden},
        {&p->dqkv, p->type, p->rows, all},
        {&p->dattended, p->type, p->rows, heads},
        {&p->dgate_up, p->type, p->rows, 2 * c->intermediate},
        {&p->dgated, p->type, p->rows, c->intermediate},
        {&p->logits, p->type, at_once, c->vocabulary},
        {&p->turn, CLSPLAT_F32, p->length, c->head_dim},
        {&p->stats, CLSPLAT_F32, p->rows, 2},
        {&p->product, CLSPLAT_F32, 1, product_room(p->type, most)},
        {&p->weight, p->type, 1, p->type == CLSPLAT_F32 ? 1 : most},
        {&p->more, p->type, p->splats ? p->rows : 1, c->hidden},
        {&p->narrow, p->type, p->type == CLSPLAT_F32 ? 1 : p->rows, c->hidden},
    };
    for (size_t i = 0; i < sizeof all_of_them / sizeof *all_of_them; ++i)
        TRY(tensor_create(device, all_of_them[i].type, 1, all_of_them[i].rows, all_of_them[i].columns,
                          all_of_them[i].tensor));
    TRY(buffer_create(device, 4 * p->rows, &p->ids));
    TRY(buffer_create(device, 4 * p->asked, &p->targets));
    TRY(buffer_create(device, 4 * p->asked, &p->log_likelihood));
fail:
    return status;
}

/* Where the head reads some of the rows, they are side by side. */
static clsplat_status open_head(pass *p) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    size_t hidden = p->model->model->config.hidden, item = clsplat_dtype_size(p->type);
    queue q;
    p->head = p->h;
    p->dhead = p->dh;
    if (p->asked == p->rows)
        return CLSPLAT_OK;
    p->head = p->dhead = (op_tensor){0};
    TRY(buffer_create(device, 4 * p->asked, &p->asked_rows));
    TRY(buffer_create(device, 4 * p->rows, &p->places));
    TRY(tensor_create(device, p->type, 1, p->asked, hidden, &p->head));
    TRY(tensor_create(device, p->type, 1, p->asked + 1, hidden, &p->dhead));
    queue_begin(device, 0, NULL, &q);
    TRY(queue_fill(&q, p->dhead.mem, 0, (p->asked + 1) * hidden * item, 0.0f));
fail:
    return status;
}

static clsplat_status open_turn(const pass *p) {
    const clsplat_model *m = p->model->model;
    bool far = m->config.short_context && p->length > m->config.short_context;
    queue q;
    queue_begin(p->model->device, 0, NULL, &q);
    return op_turn(&q, &(op_turn_args){.frequencies = m->weights.frequencies[far],
                                       .turn = p->turn.mem,
                                       .rows = p->length,
                                       .dim = m->config.head_dim,
                                       .factor = m->config.attention_scaling});
}

/* Layers that share one place share that of the trees and splats, too. */
static clsplat_status open_kinds(pass *p) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &p->model->model->config;
    for (size_t i = 0; i < c->layers; ++i) {
        if (pass_is_near_far(p, i) && !pass_layer_of(p, i)->trees)
            TRY(pass_trees_open(p, &pass_layer_of(p, i)->trees));
        if (!pass_is_splatted(p, i))
            continue;
        if (!pass_layer_of(p, i)->splats)
            TRY(pass_splats_open(p, &pass_layer_of(p, i)->splats));
        if (!p->splats)
            TRY(pass_splats_scratch_open(p, &p->splats));
    }
fail:
    return status;
}

clsplat_status pass_open(const trainee *model, size_t batch, size_t length, size_t asked, bool again,
                         pass *p) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &model->model->config;
    *p = (pass){.model = model,
                .type = model->type,
                .batch = batch,
                .length = length,
                .rows = batch * length,
                .asked = batch * asked,
                .again = again};
    p->x = calloc(c->layers + 1, sizeof *p->x);
    p->layers = calloc(c->layers, sizeof *p->layers);
    p->host = calloc(p->asked, sizeof *p->host);
    if (!p->x || !p->layers || !p->host)
        TRY(log_error(model->device->lib, CLSPLAT_MEMORY, "no memory for a step of %zu tokens", p->rows));
    for (size_t i = 0; i <= c->layers; ++i)
        TRY(tensor_create(model->device, CLSPLAT_F32, 1, p->rows, c->hidden, &p->x[i]));
    for (size_t i = 0; i < (again ? 1 : c->layers); ++i)
        TRY(open_layer(p, &p->layers[i]));
    TRY(open_kinds(p));
    TRY(open_scratch(p));
    TRY(open_head(p));
    TRY(open_turn(p));
fail:
    return status;
}

void pass_close(pass *p) {
    if (!p->model)
        return;
    clsplat_device *device = p->model->device;
    op_tensor *all[] = {&p->h,         &p->gated,    &p->dx,     &p->dh,     &p->dqkv,
                        &p->dattended, &p->dgate_up, &p->dgated, &p->logits, &p->turn,
                        &p->stats,     &p->product,  &p->weight, &p->more,   &p->narrow};
    if (p->asked_rows) {
        tensor_release(device, &p->head);
        tensor_release(device, &p->dhead);
    }
    buffer_release(device, 4 * p->asked, &p->asked_rows);
    buffer_release(device, 4 * p->rows, &p->places);
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        tensor_release(device, all[i]);
    for (size_t i = 0; p->x && i <= p->model->model->config.layers; ++i)
        tensor_release(device, &p->x[i]);
    pass_splats_scratch_close(p, &p->splats);
    for (size_t i = 0; p->layers && i < p->model->model->config.layers; ++i) {
        pass_splats_close(p, &p->layers[i].splats);
        pass_trees_close(p, &p->layers[i].trees);
        op_tensor *of[] = {&p->layers[i].mid, &p->layers[i].qkv, &p->layers[i].attended, &p->layers[i].lse,
                           &p->layers[i].gate_up};
        for (size_t t = 0; t < sizeof of / sizeof *of; ++t)
            tensor_release(device, of[t]);
    }
    buffer_release(device, 4 * p->rows, &p->ids);
    buffer_release(device, 4 * p->asked, &p->targets);
    buffer_release(device, 4 * p->asked, &p->log_likelihood);
    free(p->x);
    free(p->layers);
    free(p->host);
    *p = (pass){0};
}

clsplat_status pass_bring(queue *q, const pass *p, const pass_tokens *t) {
    clsplat_status status = CLSPLAT_OK;
    const struct {
        cl_mem mem;
        const int32_t *host;
        size_t count;
    } lists[] = {{p->ids, t->ids, p->rows},
                 {p->targets, t->targets, p->asked},
                 {p->asked_rows, t->asked, p->asked},
                 {p->places, t->places, p->rows}};
    for (size_t i = 0; i < (p->asked_rows ? 4 : 2); ++i)
        TRY(queue_upload(q, (queue_copy){.mem = lists[i].mem,
                                         .host = (void *)lists[i].host,
                                         .row = lists[i].count * sizeof(int32_t),
                                         .rows = 1}));
fail:
    return status;
}

clsplat_status pass_likelihood(queue *q, const pass *p, double *sum) {
    clsplat_status status = CLSPLAT_OK;
    *sum = 0;
    TRY(queue_download(
        q, (queue_copy){
               .mem = p->log_likelihood, .host = p->host, .row = p->asked * sizeof *p->host, .rows = 1}));
    for (size_t i = 0; i < p->asked; ++i)
        *sum += (double)p->host[i];
fail:
    return status;
}
