/* Read, backward, in register tiles (wide.clh), for CPUs: not causal, joint mixing. Mathematics and shapes as in
 * read_backward.cl.
 *
 * First dout·value of every splat, which waits where the weights will be, and the rows' masses; then the weights.
 * Splats lie along the lanes, as the log-densities do.
 *
 * Needs a multiple of 16 splats. Work: one work-item for TILE queries; grid (⌈N / TILE⌉, H, B), work-groups of one. */
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
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "splat/log_prior.clh"
#include "shared/wide_backward.clh"
#include "shared/backward.clh"

/* Rows, with what their weights add up to so far, relative to their tops. */
typedef struct row_tile {
    float dout[TILE * DV] ALIGNED, mass[TILE * 16] ALIGNED, gain[TILE * 16] ALIGNED;
    float top[TILE], delta[TILE], inverse[TILE];
} row_tile;

/* A block of splats: values turned, log-weights without the log-density. */
typedef struct value_block {
    float packed[DV * BLOCK] ALIGNED, log_prior[BLOCK] ALIGNED;
    uint count; /* a multiple of 16 */
} value_block;

static inline void row_add(private row_tile *t, uint r, float16 l, float16 gain) {
    if (any(l > (float16)(t->top[r]))) {
        float top = fmax(t->top[r], max16(l)), shrink = exp(t->top[r] - top);
        t->top[r] = top;
        VECTOR(t->mass + 16 * r) *= shrink;
        VECTOR(t->gain + 16 * r) *= shrink;
    }
    float16 w = exp_weight(l - (t->top[r] == -INFINITY ? 0.0f : t->top[r]));
    VECTOR(t->mass + 16 * r) += w;
    VECTOR(t->gain + 16 * r) = MAD(w, gain, VECTOR(t->gain + 16 * r));
}

static inline void tile_measure(private row_tile *t, private value_block *y, global const float *log_density,
                                global float *weights, uint splats, uint rows) {
    for (uint r = 0; r < rows; r += RT) {
        scores gain;
        scores_multiply(&gain, t->dout + r * DV, DV, y->packed, DV);
        for (uint a = 0; a < RT && r + a < rows; ++a)
            for (uint c = 0; 16 * c < y->count; ++c) {
                INDEX at = (INDEX)(r + a) * splats + 16 * c;
                row_add(t, r + a, vload16(0, log_density + at) + VECTOR(y->log_prior + 16 * c), gain.s[a][c]);
                vstore16(gain.s[a][c], 0, weights + at);
            }
    }
}

static inline void tile_finish(private row_tile *t, private value_block *y, global const float *log_density,
                               global float *weights, uint splats, uint rows) {
    for (uint r = 0; r < rows; ++r)
        for (uint c = 0; 16 * c < y->count; ++c) {
            INDEX at = (INDEX)r * splats + 16 * c;
            float16 l = vload16(0, log_density + at) + VECTOR(y->log_prior + 16 * c) - t->top[r];
            float16 w = exp_weight(l) * t->inverse[r];
            vstore16(select(w * (vload16(0, weights + at) - t->delta[r]), (float16)(0.0f), w == 0.0f), 0, weights + at);
        }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
read_backward_wide(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
                   uint first_head, global const float *log_weight, global const uint *level_begin,
                   global const float *level_log_weight, global const float *state_lse, global const float *state_value,
                   global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global float *stats, INDEX4 stats_at,
                   global const float *query_log_density, global float *weights) {
    uint first = get_global_id(0) * TILE, h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    uint rows = min((uint)TILE, queries - first);
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    INDEX own = (((INDEX)b * heads + h) * queries + first) * splats;
    log_weight += (INDEX)(per_head ? first_head + h : 0) * splats;
    state_lse += writer * splats;
    state_value += writer * splats * DV;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + first * dout_at.s3;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + first * stats_at.s3;

    row_tile t;
    value_block y;
    for (uint r = 0; r < TILE; ++r) {
        t.top[r] = -INFINITY;
        VECTOR(t.mass + 16 * r) = VECTOR(t.gain + 16 * r) = (float16)(0.0f);
        for (uint d = 0; d < DV; d += 16)
            VECTOR(t.dout + r * DV + d) = LOAD16(DOUT_TYPE, dout + min(r, rows - 1) * dout_at.s3, d);
    }
    for (uint pass = 0; pass < 2; ++pass) {
        for (uint begin = 0; begin < splats; begin += BLOCK) {
            y.count = min((uint)BLOCK, splats - begin);
            for (uint j = 0; j < BLOCK; ++j)
                y.log_prior[j] =
                    log_prior(begin + j, splats, levels, log_weight, level_begin, level_log_weight, state_lse);
            if (pass == 0) {
                PACK_VALUES(F32, state_value, DV, begin, splats, y.packed)
                tile_measure(&t, &y, query_log_density + own + begin, weights + own + begin, splats, rows);
            } else
                tile_finish(&t, &y, query_log_density + own + begin, weights + own + begin, splats, rows);
        }
        for (uint r = 0; r < rows && pass == 0; ++r) {
            float mass = sum16(VECTOR(t.mass + 16 * r));
            bool empty = mass == 0.0f;
            t.inverse[r] = empty ? 0.0f : 1.0f / mass;
            t.delta[r] = sum16(VECTOR(t.gain + 16 * r)) * t.inverse[r];
            stats[r * stats_at.s3 + STATS_OFFSET] = empty ? INFINITY : t.top[r] + log(mass);
            stats[r * stats_at.s3 + STATS_DELTA] = t.delta[r];
            stats[r * stats_at.s3 + STATS_LIFT] = 0.0f;
            t.top[r] = empty ? 0.0f : t.top[r];
        }
    }
}
