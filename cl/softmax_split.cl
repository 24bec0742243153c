/* Exact softmax attention of few queries over many keys, as in decoding, for CPUs. Mathematics and shapes as in softmax.cl.
 *
 * The keys are cut into `splits` ranges of `share` keys. A work-item takes one range for all queries of all heads that share
 * its key head, in register tiles (wide.clh): keys and values are read once, however many heads use them. What it knows then is a
 * state per row (op.h), and a second kernel merges a row's states in the order of the ranges.
 *
 * Work: grid (splits, Hk, B), then (N·H/Hk, Hk, B); work-groups of one.
 *
 * Measured: see README.md; the limit is how fast keys and values can be read. */
#include "tensor.clh"
#include "wide.clh"

#ifndef Q_TYPE
#define Q_TYPE F32
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#ifndef BIAS
#define BIAS 1
#endif

/* Row r of a key head is query r % queries of its head r / queries. */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
softmax_split(uint queries, uint keys, uint group, float scale, int diagonal, uint share,
              global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
              global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
              global float *part_lse, global float *part_value)
{
    uint split = get_global_id(0), splits = get_global_size(0), h = get_global_id(1), b = get_global_id(2);
    uint rows = queries * group, kv_heads = get_global_size(1), end = min(keys, (split + 1) * share);
    q += q_at.s0 + b * q_at.s1 + h * group * q_at.s2;
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + h * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + h * bias_at.s2;
#endif

    tile t;
    float scaled[TILE * D] ALIGNED, packed[D * BLOCK] ALIGNED, weights[RT * BLOCK] ALIGNED, offset[BLOCK] ALIGNED;
    float shrink[RT];
    uint seen[TILE], last = 0;
    scores s;
    tile_clear(&t);
    for (uint r = 0; r < TILE; ++r) {
        uint row = min(r, rows - 1);
        for (uint d = 0; d < D; d += 16)
            VECTOR(scaled + r * D + d) = LOAD16(Q_TYPE, q + row / queries * q_at.s2 + row % queries * q_at.s3, d) * scale;
        seen[r] = min(visible_keys(row % queries, diagonal, keys), end);
        last = max(last, seen[r]);
    }

    for (uint begin = split * share; begin < last; begin += BLOCK) {
        PACK(K_TYPE, k, k_at.s3, begin, end, packed)
        for (uint j = 0; j < BLOCK; ++j) {
            offset[j] = begin + j < end ? 0.0f : -INFINITY;
#if BIAS
            offset[j] += LOAD(BIAS_TYPE, bias, min(begin + j, end - 1) * bias_at.s3);
#endif
        }
        for (uint r = 0; r < TILE && r < rows; r += RT) {
            scores_multiply(&s, scaled + r * D, D, packed, D);
            scores_mask(&s, offset, seen + r, begin);
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

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
softmax_merge(uint queries, uint group, uint splits, uint accumulate, global const float *part_lse,
              global const float *part_value, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
              global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at)
{
    uint row = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    uint head = h * group + row / queries, i = row % queries;
    INDEX at = (((INDEX)b * get_global_size(1) + h) * queries * group + row) * splits;
    out += out_at.s0 + b * out_at.s1 + head * out_at.s2 + i * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + head * lse_at.s2 + i * lse_at.s3;

    float before = accumulate ? LOAD(LSE_TYPE, lse, 0) : -INFINITY, top = before;
    for (uint p = 0; p < splits; ++p)
        top = fmax(top, part_lse[at + p]);
    float base = top == -INFINITY ? 0.0f : top, mass = exp(before - base), sum[DV] ALIGNED;
    for (uint d = 0; d < DV; ++d)
        sum[d] = before == -INFINITY ? 0.0f : mass * LOAD(OUT_TYPE, out, d);
    for (uint p = 0; p < splits; ++p) {
        float weight = exp(part_lse[at + p] - base);
        mass += weight;
        for (uint d = 0; d < DV; d += 16)
            VECTOR(sum + d) = MAD((float16)(weight), vload16(0, part_value + (at + p) * DV + d), VECTOR(sum + d));
    }
    for (uint d = 0; d < DV; ++d)
        STORE(OUT_TYPE, out, d, mass == 0.0f ? 0.0f : sum[d] / mass);
    STORE(LSE_TYPE, lse, 0, mass == 0.0f ? -INFINITY : top + log(mass));
}
