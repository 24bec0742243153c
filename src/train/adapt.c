#include "train/adapt.h"

#include <stdlib.h>
#include <string.h>

#include "model/colony.h"
#include "model/pattern.h"
#include "train/splats.h"

enum { SAMPLE = 256 };

static size_t splats_of(const trainee *t) {
    return t->model->config.kv_heads * t->model->config.splats;
}

static size_t numbers_of(const trainee *t) {
    return splats_of(t) * (2 * t->model->config.head_dim + 1);
}

bool train_adapts(const trainee *t) {
    const model_config *c = &t->model->config;
    return pattern_has_splats(c) && c->adaptation.steps > 0;
}

clsplat_status train_adapting_open(const trainee *t, clsplat_adapt_listener *listener, void *user,
                                   train_adapting *a) {
    const model_config *c = &t->model->config;
    size_t splats = c->layers * splats_of(t);
    *a = (train_adapting){.t = t, .listener = listener, .user = user};
    a->life = calloc(splats, sizeof *a->life);
    a->grown = calloc(splats, sizeof *a->grown);
    a->named = calloc(c->layers * c->kv_heads, sizeof *a->named);
    a->now = calloc(c->layers * numbers_of(t), sizeof *a->now);
    a->next = calloc(c->layers * numbers_of(t), sizeof *a->next);
    a->tried = calloc(numbers_of(t), sizeof *a->tried);
    a->changed = calloc(splats, sizeof *a->changed);
    a->sample = calloc(SAMPLE * c->kv_heads * 2 * c->head_dim, sizeof *a->sample);
    a->weight = calloc(SAMPLE, sizeof *a->weight);
    a->event_room =
        2 * c->adaptation.most + 2; /* of a head: the last decision may be one that was not kept */
    a->event_room *= c->layers * c->kv_heads;
    a->events = calloc(a->event_room, sizeof *a->events);
    if (!a->life || !a->grown || !a->named || !a->now || !a->next || !a->tried || !a->changed || !a->sample ||
        !a->weight || !a->events)
        return log_error(t->device->lib, CLSPLAT_MEMORY, "no memory for splats that adapt");
    for (size_t i = 0; i < splats; ++i)
        a->life[i].number = i % c->splats + 1;
    for (size_t i = 0; i < c->layers * c->kv_heads; ++i)
        a->named[i] = c->splats;
    return CLSPLAT_OK;
}

void train_adapting_count(const train_adapting *a, size_t *splats, size_t *heads) {
    const model_config *c = &a->t->model->config;
    *splats = c->layers * splats_of(a->t);
    *heads = c->layers * c->kv_heads;
}

void train_adapting_close(train_adapting *a) {
    void *const all[] = {a->life,  a->grown,   a->named,  a->now,    a->next,
                         a->tried, a->changed, a->sample, a->weight, a->events};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
    *a = (train_adapting){0};
}

static void remember(void *user, const clsplat_adapt_event *event) {
    train_adapting *a = user;
    if (a->event_count < a->event_room)
        a->events[a->event_count++] = *event;
}

/* A layer's parameters, from the device or to it. */
static clsplat_status move(queue *q, const train_adapting *a, size_t layer, float *numbers, bool up) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &a->t->model->config;
    const model_layer *w = &a->t->model->weights.layers[layer];
    size_t splats = splats_of(a->t), each = splats * c->head_dim;
    const queue_copy copies[] = {
        {.mem = w->splat_mean.mem, .host = numbers, .row = 4 * each, .rows = 1},
        {.mem = w->splat_precision.mem, .host = numbers + each, .row = 4 * each, .rows = 1},
        {.mem = w->splat_amplitude.mem, .host = numbers + 2 * each, .row = 4 * splats, .rows = 1}};
    for (size_t i = 0; i < 3; ++i)
        TRY(up ? queue_upload(q, copies[i]) : queue_download(q, copies[i]));
fail:
    return status;
}

/* Keys of the pass, evenly spaced. Returns in *count how many. */
static clsplat_status take_sample(queue *q, const pass *p, const train_adapting *a, size_t layer,
                                  size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &a->t->model->config;
    size_t row = 4 * c->kv_heads * 2 * c->head_dim;
    size_t step = (p->rows + SAMPLE - 1) / SAMPLE;
    *count = (p->rows - 1) / step + 1;
    for (size_t i = 0; i < *count; ++i)
        a->weight[i] = 1 / (float)*count;
    TRY(queue_download(q, (queue_copy){.mem = pass_layer_of(p, layer)->splats->features.mem,
                                       .mem_pitch = step * row,
                                       .host = a->sample,
                                       .host_pitch = row,
                                       .row = row,
                                       .rows = *count}));
fail:
    return status;
}

static clsplat_status decide_head(train_adapting *a, size_t layer, size_t head, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &a->t->model->config;
    model_adaptation how = c->adaptation;
    size_t place = (layer * c->kv_heads + head) * c->splats, first = head * c->splats;
    size_t each = splats_of(a->t) * c->head_dim;
    float *numbers = a->next + layer * numbers_of(a->t), *mean = numbers + first * c->head_dim;
    clsplat_adapt_event like = {.layer = layer, .head = head, .cycle = a->cycle};
    colony folk;
    how.patience = 1;
    TRY(colony_open(a->t->device->lib, c->splats, c->head_dim, count, &folk));
    folk.features = a->sample + head * 2 * c->head_dim;
    folk.pitch = c->kv_heads * 2 * c->head_dim;
    folk.weight = a->weight;
    folk.named = &a->named[layer * c->kv_heads + head];
    for (size_t s = 0; s < c->splats; ++s) {
        folk.life[s] = a->life[place + s];
        folk.life[s].starved = 0;
    }
    colony_take(&folk, mean, mean + each, numbers + 2 * each + first);
    colony_adapt(&folk, &how, &like, remember, a);
    colony_give(&folk, mean, mean + each, numbers + 2 * each + first);
    memcpy(a->grown + place, folk.life, c->splats * sizeof *folk.life);
    memcpy(a->changed + place, folk.changed, c->splats * sizeof *folk.changed);
fail:
    colony_close(&folk);
    return status;
}

/* After a layer's forward: its parameters, its keys, and what they ask for. */
static clsplat_status decide(queue *q, const pass *p, size_t layer, void *user) {
    clsplat_status status = CLSPLAT_OK;
    train_adapting *a = user;
    size_t count, numbers = numbers_of(a->t), at = layer * numbers;
    if (!pass_is_splatted(p, layer))
        return CLSPLAT_OK;
    TRY(move(q, a, layer, a->now + at, false));
    memcpy(a->next + at, a->now + at, numbers * sizeof *a->next);
    TRY(take_sample(q, p, a, layer, &count));
    for (size_t h = 0; h < a->t->model->config.kv_heads; ++h)
        TRY(decide_head(a, layer, h, count));
fail:
    return status;
}

static clsplat_status measure(queue *q, const pass *p, double *nats) {
    clsplat_status status = CLSPLAT_OK;
    double sum = 0;
    TRY(pass_head(q, p, 0));
    TRY(pass_likelihood(q, p, &sum));
    *nats = -sum;
fail:
    return status;
}

/* Moments of the head's new splats. */
static clsplat_status forget(queue *q, const train_adapting *a, size_t layer, size_t head) {
    clsplat_status status = CLSPLAT_OK;
    const model_layer *w = &a->t->model->weights.layers[layer];
    const model_config *c = &a->t->model->config;
    size_t dim = c->head_dim, splats = splats_of(a->t);
    const struct {
        cl_mem mem;
        size_t columns;
    } of[] = {{w->splat_mean.mem, dim}, {w->splat_precision.mem, dim}, {w->splat_amplitude.mem, 1}};
    for (size_t i = 0; i < a->t->count; ++i)
        for (size_t n = 0; n < 3; ++n)
            for (size_t s = head * c->splats;
                 s < (head + 1) * c->splats && a->t->parameters[i].weight.mem == of[n].mem; ++s) {
                size_t bytes = of[n].columns * sizeof(float);
                if (!a->changed[layer * splats + s])
                    continue;
                TRY(queue_fill(q, a->t->parameters[i].first, s * bytes, bytes, 0.0f));
                TRY(queue_fill(q, a->t->parameters[i].second, s * bytes, bytes, 0.0f));
            }
fail:
    return status;
}

/* A head's events, once it is known whether they stay. */
static void tell(train_adapting *a, size_t layer, size_t head, bool stays, train_adapted *result) {
    for (size_t i = 0; i < a->event_count; ++i) {
        clsplat_adapt_event *e = &a->events[i];
        if (e->layer != layer || e->head != head)
            continue;
        e->kept &= stays;
        ++*(e->kept ? &result->kept : &result->undone);
        if (a->listener)
            a->listener(a->user, e);
    }
}

/* A head's splats as numbers `to` of its layer have them, from numbers `from`. */
static void copy_head(const train_adapting *a, const float *from, float *to, size_t head) {
    const model_config *c = &a->t->model->config;
    size_t each = splats_of(a->t) * c->head_dim, part = c->splats * c->head_dim;
    memcpy(to + head * part, from + head * part, part * sizeof *to);
    memcpy(to + each + head * part, from + each + head * part, part * sizeof *to);
    memcpy(to + 2 * each + head * c->splats, from + 2 * each + head * c->splats, c->splats * sizeof *to);
}

/* The head's decisions stay if the loss does not rise. */
static clsplat_status try_head(queue *q, const pass *p, train_adapting *a, size_t layer, size_t head,
                               train_adapted *result) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &a->t->model->config;
    size_t place = (layer * c->kv_heads + head) * c->splats, numbers = numbers_of(a->t);
    float *now = a->now + layer * numbers, *next = a->next + layer * numbers;
    bool stays = false;
    double nats;
    for (size_t s = 0; s < c->splats; ++s)
        stays |= a->changed[place + s];
    if (stays) {
        memcpy(a->tried, now, numbers * sizeof *now);
        copy_head(a, next, a->tried, head);
        TRY(move(q, a, layer, a->tried, true));
        TRY(pass_forward(q, p, NULL, NULL));
        TRY(measure(q, p, &nats));
        stays = nats <= result->after;
        if (!stays)
            TRY(move(q, a, layer, now, true));
    }
    if (stays) {
        result->after = nats;
        memcpy(now, a->tried, numbers * sizeof *now);
        memcpy(a->life + place, a->grown + place, c->splats * sizeof *a->life);
        TRY(forget(q, a, layer, head));
    }
    tell(a, layer, head, stays, result);
fail:
    return status;
}

clsplat_status train_adapt(queue *q, const pass *p, train_adapting *a, train_adapted *result) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &a->t->model->config;
    *result = (train_adapted){0};
    ++a->cycle;
    a->event_count = 0;
    TRY(pass_forward(q, p, decide, a));
    TRY(measure(q, p, &result->before));
    result->after = result->before;
    for (size_t layer = 0; layer < c->layers; ++layer)
        for (size_t head = 0; pass_is_splatted(p, layer) && head < c->kv_heads; ++head)
            TRY(try_head(q, p, a, layer, head, result));
fail:
    return status;
}
