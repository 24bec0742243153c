/* What layers that were replaced are worth: by running the teacher with one of them at a time. */
#include <math.h>
#include <stdlib.h>

#include "train/distill.h"
#include "train/windows.h"

/* A measurement on its way: sums over all windows so far. */
typedef struct measuring {
    distillation *d;
    const train_request *r;
    pass student;
    queue q;
    int32_t *ids, *targets;
    double *sums; /* [count]: of the windows at hand */
    distill_worth *worth;
    double rows, counted; /* tokens, and those that something follows */
} measuring;

static clsplat_status add_likelihood(measuring *m, const pass *p, double *nats) {
    clsplat_status status = CLSPLAT_OK;
    double likelihood = 0;
    TRY(pass_head(&m->q, p, 0));
    TRY(pass_likelihood(&m->q, p, &likelihood));
    *nats -= likelihood;
fail:
    return status;
}

/* From p->x[layer] on to the end. */
static clsplat_status go_on(measuring *m, size_t layer, double *nats) {
    clsplat_status status = CLSPLAT_OK;
    const pass *p = &m->d->lesson;
    const model_weights *w = &p->model->model->weights;
    size_t layers = p->model->model->config.layers;
    TRY(pass_norm(&m->q, p, p->x[layer], layer < layers ? &w->layers[layer].attention_norm : &w->norm, p->h));
    for (; layer < layers; ++layer)
        TRY(pass_layer_forward(&m->q, p, layer));
    TRY(add_likelihood(m, p, nats));
fail:
    return status;
}

/* The student's layer in the teacher's place. */
static clsplat_status with_layer(measuring *m, size_t layer, double *nats) {
    clsplat_status status = CLSPLAT_OK;
    const pass *teacher = &m->d->lesson, *p = &m->student;
    const model_layer *own = &p->model->model->weights.layers[layer];
    TRY(op_norm(&m->q, &(op_norm_args){.x = teacher->x[layer], .out = p->x[layer]}));
    TRY(pass_norm(&m->q, p, p->x[layer], &own->attention_norm, p->h));
    TRY(pass_layer_forward(&m->q, p, layer));
    TRY(op_norm(&m->q, &(op_norm_args){.x = p->x[layer + 1], .out = teacher->x[layer + 1]}));
    TRY(go_on(m, layer + 1, nats));
fail:
    return status;
}

/* The teacher's layer, whose heads say nothing. */
static clsplat_status without_layer(measuring *m, size_t layer, double *nats) {
    clsplat_status status = CLSPLAT_OK;
    const pass *p = &m->d->lesson;
    op_tensor attended = pass_layer_of(p, layer)->attended;
    size_t bytes = p->rows * attended.shape[3] * clsplat_dtype_size(attended.dtype);
    TRY(queue_fill(&m->q, attended.mem, 0, bytes, 0.0f));
    TRY(pass_behind(&m->q, p, layer));
    TRY(go_on(m, layer + 1, nats));
fail:
    return status;
}

/* Last layers first: what is before a layer stays as the teacher made it. */
static clsplat_status measure_layers(measuring *m) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = m->d->plan->count; i-- > 0;) {
        distill_layer *l = &m->worth->layers[i];
        if (m->r->stopped && m->r->stopped(m->r->user))
            return log_error(m->d->student.device->lib, CLSPLAT_CANCELLED,
                             "stopped while layers were measured: --resume measures them again");
        TRY(with_layer(m, l->layer, &l->alone));
        TRY(without_layer(m, l->layer, &l->without));
    }
fail:
    return status;
}

static clsplat_status measure_windows(measuring *m, bool all) {
    clsplat_status status = CLSPLAT_OK;
    distillation *d = m->d;
    TRY(pass_bring(&m->q, &m->student, &(pass_tokens){.ids = m->ids, .targets = m->targets}));
    TRY(distill_heads(d, &m->q, &m->student, m->ids, 0, m->sums));
    for (size_t i = 0; i < d->plan->count; ++i)
        m->worth->layers[i].error += m->sums[i];
    TRY(pass_bring(&m->q, &d->lesson, &(pass_tokens){.ids = m->ids, .targets = m->targets}));
    TRY(add_likelihood(m, &d->lesson, &m->worth->teacher));
    if (!all)
        return CLSPLAT_OK;
    TRY(measure_layers(m));
    TRY(pass_forward(&m->q, &m->student, NULL, NULL));
    TRY(add_likelihood(m, &m->student, &m->worth->student));
fail:
    return status;
}

static clsplat_status measure_all(measuring *m, bool all) {
    clsplat_status status = CLSPLAT_OK;
    const corpus *held = m->r->held_out;
    size_t length = m->student.length, rows = m->student.rows, count = corpus_length(held);
    double share = (double)m->r->validation_most / (double)held->count;
    size_t most = share < 1 ? (size_t)((double)count * share) : count;
    /* Whole batches of windows: errors of heads are then of nothing but text. */
    for (size_t at = 0; at == 0 || at + rows <= most; at += rows) {
        for (size_t row = 0; row < m->student.batch; ++row)
            windows_fill(held, at + row * length, length, m->ids + row * length, m->targets + row * length);
        for (size_t i = 0; i < rows; ++i)
            m->counted += m->targets[i] >= 0;
        m->rows += (double)rows;
        TRY(measure_windows(m, all));
    }
fail:
    return status;
}

/* Sums become bits a byte, and errors. */
static void finish(measuring *m) {
    distill_worth *w = m->worth;
    double bits = windows_bits(m->r->held_out) / m->counted;
    w->teacher *= bits;
    w->student *= bits;
    w->bytes = (size_t)(m->counted * (double)m->r->held_out->count / (double)corpus_length(m->r->held_out));
    for (size_t i = 0; i < m->d->plan->count; ++i) {
        w->layers[i].error = sqrt(w->layers[i].error / m->rows);
        w->layers[i].alone *= bits;
        w->layers[i].without *= bits;
    }
}

static clsplat_status check(const measuring *m) {
    const distillation *d = m->d;
    clsplat *lib = d->student.device->lib;
    if (!isfinite(m->worth->teacher))
        return log_error(lib, CLSPLAT_NOT_FINITE,
                         "%s: its loss on what is held out is no number: choose --dtype f32, or a model "
                         "whose weights are sound",
                         d->plan->model);
    for (size_t i = 0; i < d->plan->count; ++i)
        if (!isfinite(m->worth->layers[i].error))
            return log_error(lib, CLSPLAT_NOT_FINITE,
                             "%s: the error of layer %zu's heads is no number: choose --dtype f32, a smaller "
                             "--rate, or a model whose weights are sound",
                             d->plan->folder, m->worth->layers[i].layer);
    return CLSPLAT_OK;
}

static clsplat_status begin(measuring *m) {
    clsplat_status status = CLSPLAT_OK;
    const distill_plan *plan = m->d->plan;
    const train_settings *s = &m->r->settings;
    clsplat *lib = m->d->student.device->lib;
    size_t next = 0;
    if (corpus_length(m->r->held_out) < s->batch * s->context)
        return log_error(lib, CLSPLAT_INVALID,
                         "what is held out to measure layers on has %zu tokens, and a batch %zu: more text, "
                         "--validation, or smaller --batch or --context",
                         corpus_length(m->r->held_out), s->batch * s->context);
    TRY(pass_open(&m->d->student, s->batch, s->context, s->context, true, &m->student));
    m->ids = calloc(m->student.rows, sizeof *m->ids);
    m->targets = calloc(m->student.rows, sizeof *m->targets);
    m->sums = calloc(plan->count, sizeof *m->sums);
    m->worth->layers = calloc(plan->count, sizeof *m->worth->layers);
    if (!m->ids || !m->targets || !m->sums || !m->worth->layers)
        TRY(log_error(lib, CLSPLAT_MEMORY, "no memory for windows of %zu tokens", m->student.rows));
    for (size_t i = 0; i < plan->layers; ++i)
        if (plan->replaced[i])
            m->worth->layers[next++].layer = i;
fail:
    return status;
}

clsplat_status distill_measure(distillation *d, const train_request *request, bool all,
                               distill_worth *worth) {
    clsplat_status status = CLSPLAT_OK;
    measuring m = {.d = d, .r = request, .worth = worth};
    *worth = (distill_worth){0};
    queue_begin(d->student.device, 0, NULL, &m.q);
    TRY(begin(&m));
    TRY(measure_all(&m, all));
    finish(&m);
    TRY(check(&m));
fail:
    free(m.ids);
    free(m.targets);
    free(m.sums);
    pass_close(&m.student);
    return status;
}

void distill_worth_free(distill_worth *worth) {
    free(worth->layers);
    *worth = (distill_worth){0};
}
