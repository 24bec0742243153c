/* Gradients of what a transformer's layers need beside products and attention (op.h): rows for any device,
 * and for GPUs (layer_backward_group.h). Gradients of parameters are float32 and are added to, in an order
 * that does not change: over the blocks of a batch, over steps that accumulate. Those of tokens are written,
 * in any storage type.
 *
 * A product c = a bᵀ passes back da = dc (bᵀ)ᵀ and db = dcᵀ (aᵀ)ᵀ: op_gemm_transposed. A bias passes back
 * op_column_sums. */
#ifndef CLSPLAT_OP_LAYER_LAYER_BACKWARD_H
#define CLSPLAT_OP_LAYER_LAYER_BACKWARD_H

#include "op/op.h"

/* Of op_norm: x is what it normalised (after what was added). With `add` dx is added to, as where x goes on
 * beside its norm. Shapes: x, dout, dx [B,H,N,C], all in different places; weight [1,1,1,C]; dweight
 * (NULL: neither), dshift (NULL: none) [C]; stats [B,H,N,2], workspace. Whoever wants them gets, since the
 * numbers are at hand, dx once more as another type, and what op_norm made: `out`, with `shift`. */
typedef struct op_norm_backward_args {
    op_tensor x, weight, dout, dx, dx_again, out, shift;
    cl_mem dweight, dshift, stats;
    float epsilon, offset;
    bool centred, add;
} op_norm_backward_args;
clsplat_status op_norm_backward(queue *q, const op_norm_backward_args *args);

/* Of op_activate. Shapes: x, dx [B,H,N,C or 2·C], bias [1,1,1,C or 2·C], dout [B,H,N,C]. The bias receives
 * what the columns of dx add up to. `out`, if it is wanted, is what op_activate made. */
typedef struct op_activate_backward_args {
    op_tensor x, bias, dout, dx, out;
    op_activation activation;
    bool gated;
    float cap;
} op_activate_backward_args;
clsplat_status op_activate_backward(queue *q, const op_activate_backward_args *args);

/* Of op_embed: dtable[ids_i] += scale · dout_i. Shapes: ids [N] int32, dout [1,1,N,C], dtable [V,C]. */
typedef struct op_embed_backward_args {
    cl_mem ids, dtable;
    size_t first, vocabulary;
    op_tensor dout;
    float scale; /* 0: 1 */
} op_embed_backward_args;
clsplat_status op_embed_backward(queue *q, const op_embed_backward_args *args);

/* The loss and its gradient at once, in place, so that no second array of logits is needed: logits become
 * scale · (softmax_v − [v = target]), the gradient of −scale Σ log_likelihood; rows of a target below 0 do
 * not count and become 0. Shapes: as op_score_args; targets of one kind with its `first`. */
typedef struct op_cross_entropy_args {
    op_tensor logits;
    cl_mem targets, log_likelihood;
    size_t first;
    float scale;
} op_cross_entropy_args;
clsplat_status op_cross_entropy(queue *q, const op_cross_entropy_args *args);

/* Of the turning in op_rope: dout turned back, by the same factor. Shapes: dout, dx [B,H,N,D], one perhaps
 * where the other is; turn [N,D]. Values are not turned; biases receive column sums, heads' norms are
 * op_norm_backward's. */
typedef struct op_turn_back_args {
    op_tensor dout, dx;
    cl_mem turn;
} op_turn_back_args;
clsplat_status op_turn_back(queue *q, const op_turn_back_args *args);

/* out = xᵀ. Shapes: x [B,H,N,C], out [B,H,C,N]. */
typedef struct op_transpose_args {
    op_tensor x, out;
} op_transpose_args;
clsplat_status op_transpose(queue *q, const op_transpose_args *args);

/* sums += Σ over all rows of x. Shapes: x [B,H,N,C], sums [C]. */
typedef struct op_column_sums_args {
    op_tensor x;
    cl_mem sums;
} op_column_sums_args;
clsplat_status op_column_sums(queue *q, const op_column_sums_args *args);

#endif
