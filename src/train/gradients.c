#include "train/gradients.h"

#include <stdlib.h>

/* A parameter's: the layer whose it is, SIZE_MAX: none's. */
typedef struct gradient {
    const train_parameter *of;
    size_t layer;
    float *numbers;
    cl_event here; /* NULL: nothing was asked for */
} gradient;

static size_t layer_of(const trainee *t, const train_parameter *p) {
    for (size_t i = 0; i < t->model->config.layers; ++i) {
        const char *begin = (const char *)&t->gradient.layers[i], *at = (const char *)p->parts->tensor;
        if (at >= begin && at < begin + sizeof t->gradient.layers[i])
            return i;
    }
    return SIZE_MAX;
}

/* The last layer first, and what is no layer's at the end: in the order of the pass back. */
static void put_in_order(train_gradients *g) {
    size_t layers = g->t->model->config.layers;
    float *numbers = g->numbers;
    for (size_t i = 0; i <= layers; ++i)
        for (size_t n = 0; n < g->t->count; ++n) {
            const train_parameter *p = &g->t->parameters[n];
            size_t layer = layer_of(g->t, p);
            if (!p->gradient.mem || layer != (i < layers ? layers - 1 - i : SIZE_MAX))
                continue;
            g->list[g->count++] = (gradient){.of = p, .layer = layer, .numbers = numbers};
            numbers += p->count;
        }
}

clsplat_status train_gradients_open(const trainee *t, const train_team *team, train_gradients *g) {
    size_t all = 0;
    for (size_t i = 0; i < t->count; ++i)
        all += t->parameters[i].count;
    *g = (train_gradients){.t = t, .team = team};
    g->numbers = calloc(all + 1, sizeof *g->numbers);
    g->list = calloc(t->count + 1, sizeof *g->list);
    if (!g->numbers || !g->list)
        return log_error(t->device->lib, CLSPLAT_MEMORY, "no memory for the gradients of %zu numbers", all);
    put_in_order(g);
    return CLSPLAT_OK;
}

/* What is on its way comes first. */
void train_gradients_close(queue *q, train_gradients *g) {
    while (g->list && g->summed < g->begun)
        queue_download_end(q, &g->list[g->summed++].here);
    free(g->numbers);
    free(g->list);
    *g = (train_gradients){0};
}

static queue_copy copy_of(const gradient *of) {
    return (queue_copy){
        .mem = of->of->gradient.mem, .host = of->numbers, .row = of->of->count * sizeof(float), .rows = 1};
}

static void begin_one(queue *q, train_gradients *g) {
    gradient *of = &g->list[g->begun++];
    if (g->mine == CLSPLAT_OK)
        g->mine = queue_download_begin(q, copy_of(of), &of->here);
}

static clsplat_status sum_one(queue *q, train_gradients *g) {
    gradient *of = &g->list[g->summed++];
    clsplat_status status = queue_download_end(q, &of->here);
    if (g->mine == CLSPLAT_OK)
        g->mine = status;
    return g->team->sum(g->team->user, of->numbers, of->of->count);
}

clsplat_status train_gradients_follow(queue *q, const pass *p, size_t layer, void *user) {
    clsplat_status status = CLSPLAT_OK;
    train_gradients *g = user;
    size_t before = g->begun;
    (void)p;
    while (g->begun < g->count && g->list[g->begun].layer == layer)
        begin_one(q, g);
    if (g->mine == CLSPLAT_OK)
        g->mine = queue_flush(q);
    while (g->summed < before) /* of the layer after this one: they came down before this one's kernels */
        TRY(sum_one(q, g));
fail:
    return status;
}

clsplat_status train_gradients_finish(queue *q, train_gradients *g, clsplat_status mine) {
    clsplat_status status = CLSPLAT_OK;
    if (g->mine == CLSPLAT_OK)
        g->mine = mine;
    while (g->begun < g->count)
        begin_one(q, g);
    while (g->summed < g->count)
        TRY(sum_one(q, g));
    for (size_t i = 0; i < g->count && g->mine == CLSPLAT_OK; ++i)
        g->mine = queue_upload(q, copy_of(&g->list[i]));
    status = g->team->agree(g->team->user, g->mine);
    g->begun = g->summed = 0;
    g->mine = CLSPLAT_OK;
fail:
    return status;
}
