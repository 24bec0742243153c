/* Collect: the write of the backward pass. What each splat learns of the rows of dout, in segments of consecutive rows.
 *
 *     lse_s = ln Σ_i e^(e_is)      value_s = Σ_i e^(e_is − lse_s) [dout_i, δ_i]      e_is as in backward.clh
 *
 * A key's gradients need no more of the rows that see it from a later chunk, as a row needs no more of the keys than
 * the states that write leaves.
 *
 * Segment g has the rows i with g·segment ≤ i + diagonal < (g+1)·segment; it is stored as the last but g, so that what
 * op_scan leaves in each is everything after it.
 *
 * Shapes: query_log_density [B,H,N,S], dout [B,H,N,DV], stats [B,H,N,…]; state_lse [B,H,G,S], state_value
 * [B,H,G,S,DV+1].
 * Work: one work-item a splat and segment; grid (S rounded up to WG, G, B·H). No barrier.
 * Sums are kept in two levels, FOLD rows at a time (see softmax.cl). */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#endif
#include "shared/tensor.clh"
#include "shared/backward.clh"

#ifndef FOLD
#define FOLD 256
#endif

/* A state as in state.clh, of DV + 1 columns. */
typedef struct gathered {
    float top, mass;
    float sum[DV + 1];
} gathered;

static inline void gathered_clear(private gathered *g) {
    g->top = -INFINITY;
    g->mass = 0.0f;
    for (uint d = 0; d <= DV; ++d)
        g->sum[d] = 0.0f;
}

static inline float gathered_admit(private gathered *g, float l) {
    if (l > g->top) {
        float shrink = exp(g->top - l);
        g->top = l;
        g->mass *= shrink;
        for (uint d = 0; d <= DV; ++d)
            g->sum[d] *= shrink;
    }
    return exp(l - g->top);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gaussian_collect(uint queries, uint heads, uint segment, int diagonal, uint levels, uint per_level, uint splats,
                 uint per_head, uint first_head, global const float *log_weight, global const uint *level_begin,
                 global const float *level_log_weight, global const float *query_log_density,
                 global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats, INDEX4 stats_at,
                 global float *state_lse, global float *state_value) {
    uint s = get_global_id(0), g = get_global_id(1), segments = get_global_size(1);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads;
    if (s >= splats)
        return;
    uint level = level_of(s, levels, level_begin);
    float base = log_weight[(INDEX)(per_head ? first_head + h : 0) * splats + s];
    base += per_level ? 0.0f : level_log_weight[level];
    query_log_density += (INDEX)get_global_id(2) * queries * splats + s;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + (per_level ? level * STATS : 0);

    gathered all, block;
    gathered_clear(&all);
    uint first = (uint)clamp((int)(g * segment) - diagonal, 0, (int)queries);
    uint last = (uint)clamp((int)((g + 1) * segment) - diagonal, 0, (int)queries);
    for (uint begin = first; begin < last; begin += FOLD) {
        gathered_clear(&block);
        for (uint i = begin, end = min(begin + FOLD, last); i < end; ++i) {
            float e = base + query_log_density[(INDEX)i * splats] - stats[i * stats_at.s3 + STATS_OFFSET];
            if (e == -INFINITY)
                continue;
            float weight = gathered_admit(&block, e);
            block.mass += weight;
            for (uint d = 0; d < DV; ++d)
                block.sum[d] = MAD(weight, LOAD(DOUT_TYPE, dout, i * dout_at.s3 + d), block.sum[d]);
            block.sum[DV] = MAD(weight, stats[i * stats_at.s3 + STATS_DELTA], block.sum[DV]);
        }
        if (block.mass == 0.0f)
            continue;
        float weight = gathered_admit(&all, block.top);
        all.mass = MAD(weight, block.mass, all.mass);
        for (uint d = 0; d <= DV; ++d)
            all.sum[d] = MAD(weight, block.sum[d], all.sum[d]);
    }

    INDEX at = ((INDEX)get_global_id(2) * segments + segments - 1 - g) * splats + s;
    float scale = all.mass == 0.0f ? 0.0f : 1.0f / all.mass;
    state_lse[at] = all.mass == 0.0f ? -INFINITY : all.top + log(all.mass);
    for (uint d = 0; d <= DV; ++d)
        state_value[at * (DV + 1) + d] = all.sum[d] * scale;
}
