/* Read, backward: what every row of out passes back to its log-weights (backward.clh has the mathematics).
 *
 *     ρ_is = e^(e_is + lse_s) (dout_i·value_s − δ_i)  +  CAUSAL: Σ_j r_ijs (dout_i·v_j − δ_i) over its own chunk's keys
 *
 * with the states as in read.cl. Everything is measured anew, mass and δ included, from the log-densities, so that Σ_s
 * ρ_is = 0 up to rounding.
 *
 * Shapes: dout [B,H,N,DV], state_lse [B,Hw,G,S], state_value [B,Hw,G,S,DV], query_log_density [B,H,N,S],
 * key_log_density [B,Hw,keys,S], v [B,Hk,keys,DV], bias [B,Hk,keys];
 * stats [B,H,N,STATS·levels] (joint: STATS), weights ρ [B,H,N,S].
 * Work: one work-item a query; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#include "shared/tensor.clh"
#include "shared/backward.clh"

#ifndef CAUSAL
#define CAUSAL 1
#endif
#ifndef CHUNK
#define CHUNK 32
#endif
#ifndef BIAS
#define BIAS 1
#endif

/* What one range of levels adds up to for a row: its mass relative to `top`, and Σ weight dout·value. */
typedef struct sums {
    float top, mass, gain;
} sums;

/* A row's own chunk. */
typedef struct near_keys {
    uint count;
    float gain[CHUNK]; /* dout_i·v_j */
    float bias[CHUNK];
} near_keys;

static inline void sums_add(private sums *s, float l, float gain) {
    if (l == -INFINITY)
        return;
    if (l > s->top) {
        float shrink = exp(s->top - l);
        s->top = l;
        s->mass *= shrink;
        s->gain *= shrink;
    }
    float weight = exp(l - s->top);
    s->mass += weight;
    s->gain = MAD(weight, gain, s->gain);
}

/* What a row sees, of its own head and segment. */
typedef struct row_view {
    uint levels, per_level, splats, ranges, blind; /* blind: no key is visible */
    global const float *log_weight, *level_log_weight, *state_lse, *state_value, *query_log_density;
    global const uint *level_begin;
    global const ELEMENT(DOUT_TYPE) *dout;
#if CAUSAL
    global const float *key_log_density; /* from the own chunk's first key on */
    near_keys near;
#endif
} row_view;

/* The levels of range l. */
static inline uint2 levels_of(private const row_view *row, uint l) {
    return row->per_level ? (uint2)(l, l + 1) : (uint2)(0, row->levels);
}

/* ln w a_s + φ_s(q), without w per level. */
static inline float base_of(private const row_view *row, uint level, uint s) {
    return (row->per_level ? 0.0f : row->level_log_weight[level]) + row->log_weight[s] + row->query_log_density[s];
}

static inline sums measure_range(private const row_view *row, uint l) {
    sums all = {-INFINITY, 0.0f, 0.0f};
    uint2 range = levels_of(row, l);
    for (uint level = range.x; !row->blind && level < range.y; ++level)
        for (uint s = row->level_begin[level]; s < row->level_begin[level + 1]; ++s) {
            float base = base_of(row, level, s);
            if (row->state_lse[s] != -INFINITY)
                sums_add(&all, base + row->state_lse[s], dot_dout(row->dout, row->state_value + s * DV));
#if CAUSAL
            for (uint j = 0; j < row->near.count; ++j)
                if (row->near.bias[j] != -INFINITY) /* what a padding key holds may be no number at all */
                    sums_add(&all, base + row->key_log_density[j * row->splats + s] + row->near.bias[j],
                             row->near.gain[j]);
#endif
        }
    return all;
}

static inline void weigh_range(private const row_view *row, uint l, float offset, float delta, global float *weights) {
    uint2 range = levels_of(row, l);
    for (uint level = range.x; level < range.y; ++level)
        for (uint s = row->level_begin[level]; s < row->level_begin[level + 1]; ++s) {
            float base = base_of(row, level, s), weight = 0.0f;
            bool live = offset != INFINITY;
            if (live && row->state_lse[s] != -INFINITY)
                weight =
                    exp(base + row->state_lse[s] - offset) * (dot_dout(row->dout, row->state_value + s * DV) - delta);
#if CAUSAL
            for (uint j = 0; live && j < row->near.count; ++j)
                if (row->near.bias[j] != -INFINITY)
                    weight = MAD(exp(base + row->key_log_density[j * row->splats + s] + row->near.bias[j] - offset),
                                 row->near.gain[j] - delta, weight);
#endif
            weights[s] = weight;
        }
}

/* The stats of all ranges, from their masses: shares of the levels that have a key, and what their weights receive. */
static inline void finish_stats(private const row_view *row, global float *stats) {
    float heaviest = -INFINITY, shares = 0.0f, delta = 0.0f;
    for (uint l = 0; l < row->ranges; ++l) {
        sums all = measure_range(row, l);
        bool empty = all.mass == 0.0f;
        stats[l * STATS + STATS_OFFSET] = empty ? INFINITY : all.top + log(all.mass);
        stats[l * STATS + STATS_DELTA] = empty ? 0.0f : all.gain / all.mass;
        stats[l * STATS + STATS_LIFT] = 0.0f;
        heaviest = fmax(heaviest, empty ? -INFINITY : row->level_log_weight[l]);
    }
    if (!row->per_level)
        return;
    for (uint l = 0; l < row->ranges; ++l)
        if (stats[l * STATS + STATS_OFFSET] != INFINITY) {
            float share = exp(row->level_log_weight[l] - heaviest);
            shares += share;
            delta = MAD(share, stats[l * STATS + STATS_DELTA], delta);
        }
    for (uint l = 0; l < row->ranges; ++l)
        if (stats[l * STATS + STATS_OFFSET] != INFINITY) {
            float log_share = row->level_log_weight[l] - heaviest - log(shares);
            stats[l * STATS + STATS_OFFSET] -= log_share;
            stats[l * STATS + STATS_LIFT] = exp(log_share) * (stats[l * STATS + STATS_DELTA] - delta / shares);
        }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gaussian_read_backward(
    uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head, uint first_head,
    global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
    global const float *state_lse, global const float *state_value, global const ELEMENT(DOUT_TYPE) *dout,
    INDEX4 dout_at, global float *stats, INDEX4 stats_at, global const float *query_log_density, global float *weights
#if CAUSAL
    ,
    int diagonal, uint keys, global const float *key_log_density, global const ELEMENT(V_TYPE) *v, INDEX4 v_at
#if BIAS
    ,
    global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#endif
#endif
) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    if (i >= queries)
        return;
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group), segment = 0;
    INDEX own = (((INDEX)b * heads + h) * queries + i) * splats;
    row_view row;
    row.levels = levels;
    row.per_level = per_level;
    row.splats = splats;
    row.ranges = per_level ? levels : 1;
    row.blind = false;
    row.log_weight = log_weight + (INDEX)(per_head ? first_head + h : 0) * splats;
    row.level_begin = level_begin;
    row.level_log_weight = level_log_weight;
    row.dout = dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    row.query_log_density = query_log_density + own;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + i * stats_at.s3;
#if CAUSAL
    uint visible = visible_keys(i, diagonal, keys), first = visible == 0 ? 0 : (visible - 1) / CHUNK * CHUNK;
    segment = first / CHUNK;
    row.blind = visible == 0;
    row.key_log_density = key_log_density + (writer * keys + first) * splats;
    row.near.count = visible - first;
    for (uint j = first; j < visible; ++j) {
        INDEX value = v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2 + j * v_at.s3;
        row.near.gain[j - first] = dot_value(row.dout, v + value);
        row.near.bias[j - first] = 0.0f;
#if BIAS
        INDEX at = bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2 + j * bias_at.s3;
        row.near.bias[j - first] = LOAD(BIAS_TYPE, bias, at);
#endif
    }
#endif
    row.state_lse = state_lse + (writer * segments + segment) * splats;
    row.state_value = state_value + (writer * segments + segment) * splats * DV;

    finish_stats(&row, stats);
    for (uint l = 0; l < row.ranges; ++l)
        weigh_range(&row, l, stats[l * STATS + STATS_OFFSET], stats[l * STATS + STATS_DELTA], weights + own);
}
