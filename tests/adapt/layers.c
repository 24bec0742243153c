#include "adapt/layers.h"

#include <math.h>
#include <stdlib.h>

#include "base/random.h"

const layer_case layer_cases[LAYER_CASES] = {
    {{1, 2, 1, 60, 60, 8, 6}, true, false, false, CLSPLAT_DIAGONAL, 1, 5},
    {{2, 4, 2, 40, 70, 6, 16}, true, false, true, CLSPLAT_ISOTROPIC, 2, 4},
    {{1, 2, 2, 50, 50, 5, 5}, false, false, false, CLSPLAT_FULL, 1, 6},
    {{2, 2, 1, 33, 64, 4, 3}, false, true, true, CLSPLAT_DIAGONAL, 3, 3},
    {{1, 3, 3, 80, 41, 7, 4}, true, true, false, CLSPLAT_FULL, 2, 3},
    {{1, 1, 1, 1, 90, 3, 2}, true, false, false, CLSPLAT_DIAGONAL, 1, 4},
};

static float *tokens(random_state *r, size_t rows, size_t dim, double scale) {
    float *x = malloc(rows * dim * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < rows; i++) {
        size_t cluster = random_below(r, 7);
        for (size_t d = 0; d < dim; d++)
            x[i * dim + d] =
                (float)(scale * (2 * sin((double)(cluster * (d + 3)) * 1.7) + 0.6 * random_normal(r)));
    }
    return x;
}

/* What comes after so many numbers, and these as doubles. */
static const double *widen(const float *from, size_t count, double **next) {
    double *to = *next;
    for (size_t i = 0; i < count; i++)
        to[i] = (double)from[i];
    *next += count;
    return to;
}

layer_data layer_make(const layer_case *c, uint64_t seed) {
    const naive_shape *s = &c->shape;
    random_state r = random_seed(seed);
    layer_data d = {.is = *c};
    size_t q = s->batch * s->heads * s->queries, k = s->batch * s->kv_heads * s->keys;
    d.q = tokens(&r, q, s->dim, 1);
    d.k = tokens(&r, k, s->dim, 1);
    d.v = tokens(&r, k, s->value_dim, 0.5);
    d.tensors.q = clsplat_tensor_host(CLSPLAT_F32, s->batch, s->heads, s->queries, s->dim, d.q);
    d.tensors.k = clsplat_tensor_host(CLSPLAT_F32, s->batch, s->kv_heads, s->keys, s->dim, d.k);
    d.tensors.v = clsplat_tensor_host(CLSPLAT_F32, s->batch, s->kv_heads, s->keys, s->value_dim, d.v);
    d.bias = calloc(k, sizeof *d.bias);
    ck_assert_ptr_nonnull(d.bias);
    for (size_t i = 0; i < k; i++)
        d.bias[i] = i % 5 == 0 ? -INFINITY : (float)(0.3 * random_normal(&r));
    if (c->padded)
        d.tensors.key_bias = clsplat_tensor_host(CLSPLAT_F32, s->batch, s->kv_heads, s->keys, 1, d.bias);
    d.numbers = calloc(q * (s->dim + s->value_dim + 1) + k * (s->dim + s->value_dim + 1), sizeof *d.numbers);
    ck_assert_ptr_nonnull(d.numbers);
    double *next = d.numbers;
    d.naive = (naive_tensors){.shape = *s, .causal = c->causal};
    d.naive.q = widen(d.q, q * s->dim, &next);
    d.naive.k = widen(d.k, k * s->dim, &next);
    d.naive.v = widen(d.v, k * s->value_dim, &next);
    if (c->padded)
        d.naive.key_bias = widen(d.bias, k, &next);
    d.naive.out = next;
    d.naive.lse = next + q * s->value_dim;
    naive_softmax(&d.naive, 1 / sqrt((double)s->dim));
    return d;
}

void layer_free(layer_data *d) {
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->bias);
    free(d->numbers);
}

clsplat_splats *layer_splats(clsplat *lib, clsplat_device *device, const layer_data *d) {
    static char token[] = "Token", phrase[] = "Phrase", section[] = "Section";
    char *names[] = {token, phrase, section};
    double weights[] = {0.6, 0.3, 0.1};
    size_t counts[] = {d->is.splats, d->is.splats, d->is.splats};
    clsplat_hierarchy levels = {d->is.levels, names, counts, weights};
    clsplat_init init = clsplat_init_defaults();
    clsplat_splats *set = NULL;
    init.hierarchy = &levels;
    init.covariance = d->is.covariance;
    init.shared = d->is.shared;
    init.match = CLSPLAT_MATCH_SOFTMAX;
    suite_ok(lib, clsplat_splats_init(device, init, d->tensors.q, d->tensors.k, &set));
    return set;
}

double layer_error(clsplat_device *device, const layer_data *d, clsplat_splats *set, size_t step) {
    const naive_shape *s = &d->is.shape;
    size_t rows = s->batch * s->heads * s->queries, seeing = s->queries;
    float *out = calloc(rows * s->value_dim, sizeof *out);
    clsplat_attention how = clsplat_attention_defaults();
    double apart = 0, norm = 0;
    ck_assert_ptr_nonnull(out);
    how.method = CLSPLAT_SPLATS;
    how.splats = set;
    how.causal = d->is.causal;
    clsplat_attention_tensors t = d->tensors;
    t.out = clsplat_tensor_host(CLSPLAT_F32, s->batch, s->heads, s->queries, s->value_dim, out);
    ck_assert_int_eq(clsplat_attend(device, how, t), CLSPLAT_OK);
    if (how.causal && s->keys < s->queries)
        seeing = s->keys;
    for (size_t i = 0; i < rows; i++) {
        size_t back = s->queries - 1 - i % s->queries;
        if (back % step || back >= seeing)
            continue;
        for (size_t e = i * s->value_dim; e < (i + 1) * s->value_dim; e++) {
            apart += ((double)out[e] - d->naive.out[e]) * ((double)out[e] - d->naive.out[e]);
            norm += d->naive.out[e] * d->naive.out[e];
        }
    }
    free(out);
    return sqrt(apart / norm);
}
