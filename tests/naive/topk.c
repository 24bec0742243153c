#include <math.h>
#include <stdlib.h>

#include "naive.h"

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Which of the logits stay: those of the best blocks; the others become −inf. */
static void drop(double *l, size_t visible, size_t keep, size_t block) {
    size_t blocks = (visible + block - 1) / block, kept = keep / block ? keep / block : 1;
    if (blocks <= kept)
        return;
    double *rank = calloc(2 * blocks, sizeof *rank), *sorted = rank + blocks;
    for (size_t j = 0; j < visible; j++)
        rank[j / block] += l[j] / (double)block;
    if (block > 1)
        rank[blocks - 1] = INFINITY;
    for (size_t n = 0; n < blocks; n++)
        sorted[n] = rank[n];
    qsort(sorted, blocks, sizeof *sorted, descending);
    for (size_t j = 0; j < visible; j++)
        if (rank[j / block] < sorted[kept - 1])
            l[j] = -INFINITY;
    free(rank);
}

void naive_topk(const naive_tensors *t, double scale, size_t keep, size_t block) {
    naive_shape n = t->shape;
    double *l = calloc(n.keys, sizeof *l);
    for (size_t row = 0; row < n.batch * n.heads * n.queries; row++) {
        size_t bh = row / n.queries, i = row % n.queries;
        size_t kv = bh / n.heads * n.kv_heads + bh % n.heads / (n.heads / n.kv_heads), visible = 0;
        const double *k = t->k + kv * n.keys * n.dim;
        while (visible < n.keys && (!t->causal || visible + n.queries <= i + n.keys)) {
            l[visible] = 0;
            for (size_t d = 0; d < n.dim; d++)
                l[visible] += scale * t->q[row * n.dim + d] * k[visible * n.dim + d];
            visible++;
        }
        drop(l, visible, keep, block);
        naive_state state = {.value = t->out + row * n.value_dim, .width = n.value_dim};
        naive_state_of(&state, visible, l, t->v + kv * n.keys * n.value_dim);
    }
    free(l);
}
