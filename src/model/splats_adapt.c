#include "model/splats_adapt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/colony.h"
#include "op/splat/splat_layer.h"
#include "runtime/buffer.h"

enum { RECENT = 64, EARLIER = 32, SAMPLE = RECENT + EARLIER, LOOK_BACK = 8192 };

static const float nothing = -1e30f; /* ln of a mass that no sum notices; −INFINITY would make NaN of two */

static size_t splats_of(const splat_store *s) {
    return s->model->config.kv_heads * s->model->config.splats;
}

/* Heads that adapt, of all layers. */
static size_t heads_of(const splat_store *s) {
    const model_config *c = &s->model->config;
    size_t layers = 0;
    for (size_t i = 0; i < c->layers; ++i)
        layers += c->splatted[i];
    return layers * c->kv_heads;
}

/* Numbers of a layer: two of each dimension and one more for every splat. */
static size_t numbers_of(const splat_store *s) {
    return splats_of(s) * (2 * s->model->config.head_dim + 1);
}

static bool folk_open(const splat_store *s, splat_folk *f) {
    f->numbers = calloc(numbers_of(s), sizeof *f->numbers);
    f->life = calloc(splats_of(s), sizeof *f->life);
    f->named = calloc(s->model->config.kv_heads, sizeof *f->named);
    f->changed = calloc(splats_of(s), sizeof *f->changed);
    return f->numbers && f->life && f->named && f->changed;
}

static void folk_close(splat_folk *f) {
    free(f->numbers);
    free(f->life);
    free(f->named);
    free(f->changed);
}

static void folk_copy(const splat_store *s, const splat_folk *from, splat_folk *to) {
    memcpy(to->numbers, from->numbers, numbers_of(s) * sizeof *to->numbers);
    memcpy(to->life, from->life, splats_of(s) * sizeof *to->life);
    memcpy(to->named, from->named, s->model->config.kv_heads * sizeof *to->named);
    memset(to->changed, 0, splats_of(s) * sizeof *to->changed);
}

static clsplat_status move(queue *q, cl_mem mem, float *host, size_t count, bool up) {
    queue_copy copy = {.mem = mem, .host = host, .row = 4 * count, .rows = 1};
    return up ? queue_upload(q, copy) : queue_download(q, copy);
}

/* What the model's file has, and everybody's name. */
static clsplat_status folk_begin(queue *q, const splat_store *s, size_t layer, splat_folk *f) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    const model_layer *w = &s->model->weights.layers[layer];
    size_t each = splats_of(s) * c->head_dim;
    TRY(move(q, w->splat_mean.mem, f->numbers, each, false));
    TRY(move(q, w->splat_precision.mem, f->numbers + each, each, false));
    TRY(move(q, w->splat_amplitude.mem, f->numbers + 2 * each, splats_of(s), false));
    for (size_t i = 0; i < splats_of(s); ++i)
        f->life[i].number = i % c->splats + 1;
    for (size_t h = 0; h < c->kv_heads; ++h)
        f->named[h] = c->splats;
fail:
    return status;
}

clsplat_status splat_adapting_open(splat_store *s, model_adaptation how, clsplat_adapt_listener *listener,
                                   void *user) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = s->model->device;
    const model_config *c = &s->model->config;
    size_t each = splats_of(s) * c->head_dim;
    splat_adapting *a = s->adapting = calloc(1, sizeof *a);
    queue q;
    queue_begin(device, 0, NULL, &q);
    if (a) {
        *a = (splat_adapting){.how = how, .listener = listener, .user = user};
        a->now = calloc(c->layers, sizeof *a->now);
        a->next = calloc(c->layers, sizeof *a->next);
        a->stale = calloc(c->layers, sizeof *a->stale);
        a->sample = calloc(SAMPLE * c->kv_heads * 2 * c->head_dim, sizeof *a->sample);
        a->weight = calloc(SAMPLE, sizeof *a->weight);
    }
    bool memory = a && a->now && a->next && a->stale && a->sample && a->weight;
    for (size_t i = 0; memory && i < c->layers; ++i)
        memory = !c->splatted[i] || (folk_open(s, &a->now[i]) && folk_open(s, &a->next[i]));
    if (!memory)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for splats that adapt");
    TRY(buffer_create(device, 4 * each, &a->log_precision));
    TRY(buffer_create(device, 4 * splats_of(s), &a->log_amplitude));
    for (size_t i = 0; i < c->layers; ++i)
        if (c->splatted[i])
            TRY(folk_begin(&q, s, i, &a->now[i]));
fail:
    return status;
}

void splat_adapting_close(splat_store *s) {
    splat_adapting *a = s->adapting;
    size_t each = splats_of(s) * s->model->config.head_dim;
    if (!a)
        return;
    for (size_t i = 0; a->now && a->next && i < s->model->config.layers; ++i) {
        folk_close(&a->now[i]);
        folk_close(&a->next[i]);
    }
    buffer_release(s->model->device, 4 * each, &a->log_precision);
    buffer_release(s->model->device, 4 * splats_of(s), &a->log_amplitude);
    free(a->now);
    free(a->next);
    free(a->stale);
    free(a->sample);
    free(a->weight);
    free(a->events);
    free(a);
    s->adapting = NULL;
}

size_t splat_adapting_room(const splat_store *s, size_t length) {
    return s && s->adapting ? s->adapting->how.tokens - length % s->adapting->how.tokens : SIZE_MAX;
}

void splat_adapting_rewind(splat_store *s, size_t length) {
    if (s && s->adapting && s->adapting->done > length)
        s->adapting->done = length;
}

/* At most `most` of the tokens [begin, end), evenly spaced. Writes: their features from row `at` on, and
 * weights that sum up to `sum`. Returns in *count how many. */
typedef struct span {
    size_t begin, end, most, at;
    float sum;
} span;

static clsplat_status take_span(queue *q, const splat_store *s, size_t layer, span from, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    splat_adapting *a = s->adapting;
    size_t width = s->model->config.kv_heads * 2 * s->model->config.head_dim, tokens = from.end - from.begin;
    size_t step = (tokens + from.most - 1) / from.most;
    *count = tokens ? (tokens - 1) / step + 1 : 0;
    for (size_t i = 0; i < *count; ++i)
        a->weight[from.at + i] = from.sum / (float)*count;
    if (*count)
        TRY(queue_download(q, (queue_copy){.mem = s->layers[layer].keys.mem,
                                           .mem_offset = 4 * from.begin * width,
                                           .mem_pitch = 4 * step * width,
                                           .host = a->sample + from.at * width,
                                           .host_pitch = 4 * width,
                                           .row = 4 * width,
                                           .rows = *count}));
fail:
    return status;
}

static void remember(void *user, const clsplat_adapt_event *event) {
    splat_adapting *a = user;
    if (a->event_count == a->event_room) {
        size_t room = 2 * a->event_room + 64;
        clsplat_adapt_event *more = realloc(a->events, room * sizeof *more);
        a->forgotten |= !more;
        if (!more)
            return;
        a->events = more;
        a->event_room = room;
    }
    a->events[a->event_count++] = *event;
}

/* `earlier` of the `count` keys are from before the last cycle. */
static clsplat_status adapt_head(splat_store *s, size_t layer, size_t head, size_t earlier, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    splat_adapting *a = s->adapting;
    const model_config *c = &s->model->config;
    splat_folk *f = &a->next[layer];
    size_t first = head * c->splats, each = splats_of(s) * c->head_dim;
    float *mean = f->numbers + first * c->head_dim, *precision = mean + each,
          *amplitude = f->numbers + 2 * each + first;
    clsplat_adapt_event like = {.layer = layer, .head = head, .cycle = (unsigned)a->next_told.cycles};
    colony folk;
    TRY(colony_open(s->model->device->lib, c->splats, c->head_dim, count, &folk));
    folk.features = a->sample + head * 2 * c->head_dim;
    folk.pitch = c->kv_heads * 2 * c->head_dim;
    folk.weight = a->weight;
    folk.recent = earlier;
    folk.named = &f->named[head];
    memcpy(folk.life, f->life + first, c->splats * sizeof *folk.life);
    colony_take(&folk, mean, precision, amplitude);
    colony_result result = colony_adapt(&folk, &a->how, &like, a->listener ? remember : NULL, a);
    colony_give(&folk, mean, precision, amplitude);
    memcpy(f->life + first, folk.life, c->splats * sizeof *folk.life);
    memcpy(f->changed + first, folk.changed, c->splats * sizeof *folk.changed);
    if (a->forgotten)
        TRY(log_error(s->model->device->lib, CLSPLAT_MEMORY, "no memory for what splats decided"));
    a->next_told.decisions += result.made;
    a->next_told.coverage_before += result.recent_before / (double)heads_of(s);
    a->next_told.coverage_after += result.recent_after / (double)heads_of(s);
fail:
    colony_close(&folk);
    return status;
}

static clsplat_status decide(queue *q, splat_store *s, size_t layer, size_t length) {
    clsplat_status status = CLSPLAT_OK;
    splat_adapting *a = s->adapting;
    size_t recent = length > a->how.tokens ? length - a->how.tokens : 0, few, many;
    folk_copy(s, &a->now[layer], &a->next[layer]);
    TRY(take_span(q, s, layer, (span){0, recent, EARLIER, 0, 0.5f}, &few));
    TRY(take_span(q, s, layer, (span){recent, length, RECENT, few, few ? 0.5f : 1}, &many));
    for (size_t h = 0; h < s->model->config.kv_heads; ++h)
        TRY(adapt_head(s, layer, h, few, few + many));
fail:
    return status;
}

/* One splat of one head in what every chunk has: [chunks,1,1,columns]. */
static op_tensor column_of(op_tensor states, size_t begin, size_t count, size_t head, size_t splat) {
    return op_slice(op_slice(op_slice(states, 0, begin, count), 1, head, 1), 2, splat, 1);
}

/* The states of one splat, of all chunks that are complete: gathered from the last ones, and nothing before.
 */
static clsplat_status gather(queue *q, splat_store *s, size_t layer, size_t chunks, size_t which,
                             op_tensor v) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    const splat_layer *l = &s->layers[layer];
    size_t head = which / c->splats, splat = which % c->splats, chunk = c->splat_chunk;
    size_t begin = chunks > LOOK_BACK / chunk ? chunks - LOOK_BACK / chunk : 0;
    op_softmax_args write = splat_write(
        op_slice(op_slice(l->g, 1, head, 1), 2, splat, 1),
        splat_store_chunks(op_slice(splat_store_heads(l->keys, c->kv_heads, 2 * c->head_dim), 1, head, 1),
                           begin, chunks - begin, chunk),
        splat_store_chunks(op_slice(v, 1, head, 1), begin, chunks - begin, chunk),
        splat_store_chunks(op_slice(splat_store_heads(l->biases, c->kv_heads, 1), 1, head, 1), begin,
                           chunks - begin, chunk),
        column_of(l->value, begin, chunks - begin, head, splat),
        column_of(l->lse, begin, chunks - begin, head, splat));
    for (size_t i = 0; i < begin; ++i)
        TRY(queue_fill(q, l->lse.mem, 4 * (i * splats_of(s) + which), 4, nothing));
    TRY(op_softmax(q, &write));
fail:
    return status;
}

/* The device gets a layer's splats, and what those that are new have gathered. */
static clsplat_status apply(queue *q, splat_store *s, size_t layer, size_t length) {
    clsplat_status status = CLSPLAT_OK;
    splat_adapting *a = s->adapting;
    const model_config *c = &s->model->config;
    const splat_layer *l = &s->layers[layer];
    splat_folk *f = &a->now[layer];
    size_t each = splats_of(s) * c->head_dim, chunks = length / c->splat_chunk;
    TRY(move(q, l->mean.mem, f->numbers, each, true));
    TRY(move(q, a->log_precision, f->numbers + each, each, true));
    TRY(move(q, a->log_amplitude, f->numbers + 2 * each, splats_of(s), true));
    TRY(op_splat_features(q, &(op_splat_features_args){.mean = l->mean.mem,
                                                       .log_precision = a->log_precision,
                                                       .log_amplitude = a->log_amplitude,
                                                       .g = l->g.mem,
                                                       .base = l->base.mem,
                                                       .count = splats_of(s),
                                                       .dim = c->head_dim}));
    for (size_t i = 0; chunks && i < splats_of(s); ++i)
        if (f->changed[i])
            TRY(gather(q, s, layer, chunks, i, s->v[layer]));
    if (length)
        TRY(splat_store_scan(q, s, layer, 0, (length - 1) / c->splat_chunk + 1));
    TRY(clsplat_device_finish(q->device)); /* whatever fails later, these are whole */
    memset(f->changed, 0, splats_of(s) * sizeof *f->changed);
    a->stale[layer] = false;
fail:
    return status;
}

clsplat_status splat_adapting_mend(queue *q, splat_store *s, size_t layer, size_t length) {
    return s->adapting && s->adapting->stale[layer] ? apply(q, s, layer, length) : CLSPLAT_OK;
}

/* What all layers have decided counts from now on, and is told. */
static void agree(splat_store *s, size_t length) {
    const model_config *c = &s->model->config;
    splat_adapting *a = s->adapting;
    for (size_t i = 0; i < c->layers; ++i) {
        if (!c->splatted[i])
            continue;
        splat_folk next = a->next[i];
        a->next[i] = a->now[i];
        a->now[i] = next;
        a->stale[i] = false;
        for (size_t n = 0; n < splats_of(s); ++n)
            a->stale[i] |= next.changed[n];
    }
    a->done = length;
    a->told = a->next_told;
    for (size_t i = 0; i < a->event_count; ++i)
        a->listener(a->user, &a->events[i]);
}

/* First all decisions, from keys that are known to be whole; then they are carried out, layer by layer. */
clsplat_status splat_adapting_cycle(queue *q, splat_store *s, size_t length, bool *made) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    splat_adapting *a = s->adapting;
    *made = false;
    if (!a || length == 0 || length % a->how.tokens != 0 || length <= a->done)
        return CLSPLAT_OK;
    a->event_count = 0;
    a->forgotten = false;
    a->next_told = (clsplat_session_adaptation){.cycles = a->told.cycles + 1, .decisions = a->told.decisions};
    for (size_t i = 0; i < c->layers; ++i)
        if (c->splatted[i])
            TRY(decide(q, s, i, length));
    agree(s, length);
    for (size_t i = 0; i < c->layers; ++i)
        if (a->stale[i])
            TRY(apply(q, s, i, length));
    *made = true;
fail:
    return status;
}
