/* Levels: weights that are balanced by what is measured, and coarse splats out of fine ones. */
#include <clsplat/adapt.h>
#include <clsplat/metrics.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/layer.h"
#include "adapt/population.h"
#include "base/sized.h"

/* What each level alone makes of the rows: the levels' states, which merge under any weights. */
typedef struct balancing {
    layer layer;
    population people;
    size_t levels, rows; /* rows of all query heads */
    float *out, *lse;    /* [L][rows][Dv], [L][rows] */
    double *weight;      /* [L]: ln w */
    bool *there;         /* [L]: has splats */
} balancing;

static void balance_close(balancing *b) {
    free(b->out);
    free(b->lse);
    free(b->weight);
    free(b->there);
    population_close(&b->people);
    layer_close(&b->layer);
}

static clsplat_status no_memory(clsplat *lib, size_t levels) {
    return log_error(lib, CLSPLAT_MEMORY, "no memory to balance %zu levels", levels);
}

static clsplat_status measure_level(balancing *b, size_t level) {
    clsplat_status status = CLSPLAT_OK;
    const population *p = &b->people;
    clsplat_splats *set = NULL;
    size_t count = p->of_level[level], next = 0;
    double *splats = malloc(p->heads * (count + 1) * p->form.numbers * sizeof *splats);
    b->there[level] = count > 0;
    if (!splats)
        return no_memory(b->layer.device->lib, b->levels);
    for (size_t h = 0; h < p->heads; ++h)
        for (size_t c = 0; c < p->count; ++c)
            if ((size_t)p->level[c] == level)
                memcpy(splats + next++ * p->form.numbers, population_splat(p, h, c),
                       p->form.numbers * sizeof *splats);
    if (count) {
        TRY(population_loose(p, b->layer.device->lib, splats, count, &set));
        TRY(layer_attend(&b->layer, set, b->out + level * b->rows * b->layer.value_dim,
                         b->lse + level * b->rows));
    }
fail:
    clsplat_splats_destroy(&set);
    free(splats);
    return status;
}

static clsplat_status balance_open(clsplat_device *device, const clsplat_measure *measure,
                                   const clsplat_attention_tensors *tensors, clsplat_splats *splats,
                                   balancing *b) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = &b->layer;
    if (measure->sample == 0)
        return log_error(device->lib, CLSPLAT_INVALID, "sample is 0; it is at least 1");
    TRY(clsplat_splats_changed(splats));
    TRY(layer_open(device, tensors, measure->causal, measure->scale, measure->sample, l));
    TRY(layer_check_set(l, splats));
    b->levels = clsplat_splats_get(splats).shape.levels;
    b->rows = l->batch * l->heads * l->rows;
    b->out = malloc(b->levels * b->rows * l->value_dim * sizeof *b->out);
    b->lse = malloc(b->levels * b->rows * sizeof *b->lse);
    b->weight = calloc(b->levels, sizeof *b->weight);
    b->there = calloc(b->levels, sizeof *b->there);
    if (!b->out || !b->lse || !b->weight || !b->there ||
        population_open(splats, 0, &b->people) != CLSPLAT_OK) {
        status = no_memory(device->lib, b->levels);
        goto fail;
    }
    for (size_t n = 0; n < b->levels; ++n) {
        b->weight[n] = b->people.level_log_weight[n];
        TRY(measure_level(b, n));
    }
fail:
    return status;
}

/* The levels' shares of one row, to share [L]. False: it sees no key. */
static bool share_row(const balancing *b, size_t row, double *share) {
    double top = -INFINITY, sum = 0;
    for (size_t n = 0; n < b->levels; ++n)
        if (b->there[n])
            top = fmax(top, b->weight[n] + (double)b->lse[n * b->rows + row]);
    if (!(top > -INFINITY))
        return false;
    for (size_t n = 0; n < b->levels; ++n) {
        share[n] = b->there[n] ? exp(b->weight[n] + (double)b->lse[n * b->rows + row] - top) : 0;
        sum += share[n];
    }
    for (size_t n = 0; n < b->levels; ++n)
        share[n] /= sum;
    return true;
}

/* The squared error of all rows, relative; and the mean shares [L]. */
static double error_of(const balancing *b, double *share, double *mean) {
    size_t dv = b->layer.value_dim, seen = 0;
    double apart = 0, norm = 0;
    memset(mean, 0, b->levels * sizeof *mean);
    for (size_t row = 0; row < b->rows; ++row) {
        if (!share_row(b, row, share))
            continue;
        ++seen;
        for (size_t n = 0; n < b->levels; ++n)
            mean[n] += share[n];
        for (size_t d = 0; d < dv; ++d) {
            double out = 0, target = (double)b->layer.target[row * dv + d];
            for (size_t n = 0; n < b->levels; ++n)
                out += share[n] > 0 ? share[n] * (double)b->out[(n * b->rows + row) * dv + d] : 0;
            apart += (out - target) * (out - target);
            norm += target * target;
        }
    }
    for (size_t n = 0; n < b->levels; ++n)
        mean[n] /= fmax((double)seen, 1);
    return apart / fmax(norm, 1e-300);
}

/* Weights under which the mean shares are those wanted; a share of a level is monotone in its weight. */
static void meet_shares(balancing *b, const double *wanted, double *share, double *mean) {
    double total = 0;
    for (size_t n = 0; n < b->levels; ++n)
        total += b->there[n] ? wanted[n] : 0;
    for (unsigned turn = 0; turn < 200; ++turn) {
        error_of(b, share, mean);
        for (size_t n = 0; n < b->levels; ++n)
            if (b->there[n])
                b->weight[n] += fmin(fmax(log(wanted[n] / total) - log(fmax(mean[n], 1e-300)), -20), 20);
    }
}

/* Down the error along one weight after the other, in steps that are halved where none helps. */
static void lower_error(balancing *b, double *share, double *mean) {
    double best = error_of(b, share, mean);
    for (double step = 2; step > 0.02; step /= 2)
        for (bool helped = true; helped;) {
            helped = false;
            for (size_t i = 0; i < 2 * b->levels; ++i) {
                double before = b->weight[i / 2];
                b->weight[i / 2] += i % 2 ? step : -step;
                double error = b->there[i / 2] ? error_of(b, share, mean) : INFINITY;
                if (error < best * (1 - 1e-6))
                    best = error, helped = true;
                else
                    b->weight[i / 2] = before;
            }
        }
}

clsplat_status clsplat_splats_balance_sized(clsplat_device *device, const clsplat_measure *measure_given,
                                            const clsplat_attention_tensors *tensors_given,
                                            clsplat_splats *splats, const double *shares, double error[2]) {
    clsplat_measure measure = clsplat_measure_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    balancing b = {0};
    clsplat_splats_parameters p = clsplat_splats_get(splats);
    double *room = malloc(2 * p.shape.levels * sizeof *room), first, last;
    if (!room)
        return no_memory(device->lib, p.shape.levels);
    TRY(SIZED_READ(device->lib, measure, measure_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    for (size_t n = 0; shares && n < p.shape.levels; ++n)
        if (!(shares[n] > 0) || !isfinite(shares[n])) {
            status =
                log_error(device->lib, CLSPLAT_INVALID, "the share of level '%s' is %g; it must be above 0",
                          p.level_names[n], shares[n]);
            goto fail;
        }
    TRY(balance_open(device, &measure, &tensors, splats, &b));
    first = sqrt(error_of(&b, room, room + b.levels));
    if (shares)
        meet_shares(&b, shares, room, room + b.levels);
    else
        lower_error(&b, room, room + b.levels);
    last = sqrt(error_of(&b, room, room + b.levels));
    for (size_t n = 0; n < b.levels; ++n)
        p.level_log_weight[n] = (float)b.weight[n];
    TRY(clsplat_splats_changed(splats));
    if (error)
        error[0] = first, error[1] = last;
fail:
    balance_close(&b);
    free(room);
    return status;
}
