/* Read, backward, in tiles of local memory (local_rows.clh), for GPUs of any vendor: not causal, joint mixing.
 * Mathematics and shapes as in read_backward.cl.
 *
 * Rows are queries, sources splats. Twice over all splats: first what every weight gains, dout_i·value_s, which waits
 * where ρ comes, and the row's mass; then ρ. An item sums up its own splats, and items of a row meet once, in between.
 *
 * Work: a group for ROWS queries; grid (⌈N / ROWS⌉ · WG, H, B). */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#endif
#ifndef DV
#define DV 64
#endif
#include "shared/local_rows.clh"
#include "shared/backward.clh"
#include "splat/log_prior.clh"

/* Relative to `top`, in base 2: mass, and Σ weight gain. */
typedef struct sums {
    float top, mass, gain;
} sums;

INLINED void sums_add(private sums *s, float l, float mass, float gain) {
    if (l > s->top) {
        float shrink = exp2(s->top - l);
        s->top = l;
        s->mass *= shrink;
        s->gain *= shrink;
    }
    float weight = l == -INFINITY ? 0.0f : exp2(l - s->top);
    s->mass = MAD(weight, mass, s->mass);
    s->gain = MAD(weight, gain, s->gain);
}

/* What all items of a row have, in their order: `all` replaces an item's own. Barrier: before `meeting` [ROWS][TX] is
 * read. */
INLINED void sums_meet(private sums *all, uint x, uint y, local float4 *meeting) {
    UNROLL
    for (uint a = 0; a < RT; ++a)
        meeting[(y + TY * a) * TX + x] = (float4)(all[a].top, all[a].mass, all[a].gain, 0.0f);
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        all[a] = (sums){-INFINITY, 0.0f, 0.0f};
        for (uint i = 0; i < TX; ++i) {
            float4 part = meeting[(y + TY * a) * TX + i];
            sums_add(all + a, part.x, part.y, part.z);
        }
    }
}

/* The splats of a row's head. */
typedef struct head_view {
    uint splats, levels;
    global const float *log_weight, *level_log_weight, *state_lse;
    global const uint *level_begin;
} head_view;

static inline float prior_of(private const head_view *v, uint s) {
    return LOG2_E *
           log_prior(s, v->splats, v->levels, v->log_weight, v->level_begin, v->level_log_weight, v->state_lse);
}

/* Stats of an item's rows, from `row` on; mass becomes its inverse, and gain δ. */
INLINED void sums_finish(private sums *all, global float *stats, INDEX pitch, uint row, uint queries, bool store) {
    UNROLL
    for (uint a = 0; a < RT; ++a, row += TY) {
        bool empty = all[a].mass == 0.0f;
        all[a].gain = empty ? 0.0f : all[a].gain / all[a].mass;
        if (store && row < queries) {
            stats[row * pitch + STATS_OFFSET] = empty ? INFINITY : MAD(LN_2, all[a].top, log(all[a].mass));
            stats[row * pitch + STATS_DELTA] = all[a].gain;
            stats[row * pitch + STATS_LIFT] = 0.0f;
        }
        all[a].mass = empty ? 0.0f : 1.0f / all[a].mass;
    }
}

/* ρ of an item's rows, from `first` on, and its splats x, x + TX, …, for which `weights` holds what they gain. */
INLINED void rows_weigh(private const sums *all, private const head_view *v, uint x, uint first, uint queries,
                        global const float *log_density, global float *weights) {
    for (uint s = x; s < v->splats; s += TX) {
        float prior = prior_of(v, s);
        UNROLL
        for (uint a = 0; a < RT; ++a) {
            uint row = first + TY * a;
            INDEX at = (INDEX)row * v->splats + s;
            if (row < queries) {
                float l = MAD(LOG2_E, log_density[at], prior);
                float weight = l == -INFINITY ? 0.0f : exp2(l - all[a].top) * all[a].mass;
                weights[at] = weight * (weights[at] - all[a].gain);
            }
        }
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
read_backward_local(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
                    uint first_head, global const float *log_weight, global const uint *level_begin,
                    global const float *level_log_weight, global const float *state_lse,
                    global const float *state_value, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                    global float *stats, INDEX4 stats_at, global const float *query_log_density,
                    global float *weights) {
    local float rows[ROWS * PITCH(DV)] ALIGNED, values[SOURCES * PITCH(DV)] ALIGNED, priors[SOURCES];
    local float4 meeting[ROWS * TX];
    uint item = get_local_id(0), x = item % TX, y = item / TX, first = get_group_id(0) * ROWS;
    uint h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    INDEX own = ((INDEX)b * heads + h) * queries * splats;
    head_view v = {splats,
                   levels,
                   log_weight + (INDEX)(per_head ? first_head + h : 0) * splats,
                   level_log_weight,
                   state_lse + writer * splats,
                   level_begin};
    state_value += writer * splats * DV;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2;
    query_log_density += own;
    weights += own;

    sums all[RT];
    UNROLL
    for (uint a = 0; a < RT; ++a)
        all[a] = (sums){-INFINITY, 0.0f, 0.0f};
    ROWS_LOAD(DOUT_TYPE, rows, dout, dout_at.s3, DV, first, ROWS, queries)
    for (uint begin = 0; begin < splats; begin += SOURCES) {
        products gain;
        barrier(CLK_LOCAL_MEM_FENCE);
        ROWS_LOAD(F32, values, state_value, (INDEX)DV, DV, begin, SOURCES, splats)
        if (item < SOURCES)
            priors[item] = prior_of(&v, begin + item);
        barrier(CLK_LOCAL_MEM_FENCE);
        products_make(&gain, x, y, rows, values, DV);
        FOR_PAIRS(a, c) {
            uint row = first + y + TY * a, s = begin + x + TX * c;
            if (row < queries && s < splats) {
                INDEX at = (INDEX)row * splats + s;
                weights[at] = gain.x[a][c];
                sums_add(all + a, MAD(LOG2_E, query_log_density[at], priors[x + TX * c]), 1.0f, gain.x[a][c]);
            }
        }
    }
    sums_meet(all, x, y, meeting);
    sums_finish(all, stats, stats_at.s3, first + y, queries, x == 0);
    rows_weigh(all, &v, x, first + y, queries, query_log_density, weights);
}
