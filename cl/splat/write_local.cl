/* Write in tiles of local memory (local_tile.clh), for GPUs of any vendor; isotropic and diagonal splats, any storage
 * types, float32 arithmetic. Mathematics and shapes as in write.cl; distances are measured from a common centre
 * (local_splat.clh).
 *
 * Work: a group for ROWS splats, walking over segments; grid (⌈S / ROWS⌉ · WG, walkers, B·Hw). */
#ifndef K_TYPE
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#ifndef BIAS
#define BIAS 1
#endif
#define SPLAT_ROWS 1
#include "shared/local_tile.clh"
#include "splat/local_splat.clh"

#define SPLAT min(first + j, splats - 1)
#define KEY min(begin + j, last - 1)
/* What an item's splats have beside their columns: ½|μ'|² and r². */
#if PRODUCT
#define SPLATS_KNOW                                                                                                    \
    ROWS_HALF_SQUARE(half_square, x, y, shared, mean[SPLAT * D + d] - centre[d])                                       \
    UNROLL                                                                                                             \
    for (uint a = 0; a < RT; ++a) {                                                                                    \
        uint j = y * RT + a;                                                                                           \
        factor[a] = UNIT * inverse[SPLAT] * inverse[SPLAT];                                                            \
    }
#else
#define SPLATS_KNOW
#endif
#if BIAS
#define BIAS_LOAD offset[j] += LOG2_E * LOAD(BIAS_TYPE, bias, KEY * bias_at.s3);
#else
#define BIAS_LOAD
#endif

/* What a tile of keys, from `begin` on, has beside its columns: values, and offsets of φ. */
#define REST_LOAD                                                                                                      \
    VALUES_LOAD(V_TYPE, value_tile, v, v_at.s3, KEY)                                                                   \
    for (uint j = get_local_id(0); j < KEYS; j += WG) {                                                                \
        offset[j] = begin + j < last ? 0.0f : -INFINITY;                                                               \
        BIAS_LOAD                                                                                                      \
    }

/* The log-weights of an item's splats and keys, in base 2; a key of offset −inf has no weight, whatever its φ. */
INLINED void scores_finish(private float score[RT][4], private const scores *s, float4 offset,
                           private const float *factor, private const float *half_square) {
    UNROLL
    for (uint a = 0; a < RT; ++a) {
#if !PRODUCT
        float4 l = MAD((float4)(-0.5f * UNIT), s->s[a], offset);
#else
        float4 l = MAD((float4)(factor[a]), s->s[a] - s->half_square - half_square[a], offset);
#endif
        vstore4(select(l, (float4)(-INFINITY), offset == (float4)(-INFINITY)), 0, score[a]);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
write_local(uint keys, uint segment, uint heads, uint group, uint splats, uint per_head, uint first_head,
            global const float *mean, global const float *inverse, global const float *centre,
            global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
            global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
            global float *state_lse, global float *state_value) {
    local float row_tile[ROW_TILE] ALIGNED, shared[SHARED] ALIGNED, value_tile[KEYS * PITCH_V] ALIGNED;
    local float parts[PRODUCT ? TY * KEYS : 4] ALIGNED, offset[KEYS] ALIGNED;
    local int raise;
    uint item = get_local_id(0), x = item % TX, y = item / TX, first = get_group_id(0) * ROWS;
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads, segments = (keys + segment - 1) / segment;
    uint set = per_head ? first_head + h : 0;
    mean += (INDEX)set * splats * D;
    inverse += (INDEX)set * splats * FACTORS;
    centre += set * D;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif

    float half_square[RT], factor[RT];
    SPLATS_KNOW
    if (STEPS == 1)
        SPLATS_LOAD(row_tile, ROWS, 0, SPLAT)
    if (item == 0)
        raise = 0;
    for (uint g = get_group_id(1); g < segments; g += get_num_groups(1)) {
        uint last = min(keys, (g + 1) * segment);
        rows r;
        rows_clear(&r);
        for (uint begin = g * segment; begin < last; begin += KEYS) {
            scores s;
            scores_clear(&s);
            for (uint step = 0; step < STEPS; ++step) {
                barrier(CLK_LOCAL_MEM_FENCE);
                if (STEPS > 1)
                    SPLATS_LOAD(row_tile, ROWS, step, SPLAT)
                TOKENS_LOAD(K_TYPE, shared, KEYS, step, k, k_at.s3, KEY)
                if (step == 0) {
                    REST_LOAD
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                scores_multiply(&s, x, y, row_tile, shared);
            }
            scores_gather(&s, x, y, parts);

            float score[RT][4];
            scores_finish(score, &s, VECTOR(offset + 4 * x), factor, half_square);
            rows_weigh(&r, score, x, y, shared, &raise);
            rows_add(&r, x, y, shared, value_tile);
        }

        INDEX at = ((INDEX)get_global_id(2) * segments + g) * splats;
        ROWS_STORE(r, first + y * RT, splats, x, y, shared, F32, state_value + at * DV, (INDEX)DV, F32, state_lse + at,
                   1)
    }
}
