#include "attention/problem_data.h"

#include <math.h>
#include <stdio.h>

#include "base/random.h"

/* DATA_FAR: every dimension has its own corner. */
static double corner(const problem_spec *s, size_t d) {
    return s->data == DATA_FAR ? (d % 3 == 1 ? -60 : 60) : 0;
}

static double span(random_state *r, double low, double high) {
    return low + (high - low) * random_uniform(r);
}

/* The largest number to put where it must not matter. */
static double enormous(clsplat_dtype dtype) {
    return dtype == CLSPLAT_F16 ? 6e4 : 1e30;
}

static bool is_padding(const problem_spec *s, size_t b, size_t j) {
    switch (s->bias) {
    case BIAS_HOLES:
        return j % 3 == 1;
    case BIAS_FRONT:
        return j < s->keys / 2;
    case BIAS_ALL:
        return b == s->batch - 1;
    case BIAS_NONE:
    case BIAS_RANDOM:
        break;
    }
    return false;
}

static void fill_bias(problem *p, random_state *r) {
    const problem_spec *s = &p->spec;
    for (size_t b = 0; p->tensors[PROBLEM_BIAS].bytes && b < s->batch; b++)
        for (size_t h = 0; h < s->kv_heads; h++)
            for (size_t j = 0; j < s->keys; j++) {
                double bias = s->data == DATA_DOMINANT && j == s->keys / 2 ? 1e4 : random_normal(r);
                problem_set(&p->tensors[PROBLEM_BIAS], b, h, j, 0, is_padding(s, b, j) ? -INFINITY : bias);
            }
}

/* A token near a splat, which small variances need: else nobody sees it. */
static double near_splat(const problem *p, size_t head, size_t row, size_t d, random_state *r) {
    clsplat_splats_parameters s = clsplat_splats_get(p->splats);
    size_t hs = s.shape.heads == 1 ? 0 : head, at = hs * s.shape.count + row % s.shape.count;
    double log_var = 0;
    if (s.log_var)
        log_var = (double)s.log_var[s.shape.covariance == CLSPLAT_ISOTROPIC ? at : at * s.shape.dim + d];
    double width = exp(0.5 * (log_var + (double)s.log_temperature[at]));
    return (double)s.mean[at * s.shape.dim + d] + 0.5 * width * random_normal(r);
}

static double token(const problem *p, size_t which, size_t h, size_t row, size_t d, random_state *r) {
    const problem_spec *s = &p->spec;
    if (s->data == DATA_LOUD && which != PROBLEM_V)
        return round(span(r, -1, 1) * sqrt(4e4 / (double)s->dim));
    if (s->data >= DATA_NARROW && p->splats && which != PROBLEM_V) {
        size_t group = s->heads / s->kv_heads;
        return near_splat(p, which == PROBLEM_K ? h * group : h, row, d, r);
    }
    return (which == PROBLEM_V ? 0 : corner(s, d)) + random_normal(r);
}

static void fill_tokens(problem *p, size_t which, random_state *r) {
    const problem_spec *s = &p->spec;
    problem_tensor *t = &p->tensors[which];
    const size_t *n = t->view.shape;
    for (size_t b = 0; b < n[0]; b++)
        for (size_t h = 0; h < n[1]; h++)
            for (size_t row = 0; row < n[2]; row++)
                for (size_t d = 0; d < n[3]; d++) {
                    double value = token(p, which, h, row, d, r);
                    if (which != PROBLEM_Q && is_padding(s, b, row))
                        value = (d + row) % 2 ? -enormous(t->view.dtype) : enormous(t->view.dtype);
                    else if (s->data == DATA_IDENTICAL && row > 0)
                        value = problem_get(t, b, h, 0, d);
                    problem_set(t, b, h, row, d, value);
                }
}

/* A factor near a multiple of the identity, with numbers above the diagonal that must be ignored. */
static void fill_factor(float *chol, size_t dim, double log_var, random_state *r) {
    for (size_t row = 0; row < dim; row++)
        for (size_t c = 0; c < dim; c++) {
            double lower = exp(-0.5 * log_var) * ((row == c) + 0.3 / sqrt((double)dim) * random_normal(r));
            chol[row * dim + c] = (float)(c <= row ? lower : 1e30);
        }
}

/* Variances grow with the dimension, so that log-densities stay near −8 as in a fitted set. */
static double log_variance(const problem_spec *s, random_state *r) {
    if (s->data == DATA_EXTREME)
        return span(r, -8, 2);
    if (s->data == DATA_NARROW)
        return -3.2;
    return log(fmax(1, (double)s->dim / 8)) + 0.3 * random_normal(r);
}

static void fill_level(const problem_spec *s, clsplat_splats_parameters *p, random_state *r) {
    for (size_t i = 0; i < s->splats; i++) {
        size_t level = random_below(r, s->levels);
        p->level[i] = (int32_t)(s->levels > 2 && level == 1 ? 2 : level); /* level 1 has no splat */
    }
    for (size_t l = 0; l < s->levels; l++)
        p->level_log_weight[l] = (float)(s->data == DATA_EXTREME ? span(r, -30, 30) : random_normal(r));
}

static void fill_splats(problem *p, random_state *r) {
    const problem_spec *s = &p->spec;
    clsplat_splats_parameters set = clsplat_splats_get(p->splats);
    bool extreme = s->data == DATA_EXTREME, narrow = s->data == DATA_NARROW;
    size_t dim = s->dim;
    fill_level(s, &set, r);
    for (size_t at = 0; at < set.shape.heads * set.shape.count; at++) {
        for (size_t d = 0; d < dim; d++)
            set.mean[at * dim + d] = (float)(corner(s, d) + random_normal(r));
        set.log_amplitude[at] = (float)(extreme ? span(r, -40, 40) : random_normal(r));
        set.log_temperature[at] = (float)(extreme ? span(r, -3, 3) : narrow ? 0 : 0.3 * random_normal(r));
        size_t variances = s->covariance == CLSPLAT_ISOTROPIC ? 1 : dim;
        for (size_t d = 0; set.log_var && d < variances; d++)
            set.log_var[at * variances + d] = (float)log_variance(s, r);
        if (set.precision_chol)
            fill_factor(set.precision_chol + at * dim * dim, dim, log_variance(s, r), r);
    }
    suite_ok(p->lib, clsplat_splats_changed(p->splats));
}

void problem_fill(problem *p, uint64_t seed) {
    random_state r = random_seed(seed);
    if (p->splats)
        fill_splats(p, &r);
    fill_bias(p, &r);
    fill_tokens(p, PROBLEM_Q, &r);
    fill_tokens(p, PROBLEM_K, &r);
    fill_tokens(p, PROBLEM_V, &r);
}
