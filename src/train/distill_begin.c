/* Where new splats begin: at keys that the teacher's layers see, and with as much of the attention as the
 * keys have that they stand for. */
#include <math.h>
#include <stdlib.h>

#include "train/distill.h"
#include "train/splats.h"
#include "train/windows.h"

/* Strengths at which splats have nothing of a row's attention, and all of it but for a part in e¹⁰ or so. */
static const float NONE = -200, MOST = 40;
/* The decay of splats that stand for softmax, which forgets nothing: e⁻¹¹ of a token. */
static const float LASTING = -11;

/* A layer on the windows at hand. */
typedef struct beginning {
    distillation *d;
    const pass *student;
    float *mean, *gates; /* [Hk,S,D]; [2·Hk]: strengths, and then decays */
    float *all, *near,
        *splats; /* [rows·H]: ln Σ of the weights of all keys, of those near by, and with splats */
} beginning;

static clsplat_status move(queue *q, cl_mem mem, float *numbers, size_t count, bool up) {
    queue_copy copy = {.mem = mem, .host = numbers, .row = count * sizeof *numbers, .rows = 1};
    return up ? queue_upload(q, copy) : queue_download(q, copy);
}

/* Attention from the student's p->x[layer] with all keys written as strongly: its lse. */
static clsplat_status attend(queue *q, const beginning *b, size_t layer, float strength, float *lse) {
    clsplat_status status = CLSPLAT_OK;
    const pass *p = b->student;
    const model_config *c = &p->model->model->config;
    const model_layer *own = &p->model->model->weights.layers[layer];
    for (size_t i = 0; i < c->kv_heads; ++i)
        b->gates[i] = strength;
    TRY(move(q, own->splat_gates_bias.mem, b->gates, 2 * c->kv_heads, true));
    TRY(pass_norm(q, p, p->x[layer], &own->attention_norm, p->h));
    TRY(pass_attend(q, p, layer));
    TRY(move(q, pass_layer_of(p, layer)->lse.mem, lse, p->rows * c->heads, false));
fail:
    return status;
}

/* Means at keys, evenly spaced over all windows. */
static clsplat_status place(queue *q, const beginning *b, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const pass *p = b->student;
    const model_config *c = &p->model->model->config;
    size_t row = c->kv_heads * 2 * c->head_dim, dim = c->head_dim;
    cl_mem features = pass_layer_of(p, layer)->splats->features.mem;
    for (size_t h = 0; h < c->kv_heads; ++h)
        for (size_t s = 0; s < c->splats; ++s)
            TRY(queue_download(q,
                               (queue_copy){.mem = features,
                                            .mem_offset = 4 * (s * p->rows / c->splats * row + h * 2 * dim),
                                            .host = b->mean + (h * c->splats + s) * dim,
                                            .row = 4 * dim,
                                            .rows = 1}));
    TRY(move(q, p->model->model->weights.layers[layer].splat_mean.mem, b->mean, c->kv_heads * c->splats * dim,
             true));
fail:
    return status;
}

/* The logarithm of the share of keys far away, as softmax has it, in that of the splats at strength 0: the
 * mean of a key head's rows. */
static float strength_of(const beginning *b, size_t kv_head) {
    const model_config *c = &b->student->model->model->config;
    size_t length = b->student->length, chunk = c->splat_chunk, group = c->heads / c->kv_heads, counted = 0;
    double sum = 0;
    for (size_t i = 0; i < b->student->rows * c->heads; ++i) {
        size_t at = i % length, head = i / length % c->heads, window = i / length / c->heads;
        size_t n = (window * length + at) / chunk; /* a splat layer has chunks where others have windows */
        size_t own = (n * c->heads + head) * chunk + at % chunk;
        double near = (double)b->near[own], far = (double)b->all[i] - near,
               splats = (double)b->splats[own] - near;
        if (at < 2 * chunk || head / group != kv_head || !(far > 1e-4) || !(splats > 1e-4))
            continue;
        sum += log(expm1(far)) - log(expm1(splats)) + (double)MOST;
        ++counted;
    }
    return counted ? (float)(sum / (double)counted) : 0;
}

static clsplat_status begin_layer(queue *q, const pass *teacher, size_t layer, void *user) {
    clsplat_status status = CLSPLAT_OK;
    beginning *b = user;
    const pass *p = b->student;
    const model_config *c = &p->model->model->config;
    if (!b->d->plan->replaced[layer] || !pass_is_splatted(p, layer))
        return CLSPLAT_OK;
    TRY(op_norm(q, &(op_norm_args){.x = teacher->x[layer], .out = p->x[layer]}));
    TRY(move(q, pass_layer_of(teacher, layer)->lse.mem, b->all, p->rows * c->heads, false));
    TRY(attend(q, b, layer, NONE, b->near));
    TRY(place(q, b, layer));
    TRY(attend(q, b, layer, MOST, b->splats));
    for (size_t h = 0; h < c->kv_heads; ++h)
        b->gates[h] = strength_of(b, h);
    TRY(move(q, p->model->model->weights.layers[layer].splat_gates_bias.mem, b->gates, 2 * c->kv_heads,
             true));
fail:
    return status;
}

static clsplat_status run(beginning *b, const train_request *r) {
    clsplat_status status = CLSPLAT_OK;
    const pass *p = b->student;
    size_t rows = p->rows;
    queue q;
    int32_t *ids = calloc(2 * rows, sizeof *ids);
    if (!ids)
        return log_error(p->model->device->lib, CLSPLAT_MEMORY, "no memory for windows of %zu tokens", rows);
    queue_begin(p->model->device, 0, NULL, &q);
    windows_draw(r->text, &r->settings, 0, 0, 0, p->batch, ids, ids + rows);
    TRY(pass_bring(&q, &b->d->lesson, &(pass_tokens){.ids = ids, .targets = ids + rows}));
    TRY(pass_forward(&q, &b->d->lesson, begin_layer, b));
fail:
    free(ids);
    return status;
}

clsplat_status distill_begin(distillation *d, const train_request *request) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &d->student.model->config;
    const train_settings *s = &request->settings;
    size_t rows = s->batch * s->context * c->heads;
    pass student = {0};
    beginning b = {.d = d, .student = &student};
    TRY(pass_open(&d->student, s->batch, s->context, s->context, true, &student));
    b.mean = calloc(c->kv_heads * c->splats * c->head_dim, sizeof *b.mean);
    b.gates = calloc(2 * c->kv_heads, sizeof *b.gates);
    b.all = calloc(3 * rows, sizeof *b.all);
    if (!b.mean || !b.gates || !b.all)
        TRY(log_error(d->student.device->lib, CLSPLAT_MEMORY, "no memory for windows of %zu tokens", rows));
    for (size_t h = 0; h < c->kv_heads; ++h)
        b.gates[c->kv_heads + h] = LASTING;
    b.near = b.all + rows;
    b.splats = b.all + 2 * rows;
    TRY(run(&b, request));
fail:
    free(b.mean);
    free(b.gates);
    free(b.all);
    pass_close(&student);
    return status;
}
