#include <math.h>
#include <stdlib.h>

#include "naive.h"

static double dot(const double *x, const double *y, size_t count) {
    double sum = 0;
    for (size_t d = 0; d < count; d++)
        sum += x[d] * y[d];
    return sum;
}

/* The logits of one query over all keys; −inf where it must not look. */
static void logits(const naive_tensors *t, double scale, size_t i, const double *q, const double *k,
                   const double *bias, double *l) {
    for (size_t j = 0; j < t->shape.keys; j++) {
        bool hidden = t->causal && j + t->shape.queries > i + t->shape.keys;
        l[j] = hidden ? -INFINITY : scale * dot(q, k + j * t->shape.dim, t->shape.dim) + (bias ? bias[j] : 0);
    }
}

void naive_softmax(const naive_tensors *t, double scale) {
    naive_shape n = t->shape;
    double *l = calloc(n.keys, sizeof *l);
    for (size_t bh = 0; bh < n.batch * n.heads; bh++) {
        size_t kv = bh / n.heads * n.kv_heads + bh % n.heads / (n.heads / n.kv_heads);
        const double *k = t->k + kv * n.keys * n.dim, *v = t->v + kv * n.keys * n.value_dim;
        const double *bias = t->key_bias ? t->key_bias + kv * n.keys : NULL;
        for (size_t i = 0; i < n.queries; i++) {
            size_t row = bh * n.queries + i;
            naive_state state = {.value = t->out + row * n.value_dim, .width = n.value_dim};
            logits(t, scale, i, t->q + row * n.dim, k, bias, l);
            naive_state_of(&state, n.keys, l, v);
            t->lse[row] = state.lse;
        }
    }
    free(l);
}
