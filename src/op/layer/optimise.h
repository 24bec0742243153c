/* What turns gradients into a step: rows for any device, and a GPU's sums of squares. All numbers are
 * float32, and every sum has one order, so that a step's bits are the same every time. */
#ifndef CLSPLAT_OP_LAYER_OPTIMISE_H
#define CLSPLAT_OP_LAYER_OPTIMISE_H

#include "op/op.h"

/* partials[first …] = Σ g² of op_square_parts(count) runs of g, for a norm over many tensors. */
typedef struct op_square_sums_args {
    cl_mem g, partials;
    size_t count, first;
} op_square_sums_args;
size_t op_square_parts(size_t count);
size_t op_square_run(size_t count); /* numbers of a run */
clsplat_status op_square_sums(queue *q, const op_square_sums_args *args);

/* result = [norm, factor]: the root of the sum of all partials, and what gradients are to be multiplied by so
 * that it is at most `limit` (0: no limit, factor 1). Source: Pascanu et al. 2013 (arXiv 1211.5063). */
typedef struct op_clip_factor_args {
    cl_mem partials, result;
    size_t parts;
    float limit;
} op_clip_factor_args;
clsplat_status op_clip_factor(queue *q, const op_clip_factor_args *args);

/* One step of AdamW in place. Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), with the order of
 * PyTorch's AdamW. Shapes: w, g, m, v [count]; clip is op_clip_factor's result. */
typedef struct op_adamw_args {
    cl_mem w, g, m, v, clip;
    size_t count;
    double rate, decay, beta1, beta2, epsilon;
    uint64_t step; /* from 1 */
} op_adamw_args;
clsplat_status op_adamw(queue *q, const op_adamw_args *args);

#endif
