/* What a change to a head does to its rows. A row's attention is a sum over splats, N = Σ e^l V over Z = Σ
 * e^l, so that
 *
 *     Z' = Z − Σ_gone e^l + Σ_come e^l      N' = N − Σ_gone e^l V + Σ_come e^l V      out' = N' / Z'
 *
 * and the other splats need not be looked at. */
#include <math.h>
#include <stdlib.h>

#include "adapt/herd.h"

clsplat_status candidates_open(const herd *h, size_t count, candidates *c) {
    *c = (candidates){.count = count};
    c->splats = calloc(h->people.heads * count * h->people.form.numbers, sizeof *c->splats);
    return c->splats ? CLSPLAT_OK
                     : log_error(h->layer->device->lib, CLSPLAT_MEMORY, "no memory for %zu splats", count);
}

void candidates_close(herd *h, candidates *c) {
    if (c->states.log_weight)
        h->spare = c->states;
    free(c->splats);
    free(c->cover);
    *c = (candidates){0};
}

double *candidates_splat(const herd *h, const candidates *c, size_t head, size_t i) {
    return c->splats + (head * c->count + i) * h->people.form.numbers;
}

clsplat_status candidates_measure(herd *h, candidates *c) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *set = NULL;
    TRY(population_loose(&h->people, h->layer->device->lib, c->splats, c->count, &set));
    c->states = h->spare;
    h->spare = (layer_states){0};
    TRY(layer_measure(h->layer, set, true, &c->states));
    TRY(layer_cover(h->layer, set, h->spacing, &c->cover));
fail:
    clsplat_splats_destroy(&set);
    return status;
}

/* Weights below this change nothing that would be seen. */
static const double least_seen = 1e-10;

/* Below this share what stays of a row is the rounding of what went. */
static const double least_left = 1e-4;

/* What a change adds to one row: the weights of what comes, and minus those of what goes, by candidate. */
typedef struct row_change {
    double most; /* of the weights, by size */
    double weight[2 * CHANGE_MOST];
    const float *value[2 * CHANGE_MOST];
    size_t terms;
    double left, total; /* Z without what goes, and Z', by Z */
} row_change;

static void weigh_row(const herd *h, const candidates *c, const change *what, size_t q, size_t t,
                      row_change *row) {
    const layer *l = h->layer;
    size_t at = q * l->rows + t, from = herd_writer(h, q) * l->rows + t;
    double level = h->people.level_log_weight[what->level] - h->lse[at];
    *row = (row_change){.terms = what->going + what->coming, .left = 1};
    for (size_t i = 0; i < row->terms; ++i) {
        bool goes = i < what->going;
        size_t who = goes ? what->gone[i] : what->come[i - what->going];
        double lift = goes ? 0 : what->lift[i - what->going];
        double weight = exp((double)c->states.log_weight[at * c->count + who] + level + lift);
        row->weight[i] = goes ? -weight : weight;
        row->value[i] = c->states.value + (from * c->count + who) * l->value_dim;
        row->left -= goes ? weight : 0;
        row->most = fmax(row->most, weight);
    }
    row->total = row->left;
    for (size_t i = what->going; i < row->terms; ++i)
        row->total += row->weight[i];
}

enum { TOGETHER = 8 }; /* columns whose sums are apart, which compilers put into vectors */

/* ‖out' − target‖² of `count` columns from `d` on. */
static inline double judge_columns(const herd *h, const row_change *row, size_t at, size_t d, size_t count,
                                   bool apply) {
    size_t first = at * h->layer->value_dim + d;
    double mixed[TOGETHER], square = 0, inverse = 1 / row->total, *out = h->out + first;
    const float *target = h->layer->target + first;
    for (size_t i = 0; i < count; ++i)
        mixed[i] = out[i];
    for (size_t term = 0; term < row->terms; ++term)
        for (size_t i = 0; i < count; ++i)
            mixed[i] += row->weight[term] * (double)row->value[term][d + i];
    for (size_t i = 0; i < count; ++i) {
        double apart = mixed[i] * inverse - (double)target[i];
        square += apart * apart;
    }
    for (size_t i = 0; apply && i < count; ++i)
        out[i] = mixed[i] * inverse;
    return square;
}

static double judge_row(herd *h, const row_change *row, size_t at, bool apply) {
    size_t columns = h->layer->value_dim, whole = columns / TOGETHER * TOGETHER;
    double square = 0;
    for (size_t d = 0; d < whole; d += TOGETHER)
        square += judge_columns(h, row, at, d, TOGETHER, apply);
    square += judge_columns(h, row, at, whole, columns - whole, apply);
    if (apply) {
        h->lse[at] += log(row->total);
        h->row_square[at] = square;
    }
    return square;
}

birth_row birth_products(const double *out, const float *target, const float *value, size_t columns) {
    double own[TOGETHER] = {0}, cross[TOGETHER] = {0}, come[TOGETHER] = {0};
    birth_row row = {0};
    size_t whole = columns / TOGETHER * TOGETHER;
    for (size_t d = 0; d < whole; d += TOGETHER)
        for (size_t i = 0; i < TOGETHER; ++i) {
            double e = out[d + i] - (double)target[d + i], u = (double)(value[d + i] - target[d + i]);
            own[i] += e * e;
            cross[i] += e * u;
            come[i] += u * u;
        }
    for (size_t d = whole; d < columns; ++d) {
        double e = out[d] - (double)target[d], u = (double)(value[d] - target[d]);
        own[0] += e * e;
        cross[0] += e * u;
        come[0] += u * u;
    }
    for (size_t i = 0; i < TOGETHER; ++i) {
        row.own += own[i];
        row.cross += cross[i];
        row.come += come[i];
    }
    return row;
}

double change_judge(herd *h, const candidates *c, size_t head, const change *what, bool apply) {
    const layer *l = h->layer;
    double square = 0;
    for (size_t q = 0; q < l->batch * l->heads; ++q)
        for (size_t t = 0; t < l->rows && herd_serves(h, head, q); ++t) {
            row_change row;
            if (!(h->lse[q * l->rows + t] > -INFINITY)) /* sees no key: 0, whatever splats there are */
                continue;

            weigh_row(h, c, what, q, t, &row);
            if (!(row.left > least_left) || !isfinite(row.total))
                return INFINITY;
            square += row.most < least_seen ? h->row_square[q * l->rows + t]
                                            : judge_row(h, &row, q * l->rows + t, apply);
        }
    return square;
}
