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
        if (t->window && j + t->shape.queries + t->window <= i + t->shape.keys)
            hidden = true;
        double product = scale * dot(q, k + j * t->shape.dim, t->shape.dim);
        if (t->cap != 0)
            product = t->cap * tanh(product / t->cap);
        l[j] = hidden ? -INFINITY : product + (bias ? bias[j] : 0);
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

static void add(double *to, const double *x, double factor, size_t count) {
    for (size_t d = 0; to && d < count; d++)
        to[d] += factor * x[d];
}

static void softmax_row_backward(const naive_tensors *t, double scale, naive_gradients *g, size_t row,
                                 size_t kv, const double *l) {
    naive_shape n = t->shape;
    const double *dout = g->dout + row * n.value_dim, *q = t->q + row * n.dim;
    double delta = dot(dout, t->out + row * n.value_dim, n.value_dim);
    for (size_t j = 0; j < n.keys; j++) {
        if (l[j] == -INFINITY || t->lse[row] == -INFINITY)
            continue;
        size_t key = kv * n.keys + j;
        const double *k = t->k + key * n.dim, *v = t->v + key * n.value_dim;
        double p = exp(l[j] - t->lse[row]), gain = dot(dout, v, n.value_dim), received = p * (gain - delta);
        g->activity += p * fabs(gain);
        for (size_t d = 0; d < n.dim; d++)
            g->steepness = fmax(g->steepness, fabs(scale) * fmax(fabs(q[d]), fabs(k[d])));
        add(g->dq + row * n.dim, k, scale * received, n.dim);
        add(g->dk + key * n.dim, q, scale * received, n.dim);
        add(g->dv + key * n.value_dim, dout, p, n.value_dim);
        add(g->dkey_bias ? g->dkey_bias + key : NULL, (const double[]){1}, received, 1);
    }
}

void naive_softmax_backward(const naive_tensors *t, double scale, naive_gradients *g) {
    naive_shape n = t->shape;
    double *l = calloc(n.keys, sizeof *l);
    for (size_t bh = 0; bh < n.batch * n.heads; bh++) {
        size_t kv = bh / n.heads * n.kv_heads + bh % n.heads / (n.heads / n.kv_heads);
        const double *bias = t->key_bias ? t->key_bias + kv * n.keys : NULL;
        for (size_t i = 0; i < n.queries; i++) {
            size_t row = bh * n.queries + i;
            logits(t, scale, i, t->q + row * n.dim, t->k + kv * n.keys * n.dim, bias, l);
            softmax_row_backward(t, scale, g, row, kv, l);
        }
    }
    free(l);
}
