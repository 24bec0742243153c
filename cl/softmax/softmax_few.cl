/* Exact softmax attention of few queries over many keys, as in decoding, for GPUs. Mathematics and shapes as in
 * softmax.cl.
 *
 * The keys are cut into `splits` ranges of `share` keys. A work-group takes one range for all ROWS queries of all heads
 * that share its key head, WG keys at a time: an item scores one key against every row, the group finds the rows' new
 * tops in local memory, and then the items go along the columns of the values, which are read side by side. What a
 * group knows then is a state per row (op.h); softmax_merge.cl merges a row's states.
 *
 * Work: grid (splits·WG, Hk, B). Local memory: ROWS · (2 WG + D) floats. */
#include "softmax/softmax.clh"
#include "shared/tensor.clh"

#ifndef ROWS /* N·H/Hk */
#define ROWS 1
#endif
#define UNROLL _Pragma("unroll")
/* Always: see local_tile.clh. */
#define INLINED static inline __attribute__((always_inline))

/* Items side by side along the columns of a value, rows of values at once, and columns of an item. */
#define LANES (DV < WG ? DV : WG)
#define AT_ONCE (WG / LANES)
#define EACH ((DV + LANES - 1) / LANES)

/* part[r·WG] = the join of part[r·WG …] for every row; the rest of part is spent. */
#define JOIN(part, item, operation)                                                                                    \
    for (uint reach_ = WG / 2; reach_ > 0; reach_ /= 2) {                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (item < reach_)                                                                                             \
            UNROLL                                                                                                     \
        for (uint r_ = 0; r_ < ROWS; ++r_)                                                                             \
            part[r_ * WG + item] = operation(part[r_ * WG + item], part[r_ * WG + item + reach_]);                     \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);
#define PLUS(a, b) ((a) + (b))

static inline float score(local const float *q, global const ELEMENT(K_TYPE) *k) {
    floatW lanes = (floatW)(0.0f);
    uint d = 0;
    for (; d + W <= D; d += W)
        lanes = MAD(CAT(vload, W)(0, q + d), LOADW(K_TYPE, k, d), lanes);
    float total = SUM(lanes);
    for (; d < D; ++d)
        total = MAD(q[d], LOAD(K_TYPE, k, d), total);
    return total;
}

/* What an item knows of the rows: their tops, its share of their masses and its columns of their sums. */
typedef struct rows {
    float top[ROWS], mass[ROWS], sum[ROWS][EACH];
} rows;

INLINED void rows_clear(private rows *r) {
    UNROLL
    for (uint i = 0; i < ROWS; ++i) {
        r->top[i] = -INFINITY;
        r->mass[i] = 0.0f;
        UNROLL
        for (uint e = 0; e < EACH; ++e)
            r->sum[i][e] = 0.0f;
    }
}

/* Makes the logits in `weights` weights; `joined` [ROWS][WG] begins each row with its largest. */
INLINED void rows_weigh(private rows *r, uint item, local float *weights, local const float *joined) {
    UNROLL
    for (uint i = 0; i < ROWS; ++i) {
        float most = fmax(r->top[i], joined[i * WG]), base = most == -INFINITY ? 0.0f : most;
        float shrink = exp(r->top[i] - base), weight = exp(weights[i * WG + item] - base);
        r->mass[i] = r->mass[i] * shrink + weight;
        weights[i * WG + item] = weight;
        r->top[i] = most;
        UNROLL
        for (uint e = 0; e < EACH; ++e)
            r->sum[i][e] *= shrink;
    }
}

/* Adds values `turn`, turn + AT_ONCE, … of `count`. */
INLINED void rows_add(private rows *r, uint lane, uint turn, uint count, local const float *weights,
                      global const ELEMENT(V_TYPE) *v, INDEX pitch) {
    for (uint x = turn; turn < AT_ONCE && x < count; x += AT_ONCE)
        UNROLL
    for (uint e = 0; e < EACH; ++e) {
        uint d = lane + e * LANES;
        float value = d < DV ? LOAD(V_TYPE, v, x * pitch + d) : 0.0f;
        UNROLL
        for (uint i = 0; i < ROWS; ++i)
            r->sum[i][e] = MAD(weights[i * WG + x], value, r->sum[i][e]);
    }
}

/* The items' shares become the range's states, `splits` apart. */
INLINED void rows_store(private rows *r, uint item, uint splits, local float *weights, local float *joined,
                        global float *part_lse, global float *part_value) {
    uint lane = item % LANES, turn = item / LANES;
    UNROLL
    for (uint i = 0; i < ROWS; ++i)
        joined[i * WG + item] = r->mass[i];
    JOIN(joined, item, PLUS)
    UNROLL
    for (uint e = 0; e < EACH; ++e) {
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (uint i = 0; i < ROWS; ++i)
            weights[i * WG + item] = r->sum[i][e];
        barrier(CLK_LOCAL_MEM_FENCE);
        if (turn == 0 && lane + e * LANES < DV)
            UNROLL
        for (uint i = 0; i < ROWS; ++i) {
            float total = 0.0f, whole = joined[i * WG];
            for (uint t = 0; t < AT_ONCE; ++t)
                total += weights[i * WG + t * LANES + lane];
            part_value[(INDEX)i * splits * DV + lane + e * LANES] = whole == 0.0f ? 0.0f : total / whole;
            if (e == 0 && lane == 0)
                part_lse[i * splits] = whole == 0.0f ? -INFINITY : r->top[i] + log(whole);
        }
    }
}

/* Row r of a key head is query r % queries of its head r / queries. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_few(uint queries, uint keys, uint group, float scale, int diagonal, uint share, global const ELEMENT(Q_TYPE) *q,
            INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
            global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
            global float *part_lse, global float *part_value) {
    local float scaled[ROWS * D], weights[ROWS * WG], joined[ROWS * WG];
    uint item = get_local_id(0), split = get_group_id(0), splits = get_num_groups(0);
    uint h = get_global_id(1), b = get_global_id(2), end = min(keys, (split + 1) * share);
    q += q_at.s0 + b * q_at.s1 + h * group * q_at.s2;
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + h * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + h * bias_at.s2;
#endif
    for (uint x = item; x < ROWS * D; x += WG) {
        uint r = x / D;
        scaled[x] = scale * LOAD(Q_TYPE, q, r / queries * q_at.s2 + r % queries * q_at.s3 + x % D);
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    rows own;
    rows_clear(&own);
    for (uint begin = split * share; begin < end; begin += WG) {
        uint j = begin + item;
        UNROLL
        for (uint r = 0; r < ROWS; ++r) {
            float l = -INFINITY;
            uint i = r % queries;
            if (j < end && j < visible_keys(i, diagonal, keys) && j >= first_key(i, diagonal, keys)) {
#if BIAS
                l = LOAD(BIAS_TYPE, bias, j * bias_at.s3);
                if (l != -INFINITY)
                    l += CAPPED(score(scaled + r * D, k + (INDEX)j * k_at.s3));
#else
                l = CAPPED(score(scaled + r * D, k + (INDEX)j * k_at.s3));
#endif
            }
            weights[r * WG + item] = joined[r * WG + item] = l;
        }
        JOIN(joined, item, fmax)
        rows_weigh(&own, item, weights, joined);
        barrier(CLK_LOCAL_MEM_FENCE);
        rows_add(&own, item % LANES, item / LANES, min((uint)WG, end - begin), weights, v + (INDEX)begin * v_at.s3,
                 v_at.s3);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    INDEX at = ((INDEX)b * get_global_size(1) + h) * ROWS * splits + split;
    rows_store(&own, item, splits, weights, joined, part_lse + at, part_value + at * DV);
}
