/* The table of contents of the mathematics: one prototype per operation.
 *
 * One idea carries all of them. A row's weighted mean over sources with log-weights l and values v
 * is a **state** (lse, value): lse = ln Σ e^l, value = Σ e^(l−lse) v. Two states over disjoint sources
 * merge into one:
 *
 *     lse = ln(e^lse1 + e^lse2)      value = e^(lse1−lse) value1 + e^(lse2−lse) value2
 *
 * No source at all is (−inf, 0). An attention's (out, lse) is a state; so is what a splat knows of the
 * keys. Key blocks, segments of a long input, the causal past and the levels all meet in that rule, and
 * since lse stays a logarithm nothing under- or overflows.
 *
 *     softmax   row: query    source: key     log-weight: scale q·k + b                      value: v
 *     write     row: splat    source: key     log-weight: φ_s(k) + b                         value: v
 *     scan      row: splat    source: states of consecutive segments, in their order
 *     read      row: query    source: splat   log-weight: ln w + ln a_s + φ_s(q) + lse_s     value: value_s
 *
 * read ∘ write is Gaussian attention: Σ_j Σ_s w a_s e^(φ_s(q)+φ_s(k_j)+b_j) v_j with the sums in the
 * other order. The causal form reads what was written before the query's chunk of keys, and adds the pairs
 * within the chunk one by one.
 *
 * Every operation has a table of variants; row 0 is plain OpenCL C 1.2 for any device. */
#ifndef CLSPLAT_OP_OP_H
#define CLSPLAT_OP_OP_H

#include <clsplat/attention.h>

#include "runtime/launch.h"

/* Where a tensor's numbers are: elements from the buffer's start to [0,0,0,0], and from one batch
 * entry, head and row to the next. */
typedef struct op_tensor {
    cl_mem mem; /* NULL: absent */
    clsplat_dtype dtype;
    size_t offset, batch, head, row;
} op_tensor;

/* B, H, Hk, N, M, D, Dv. */
typedef struct op_shape {
    size_t batch, heads, kv_heads, queries, keys, dim, value_dim;
} op_shape;

/* Query i sees key j if j ≤ i + diagonal. */
enum { OP_SEES_ALL = INT32_MAX };

/* A splat set as kernels want it: sorted by level, logarithms combined (in double, on the host). */
typedef struct op_splats {
    clsplat_covariance covariance;
    size_t heads, count, dim, levels;
    cl_mem mean;        /* [Hs,S,D] */
    cl_mem inverse;     /* e^(−½(log_var+log_temperature)) [Hs,S,1 or D], or (L/√τ)ᵀ [Hs,S,D,D] */
    cl_mem log_weight;  /* ln a [Hs,S] */
    cl_mem level_begin; /* [L+1] uint: the splats of level l are level_begin[l] … level_begin[l+1]−1 */
    cl_mem level_log_weight; /* ln w [L] */
} op_splats;

/* A softmax state for every row of out: [B,H,N]. */
typedef struct op_softmax_args {
    op_shape shape;
    float scale;
    int32_t diagonal;
    bool accumulate; /* out and lse already hold the state of other keys: merge with it */
    op_tensor q, k, v, key_bias, out, lse;
} op_softmax_args;
clsplat_status op_softmax(queue *q, const op_softmax_args *args);

/* The states of the splats: [B,Hw,segments,S], with Hw = kv_heads for a shared set (its states do
 * not depend on the query head) and Hw = heads otherwise. Segment g holds the keys from g·segment. */
typedef struct op_state {
    cl_mem lse;   /* [B,Hw,segments,S] */
    cl_mem value; /* [B,Hw,segments,S,Dv] */
    size_t heads, segments;
} op_state;
size_t op_state_heads(const op_shape *shape, const op_splats *splats);

typedef struct op_write_args {
    op_shape shape;
    const op_splats *splats;
    size_t segment; /* keys per segment */
    op_tensor k, v, key_bias;
    op_state state; /* written: segments = ⌈keys / segment⌉ */
} op_write_args;
clsplat_status op_write(queue *q, const op_write_args *args);

/* Merges `part`'s segments one after the other into `carry` (one segment). With `exclusive`, segment g of
 * part becomes the carry from before it, so that the queries of segment g can read their past. */
typedef struct op_scan_args {
    op_shape shape;
    const op_splats *splats;
    bool exclusive;
    bool begin; /* carry starts as (−inf, 0) */
    op_state part, carry;
} op_scan_args;
clsplat_status op_scan(queue *q, const op_scan_args *args);

/* φ_s(x) for every row x and splat s: [B,Hx,rows,S]. For the pairs within a causal chunk. */
typedef struct op_respond_args {
    size_t batch, heads, rows, dim;
    size_t splat_group; /* head h uses splats of head h / splat_group if the set is per head… */
    const op_splats *splats;
    op_tensor x;
    cl_mem response;
} op_respond_args;
clsplat_status op_respond(queue *q, const op_respond_args *args);

/* (out, lse) of every query from the states of the splats.
 *
 * Causal: key j of the panel lies in chunk j / chunk; query i sees the states of segment (i+diagonal) / chunk
 * of `state`, plus, through query_response and key_response, the keys of that chunk up to i + diagonal. */
typedef struct op_read_args {
    op_shape shape;
    const op_splats *splats;
    clsplat_mixing mixing;
    op_tensor q, out, lse;
    op_state state;
    bool causal;
    int32_t diagonal;
    size_t chunk;
    cl_mem query_response, key_response;
    op_tensor v, key_bias;
} op_read_args;
clsplat_status op_read(queue *q, const op_read_args *args);

#endif
