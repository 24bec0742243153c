#include <math.h>
#include <stdlib.h>

#include "naive.h"

/* One query head: its log-densities, and what they receive. */
typedef struct head_work {
    const naive_tensors *t;
    const clsplat_splats_parameters *splats;
    naive_gradients *g;
    clsplat_mixing mixing;
    size_t bh, kv, head;           /* head: of the splats */
    double *query, *key;           /* φ_s(q_i) [N,S], φ_s(k_j) + b_j [M,S] */
    double *from_query, *from_key; /* what they receive */
    double *weight;                /* ln of r_ijs for one i: [M,S] */
    double *level_lse, *level_delta, *share;
} head_work;

static double dot(const double *x, const double *y, size_t count) {
    double sum = 0;
    for (size_t d = 0; d < count; d++)
        sum += x[d] * y[d];
    return sum;
}

/* A log-density φ_s(x) receives `received`: passes it on to x and to the splat. */
static void receive(const head_work *w, size_t s, const double *x, double received, double *dx) {
    const clsplat_splats_parameters *p = w->splats;
    naive_gradients *g = w->g;
    size_t dim = p->shape.dim, at = w->head * p->shape.count + s;
    const float *mean = p->mean + at * dim;
    bool full = p->shape.covariance == CLSPLAT_FULL, isotropic = p->shape.covariance == CLSPLAT_ISOTROPIC;
    double temperature = exp((double)p->log_temperature[at]);
    if (received == 0)
        return; /* of a padding key, which may hold anything */
    for (size_t c = 0; c < dim; c++) {
        /* With t = Lᵀ(x − μ), one column of L at a time: φ = −½ Σ_c t_c² / τ. */
        double t = 0, width = full ? 0 : exp(-(double)p->log_var[isotropic ? at : at * dim + c]);
        const float *column = full ? p->precision_chol + at * dim * dim + c : NULL;
        for (size_t r = c; full && r < dim; r++)
            t += (double)column[r * dim] * (x[r] - (double)mean[r]);
        for (size_t r = c; r < (full ? dim : c + 1); r++) {
            double y = x[r] - (double)mean[r];
            double slope = full ? -(double)column[r * dim] * t / temperature : -width * y / temperature;
            dx[r] += received * slope;
            g->mean[at * dim + r] -= received * slope;
            g->temperature[at] -= 0.5 * received * slope * y;
            if (full)
                g->width[(at * dim + r) * dim + c] -= received * t * y / temperature;
            else
                g->width[isotropic ? at : at * dim + c] -= 0.5 * received * slope * y;
            g->steepness = fmax(g->steepness, fmax(fabs(slope), full ? fabs(t * y / temperature) : 0));
            g->steepness = fmax(g->steepness, fabs(slope * y));
        }
    }
}

static size_t visible_keys(const naive_tensors *t, size_t i) {
    if (!t->causal)
        return t->shape.keys;
    return i + 1 + t->shape.keys > t->shape.queries ? i + 1 + t->shape.keys - t->shape.queries : 0;
}

/* Level l of row i, or all levels in one: its lse, and dout_i·out_l,i. */
static void measure(head_work *w, size_t i, int level, size_t range) {
    const clsplat_splats_parameters *p = w->splats;
    naive_shape n = w->t->shape;
    size_t count = p->shape.count, visible = visible_keys(w->t, i);
    double top = -INFINITY, mass = 0, gain = 0;
    for (size_t js = 0; js < visible * count; js++) {
        size_t s = js % count;
        if (level >= 0 && p->level[s] != level)
            continue;
        w->weight[js] = w->key[js] == -INFINITY
                            ? -INFINITY
                            : (double)p->log_amplitude[w->head * count + s] + w->query[i * count + s] +
                                  w->key[js] + (level < 0 ? (double)p->level_log_weight[p->level[s]] : 0);
        top = fmax(top, w->weight[js]);
    }
    for (size_t js = 0; js < visible * count; js++) {
        if ((level >= 0 && p->level[js % count] != level) || w->weight[js] == -INFINITY)
            continue;
        double weight = exp(w->weight[js] - top);
        mass += weight;
        gain += weight * dot(w->g->dout + (w->bh * n.queries + i) * n.value_dim,
                             w->t->v + (w->kv * n.keys + js / count) * n.value_dim, n.value_dim);
    }
    w->level_lse[range] = mass == 0 ? -INFINITY : top + log(mass);
    w->level_delta[range] = mass == 0 ? 0 : gain / mass;
}

static void pass_back(head_work *w, size_t i, int level, size_t range) {
    const clsplat_splats_parameters *p = w->splats;
    naive_shape n = w->t->shape;
    size_t count = p->shape.count, visible = visible_keys(w->t, i);
    const double *dout = w->g->dout + (w->bh * n.queries + i) * n.value_dim;
    for (size_t js = 0; js < visible * count; js++) {
        size_t s = js % count, key = w->kv * n.keys + js / count;
        if ((level >= 0 && p->level[s] != level) || w->weight[js] == -INFINITY)
            continue;
        double r = w->share[range] * exp(w->weight[js] - w->level_lse[range]);
        double gain = dot(dout, w->t->v + key * n.value_dim, n.value_dim);
        double received = r * (gain - w->level_delta[range]);
        w->g->activity += r * fabs(gain);
        w->from_query[i * count + s] += received;
        w->from_key[js] += received;
        w->g->amplitude[w->head * count + s] += received;
        if (level < 0)
            w->g->level[p->level[s]] += received;
        if (w->g->dkey_bias)
            w->g->dkey_bias[key] += received;
        for (size_t d = 0; d < n.value_dim; d++)
            w->g->dv[key * n.value_dim + d] += r * dout[d];
    }
}

static void row_backward(head_work *w, size_t i) {
    size_t levels = w->splats->shape.levels, ranges = w->mixing == CLSPLAT_JOINT ? 1 : levels;
    bool joint = w->mixing == CLSPLAT_JOINT;
    double heaviest = -INFINITY, shares = 0, delta = 0;
    for (size_t l = 0; l < ranges; l++) {
        measure(w, i, joint ? -1 : (int)l, l);
        w->share[l] = joint ? 0 : (double)w->splats->level_log_weight[l];
        if (w->level_lse[l] != -INFINITY)
            heaviest = fmax(heaviest, w->share[l]);
    }
    for (size_t l = 0; l < ranges; l++) {
        w->share[l] = w->level_lse[l] == -INFINITY ? 0 : exp(w->share[l] - heaviest);
        shares += w->share[l];
    }
    for (size_t l = 0; shares > 0 && l < ranges; l++) {
        w->share[l] /= shares;
        delta += w->share[l] * w->level_delta[l];
        if (w->level_lse[l] != -INFINITY)
            pass_back(w, i, joint ? -1 : (int)l, l);
    }
    for (size_t l = 0; !joint && l < levels; l++)
        w->g->level[l] += w->share[l] * (w->level_delta[l] - delta);
}

static void head_backward(head_work *w) {
    naive_shape n = w->t->shape;
    size_t count = w->splats->shape.count;
    const double *q = w->t->q + w->bh * n.queries * n.dim, *k = w->t->k + w->kv * n.keys * n.dim;
    const double *bias = w->t->key_bias ? w->t->key_bias + w->kv * n.keys : NULL;
    for (size_t is = 0; is < n.queries * count; is++) {
        w->query[is] = naive_log_density(w->splats, w->head, is % count, q + is / count * n.dim);
        w->from_query[is] = 0;
    }
    for (size_t js = 0; js < n.keys * count; js++) {
        bool padding = bias && bias[js / count] == -INFINITY;
        w->key[js] = padding ? -INFINITY
                             : naive_log_density(w->splats, w->head, js % count, k + js / count * n.dim) +
                                   (bias ? bias[js / count] : 0);
        w->from_key[js] = 0;
    }
    for (size_t i = 0; i < n.queries; i++)
        row_backward(w, i);
    for (size_t is = 0; is < n.queries * count; is++)
        receive(w, is % count, q + is / count * n.dim, w->from_query[is],
                w->g->dq + (w->bh * n.queries + is / count) * n.dim);
    for (size_t js = 0; js < n.keys * count; js++)
        receive(w, js % count, k + js / count * n.dim, w->from_key[js],
                w->g->dk + (w->kv * n.keys + js / count) * n.dim);
}

void naive_gaussian_backward(const naive_tensors *t, const clsplat_splats_parameters *splats,
                             clsplat_mixing mixing, naive_gradients *g) {
    naive_shape n = t->shape;
    size_t count = splats->shape.count, levels = splats->shape.levels;
    head_work w = {.t = t, .splats = splats, .g = g, .mixing = mixing};
    double **arrays[] = {&w.query,  &w.key,       &w.from_query,  &w.from_key,
                         &w.weight, &w.level_lse, &w.level_delta, &w.share};
    size_t sizes[] = {n.queries * count,
                      n.keys * count,
                      n.queries * count,
                      n.keys * count,
                      n.keys * count,
                      levels,
                      levels,
                      levels};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        *arrays[i] = calloc(sizes[i], sizeof(double));
    for (w.bh = 0; w.bh < n.batch * n.heads; w.bh++) {
        size_t h = w.bh % n.heads;
        w.head = splats->shape.heads == 1 ? 0 : h;
        w.kv = w.bh / n.heads * n.kv_heads + h / (n.heads / n.kv_heads);
        head_backward(&w);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        free(*arrays[i]);
}
