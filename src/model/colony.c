#include "model/colony.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/layer.h"

clsplat_status colony_open(clsplat *lib, size_t splats, size_t dim, size_t samples, colony *c) {
    *c = (colony){
        .lib = lib, .form = {CLSPLAT_DIAGONAL, dim, dim, 2 * dim + 2}, .splats = splats, .samples = samples};
    c->splat = calloc(splats * c->form.numbers, sizeof *c->splat);
    c->life = calloc(splats, sizeof *c->life);
    c->changed = calloc(splats, sizeof *c->changed);
    c->reach = calloc(splats * samples, sizeof *c->reach);
    c->best = calloc(2 * samples, sizeof *c->best);
    c->nearest = calloc(samples, sizeof *c->nearest);
    c->use = calloc(4 * splats, sizeof *c->use);
    c->g = calloc(2 * dim + splats, sizeof *c->g);
    c->fresh = calloc(COLONY_FRESH * samples, sizeof *c->fresh);
    if (!c->splat || !c->life || !c->changed || !c->reach || !c->best || !c->nearest || !c->use || !c->g ||
        !c->fresh)
        return log_error(lib, CLSPLAT_MEMORY, "no memory to adapt %zu splats to %zu keys", splats, samples);
    c->second = c->best + samples;
    c->share = c->g + 2 * dim;
    c->entropy = c->use + splats;
    c->leave_one_out = c->entropy + splats;
    c->cost = c->leave_one_out + splats;
    return CLSPLAT_OK;
}

void colony_close(colony *c) {
    void *const all[] = {c->splat,   c->life, c->changed, c->reach, c->best,
                         c->nearest, c->use,  c->g,       c->fresh};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
    *c = (colony){0};
}

double *colony_splat(const colony *c, size_t s) {
    return c->splat + s * c->form.numbers;
}

void colony_take(colony *c, const float *mean, const float *log_precision, const float *log_amplitude) {
    size_t dim = c->form.dim;
    for (size_t s = 0; s < c->splats; ++s) {
        double *splat = colony_splat(c, s);
        for (size_t d = 0; d < dim; ++d) {
            splat[d] = (double)mean[s * dim + d];
            splat[dim + d] = -(double)log_precision[s * dim + d];
        }
        *splat_log_amplitude(&c->form, splat) = (double)log_amplitude[s];
        c->changed[s] = false;
    }
}

void colony_give(const colony *c, float *mean, float *log_precision, float *log_amplitude) {
    size_t dim = c->form.dim;
    for (size_t s = 0; s < c->splats; ++s) {
        double *splat = colony_splat(c, s);
        for (size_t d = 0; c->changed[s] && d < dim; ++d) {
            mean[s * dim + d] = (float)splat[d];
            log_precision[s * dim + d] = -(float)splat[dim + d];
        }
        if (c->changed[s])
            log_amplitude[s] = (float)*splat_log_amplitude(&c->form, splat);
    }
}

/* A product of features, as the device has it (op/splat/splat_layer.h). */
void colony_log_density(const colony *c, const double *splat, float *reach) {
    size_t dim = c->form.dim;
    double rest = 0;
    for (size_t d = 0; d < dim; ++d) {
        double p = exp(-splat[dim + d]);
        c->g[d] = (float)(p * splat[d]);
        c->g[dim + d] = (float)(-0.5 * p);
        rest += p * splat[d] * splat[d];
    }
    for (size_t j = 0; j < c->samples; ++j)
        reach[j] = fminf(layer_product(c->features + j * c->pitch, c->g, 2 * dim) - (float)(0.5 * rest), 0);
}

void colony_find_best(colony *c) {
    for (size_t j = 0; j < c->samples; ++j) {
        c->best[j] = c->second[j] = -INFINITY;
        c->nearest[j] = 0;
    }
    for (size_t s = 0; s < c->splats; ++s)
        for (size_t j = 0; j < c->samples; ++j) {
            float reach = c->reach[s * c->samples + j];
            if (reach > c->best[j]) {
                c->second[j] = c->best[j];
                c->best[j] = reach;
                c->nearest[j] = s;
            } else if (reach > c->second[j]) {
                c->second[j] = reach;
            }
        }
}

double colony_error_now(const colony *c) {
    double sum = 0;
    for (size_t j = 0; j < c->samples; ++j)
        sum -= (double)c->weight[j] * (double)c->best[j];
    return sum;
}

double colony_error(colony *c) {
    for (size_t s = 0; s < c->splats; ++s)
        colony_log_density(c, colony_splat(c, s), c->reach + s * c->samples);
    colony_find_best(c);
    return colony_error_now(c);
}

/* Shares of the keys: what each splat is used for. */
void colony_find_use(colony *c) {
    memset(c->use, 0, 4 * c->splats * sizeof *c->use);
    for (size_t s = 0; s < c->splats; ++s)
        c->cost[s] = *splat_log_amplitude(&c->form, colony_splat(c, s));
    for (size_t j = 0; j < c->samples; ++j) {
        float top = -INFINITY, sum = 0, w = c->weight[j];
        for (size_t s = 0; s < c->splats; ++s) {
            c->share[s] = c->reach[s * c->samples + j] + (float)c->cost[s];
            top = fmaxf(top, c->share[s]);
        }
        for (size_t s = 0; s < c->splats; ++s) {
            c->share[s] = c->share[s] - top < -20 ? 0 : expf(c->share[s] - top);
            sum += c->share[s];
        }
        for (size_t s = 0; s < c->splats; ++s) {
            if (!(c->share[s] > 0))
                continue;
            double share = fmin((double)(c->share[s] / sum), 1 - 1e-7), part = (double)w * share;
            c->use[s] += part;
            c->entropy[s] -= part * log(part);
            c->leave_one_out[s] -= (double)w * log1p(-share);
        }
    }
    for (size_t s = 0; s < c->splats; ++s) /* of what of it is whose: Σ x/u ln(x/u) */
        c->entropy[s] = c->use[s] > 0 ? c->entropy[s] / c->use[s] + log(c->use[s]) : 0;
}
