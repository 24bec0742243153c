#include <math.h>
#include <stdlib.h>

#include "cl/shared/constants.h"
#include "naive.h"

size_t naive_node_size(const naive_forest *f, size_t level) {
    return level < f->top ? f->leaf << 4 * level : f->chunk << 4 * (level - f->top);
}

/* The weighted mean of `columns` numbers of each key under the node, and the mean square of what differs from
 * it. */
static void moments(const naive_forest *f, size_t begin, size_t end, const double *x, size_t columns,
                    double log_mass, double *mean, double *square) {
    for (size_t d = 0; d < columns; d++) {
        mean[d] = square[d] = 0;
        for (size_t s = begin; s < end; s++)
            if (f->biases[s] > -INFINITY)
                mean[d] += exp(f->biases[s] - log_mass) * x[s * columns + d];
        for (size_t s = begin; s < end; s++)
            if (f->biases[s] > -INFINITY)
                square[d] += exp(f->biases[s] - log_mass) * pow(x[s * columns + d] - mean[d], 2);
    }
}

void naive_node_of(const naive_forest *f, size_t level, size_t g, naive_node *node) {
    size_t size = naive_node_size(f, level), begin = g * size,
           end = begin + size < f->slots ? begin + size : f->slots;
    double most = -INFINITY, mass = 0;
    double *squares = calloc(f->value_dim, sizeof *squares);
    node->count = 0;
    for (size_t s = begin; s < end; s++)
        most = fmax(most, f->biases[s]);
    for (size_t s = begin; s < end; s++)
        if (f->biases[s] > -INFINITY) {
            node->count += 1;
            mass += exp(f->biases[s] - most);
        }
    node->log_mass = mass > 0 ? most + log(mass) : -INFINITY;
    moments(f, begin, end, f->keys, f->dim, node->log_mass, node->mean, node->variance);
    moments(f, begin, end, f->values, f->value_dim, node->log_mass, node->value, squares);
    node->spread = 0;
    for (size_t d = 0; d < f->value_dim; d++)
        node->spread += squares[d];
    node->spread = sqrt(node->spread);
    double far = 0, all = 0;
    for (size_t d = 0; d < f->dim; d++)
        all += node->variance[d];
    for (size_t s = begin; s < end; s++) {
        double square = 0;
        for (size_t d = 0; d < f->dim && f->biases[s] > -INFINITY; d++)
            square += pow(f->keys[s * f->dim + d] - node->mean[d], 2);
        far = fmax(far, square);
    }
    node->reach = all > 0 ? sqrt(far / all) : 1;
    free(squares);
}

naive_node naive_node_create(const naive_forest *f) {
    return (naive_node){.mean = calloc(f->dim, sizeof(double)),
                        .variance = calloc(f->dim, sizeof(double)),
                        .value = calloc(f->value_dim, sizeof(double))};
}

void naive_node_free(naive_node *node) {
    free(node->mean);
    free(node->variance);
    free(node->value);
}

size_t naive_far_index(const naive_forest *f, size_t level, size_t g) {
    size_t before = 0;
    for (size_t below = 0; below < level; below++)
        before += (f->slots + naive_node_size(f, below) - 1) / naive_node_size(f, below);
    return before + g;
}

/* One row on its way through the forest. */
typedef struct walk {
    const naive_forest *f;
    const naive_far_row *row;
    naive_far *far;
    size_t count, capacity; /* of the sources so far: log-weights and values */
    double *l, *v;
    double slopes; /* Σ e^l · slope of closed leaves, as a logarithm */
} walk;

static void add(walk *w, double l, const double *value) {
    size_t width = w->f->value_dim;
    if (w->count == w->capacity) {
        w->capacity = 2 * w->capacity + 16;
        w->l = realloc(w->l, w->capacity * sizeof *w->l);
        w->v = realloc(w->v, w->capacity * width * sizeof *w->v);
    }
    w->l[w->count] = l;
    for (size_t d = 0; d < width; d++)
        w->v[w->count * width + d] = value[d];
    w->count++;
}

static double dot(const double *x, const double *y, size_t count) {
    double sum = 0;
    for (size_t d = 0; d < count; d++)
        sum += x[d] * y[d];
    return sum;
}

/* What the spread of n logits adds to the logarithm of their mass. */
static double lift(double variance, double n) {
    double knee = 0.5 * sqrt(2 * log(n));
    return variance <= knee * knee ? 0.5 * variance : knee * sqrt(variance) - 0.5 * knee * knee;
}

static double sum_of(const double *x, size_t count) {
    double sum = 0;
    for (size_t d = 0; d < count; d++)
        sum += x[d];
    return sum;
}

/* How much a leaf's values follow its keys, beside other leaves; 0 if it varies twice as much as its chunk,
 * whose variances sum up to `whole`. */
static double slope_of(const naive_forest *f, const naive_node *leaf, double whole) {
    double own = sum_of(leaf->variance, f->dim);
    return own <= 2 * whole && whole > 0 ? sqrt(own / whole) * leaf->spread : 0;
}

/* `whole`: the sum of its chunk's variances, and the variance of the row's logits in it. */
static void visit(walk *w, size_t level, size_t g, const double whole[2]) {
    const naive_forest *f = w->f;
    const double *q = w->row->q;
    naive_node n = naive_node_create(f);
    naive_node_of(f, level, g, &n);
    double variance = 0, chunk[2] = {sum_of(n.variance, f->dim), 0};
    for (size_t d = 0; d < f->dim; d++)
        variance += q[d] * q[d] * n.variance[d];
    chunk[1] = variance;
    if (level < f->top) {
        variance = whole[0] > 0 ? chunk[0] / whole[0] * whole[1] : 0;
        chunk[0] = whole[0];
        chunk[1] = whole[1];
    }
    double lifted = lift(variance, (double)naive_node_size(f, level)),
           l = dot(q, n.mean, f->dim) + n.log_mass + lifted;
    bool open = n.count > 0 && w->row->open && variance > 0;
    if (w->row->judge)
        open = naive_far_opens(f, w->row->judge, level, &n, (const double[]){l, lifted, variance});
    if (w->row->judge)
        w->row->judge->opened[naive_far_index(f, level, g)] = open;
    if (w->row->opened)
        open = w->row->opened[naive_far_index(f, level, g)];
    if (n.count > 0 && !open) {
        add(w, l, n.value);
        if (level == 0 && slope_of(f, &n, whole[0]) > 0) {
            double more = l + log(slope_of(f, &n, whole[0]));
            w->slopes = fmax(w->slopes, more) + log1p(exp(-fabs(w->slopes - more)));
        }
    }
    size_t size = naive_node_size(f, level), child = level ? naive_node_size(f, level - 1) : 1;
    for (size_t c = g * size / child; open && c < (g + 1) * size / child && c * child < f->slots; c++) {
        if (level)
            visit(w, level - 1, c, chunk);
        else if (f->biases[c] > -INFINITY) {
            add(w, dot(q, f->keys + c * f->dim, f->dim) + f->biases[c], f->values + c * f->value_dim);
            w->far->exact++;
        }
    }
    naive_node_free(&n);
}

/* The largest nodes wholly before the row's own chunk, where they are enough, and smaller ones for the rest.
 */
static void visit_roots(walk *w) {
    const naive_forest *f = w->f;
    size_t covered = w->row->past * f->chunk, level = f->levels - 1, begin = 0;
    while (level > f->top && covered / naive_node_size(f, level) < OP_ROOTS_LEAST)
        level--;
    for (;; level--) {
        size_t size = naive_node_size(f, level);
        for (; begin + size <= covered || (w->row->rest && begin < covered); begin += size)
            visit(w, level, begin / size, NULL);
        if (level == f->top)
            return;
    }
}

/* Adds what the leaves of a chunk have of it: Σ n Cov(k, v) to the covariance; returns Σ n σ. */
static double add_covariance(const naive_forest *f, size_t g, double *covariance) {
    naive_node chunk = naive_node_create(f), leaf = naive_node_create(f);
    double slopes = 0;
    naive_node_of(f, f->top, g, &chunk);
    for (size_t n = g * f->chunk / f->leaf; n < (g + 1) * f->chunk / f->leaf; n++) {
        naive_node_of(f, 0, n, &leaf);
        double slope = slope_of(f, &leaf, sum_of(chunk.variance, f->dim));
        slopes += leaf.count * slope;
        for (size_t s = n * f->leaf; s < (n + 1) * f->leaf && slope > 0; s++)
            for (size_t i = 0; i < f->dim * f->value_dim && f->biases[s] > -INFINITY; i++) {
                size_t d = i / f->value_dim, e = i % f->value_dim;
                covariance[i] += leaf.count * exp(f->biases[s] - leaf.log_mass) *
                                 (f->keys[s * f->dim + d] - leaf.mean[d]) * f->values[s * f->value_dim + e];
            }
    }
    naive_node_free(&chunk);
    naive_node_free(&leaf);
    return slopes;
}

double *naive_covariances(const naive_forest *f) {
    size_t size = f->dim * f->value_dim, runs = f->slots / f->chunk / NAIVE_RUN;
    double *sum = calloc(size, sizeof *sum), *covariances = calloc(runs * size + 1, sizeof *sum), slopes = 0;
    for (size_t g = 0; g < runs * NAIVE_RUN; g++) {
        slopes += add_covariance(f, g, sum);
        double *of_run = covariances + g / NAIVE_RUN * size;
        for (size_t i = 0; i < size && slopes > 0; i++)
            of_run[i] = sum[i] / slopes;
    }
    free(sum);
    return covariances;
}

/* Closed leaves' values follow their keys: moves the output. */
static void tilt(const walk *w, double lse, double *out) {
    const naive_forest *f = w->f;
    size_t chunks = w->row->past, wide = f->value_dim;
    if (chunks * f->chunk > w->row->keys)
        chunks = w->row->keys / f->chunk;
    if (chunks < NAIVE_RUN || w->slopes == -INFINITY)
        return;
    const double *covariance = f->covariances + (chunks / NAIVE_RUN - 1) * f->dim * wide;
    double *move = calloc(wide, sizeof *move);
    for (size_t i = 0; i < f->dim * wide; i++)
        move[i % wide] += w->row->q[i / wide] * covariance[i];
    double size = sqrt(dot(move, move, wide));
    for (size_t e = 0; e < wide; e++)
        out[e] += exp(w->slopes - lse) * move[e] / fmax(size, 1);
    free(move);
}

/* All sources so far as one state. */
static double merge(const walk *w, double *value) {
    naive_state state = {.value = value, .width = w->f->value_dim};
    naive_state_of(&state, w->count, w->l, w->v);
    return state.lse;
}

/* `count` keys with their values; bias may be NULL. */
static void add_keys(walk *w, size_t count, const double *k, const double *v, const double *bias) {
    const naive_forest *f = w->f;
    for (size_t j = 0; j < count; j++) {
        double more = bias ? bias[j] : 0;
        if (more == -INFINITY)
            continue;
        add(w, dot(w->row->q, k + j * f->dim, f->dim) + more, v + j * f->value_dim);
        w->far->exact++;
    }
}

void naive_near_far(const naive_forest *f, const naive_far_row *row, naive_far *far) {
    walk w = {.f = f, .row = row, .far = far, .slopes = -INFINITY};
    far->exact = 0;
    add_keys(&w, row->own, row->k, row->v, row->bias);
    add_keys(&w, row->apart, f->keys + f->slots * f->dim, f->values + f->slots * f->value_dim,
             f->biases + f->slots);
    if (row->past)
        visit_roots(&w);
    far->lse = merge(&w, far->out);
    tilt(&w, far->lse, far->out);
    free(w.l);
    free(w.v);
}
