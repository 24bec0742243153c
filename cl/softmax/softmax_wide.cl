/* Exact softmax attention in register tiles (wide.clh), for CPUs. Mathematics and shapes as in softmax.cl.
 *
 * Work: one work-item for TILE queries; grid (⌈N / TILE⌉, H, B), work-groups of one. */
#include "softmax/softmax.clh"
#include "shared/tensor.clh"
#include "shared/wide.clh"

/* Scaled queries; rows past the last one repeat it. */
INLINED void queries_load(private float *scaled, uint rows, float scale, global const ELEMENT(Q_TYPE) *q, INDEX pitch) {
    for (uint r = 0; r < TILE; ++r)
        for (uint d = 0; d < D; d += 16)
            VECTOR(scaled + r * D + d) = LOAD16(Q_TYPE, q + min(r, rows - 1) * pitch, d) * scale;
}

/* What rows hold already. */
INLINED void tile_load(private tile *t, uint rows, global const ELEMENT(OUT_TYPE) *out, INDEX out_pitch,
                       global const ELEMENT(LSE_TYPE) *lse, INDEX lse_pitch) {
    for (uint r = 0; r < rows; ++r) {
        t->top[r] = LOAD(LSE_TYPE, lse, r * lse_pitch);
        VECTOR(t->mass + 16 * r) = (float16)(t->top[r] == -INFINITY ? 0.0f : 0.0625f);
        for (uint d = 0; d < DV; d += 16)
            VECTOR(t->sum + r * DV + d) = LOAD16(OUT_TYPE, out + r * out_pitch, d);
    }
}

/* Queries from `first` on see what they should of the block that begins with key `begin`. */
INLINED void scores_see(private scores *s, private float *offset, uint first, uint begin, int diagonal, uint keys) {
    if (BIAS || begin + BLOCK > visible_keys(first, diagonal, keys)) {
        uint seen[RT];
        UNROLL
        for (uint a = 0; a < RT; ++a)
            seen[a] = visible_keys(first + a, diagonal, keys);
        scores_mask(s, offset, seen, begin);
    }
#if WINDOW
    if (begin < first_key(first + RT - 1, diagonal, keys)) {
        uint unseen[RT];
        UNROLL
        for (uint a = 0; a < RT; ++a)
            unseen[a] = first_key(first + a, diagonal, keys);
        scores_mask_before(s, unseen, begin);
    }
#endif
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
softmax_wide(uint queries, uint keys, uint group, float scale, int diagonal, uint accumulate,
             global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
             global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
             global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
             global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    uint first = get_global_id(0) * TILE, h = get_global_id(1), b = get_global_id(2);
    uint rows = min((uint)TILE, queries - first);
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + first * q_at.s3;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + first * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + first * lse_at.s3;

    tile t;
    float scaled[TILE * D] ALIGNED, packed[D * BLOCK] ALIGNED, weights[RT * BLOCK] ALIGNED, offset[BLOCK] ALIGNED;
    float shrink[RT];
    scores s;
    tile_clear(&t);
    queries_load(scaled, rows, scale, q, q_at.s3);
    if (accumulate)
        tile_load(&t, rows, out, out_at.s3, lse, lse_at.s3);

    uint last = visible_keys(first + rows - 1, diagonal, keys);
    for (uint begin = first_key(first, diagonal, keys) / BLOCK * BLOCK; begin < last; begin += BLOCK) {
        /* Padding keys may hold anything finite: their offset of −inf must not meet an infinite score. */
        PACK(K_TYPE, k, k_at.s3, begin, keys, packed)
        for (uint j = 0; j < BLOCK; ++j) {
            offset[j] = begin + j < keys ? 0.0f : -INFINITY;
#if BIAS
            offset[j] += LOAD(BIAS_TYPE, bias, min(begin + j, keys - 1) * bias_at.s3);
#endif
        }
        for (uint r = 0; r < TILE && r < rows; r += RT) {
            scores_multiply(&s, scaled + r * D, D, packed, D);
            SCORES_CAP(s)
            scores_see(&s, offset, first + r, begin, diagonal, keys);
            tile_weigh(&t, r, &s, weights, shrink);
            TILE_ADD(&t, r, weights, shrink, V_TYPE, v + begin * v_at.s3, v_at.s3, min((uint)BLOCK, keys - begin))
        }
    }

    for (uint r = 0; r < rows; ++r) {
        float inverse = tile_scale(&t, r);
        for (uint d = 0; d < DV; d += 16)
            STORE16(OUT_TYPE, out, r * out_at.s3 + d, VECTOR(t.sum + r * DV + d) * inverse);
        STORE(LSE_TYPE, lse, r * lse_at.s3, tile_lse(&t, r));
    }
}
