/* Read in tiles of local memory (local_tile.clh), for GPUs of any vendor: not causal, joint mixing, isotropic and
 * diagonal splats; any storage types, float32 arithmetic. Mathematics and shapes as in read.cl; distances are measured
 * from a common centre (local_splat.clh).
 *
 * Work: a group for ROWS queries; grid (⌈N / ROWS⌉ · WG, H, B). */
#ifndef Q_TYPE
#define Q_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#define SPLAT_ROWS 0
#include "shared/local_tile.clh"
#include "splat/local_splat.clh"
#include "splat/log_prior.clh"

#define QUERY min(first + j, queries - 1)
#define SPLAT min(begin + j, splats - 1)
#if PRODUCT
#define FACTOR_LOAD factor[j] = UNIT * inverse[SPLAT] * inverse[SPLAT];
#define FACTOR VECTOR(factor + 4 * x)
#else
#define FACTOR_LOAD
#define FACTOR (float4)(0.0f)
#endif

/* What a tile of splats, from `begin` on, has beside its shapes: values, and offsets and factors of φ. */
#define STATES_LOAD                                                                                                    \
    VALUES_LOAD(F32, value_tile, state_value, DV, SPLAT)                                                               \
    for (uint j = get_local_id(0); j < KEYS; j += WG) {                                                                \
        offset[j] =                                                                                                    \
            LOG2_E * log_prior(begin + j, splats, levels, log_weight, level_begin, level_log_weight, state_lse);       \
        FACTOR_LOAD                                                                                                    \
    }

/* The log-weights of an item's queries and splats, in base 2. */
INLINED void scores_finish(private float score[RT][4], private const scores *s, float4 offset, float4 factor,
                           private const float *half_square) {
    UNROLL
    for (uint a = 0; a < RT; ++a) {
#if !PRODUCT
        float4 l = MAD((float4)(-0.5f * UNIT), s->s[a], offset);
#else
        float4 l = MAD(factor, s->s[a] - s->half_square - half_square[a], offset);
#endif
        vstore4(l, 0, score[a]);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
read_local(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
           uint first_head, global const float *mean, global const float *inverse, global const float *centre,
           global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
           global const float *state_lse, global const float *state_value, global const ELEMENT(Q_TYPE) *q, INDEX4 q_at,
           global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    local float row_tile[ROW_TILE] ALIGNED, shared[SHARED] ALIGNED, value_tile[KEYS * PITCH_V] ALIGNED;
    local float parts[PRODUCT ? TY * KEYS : 4] ALIGNED, offset[KEYS] ALIGNED;
#if PRODUCT
    local float factor[KEYS] ALIGNED;
#endif
    local int raise;
    uint item = get_local_id(0), x = item % TX, y = item / TX, first = get_group_id(0) * ROWS;
    uint h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1), set = per_head ? first_head + h : 0;
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    mean += (INDEX)set * splats * D;
    inverse += (INDEX)set * splats * FACTORS;
    centre += set * D;
    log_weight += (INDEX)set * splats;
    state_lse += writer * splats;
    state_value += writer * splats * DV;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2;

    float half_square[RT];
#if PRODUCT
    ROWS_HALF_SQUARE(half_square, x, y, shared, LOAD(Q_TYPE, q, QUERY * q_at.s3 + d) - centre[d])
#endif
    if (STEPS == 1)
        TOKENS_LOAD(Q_TYPE, row_tile, ROWS, 0, q, q_at.s3, QUERY)
    if (item == 0)
        raise = 0;
    rows r;
    rows_clear(&r);
    for (uint begin = 0; begin < splats; begin += KEYS) {
        scores s;
        scores_clear(&s);
        for (uint step = 0; step < STEPS; ++step) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (STEPS > 1)
                TOKENS_LOAD(Q_TYPE, row_tile, ROWS, step, q, q_at.s3, QUERY)
            SPLATS_LOAD(shared, KEYS, step, SPLAT)
            if (step == 0) {
                STATES_LOAD
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            scores_multiply(&s, x, y, row_tile, shared);
        }
        scores_gather(&s, x, y, parts);

        float score[RT][4];
        scores_finish(score, &s, VECTOR(offset + 4 * x), FACTOR, half_square);
        rows_weigh(&r, score, x, y, shared, &raise);
        rows_add(&r, x, y, shared, value_tile);
    }

    ROWS_STORE(r, first + y * RT, queries, x, y, shared, OUT_TYPE, out, out_at.s3, LSE_TYPE, lse, lse_at.s3)
}
