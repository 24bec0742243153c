/* How far a model's rows are from those of another that it imitates, and the gradient of that, where the rows
 * were: rows for any device, and for GPUs. */
#ifndef CLSPLAT_OP_LAYER_IMITATE_H
#define CLSPLAT_OP_LAYER_IMITATE_H

#include "op/op.h"

/* error_(first+i) of row i, and x becomes the gradient of scale · Σ error. Shapes: x, goal [1,1,N,C], which
 * may be of two types; error [first + N …] float32. */
typedef struct op_imitate_args {
    op_tensor x, goal;
    cl_mem error;
    size_t first;
    float scale;
} op_imitate_args;

/* |x − goal|² / |goal|²; 0 where the goal is 0. */
clsplat_status op_relative_error(queue *q, const op_imitate_args *args);
/* Both are logits: Σ_v p_v (ln p_v − ln q_v), the Kullback-Leibler divergence of q, the softmax of x, from p,
 * that of the goal, in nats. Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), at temperature 1. */
clsplat_status op_divergence(queue *q, const op_imitate_args *args);

#endif
