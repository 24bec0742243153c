#include <math.h>
#include <stdlib.h>

#include "naive.h"

/* (x − μ)ᵀ L Lᵀ (x − μ): the squared length of Lᵀ(x − μ). */
static double full_distance(const float *chol, const float *mean, const double *x, size_t dim) {
    double sum = 0;
    for (size_t c = 0; c < dim; c++) {
        double t = 0;
        for (size_t r = c; r < dim; r++)
            t += (double)chol[r * dim + c] * (x[r] - (double)mean[r]);
        sum += t * t;
    }
    return sum;
}

double naive_log_density(const clsplat_splats_parameters *splats, size_t head, size_t s, const double *x) {
    size_t dim = splats->shape.dim, at = head * splats->shape.count + s;
    const float *mean = splats->mean + at * dim;
    double sum = 0, temperature = exp((double)splats->log_temperature[at]);
    if (splats->shape.covariance == CLSPLAT_FULL)
        return -0.5 * full_distance(splats->precision_chol + at * dim * dim, mean, x, dim) / temperature;
    for (size_t d = 0; d < dim; d++) {
        size_t v = splats->shape.covariance == CLSPLAT_ISOTROPIC ? at : at * dim + d;
        sum += (x[d] - (double)mean[d]) * (x[d] - (double)mean[d]) / exp((double)splats->log_var[v]);
    }
    return -0.5 * sum / temperature;
}

/* What one query head needs: the log-densities of its queries [N,S] and of its keys [M,S], bias included. */
typedef struct log_densities {
    const clsplat_splats_parameters *splats;
    size_t head; /* of the splats */
    double *query, *key;
} log_densities;

static void find_log_densities(log_densities *r, const double *x, size_t rows, const double *bias,
                               double *log_density) {
    size_t count = r->splats->shape.count, dim = r->splats->shape.dim;
    for (size_t i = 0; i < rows; i++)
        for (size_t s = 0; s < count; s++)
            log_density[i * count + s] =
                bias && bias[i] == -INFINITY
                    ? -INFINITY
                    : naive_log_density(r->splats, r->head, s, x + i * dim) + (bias ? bias[i] : 0);
}

/* ln A_ij over the splats of level `level` (all of them if it is negative). */
static double log_affinity(const log_densities *r, size_t i, size_t j, int level, bool weighted) {
    const clsplat_splats_parameters *splats = r->splats;
    size_t count = splats->shape.count;
    const double *query = r->query + i * count, *key = r->key + j * count;
    double largest = -INFINITY, sum = 0;
    for (int exponentials = 0; exponentials < 2; exponentials++) {
        for (size_t s = 0; s < count; s++) {
            if (level >= 0 && splats->level[s] != level)
                continue;
            double l = (double)splats->log_amplitude[r->head * count + s] + query[s] + key[s];
            if (weighted)
                l += (double)splats->level_log_weight[splats->level[s]];
            if (!exponentials)
                largest = fmax(largest, l);
            else if (l != -INFINITY)
                sum += exp(l - largest);
        }
    }
    return largest == -INFINITY ? -INFINITY : largest + log(sum);
}

typedef struct head_work {
    log_densities r;
    const double *v;
    double *affinity;         /* [M] */
    double *level_lse;        /* [L] */
    double *level_log_weight; /* [L] */
    double *level_value;      /* [L,Dv] */
} head_work;

/* One level's state for query i, or all levels' in one for level −1. */
static void attend(const naive_tensors *t, head_work *w, size_t i, int level, naive_state *state) {
    size_t visible = t->shape.keys;
    if (t->causal)
        visible = i + 1 + t->shape.keys > t->shape.queries ? i + 1 + t->shape.keys - t->shape.queries : 0;
    for (size_t j = 0; j < visible; j++)
        w->affinity[j] = log_affinity(&w->r, i, j, level, level < 0);
    naive_state_of(state, visible, w->affinity, w->v);
    if (t->largest && isfinite(state->lse))
        *t->largest = fmax(*t->largest, fabs(state->lse));
}

static void attend_per_level(const naive_tensors *t, head_work *w, size_t i, naive_state *state) {
    const clsplat_splats_parameters *splats = w->r.splats;
    for (size_t l = 0; l < splats->shape.levels; l++) {
        naive_state one = {.value = w->level_value + l * state->width, .width = state->width};
        attend(t, w, i, (int)l, &one);
        w->level_lse[l] = one.lse;
        w->level_log_weight[l] = (double)splats->level_log_weight[l];
    }
    naive_mix(state, splats->shape.levels, w->level_log_weight, w->level_lse, w->level_value);
}

static void gaussian_head(const naive_tensors *t, head_work *w, clsplat_mixing mixing, size_t bh, size_t kv) {
    naive_shape n = t->shape;
    const double *bias = t->key_bias ? t->key_bias + kv * n.keys : NULL;
    w->v = t->v + kv * n.keys * n.value_dim;
    find_log_densities(&w->r, t->q + bh * n.queries * n.dim, n.queries, NULL, w->r.query);
    find_log_densities(&w->r, t->k + kv * n.keys * n.dim, n.keys, bias, w->r.key);
    for (size_t i = 0; i < n.queries; i++) {
        size_t row = bh * n.queries + i;
        naive_state state = {.value = t->out + row * n.value_dim, .width = n.value_dim};
        if (mixing == CLSPLAT_JOINT)
            attend(t, w, i, -1, &state);
        else
            attend_per_level(t, w, i, &state);
        t->lse[row] = state.lse;
    }
}

void naive_gaussian(const naive_tensors *t, const clsplat_splats_parameters *splats, clsplat_mixing mixing) {
    naive_shape n = t->shape;
    size_t count = splats->shape.count, levels = splats->shape.levels;
    head_work w = {.r = {.splats = splats,
                         .query = calloc(n.queries * count, sizeof(double)),
                         .key = calloc(n.keys * count, sizeof(double))},
                   .affinity = calloc(n.keys, sizeof(double)),
                   .level_lse = calloc(levels, sizeof(double)),
                   .level_log_weight = calloc(levels, sizeof(double)),
                   .level_value = calloc(levels * n.value_dim, sizeof(double))};
    for (size_t bh = 0; bh < n.batch * n.heads; bh++) {
        size_t h = bh % n.heads;
        w.r.head = splats->shape.heads == 1 ? 0 : h;
        gaussian_head(t, &w, mixing, bh, bh / n.heads * n.kv_heads + h / (n.heads / n.kv_heads));
    }
    free(w.r.query);
    free(w.r.key);
    free(w.affinity);
    free(w.level_lse);
    free(w.level_log_weight);
    free(w.level_value);
}
