/* Collect in register tiles (wide.clh), for CPUs. Mathematics and shapes as in collect.cl.
 *
 * Blocks of ROWS queries: their log-weights are looked at with splats along the lanes, as the log-densities lie, and
 * meet the rows of dout with value columns along the lanes.
 *
 * Needs a multiple of 16 splats. Work: one work-item for TILE splats and a segment; grid (⌈S / TILE⌉, G, B·H), work-
 * groups of one. */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#endif
#ifndef TILE
#define TILE 64
#endif
#ifndef DV
#define DV 64
#endif
#ifndef D
#define D DV
#endif
#ifndef ROWS
#define ROWS 64
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/wide_backward.clh"
#include "shared/backward.clh"

typedef struct splat_tile {
    float base[TILE] ALIGNED, top[TILE] ALIGNED, mass[TILE] ALIGNED, delta[TILE] ALIGNED;
    float sum[TILE * DV] ALIGNED;
    uint count, column[TILE]; /* a multiple of 16; where a row's stats for the splat are */
} splat_tile;

typedef struct row_block {
    float dout[ROWS * DV] ALIGNED, weights[ROWS * TILE] ALIGNED;
    uint count;
} row_block;

/* The rows' log-weights become weights relative to the new tops; what is there shrinks. */
static inline void block_weigh(private splat_tile *t, private row_block *y, uint c) {
    float16 top = VECTOR(t->top + c), most = top, mass = (float16)(0.0f);
    for (uint i = 0; i < y->count; ++i)
        most = max(most, VECTOR(y->weights + i * TILE + c));
    float16 base = select(most, (float16)(0.0f), most == (float16)(-INFINITY));
    float16 shrink = exp_weight(top - base);
    VECTOR(t->top + c) = most;
    for (uint i = 0; i < y->count; ++i) {
        float16 w = exp_weight(VECTOR(y->weights + i * TILE + c) - base);
        VECTOR(y->weights + i * TILE + c) = w;
        mass += w;
    }
    VECTOR(t->mass + c) = MAD(VECTOR(t->mass + c), shrink, mass);
    VECTOR(t->delta + c) *= shrink;
    if (any(shrink != 1.0f)) {
        float each[16] ALIGNED;
        VECTOR(each) = shrink;
        for (uint a = 0; a < 16; ++a)
            for (uint d = 0; d < DV; d += 16)
                VECTOR(t->sum + (c + a) * DV + d) *= each[a];
    }
}

static inline void block_load(private splat_tile *t, private row_block *y, global const float *log_density, uint splats,
                              global const ELEMENT(DOUT_TYPE) *dout, INDEX pitch, global const float *stats,
                              INDEX stats_pitch) {
    for (uint i = 0; i < y->count; ++i) {
        for (uint d = 0; d < DV; d += 16)
            VECTOR(y->dout + i * DV + d) = LOAD16(DOUT_TYPE, dout + i * pitch, d);
        for (uint s = 0; s < t->count; ++s)
            y->weights[i * TILE + s] =
                t->base[s] + log_density[(INDEX)i * splats + s] - stats[i * stats_pitch + t->column[s] + STATS_OFFSET];
    }
}

static inline void block_add(private splat_tile *t, private row_block *y, global const float *stats,
                             INDEX stats_pitch) {
    for (uint c = 0; c < t->count; c += 16)
        block_weigh(t, y, c);
    for (uint i = 0; i < y->count; ++i)
        for (uint s = 0; s < t->count; ++s)
            t->delta[s] =
                MAD(y->weights[i * TILE + s], stats[i * stats_pitch + t->column[s] + STATS_DELTA], t->delta[s]);
    for (uint s = 0; s < t->count; s += RT)
        ACCUMULATE(private, t->sum + s * DV, y->weights + s, 1, TILE, y->dout, DV, y->count)
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
collect_wide(uint queries, uint heads, uint segment, int diagonal, uint levels, uint per_level, uint splats,
             uint per_head, uint first_head, global const float *log_weight, global const uint *level_begin,
             global const float *level_log_weight, global const float *query_log_density,
             global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats, INDEX4 stats_at,
             global float *state_lse, global float *state_value) {
    uint begin = get_global_id(0) * TILE, g = get_global_id(1), segments = get_global_size(1);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads;
    log_weight += (INDEX)(per_head ? first_head + h : 0) * splats + begin;
    query_log_density += (INDEX)get_global_id(2) * queries * splats + begin;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2;

    splat_tile t;
    row_block y;
    t.count = min((uint)TILE, splats - begin);
    for (uint s = 0; s < t.count; ++s) {
        uint level = level_of(begin + s, levels, level_begin);
        t.base[s] = log_weight[s] + (per_level ? 0.0f : level_log_weight[level]);
        t.column[s] = per_level ? level * STATS : 0;
        t.top[s] = -INFINITY;
        t.mass[s] = t.delta[s] = 0.0f;
        for (uint d = 0; d < DV; d += 16)
            VECTOR(t.sum + s * DV + d) = (float16)(0.0f);
    }
    uint first = (uint)clamp((int)(g * segment) - diagonal, 0, (int)queries);
    uint last = (uint)clamp((int)((g + 1) * segment) - diagonal, 0, (int)queries);
    for (uint i = first; i < last; i += ROWS) {
        y.count = min((uint)ROWS, last - i);
        block_load(&t, &y, query_log_density + (INDEX)i * splats, splats, dout + i * dout_at.s3, dout_at.s3,
                   stats + i * stats_at.s3, stats_at.s3);
        block_add(&t, &y, stats + i * stats_at.s3, stats_at.s3);
    }

    INDEX at = ((INDEX)get_global_id(2) * segments + segments - 1 - g) * splats + begin;
    for (uint s = 0; s < t.count; ++s) {
        float scale = t.mass[s] == 0.0f ? 0.0f : 1.0f / t.mass[s];
        state_lse[at + s] = t.mass[s] == 0.0f ? -INFINITY : t.top[s] + log(t.mass[s]);
        for (uint d = 0; d < DV; ++d)
            state_value[(at + s) * (DV + 1) + d] = t.sum[s * DV + d] * scale;
        state_value[(at + s) * (DV + 1) + DV] = t.delta[s] * scale;
    }
}
