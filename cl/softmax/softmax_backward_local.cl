/* Gradients of exact softmax attention in tiles of local memory (local_tile.clh), for GPUs of any vendor. Mathematics
 * and shapes as in softmax_backward.cl; any storage types, float32 arithmetic; lse is taken as it is.
 *
 * Two passes, one kernel: BY_KEYS 0 goes over the keys for a tile of queries (own q, dout; other k, v; sums dq),
 * BY_KEYS 1 over the queries for a tile of keys (own k, v; other q, dout; sums dk, dv and the bias's), over all heads
 * that share them. Either way
 *
 *     s = own_1·other_1     p = e^(scale s + b − lse)     t = p (own_2·other_2 − δ)
 *     sum_1 += t other_1    sum_2 += p other_2
 *
 * so that what is computed twice is two products of seven, and nothing is added to by two groups.
 *
 * Work: softmax_backward_stats, one work-item a query, grid (N rounded up to WG, H, B); then softmax_backward_local, a
 * group for ROWS of its own, grid (⌈rows / ROWS⌉ · WG, heads, B), the longest first. An item has four rows, CT others
 * of the scores, and of the sums every TX-th column: of one other they lie in different banks then. */
#include "softmax/softmax.clh"
#include "softmax/softmax_backward.clh"
#define RT 4
#ifndef CT
#define CT 2
#endif
#include "shared/local_tile.clh"

#ifndef OWN_1_TYPE
#define OWN_1_TYPE F32
#define OWN_2_TYPE F32
#define OTHER_1_TYPE F32
#define OTHER_2_TYPE F32
#define SUM_1_TYPE F32
#define SUM_2_TYPE F32
#endif
#ifndef BY_KEYS
#define BY_KEYS 1
#endif
#define COLUMNS_1 ((D + TX - 1) / TX) /* of an item's sums */
#define COLUMNS_2 ((DV + TX - 1) / TX)
#define floatCT CAT(float, CT)

/* Column d of another one, j; the CT of an item are a vector. */
#define OTHER_PLACE(d, j) ((d)*KEYS + ((((j) / CT) ^ (d)) & (TX - 1)) * CT + (j) % CT)

/* stats [B,H,N,2]: lse in base 2, +inf for a row without keys, and δ. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_backward_stats(uint queries, global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
                       global const ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at, global const ELEMENT(DOUT_TYPE) *dout,
                       INDEX4 dout_at, global float *stats DLSE_ARGUMENTS) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= queries)
        return;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    stats += 2 * (((INDEX)b * get_global_size(1) + h) * queries + i);
    float row_lse = LOAD(LSE_TYPE, lse + lse_at.s0 + b * lse_at.s1 + h * lse_at.s2, i * lse_at.s3);
    float delta = -DLSE_OF(b, h, i);
    for (uint d = 0; d < DV; ++d)
        delta = MAD(LOAD(DOUT_TYPE, dout, d), LOAD(OUT_TYPE, out, d), delta);
    stats[0] = row_lse == -INFINITY ? INFINITY : LOG2_E * row_lse;
    stats[1] = row_lse == -INFINITY ? 0.0f : delta;
}

/* The products of an item's four rows and CT others over `depth` columns. */
INLINED void tile_multiply(private float product[4][CT], const uint depth, uint x, uint y, local const float *own,
                           local const float *other) {
    floatCT s[4];
    UNROLL
    for (uint a = 0; a < 4; ++a)
        s[a] = (floatCT)(0.0f);
    _Pragma("unroll 8") for (uint d = 0; d < depth; ++d) {
        floatCT key = *(local const floatCT *)(other + OTHER_PLACE(d, CT * x));
        float4 row = VECTOR(own + PLACE(ROWS, d, y * 4));
        s[0] = MAD((floatCT)(row.x), key, s[0]);
        s[1] = MAD((floatCT)(row.y), key, s[1]);
        s[2] = MAD((floatCT)(row.z), key, s[2]);
        s[3] = MAD((floatCT)(row.w), key, s[3]);
    }
    UNROLL
    for (uint a = 0; a < 4; ++a)
        CAT(vstore, CT)(s[a], 0, product[a]);
}

/* sum_c += Σ_j weights_j · column x + TX c of other j. */
INLINED void tile_add(private float4 *sum, const uint depth, uint x, uint y, local const float *weights,
                      local const float *other) {
    const uint columns = (depth + TX - 1) / TX;
    _Pragma("unroll 4") for (uint j = 0; j < KEYS; ++j) {
        float4 weight = VECTOR(weights + WEIGHT_PLACE(j, y * 4));
        UNROLL
        for (uint c = 0; c < columns; ++c) {
            uint d = x + TX * c;
            if (depth % TX == 0 || d < depth)
                sum[c] = MAD(weight, (float4)(other[OTHER_PLACE(d, j)]), sum[c]);
        }
    }
}

#define SUM_STORE(type, to, pitch, depth, sum, factor)                                                                 \
    UNROLL                                                                                                             \
    for (uint a_ = 0; a_ < 4; ++a_)                                                                                    \
        UNROLL                                                                                                         \
    for (uint c_ = 0; c_ < ((depth) + TX - 1) / TX; ++c_) {                                                            \
        float rows_[4];                                                                                                \
        vstore4((sum)[c_], 0, rows_);                                                                                  \
        uint row_ = first + y * 4 + a_, d_ = x + TX * c_;                                                              \
        if (row_ < own_count && ((depth) % TX == 0 || d_ < (depth)))                                                   \
            STORE(type, (to) + row_ * (pitch), d_, rows_[a_] * (factor));                                              \
    }

/* Whether query i sees key j. */
INLINED bool is_seen(uint i, uint j, int diagonal, uint keys) {
    return j < visible_keys(i, diagonal, keys) && j >= first_key(i, diagonal, keys);
}

/* What differs between the passes and with a bias. */
#if BY_KEYS && DBIAS
#define SUMS_BY_KEYS                                                                                                   \
    , global ELEMENT(SUM_2_TYPE) *sum_2, INDEX4 sum_2_at, global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#elif BY_KEYS
#define SUMS_BY_KEYS , global ELEMENT(SUM_2_TYPE) *sum_2, INDEX4 sum_2_at
#else
#define SUMS_BY_KEYS
#endif
#if BIAS
#define PAIRS_BIAS , bias, bias_at.s3
#else
#define PAIRS_BIAS
#endif
#if DBIAS
#define BIAS_STORE(received)                                                                                           \
    float all_[4];                                                                                                     \
    dbias += dbias_at.s0 + b * dbias_at.s1 + h * dbias_at.s2;                                                          \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    rows_total(all_, received, x, y, weights);                                                                         \
    UNROLL                                                                                                             \
    for (uint a_ = 0; a_ < 4; ++a_)                                                                                    \
        if (x == 0 && first + y * 4 + a_ < own_count)                                                                  \
            STORE(DBIAS_TYPE, dbias, (first + y * 4 + a_) * dbias_at.s3, all_[a_]);
#else
#define BIAS_STORE(received)
#endif

/* The others [from, to) that rows first to last of the tile have to do with. */
INLINED uint2 others_of(uint first, uint last, int diagonal, uint other_count) {
#if BY_KEYS
    return (uint2)((uint)clamp((int)first - diagonal, 0, (int)other_count),
                   WINDOW == 0 ? other_count : (uint)clamp((int)last - diagonal + WINDOW, 0, (int)other_count));
#else
    return (uint2)(first_key(first, diagonal, other_count), visible_keys(last, diagonal, other_count));
#endif
}

/* `depth` columns of `count` rows from `first` on, those past the last repeated. */
#define OWN_LOAD(type, depth, to, from, pitch)                                                                         \
    TILE_LOAD(ROWS, ((depth) + 7) / 8 * 8,                                                                             \
              if ((depth) % 8 == 0 || d < (depth)) to[PLACE(ROWS, d, j)] =                                             \
                  LOAD(type, from, min(first + j, own_count - 1) * (pitch) + d);)
#define OTHER_LOAD(type, depth, to, from, pitch)                                                                       \
    TILE_LOAD(KEYS, ((depth) + 7) / 8 * 8,                                                                             \
              if ((depth) % 8 == 0 || d < (depth)) to[OTHER_PLACE(d, j)] =                                             \
                  LOAD(type, from, min(begin + j, other_count - 1) * (pitch) + d);)

/* Where the item's pairs are: own rows from `own` on and others from `other` on, of which there are so many. */
typedef struct pairs {
    uint own, other, own_count, other_count;
    int diagonal;
    float scale;
} pairs;

/* From products and gains the pairs' t and p, which go to `weights`; adds t to what the rows received. */
INLINED void pairs_weigh(private const pairs *at, private float score[4][CT], private float gain[4][CT],
                         global const float *stats,
#if BIAS
                         global const ELEMENT(BIAS_TYPE) *bias, INDEX bias_pitch,
#endif
                         uint x, uint y, private float *received, local float *weights) {
    UNROLL
    for (uint c = 0; c < CT; ++c)
        UNROLL
    for (uint a = 0; a < 4; ++a) {
        uint own = min(at->own + a, at->own_count - 1), other = min(at->other + c, at->other_count - 1);
        uint query = BY_KEYS ? other : own, key = BY_KEYS ? own : other;
        bool seen =
            at->other + c == other && is_seen(query, key, at->diagonal, BY_KEYS ? at->own_count : at->other_count);
        float l = at->scale * LOG2_E * score[a][c] - stats[2 * query];
#if BIAS
        float more = LOG2_E * LOAD(BIAS_TYPE, bias, key * bias_pitch);
        l = more == -INFINITY ? more : l + more;
#endif
        float p = seen ? exp2(l) : 0.0f, t = p * (gain[a][c] - stats[2 * query + 1]);
        weights[WEIGHT_PLACE(CT * x + c, y * 4 + a)] = t;
        if (BY_KEYS)
            weights[KEYS * ROWS + WEIGHT_PLACE(CT * x + c, y * 4 + a)] = p;
        received[a] += t;
    }
}

INLINED void sums_clear(private float4 *sum, const uint count) {
    UNROLL
    for (uint c = 0; c < count; ++c)
        sum[c] = (float4)(0.0f);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_backward_local(uint own_count, uint other_count, uint group, float scale, int diagonal,
                       global const ELEMENT(OWN_1_TYPE) *own_1, INDEX4 own_1_at,
                       global const ELEMENT(OWN_2_TYPE) *own_2, INDEX4 own_2_at,
                       global const ELEMENT(OTHER_1_TYPE) *other_1, INDEX4 other_1_at,
                       global const ELEMENT(OTHER_2_TYPE) *other_2, INDEX4 other_2_at,
#if BIAS
                       global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                       global const float *stats, global ELEMENT(SUM_1_TYPE) *sum_1, INDEX4 sum_1_at SUMS_BY_KEYS) {
    local float own_tile_1[D * ROWS] ALIGNED, own_tile_2[DV * ROWS] ALIGNED, other_tile_1[D * KEYS] ALIGNED,
        other_tile_2[DV * KEYS] ALIGNED, weights[(1 + BY_KEYS) * KEYS * ROWS] ALIGNED;
    uint x = get_local_id(0) % TX, y = get_local_id(0) / TX, h = get_global_id(1), b = get_global_id(2);
    uint first = (BY_KEYS ? get_group_id(0) : get_num_groups(0) - 1 - get_group_id(0)) * ROWS;
    uint shares = BY_KEYS ? group : 1, queries = BY_KEYS ? other_count : own_count;
    own_1 += own_1_at.s0 + b * own_1_at.s1 + h * own_1_at.s2;
    own_2 += own_2_at.s0 + b * own_2_at.s1 + h * own_2_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (BY_KEYS ? h : h / group) * bias_at.s2;
#endif
    OWN_LOAD(OWN_1_TYPE, D, own_tile_1, own_1, own_1_at.s3)
    OWN_LOAD(OWN_2_TYPE, DV, own_tile_2, own_2, own_2_at.s3)
    float4 total_1[COLUMNS_1], total_2[COLUMNS_2];
    float received[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    sums_clear(total_1, COLUMNS_1);
    sums_clear(total_2, COLUMNS_2);
    uint2 range = others_of(first, min(first + ROWS, own_count) - 1, diagonal, other_count);
    uint from = range.x / KEYS * KEYS, tiles = range.y > from ? (range.y - from + KEYS - 1) / KEYS : 0;
    for (uint n = 0; n < tiles * shares; ++n) {
        uint begin = from + n % tiles * KEYS, head = BY_KEYS ? h * group + n / tiles : h / group;
        global const float *rows =
            stats + 2 * (((INDEX)b * get_num_groups(1) * shares + (BY_KEYS ? head : h)) * queries);
        barrier(CLK_LOCAL_MEM_FENCE);
        OTHER_LOAD(OTHER_1_TYPE, D, other_tile_1, other_1 + other_1_at.s0 + b * other_1_at.s1 + head * other_1_at.s2,
                   other_1_at.s3)
        OTHER_LOAD(OTHER_2_TYPE, DV, other_tile_2, other_2 + other_2_at.s0 + b * other_2_at.s1 + head * other_2_at.s2,
                   other_2_at.s3)
        barrier(CLK_LOCAL_MEM_FENCE);
        float score[4][CT], gain[4][CT];
        pairs at = {first + y * 4, begin + CT * x, own_count, other_count, diagonal, scale};
        tile_multiply(score, D, x, y, own_tile_1, other_tile_1);
        tile_multiply(gain, DV, x, y, own_tile_2, other_tile_2);
        pairs_weigh(&at, score, gain, rows PAIRS_BIAS, x, y, received, weights);
        barrier(CLK_LOCAL_MEM_FENCE);
        tile_add(total_1, D, x, y, weights, other_tile_1);
        if (BY_KEYS)
            tile_add(total_2, DV, x, y, weights + KEYS * ROWS, other_tile_2);
    }
    sum_1 += sum_1_at.s0 + b * sum_1_at.s1 + h * sum_1_at.s2;
    SUM_STORE(SUM_1_TYPE, sum_1, sum_1_at.s3, D, total_1, scale)
#if BY_KEYS
    sum_2 += sum_2_at.s0 + b * sum_2_at.s1 + h * sum_2_at.s2;
    SUM_STORE(SUM_2_TYPE, sum_2, sum_2_at.s3, DV, total_2, 1.0f)
    BIAS_STORE(received)
#endif
}
