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
 *     near_far  row: query    source: node    log-weight: ln n + scale q·c + ½γ scale² |q|² σ²  value: mean v
 *                             source: key     as in softmax, below nodes that are opened and in the own chunk
 *
 * read ∘ write is Gaussian attention: Σ_j Σ_s w a_s e^(φ_s(q)+φ_s(k_j)+b_j) v_j with the sums in the
 * other order. The causal form reads what was written before the query's chunk of keys, and adds the pairs
 * within the chunk one by one.
 *
 * Their gradients are in op/backward.h and op/layer/layer_backward.h.
 *
 * Every operation has a table of variants; row 0 is plain OpenCL C 1.2 for any device. */
#ifndef CLSPLAT_OP_OP_H
#define CLSPLAT_OP_OP_H

#include <clsplat/attention.h>

#include "cl/shared/constants.h"
#include "op/dtype.h"
#include "op/workspace.h"
#include "runtime/launch.h"

/* A tensor [batch, head, row, column] in a buffer: elements from the buffer's start to [0,0,0,0], and
 * from one batch entry, head and row to the next. */
typedef struct op_tensor {
    cl_mem mem;          /* NULL: absent */
    clsplat_dtype dtype; /* or, where an operation says so, one of op/dtype.h */
    size_t shape[4];
    size_t offset, stride[3];
} op_tensor;

/* The part [begin, begin + count) of a dimension (0 batch, 1 head, 2 row). An absent tensor stays absent. */
op_tensor op_slice(op_tensor tensor, int dimension, size_t begin, size_t count);

/* Query i sees key j if j ≤ i + diagonal, and with the diagonal OP_SEES_ALL every key. */

/* A splat set as kernels want it: sorted by level, logarithms combined (in double, on the host). */
typedef struct op_splats {
    clsplat_covariance covariance;
    size_t heads, count, dim, levels;
    cl_mem mean;    /* [Hs,S,D] */
    cl_mem inverse; /* e^(−½(log_var+log_temperature)) [Hs,S,1 or D], or (L/√τ)ᵀ [Hs,S,D,D] */
    cl_mem centre;  /* [Hs,D]: the mean of a head's means */
    double spread; /* the largest |μ − centre| / (σ √τ) of a dimension: what distances from the centre can
                      lose */
    double distance;    /* the same from the origin: isotropic sets */
    cl_mem log_weight;  /* ln a [Hs,S] */
    cl_mem level_begin; /* [L+1] uint: the splats of level l are level_begin[l] … level_begin[l+1]−1 */
    cl_mem level_log_weight; /* ln w [L] */
    size_t first_head;       /* of the set, for head 0 of the tensors of a call; 0 for a whole tensor */
} op_splats;

/* (out, lse) for every query. Shapes: q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,Dv], key_bias [B,Hk,M,1],
 * out [B,H,N,Dv], lse [B,H,N,1]. */
typedef struct op_softmax_args {
    op_tensor q, k, v, key_bias, out, lse;
    float scale;
    int32_t diagonal;
    bool accumulate; /* out and lse already hold the state of other keys: merge with it */
    uint32_t window; /* query i sees the last so many of the keys up to its diagonal, i + diagonal − window <
                        j; 0: all */
    float cap;       /* products are cap tanh(scale q·k / cap); 0: as they are. Source: Gemma 2,
                        arXiv 2408.00118 */
} op_softmax_args;
clsplat_status op_softmax(queue *q, const op_softmax_args *args);

/* Softmax attention of every query over a few of the keys that it sees, the rest dropped: the `keep` keys of
 * the largest scores (block 1), or the keep / block blocks of consecutive keys of the largest mean scores, at
 * least the block of the last key, which is always among them. What ties with the last one comes along.
 *
 * Every score is computed to find them, so this is no faster than exact attention: it is what sparse
 * attention is at its best, for others to be compared with. Shapes as for softmax. */
typedef struct op_topk_args {
    op_tensor q, k, v, out;
    float scale;
    int32_t diagonal;
    size_t keep, block;
    cl_mem scores; /* workspace of op_topk_scores numbers */
} op_topk_args;
size_t op_topk_scores(const op_topk_args *args);
clsplat_status op_topk(queue *q, const op_topk_args *args);

/* squares [B,H,N,2], dense: Σ (a − b)² and Σ b² of every row. Shapes: a, b [B,H,N,C]. */
typedef struct op_distance_args {
    op_tensor a, b;
    cl_mem squares;
} op_distance_args;
clsplat_status op_distance(queue *q, const op_distance_args *args);

/* The normalised states of splats, for segments of consecutive keys. They do not depend on the query
 * head if the set is shared: heads Hw = Hk for a shared set, H otherwise. */
typedef struct op_state {
    cl_mem lse;   /* [B,Hw,segments,S] */
    cl_mem value; /* [B,Hw,segments,S,Dv] */
    size_t segments;
} op_state;

/* Fills `state`: segment g from the keys g·segment to (g+1)·segment − 1. */
typedef struct op_write_args {
    const op_splats *splats;
    size_t heads;   /* Hw */
    size_t segment; /* keys in each */
    op_tensor k, v, key_bias;
    op_state state;
} op_write_args;
clsplat_status op_write(queue *q, const op_write_args *args);

/* Merges the segments of `part`, in their order, into the carry [B·Hw,S,Dv+2] (unnormalised: top, mass, sum).
 * Exclusive: segment g of part becomes the state of everything before it. Otherwise the merged
 * state goes to `result`, of one segment. */
typedef struct op_scan_args {
    const op_splats *splats;
    size_t rows; /* B·Hw */
    size_t value_dim;
    bool begin; /* the carry starts empty, whatever the buffer holds */
    bool exclusive;
    op_state part, result;
    cl_mem carry;
} op_scan_args;
clsplat_status op_scan(queue *q, const op_scan_args *args);

/* φ_s(x) for every row x and splat s: log-density [B,heads,rows,S]; head h reads x of head h / (heads / Hx).
 */
typedef struct op_log_density_args {
    const op_splats *splats;
    size_t heads;
    op_tensor x;
    cl_mem log_density;
} op_log_density_args;
clsplat_status op_log_density(queue *q, const op_log_density_args *args);

/* (out, lse) of every query from the states of the splats.
 *
 * Causal: `state` holds, for each chunk of `chunk` keys, what came before it; query i reads the
 * segment of the last key it sees, i + diagonal, and then that chunk's keys up to it, one by one. */
typedef struct op_read_args {
    const op_splats *splats;
    size_t kv_heads;
    clsplat_mixing mixing;
    op_tensor q, out, lse;
    op_state state;
    bool causal; /* what follows is for this */
    int32_t diagonal;
    size_t chunk;
    cl_mem query_log_density, key_log_density; /* [B,H,N,S], [B,Hw,M,S] */
    op_tensor v, key_bias;
} op_read_args;
clsplat_status op_read(queue *q, const op_read_args *args);

/* The keys of completed chunks as trees of splats: what near-far attention walks through.
 *
 * Chunk c has the keys [c·chunk, (c+1)·chunk) of the sequence. Its keys are reordered so that every node of
 * its balanced tree is a run of consecutive **slots**: node g of level l has the slots [g·size, (g+1)·size)
 * with
 *
 *     size = leaf·16^l below the level `top`      chunk·16^(l−top) from there on (above it, runs of chunks)
 *
 * Keys of bias −inf, and those that an unfinished last chunk lacks, have the last slots of their chunk, and
 * so a node of a chunk has its keys in its first `count` slots. A node is described by the means of its keys
 * and values, weighted by e^b, and by how its keys vary: in each dimension from the level `top` on, and below
 * by one number, the share that the node's total variance has in its chunk's.
 *
 * Every array begins with [B][Hk]; what follows lies in **blocks** of 16 slots or nodes, along the last
 * dimension where vectors want it. Slot s is lane s%16 of block s/16; node g of level l lane g%16 of block
 * first_block[l] + g/16.
 *     keys         [slots/16][D][16]               of `dtype`
 *     values       [slots][Dv]                     of `dtype`
 *     biases       [slots]                         F32; −inf: no key, and then key and value are 0
 *     means        [blocks][D][16]                 of `dtype`
 *     variances    [blocks of top and above][D][16]  F32
 *     mean_values  [blocks·16][Dv]                 of `dtype`
 *     stats        [blocks][5][16]                 F32, see below; without keys log-mass −inf, and else 0s
 *     covariances  [runs][D][Dv]                   F32
 *
 * The covariances of a run are those of keys and values within leaves, per slope: how far the values of a
 * closed leaf follow its keys on average. For the first run + 1 **runs** of OP_FOREST_RUN chunks,
 *
 *     Σ n Cov(k, v) / Σ n σ    over their leaves, of n keys;  Cov(k, v) = Σ e^b (k − c) (v − V)ᵀ / Σ e^b
 *
 * with the leaf's means c and V, and its slope σ, the root of its share of its chunk's variance times its
 * spread. Leaves that vary twice as much as their chunk are left out: one key that sticks out would speak for
 * all.
 *
 * Stats of a node (cl/shared/constants.h):
 *     OP_NODE_LOG_MASS  ln Σ e^b
 *     OP_NODE_VARIANCE  Σ_d of the node's variances, over that of its chunk; 1 from the level `top` on
 *     OP_NODE_SPREAD    √Σ_d of the variances of the values
 *     OP_NODE_COUNT     of keys
 *     OP_NODE_REACH     the farthest key's distance from the mean, over the root of the mean square */
typedef struct op_forest {
    size_t batch, heads, dim, value_dim; /* B, Hk, D, Dv */
    clsplat_dtype dtype;
    size_t leaf, chunk, chunks; /* keys in one; how many chunks there is room for */
    size_t apart_chunks;        /* the first so many may set keys apart */
    size_t top, levels;
    size_t first_block[OP_FOREST_LEVELS + 1]; /* the last is their number */
    cl_mem keys, values, biases, means, variances, mean_values, stats, covariances, apart;
} op_forest;

/* Grows the trees of the chunks from first_chunk on, and the nodes above them. Row 0 of k is the first key of
 * that chunk; the last chunk may lack keys, and may be gathered again when it has more. */
typedef enum op_gather_phase {
    OP_GATHER_FIND =
        1, /* which keys stand apart: lists, and each chunk's number in the place after its own */
    OP_GATHER_COUNT = 2,  /* from numbers to how many there are before each chunk */
    OP_GATHER_CHUNKS = 4, /* keys apart to their slots, the chunks' trees, and the sums of whole runs */
    OP_GATHER_MEANS = 8,  /* from sums of runs to covariances */
    OP_GATHER_ABOVE = 16  /* nodes above chunks */
} op_gather_phase;
typedef struct op_gather_args {
    const op_forest *forest;
    size_t first_chunk;
    op_tensor k, v, key_bias; /* [B,Hk,keys,D], [B,Hk,keys,Dv], [B,Hk,keys,1] */
    unsigned phases;          /* of op_gather_phase, by whoever has chunks of his own in each; 0: all */
} op_gather_args;
clsplat_status op_gather(queue *q, const op_gather_args *args);

/* (out, lse) of every query over the keys j ≤ i + diagonal of a sequence of `keys` keys. The own chunk of a
 * query is that of the last key it sees, and exact, up to that key; chunks before it, or all of them for
 * OP_SEES_ALL, are the forest's.
 *
 * Strictly causal: of the forest a query reads only nodes whose keys all are in chunks before its own.
 *
 * k, v and key_bias need to hold the queries' own chunks only: their row 0 is the key number `first_key`. */
typedef struct op_near_far_args {
    const op_forest *forest;
    op_tensor q, k, v, key_bias, out, lse;
    op_tensor exact_keys;     /* [B,H,N,1], I32; may be absent */
    op_tensor error_estimate; /* [B,H,N,1]; may be absent */
    cl_mem kept;  /* [B,H,N,OP_KEPT]: what a row decided by (cl/tree/near_far_args.clh); NULL: not wanted */
    cl_mem notes; /* [B,H,chunks,N]: what a row opened of each chunk (cl/tree/near_far_notes.clh); likewise */
    float scale;
    int32_t diagonal;
    size_t keys, first_key;
    float tolerance;    /* the relative error of a row's out that is accepted; INFINITY: nothing is opened */
    size_t sparse_topk; /* the most keys of a row that are exact, its own chunk's included; 0: no limit */
} op_near_far_args;
clsplat_status op_near_far(queue *q, const op_near_far_args *args);

/* C = A Bᵀ, as projections need it. Shapes: a [B,H,M,K], b [B,H,N,K], c [B,H,M,N]; a batch or head stride of
 * 0 repeats a matrix. Sums are float32 whatever the storage types. b may be in blocks. */
typedef struct op_gemm_args {
    op_tensor a, b, c;
} op_gemm_args;
clsplat_status op_gemm(queue *q, const op_gemm_args *args);

/* The same of factors that may lie transposed: a [B,H,K,M], b [B,H,K,N]. Those are not in blocks, and their
 * matrices do not repeat. */
typedef struct op_gemm_transposed_args {
    op_tensor a, b, c;
    bool a_transposed, b_transposed;
} op_gemm_transposed_args;
clsplat_status op_gemm_transposed(queue *q, const op_gemm_transposed_args *args);

/* What a transformer's layers need beside products and attention. */

/* Rows are added to and normalised: x += add + bias where they are given, then
 *
 *     out = (offset + weight) · x / √(mean x² + ε)                             root mean square
 *     out = (offset + weight) · (x − mean x) / √(var x + ε) + shift            centred
 *     out = x                                                                  without a weight
 *
 * and with `replace` x becomes out, too (before it is rounded to out's type). Shapes: x, add, out [B,H,N,C],
 * out perhaps where x is; bias, weight, shift [1,1,1,C]. Source: Zhang and Sennrich 2019 (arXiv 1910.07467);
 * Ba, Kiros and Hinton 2016 (arXiv 1607.06450) for the centred one. */
typedef struct op_norm_args {
    op_tensor x, add, bias, weight, shift, out;
    float epsilon, offset; /* offset: 0 or 1 */
    bool centred, replace;
} op_norm_args;
clsplat_status op_norm(queue *q, const op_norm_args *args);

/* turn_i = [cos((first + i) f) · factor, sin((first + i) f) · factor]: the rotations of positions, for
 * op_rope. Shapes: frequencies [D/2], turn [N,D], both float32. Source: Su et al. 2021 (arXiv 2104.09864). */
typedef struct op_turn_args {
    cl_mem frequencies, turn;
    size_t rows, dim;
    uint32_t first;
    float factor;
} op_turn_args;
clsplat_status op_turn(queue *q, const op_turn_args *args);

/* Projected rows become heads: queries and keys are biased, normalised (as op_norm, if there are weights) and
 * turned, values biased; all go where they stay. Shapes: x [B,H+2·Hk,N,D], the heads of queries, then of
 * keys, then of values; bias [1,H+2·Hk,1,D], q_weight, k_weight [1,1,1,D]; turn [N,D]; q [B,H,N,D], perhaps
 * where x is; k, v [B,Hk,N,D]. */
typedef struct op_rope_args {
    op_tensor x, bias, q_weight, k_weight;
    cl_mem turn;
    op_tensor q, k, v;
    float epsilon;
} op_rope_args;
clsplat_status op_rope(queue *q, const op_rope_args *args);

/* out = f(x + bias), or for `gated` f(g) · u for the halves g and u of x + bias. Shapes: x [B,H,N,C or 2·C],
 * bias [1,1,1,C or 2·C], out [B,H,N,C], perhaps where x is unless gated. Source: Hendrycks and Gimpel 2016
 * (arXiv 1606.08415) for GELU, Shazeer 2020 (arXiv 2002.05202) for gates. */
typedef enum op_activation {
    OP_IDENTITY = ACTIVATION_IDENTITY,
    OP_SILU = ACTIVATION_SILU,           /* y / (1 + e^(−y)) */
    OP_GELU = ACTIVATION_GELU,           /* y Φ(y) */
    OP_GELU_TANH = ACTIVATION_GELU_TANH, /* y ½ (1 + tanh(√(2/π) (y + 0.044715 y³))) */
    OP_RELU = ACTIVATION_RELU,
    OP_TANH = ACTIVATION_TANH,
    OP_SOFT_CAP = ACTIVATION_SOFT_CAP /* cap tanh(y / cap) */
} op_activation;
typedef struct op_activate_args {
    op_tensor x, bias, out;
    op_activation activation;
    bool gated;
    float cap;
} op_activate_args;
clsplat_status op_activate(queue *q, const op_activate_args *args);

/* out_i = scale · table[ids_i − table_row], or as it was if there is no such row: a table may come in parts.
 * Shapes: ids [N] int32; table [1,1,V,C], perhaps in blocks; out [1,1,N,C]. */
typedef struct op_embed_args {
    cl_mem ids;
    size_t first; /* the first of ids that counts */
    op_tensor table, out;
    size_t table_row;
    float scale; /* 0: 1 */
} op_embed_args;
clsplat_status op_embed(queue *q, const op_embed_args *args);

/* log_likelihood_i = l_i,target − ln Σ_v e^(l_iv), and whether target is the first of the largest l_iv.
 * Shapes: logits [1,1,N,V]; targets, greedy [N] int32; log_likelihood [N] float32; first as above, for all
 * three. */
typedef struct op_score_args {
    op_tensor logits;
    cl_mem targets, log_likelihood, greedy;
    size_t first;
} op_score_args;
clsplat_status op_score(queue *q, const op_score_args *args);

/* Draws a token from logits [1,1,1,V]: see clsplat_sampling. Writes: token [1] int32. */
typedef struct op_sample_args {
    op_tensor logits;
    float temperature;
    size_t top_k;
    float top_p;
    float draw; /* from [0, 1) */
    cl_mem token;
} op_sample_args;
clsplat_status op_sample(queue *q, const op_sample_args *args);

#endif
