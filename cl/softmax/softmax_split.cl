/* Exact softmax attention of few queries over many keys, as in decoding, for CPUs. Mathematics and shapes as in
 * softmax.cl.
 *
 * The keys are cut into `splits` ranges of `share` keys. A work-item takes one range for all queries of all heads that
 * share its key head, in register tiles (wide.clh): keys and values are read once, however many heads use them. What it
 * knows then is a state per row (op.h), and softmax_merge.cl merges a row's states.
 *
 * Work: grid (splits, Hk, B); work-groups of one.
 *
 * Measured (two Zen 4 cores, one query, 4 heads, 65,536 keys, D = 64): 31.6 GB/s beside 29.6 of a copy and 23.7 of a
 * loop that only reads; with the keys transposed 10 GB/s, since then memory is not read in order. With 2 rows to a key
 * head 51 against 18 GB/s by processor time, 4 rows 25 against 19, 8 rows 16 against 13, 16 rows 7 against 10. */
#include "softmax/softmax.clh"
#include "shared/tensor.clh"
#include "shared/wide.clh"

#if LANES == 1
/* A lane's sum of the halves of a, then of b, in turn; after four rounds over 16 vectors lane x is the sum of vector
 * x. */
static inline float16 fold(float16 a, float16 b) {
    float16 lower, upper;
    ZIP(a, b, lower, upper);
    return lower + upper;
}

/* The products of a row with 16 keys as they lie in memory, which is then read in order: that is all the time there is
 * with few rows. */
static inline float16 products(private float *row, global const ELEMENT(K_TYPE) *k, INDEX pitch, uint begin, uint end) {
    float16 t[16];
    UNROLL
    for (uint x = 0; x < 16; ++x) {
        global const ELEMENT(K_TYPE) *key = k + min(begin + x, end - 1) * pitch;
        t[x] = (float16)(0.0f);
        for (uint d = 0; d < D; d += 16)
            t[x] = MAD(VECTOR(row + d), LOAD16(K_TYPE, key, d), t[x]);
    }
    UNROLL
    for (uint step = 8; step > 0; step /= 2)
        UNROLL
    for (uint x = 0; x < step; ++x)
        t[x] = fold(t[x], t[x + step]);
    return t[0];
}
#endif

typedef struct split_rows {
    float scaled[TILE * D] ALIGNED;
    uint seen[TILE], unseen[TILE]; /* keys before the first, from the second on are the row's */
} split_rows;

/* Row r of a key head is query r % queries of its head r / queries; those past the last one repeat it. Returns how
 * many keys any of them sees. */
INLINED uint rows_load(private split_rows *to, uint queries, uint rows, float scale, int diagonal, uint keys, uint end,
                       global const ELEMENT(Q_TYPE) *q, INDEX4 q_at) {
    uint last = 0;
    for (uint r = 0; r < TILE; ++r) {
        uint row = min(r, rows - 1);
        for (uint d = 0; d < D; d += 16)
            VECTOR(to->scaled + r * D + d) =
                LOAD16(Q_TYPE, q + row / queries * q_at.s2 + row % queries * q_at.s3, d) * scale;
        to->seen[r] = min(visible_keys(row % queries, diagonal, keys), end);
        to->unseen[r] = first_key(row % queries, diagonal, keys);
        last = max(last, to->seen[r]);
    }
    return last;
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
softmax_split(uint queries, uint keys, uint group, float scale, int diagonal, uint share,
              global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
              global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
              global float *part_lse, global float *part_value) {
    uint split = get_global_id(0), splits = get_global_size(0), h = get_global_id(1), b = get_global_id(2);
    uint rows = queries * group, kv_heads = get_global_size(1), end = min(keys, (split + 1) * share);
    q += q_at.s0 + b * q_at.s1 + h * group * q_at.s2;
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + h * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + h * bias_at.s2;
#endif

    tile t;
    float weights[RT * BLOCK] ALIGNED, offset[BLOCK] ALIGNED, shrink[RT];
#if LANES > 1
    float packed[D * BLOCK] ALIGNED;
#endif
    split_rows own;
    scores s;
    tile_clear(&t);
    uint last = rows_load(&own, queries, rows, scale, diagonal, keys, end, q, q_at);

    for (uint begin = split * share; begin < last; begin += BLOCK) {
#if LANES > 1
        PACK(K_TYPE, k, k_at.s3, begin, end, packed)
#endif
        for (uint j = 0; j < BLOCK; ++j) {
            offset[j] = begin + j < end ? 0.0f : -INFINITY;
#if BIAS
            offset[j] += LOAD(BIAS_TYPE, bias, min(begin + j, end - 1) * bias_at.s3);
#endif
        }
        for (uint r = 0; r < TILE && r < rows; r += RT) {
#if LANES > 1
            scores_multiply(&s, own.scaled + r * D, D, packed, D);
#else
            s.s[0][0] = products(own.scaled + r * D, k, k_at.s3, begin, end);
#endif
            SCORES_CAP(s)
            scores_mask(&s, offset, own.seen + r, begin);
#if WINDOW
            scores_mask_before(&s, own.unseen + r, begin);
#endif
            tile_weigh(&t, r, &s, weights, shrink);
            TILE_ADD(&t, r, weights, shrink, V_TYPE, v + begin * v_at.s3, v_at.s3, min((uint)BLOCK, end - begin))
        }
    }

    INDEX at = ((INDEX)b * kv_heads + h) * rows * splits + split;
    for (uint r = 0; r < rows; ++r) {
        float inverse = tile_scale(&t, r);
        part_lse[at + r * splits] = tile_lse(&t, r);
        for (uint d = 0; d < DV; d += 16)
            vstore16(VECTOR(t.sum + r * DV + d) * inverse, 0, part_value + (at + r * splits) * DV + d);
    }
}
