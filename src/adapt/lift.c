/* What proposals bring. A birth's amplitude is free: with e = out − target of a row, u = V − target, and the
 * weight w of what comes beside all that is there, the squared error for an amplitude λ times as large is
 *
 *     ‖(e + λw u) / (1 + λw)‖² = (e·e + 2 λw e·u + (λw)² u·u) / (1 + λw)²
 *
 * so that three products a row serve all amplitudes that are tried. */
#include <math.h>

#include "adapt/propose.h"

/* Rows are in the order of herd->birth; those that see no key are left out. Returns: ln of the mean share
 * that the birth would have of the head's rows, with its amplitude as it is. Writes: *rows, and of each its w
 * relative to *top, the largest ln w of them. */
static double look_at_birth(herd *h, size_t head, const candidates *c, const change *what, size_t *rows,
                            double *top) {
    const layer *l = h->layer;
    size_t all = 0;
    double sum = 0, level = h->people.level_log_weight[what->level];
    *rows = 0;
    *top = -INFINITY;
    for (size_t q = 0; q < l->batch * l->heads; ++q)
        for (size_t t = 0; t < l->rows && herd_serves(h, head, q); ++t) {
            size_t at = q * l->rows + t;
            double log_weight = (double)c->states.log_weight[at * c->count + what->come[0]] + level;
            ++all;
            if (!(h->lse[at] > -INFINITY))
                continue;
            const float *value =
                c->states.value +
                ((herd_writer(h, q) * l->rows + t) * c->count + what->come[0]) * l->value_dim;
            birth_row *row = &h->birth[(*rows)++];
            *row = birth_products(h->out + at * l->value_dim, l->target + at * l->value_dim, value,
                                  l->value_dim);
            row->weight = log_weight - h->lse[at];
            *top = fmax(*top, row->weight);
        }
    for (size_t i = 0; i<*rows && * top> - INFINITY; ++i) {
        h->birth[i].weight = exp(h->birth[i].weight - *top);
        sum += h->birth[i].weight;
    }
    return *top + log(sum / (double)all);
}

/* The head's squared error with so much added to ln a. */
static double birth_square(const herd *h, size_t rows, double lift) {
    double scale = exp(lift), square = 0;
    for (size_t i = 0; i < rows; ++i) {
        const birth_row *row = &h->birth[i];
        double x = scale * row->weight, total = 1 + x;
        square += (row->own + x * (2 * row->cross + x * row->come)) / (total * total);
    }
    return isfinite(square) ? square : INFINITY;
}

/* The amplitude of a birth by measured error, on a grid around that which gives it a splat's fair share. */
static double best_lift(herd *h, size_t head, const candidates *c, change *what) {
    size_t rows;
    double top, mean = look_at_birth(h, head, c, what, &rows, &top);
    double fair = -log((double)h->people.count + 1) - mean, best = INFINITY, kept = fair;
    if (!isfinite(fair))
        return INFINITY;
    for (int step = -8; step <= 4; step += 2) {
        double square = birth_square(h, rows, fair + step + top);
        if (square < best)
            best = square, kept = fair + step;
    }
    for (double fine = 1; fine > 0.3; fine /= 2)
        for (int side = -1; side <= 1; side += 2) {
            double square = birth_square(h, rows, kept + side * fine + top);
            if (square < best) {
                best = square, kept += side * fine;
                break;
            }
        }
    what->lift[0] = kept;
    return best;
}

void propose_judge(herd *h, size_t head, const candidates *c, proposals *p) {
    double now = herd_square(h, head);
    for (size_t i = 0; i < PROPOSE_GROWING; ++i) {
        proposal *g = &p->growing[i];
        if (!g->possible)
            continue;
        g->square = g->event.decision == CLSPLAT_BIRTH ? best_lift(h, head, c, &g->what)
                                                       : change_judge(h, c, head, &g->what, false);
        g->gain = isfinite(g->square) ? now - g->square : -INFINITY;
    }
    for (size_t i = 0; i < PROPOSE_SHRINKING; ++i)
        if (p->shrinking[i].possible)
            p->shrinking[i].square = change_judge(h, c, head, &p->shrinking[i].what, false);
}
