/* The gradients' page of the table of contents (op.h): what an attention's inputs receive of dout, the
 * gradient of its out. Nothing of size N×M or N×S is kept from the forward pass: weights are computed again,
 * from lse or from the states of the splats.
 *
 * Gaussian attention has one weight for a row i, a splat s and a key j, in whichever order they are summed:
 *
 *     r_ijs = e^(e_is + κ_js)     e_is = ln w a_s + φ_s(q_i) − lse_i     κ_js = φ_s(k_j) + b_j
 *     out_i = Σ_js r_ijs v_j      and e_is, κ_js receive   Σ_j, Σ_i of  r_ijs (dout_i·v_j − δ_i),  δ_i =
 * dout_i·out_i
 *
 * so that the backward pass has the form of the forward pass, with the rows of dout in the place of values:
 *
 *     read_backward    row: query   source: splat, and its chunk's keys   gives ρ_is, what φ_s(q_i) receives
 *     collect          row: splat   source: queries (as write of keys)    gives states of [dout, δ]
 *     scan             the same as forward, over segments in reverse
 *     write_backward   row: key     source: splat, and its chunk's rows   gives σ_js, dv and the bias's
 *     token_gradient   row: token   source: splat                         gives dq from ρ, dk from σ
 *     splat_moments    row: splat   source: token                         gives what the parameters need
 *
 * Per-level mixing has an lse_l, a δ_l and a share for every level: cl/shared/backward.clh. */
#ifndef CLSPLAT_OP_BACKWARD_H
#define CLSPLAT_OP_BACKWARD_H

#include "op/op.h"

/* Shapes: as op_softmax_args; dout as out, and every gradient as what it is of. dkey_bias may be absent, also
 * where there is a key_bias. */
typedef struct op_softmax_backward_args {
    op_tensor q, k, v, key_bias, out, lse, dout; /* out and lse: op_softmax's, over all keys */
    op_tensor dq, dk, dv, dkey_bias;
    float scale;
    int32_t diagonal;
    uint32_t window; /* as in op_softmax_args */
    bool joint;      /* out and lse are of these keys and others together */
    op_tensor dlse;  /* what lse receives itself, F32, of its shape; may be absent */
} op_softmax_backward_args;
clsplat_status op_softmax_backward(queue *q, const op_softmax_backward_args *args);

/* Near-far attention over a forest of all keys, with the opened set of op_near_far: the nodes that a row
 * opens, the keys that stand apart, and which key is where in the trees are constant, and out is
 * differentiated through opened keys, and through the means, variances, mean values, masses and slopes of
 * closed nodes and the covariances of runs, to keys, values and biases (cl/tree/near_far_back.clh). Shapes:
 * as op_near_far_args, with all keys in k and v; dout as out, and every gradient as what it is of; dkey_bias
 * may be absent. */
typedef struct op_near_far_backward_args {
    const op_forest *forest;
    op_tensor q, k, v, key_bias, dout;
    op_tensor dq, dk, dv, dkey_bias;
    float scale;
    int32_t diagonal;
    float tolerance;
    size_t sparse_topk;
    /* What op_near_far left, with the same inputs: kept, or notes, as op_near_far_backward_notes tells;
     * without it the forward pass is run again. */
    op_tensor out, lse;
    cl_mem kept, notes;
} op_near_far_backward_args;
clsplat_status op_near_far_backward(queue *q, const op_near_far_backward_args *args);
/* Whether it goes by notes on such a device. */
bool op_near_far_backward_notes(const clsplat_limits *limits, const op_forest *forest, size_t rows);
/* Bytes that it needs at most on such a device, beside the forest and its arguments: the largest buffer, and
 * all. */
void op_near_far_backward_bytes(const clsplat_limits *limits, const op_forest *forest, size_t rows,
                                double *largest, double *total);

/* Numbers of a row's stats: OP_STATS of every level, or of one range in joint mixing. */
size_t op_stats_columns(const op_splats *splats, clsplat_mixing mixing);

/* ρ and the rows' stats. The states, log-densities and the causal fields are those of op_read_args. */
typedef struct op_read_backward_args {
    const op_splats *splats;
    size_t kv_heads;
    clsplat_mixing mixing;
    op_tensor dout;  /* [B,H,N,Dv] */
    op_tensor stats; /* [B,H,N,op_stats_columns], F32; is written */
    op_state state;
    cl_mem query_log_density; /* [B,H,N,S] */
    cl_mem weights;           /* ρ [B,H,N,S]; is written */
    bool causal;
    int32_t diagonal;
    size_t chunk;
    cl_mem key_log_density;
    op_tensor v, key_bias;
} op_read_backward_args;
clsplat_status op_read_backward(queue *q, const op_read_backward_args *args);

/* The states of [dout, δ], for segments of the rows i with g·segment ≤ i + diagonal < (g+1)·segment; the last
 * segment comes first. Shapes: state.lse [B,H,segments,S], state.value [B,H,segments,S,Dv+1]. */
typedef struct op_collect_args {
    const op_splats *splats;
    clsplat_mixing mixing;
    op_tensor dout, stats;
    cl_mem query_log_density;
    size_t segment;
    int32_t diagonal;
    op_state state;
} op_collect_args;
clsplat_status op_collect(queue *q, const op_collect_args *args);

/* σ, dv and dkey_bias (which may be absent). Causal: `state` holds, for each chunk of keys, the last first,
 * what the rows of later chunks have; rows and keys are those of the same chunks. */
typedef struct op_write_backward_args {
    const op_splats *splats;
    size_t heads; /* H */
    clsplat_mixing mixing;
    op_tensor v, key_bias, dv, dkey_bias;
    op_state state;
    cl_mem key_log_density; /* [B,Hw,M,S] */
    cl_mem weights;         /* σ [B,Hw,M,S]; is written */
    bool causal;
    int32_t diagonal;
    size_t chunk;
    cl_mem query_log_density; /* [B,H,N,S] */
    op_tensor dout, stats;
} op_write_backward_args;
clsplat_status op_write_backward(queue *q, const op_write_backward_args *args);

/* dx_i = Σ_s ω_is ∂φ_s(x_i)/∂x_i. Shapes: x, dx [B,Hx,rows,D]; weights [B,heads,rows,S], of which heads / Hx
 * are for one head of x. */
typedef struct op_token_gradient_args {
    const op_splats *splats;
    size_t heads;
    op_tensor x, dx;
    cl_mem weights;
} op_token_gradient_args;
clsplat_status op_token_gradient(queue *q, const op_token_gradient_args *args);

/* Adds to moments [Hs,S,op_moments_size]: Σ ω (if `amplitude`; else 0), Σ ω y [D] and the second moments in
 * y = x − μ: Σ ω |y|², Σ ω y² [D], or the entries c ≤ d of Σ ω y_c y_d [D,D] by covariance. Shapes: as
 * op_token_gradient_args. Blocks of heads may come in any number of calls, in a fixed order. */
typedef struct op_splat_moments_args {
    const op_splats *splats;
    size_t heads;
    bool amplitude;
    op_tensor x;
    cl_mem weights, moments;
} op_splat_moments_args;
size_t op_moments_size(const op_splats *splats);
clsplat_status op_splat_moments(queue *q, const op_splat_moments_args *args);

/* Adds to level_gradients [B,H,L] what the levels' log-weights receive in per-level mixing: Σ_i of the stats'
 * own. */
typedef struct op_level_gradients_args {
    size_t levels;
    op_tensor stats;
    cl_mem level_gradients;
} op_level_gradients_args;
clsplat_status op_level_gradients(queue *q, const op_level_gradients_args *args);

#endif
