/* Gradients of near-far attention: from nodes down to their keys' slots. near_far_back.clh tells what comes before.
 *
 * With the weights w = e^b / mass of a node's keys (or masses of its children, with their own C below), x = k − c and
 * y = v − V̄:
 *
 *     k: w (dc + 2 dC x)      v: w dV̄      b: w (d ln mass + dc·x + dC·(x² + C_k − C) + dV̄·y)
 *
 * where dC is the same number in all columns below chunks, whose variances count by their sum, as a share of the
 * chunk's. A leaf's slope √share · spread, spread² = Σ w |y|², and its part n Σ w x yᵀ of a run's covariances:
 *
 *     v: w 2 d(spread²) y + n w Gᵀ x       k: n w G y      b: w d(spread²) (|y|² − spread²) + n w (xᵀ G y − Σ w xᵀ G y)
 *
 * Work: near_far_back_down, one work-item a node of a level above chunks, from the highest on, grid (their number
 * rounded up to WG, Hk, B); near_far_back_inner, one a node of a level below chunks, from leaves up, likewise; then
 * near_far_back_chunks, a group a chunk, whose items take columns and then keys, grid (chunks · WG, Hk, B). Local
 * memory: means, variances and what these receive. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"
#include "tree/near_far_back_below.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_down(uint level, INPUTS, SUMS) {
    uint g = get_global_id(0), below = level - 1, shift = fan_shift(level), size = size_shift(below);
    uint children = (keys + (1u << size) - 1) >> size;
    if (g << shift >= children)
        return;
    trees t = TREES;
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    trees_move(&t, head);
    sums s;
    sums_begin(&s, t.f, head, slot_sums, node_sums, variance_sums);
    uint first = first_block_of(first_block, level), first_below = first_block_of(first_block, below);
    global const float *from = node_row(&s, t.f, level, g), *variance_from = variance_row(&s, t.f, level, g);
    float log_mass = t.stats[lane_of(first, g, STATS) + LOG_MASS * 16];
    for (uint c = g << shift; c < min((g + 1) << shift, children); ++c) {
        float weight = exp(t.stats[lane_of(first_below, c, STATS) + LOG_MASS * 16] - log_mass);
        if (!(weight > 0.0f))
            continue;
        global float *to = node_row(&s, t.f, below, c), *variance_to = variance_row(&s, t.f, below, c);
        float mass = *node_more(&s, t.f, level, g, NODE_MASS);
        for (uint d = 0; d < D; ++d) {
            float x = LOAD(FOREST_TYPE, t.means, lane_of(first_below, c, D) + d * 16) -
                      LOAD(FOREST_TYPE, t.means, lane_of(first, g, D) + d * 16);
            float more = t.variances[lane_of(first_below - t.f.below, c, D) + d * 16] -
                         t.variances[lane_of(first - t.f.below, g, D) + d * 16];
            float slope = variance_from[d * 16];
            to[d * STEP] = MAD(weight, MAD(2.0f * slope, x, from[d * STEP]), to[d * STEP]);
            variance_to[d * 16] = MAD(weight, slope, variance_to[d * 16]);
            mass = MAD(from[d * STEP], x, MAD(slope, MAD(x, x, more), mass));
        }
        for (uint e = 0; e < DV; ++e) {
            float y = LOAD(FOREST_TYPE, t.mean_values, ((INDEX)first_below * 16 + c) * DV + e) -
                      LOAD(FOREST_TYPE, t.mean_values, ((INDEX)first * 16 + g) * DV + e);
            to[(D + e) * STEP] = MAD(weight, from[(D + e) * STEP], to[(D + e) * STEP]);
            mass = MAD(from[(D + e) * STEP], y, mass);
        }
        global float *mass_to = node_more(&s, t.f, below, c, NODE_MASS);
        *mass_to = MAD(weight, mass, *mass_to);
    }
}

/* A chunk's run: G of it, 0 if there is none, and what m receives. */
typedef struct view {
    sums to;
    global const float *run;
    float slopes;
    float whole; /* the sum of the chunk's variances */
} view;

/* A node's keys, and what they receive. */
typedef struct node_keys {
    uint begin, count;
    float log_mass, mean[D + DV], square[D], spread; /* spread: squared */
} node_keys;

static inline float key_at(private const trees *t, uint slot, uint d) {
    return LOAD(FOREST_TYPE, t->keys, lane_of(0, slot, D) + d * 16);
}

static inline float value_at(private const trees *t, uint slot, uint e) {
    return LOAD(FOREST_TYPE, t->values, (INDEX)slot * DV + e);
}

static inline void node_look(private const trees *t, uint level, uint g, private node_keys *n) {
    global const float *stat = t->stats + lane_of(first_block_of(t->f.first_block, level), g, STATS);
    n->begin = g << size_shift(level);
    n->count = count_of(level, stat);
    n->log_mass = stat[LOG_MASS * 16];
    n->spread = 0.0f;
    for (uint d = 0; d < D + DV; ++d)
        n->mean[d] = 0.0f;
    for (uint d = 0; d < D; ++d)
        n->square[d] = 0.0f;
    for (uint s = n->begin; s < n->begin + n->count; ++s) {
        float weight = exp(t->biases[s] - n->log_mass);
        for (uint d = 0; d < D; ++d)
            n->mean[d] = MAD(weight, key_at(t, s, d), n->mean[d]);
        for (uint e = 0; e < DV; ++e)
            n->mean[D + e] = MAD(weight, value_at(t, s, e), n->mean[D + e]);
    }
    for (uint s = n->begin; s < n->begin + n->count; ++s) {
        float weight = exp(t->biases[s] - n->log_mass);
        for (uint d = 0; d < D; ++d) {
            float x = key_at(t, s, d) - n->mean[d];
            n->square[d] = MAD(weight * x, x, n->square[d]);
        }
        for (uint e = 0; e < DV; ++e) {
            float y = value_at(t, s, e) - n->mean[D + e];
            n->spread = MAD(weight * y, y, n->spread);
        }
    }
}

/* The node's sums to its keys; `wide`: what each of its variances receives, `spread`: its squared spread. */
static inline void keys_back(private const trees *t, private const view *v, private const node_keys *n,
                             global const float *from, float node_mass, float wide, float spread) {
    for (uint s = n->begin; s < n->begin + n->count; ++s) {
        float weight = exp(t->biases[s] - n->log_mass), mass = node_mass;
        global float *to = slot_row(&v->to, s);
        for (uint d = 0; d < D; ++d) {
            float x = key_at(t, s, d) - n->mean[d];
            to[d * STEP] = MAD(weight, MAD(2.0f * wide, x, from[d * STEP]), to[d * STEP]);
            mass = MAD(from[d * STEP], x, MAD(wide, MAD(x, x, -n->square[d]), mass));
        }
        float square = -n->spread;
        for (uint e = 0; e < DV; ++e) {
            float y = value_at(t, s, e) - n->mean[D + e];
            to[(D + e) * STEP] = MAD(weight, MAD(2.0f * spread, y, from[(D + e) * STEP]), to[(D + e) * STEP]);
            mass = MAD(from[(D + e) * STEP], y, mass);
            square = MAD(y, y, square);
        }
        global float *bias = slot_bias(&v->to, s);
        *bias = MAD(weight, MAD(spread, square, mass), *bias);
    }
}

/* What a leaf's key in slot s receives of its run in STRIP columns of values from e0 on. Returns: xᵀ G y of them. */
static inline float leaf_key_back(private const trees *t, private const view *v, private const node_keys *n, uint s,
                                  float many, uint e0) {
    float along = 0.0f, y[STRIP], of_values[STRIP];
    global float *to = slot_row(&v->to, s);
    for (uint e = 0; e < STRIP; ++e) {
        y[e] = value_at(t, s, e0 + e) - n->mean[D + e0 + e];
        of_values[e] = 0.0f;
    }
    for (uint d = 0; d < D; ++d) {
        float x = key_at(t, s, d) - n->mean[d], of_key = 0.0f;
        for (uint e = 0; e < STRIP; ++e) {
            of_key = MAD(v->run[d * DV + e0 + e], y[e], of_key);
            of_values[e] = MAD(v->run[d * DV + e0 + e], x, of_values[e]);
        }
        along = MAD(x, of_key, along);
        to[d * STEP] = MAD(many, of_key, to[d * STEP]);
    }
    for (uint e = 0; e < STRIP; ++e)
        to[(D + e0 + e) * STEP] = MAD(many, of_values[e], to[(D + e0 + e) * STEP]);
    return along;
}

/* What a leaf's keys receive of its run. */
static inline void leaf_back(private const trees *t, private const view *v, private const node_keys *n) {
    float along[LEAF], mean = 0.0f;
    for (uint i = 0; i < n->count; ++i) {
        uint s = n->begin + i;
        float weight = exp(t->biases[s] - n->log_mass);
        along[i] = 0.0f;
        for (uint e0 = 0; e0 < DV; e0 += STRIP)
            along[i] += leaf_key_back(t, v, n, s, weight * (float)n->count, e0);
        mean = MAD(weight, along[i], mean);
    }
    for (uint i = 0; i < n->count; ++i) {
        uint s = n->begin + i;
        float many = exp(t->biases[s] - n->log_mass) * (float)n->count;
        *slot_bias(&v->to, s) += many * (along[i] - mean);
    }
}

/* A node below chunks; instead of what its share received is left what the chunk's variances receive by it. */
static inline void node_back(private const trees *t, private view *v, uint level, uint g) {
    node_keys n;
    node_look(t, level, g, &n);
    global float *left = node_more(&v->to, t->f, level, g, NODE_SHARE);
    global const float *from = node_row(&v->to, t->f, level, g),
                       *stat = t->stats + lane_of(first_block_of(t->f.first_block, level), g, STATS);
    float share = stat[VARIANCE * 16], spread = stat[SPREAD * 16], share_back = *left, spread_back = 0.0f;
    *left = 0.0f;
    if (n.count == 0)
        return;
    bool follows = level == 0 && slope_of(share, spread) > 0.0f;
    if (follows) {
        float slope_back = MAD((float)n.count, v->slopes, *node_more(&v->to, t->f, level, g, NODE_SLOPE));
        share_back = MAD(0.5f * slope_back, spread / sqrt(share), share_back);
        spread_back = 0.5f * slope_back * sqrt(share) / spread;
    }
    share_back = v->whole > 0.0f ? share_back / v->whole : 0.0f;
    *left = -share_back * share;
    keys_back(t, v, &n, from, *node_more(&v->to, t->f, level, g, NODE_MASS), share_back, spread_back);
    if (follows && v->run)
        leaf_back(t, v, &n);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_inner(uint level, INPUTS, global const float *run_sums, global const float *run_slopes, SUMS) {
    uint g = get_global_id(0), chunk = g >> (size_shift(TOP) - size_shift(level));
    if (chunk >= (keys + CHUNK - 1) / CHUNK)
        return;
    trees t = TREES;
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    trees_move(&t, head);
    view see;
    sums_begin(&see.to, t.f, head, slot_sums, node_sums, variance_sums);
    see.run = run_of(chunk, keys, chunks, head, run_sums, run_slopes, &see.slopes);
    see.whole = 0.0f;
    for (uint d = 0; d < D; ++d)
        see.whole += t.variances[lane_of(first_block_of(first_block, TOP) - t.f.below, chunk, D) + d * 16];
    node_back(&t, &see, level, g);
}

/* What column d of a chunk's variances receives in the end. */
static inline float wide_of(private const trees *t, private const sums *to, uint g, uint d, global float *below) {
    float wide = variance_row(to, t->f, TOP, g)[d * 16];
    for (uint level = 0; level < TOP; ++level) {
        uint nodes = CHUNK >> size_shift(level);
        for (uint x = g * nodes; x < (g + 1) * nodes; ++x) {
            wide += *node_more(to, t->f, level, x, NODE_SHARE);
#if !NOTED
            wide += below_row(below, t->f, level, x)[d];
#endif
        }
    }
    return wide;
}

/* A column of the mean of a chunk's `count` keys, and of their squares' beside it; number d of [D + DV]. */
static inline float2 column_of(private const trees *t, uint begin, uint count, float log_mass, uint d) {
    float mean = 0.0f, square = 0.0f;
    for (uint s = begin; s < begin + count; ++s)
        mean = MAD(exp(t->biases[s] - log_mass), d < D ? key_at(t, s, d) : value_at(t, s, d - D), mean);
    for (uint s = begin; s < begin + count && d < D; ++s) {
        float x = key_at(t, s, d) - mean;
        square = MAD(exp(t->biases[s] - log_mass) * x, x, square);
    }
    return (float2)(mean, square);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_chunks(INPUTS,
#if !NOTED
                                                                                 global float *below,
#endif
                                                                                 SUMS) {
    local float mean[D + DV], square[D], wide[D];
    uint g = get_group_id(0), begin = g * CHUNK;
    trees t = TREES;
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    trees_move(&t, head);
    sums to;
    sums_begin(&to, t.f, head, slot_sums, node_sums, variance_sums);
    global const float *stat = t.stats + lane_of(first_block_of(first_block, TOP), g, STATS),
                       *from = node_row(&to, t.f, TOP, g);
    uint count = begin < keys ? count_of(TOP, stat) : 0;
    float log_mass = stat[LOG_MASS * 16], node_mass = *node_more(&to, t.f, TOP, g, NODE_MASS);
    for (uint d = get_local_id(0); d < D + DV && count > 0; d += WG) {
        float2 column = column_of(&t, begin, count, log_mass, d);
        mean[d] = column.x;
        if (d >= D)
            continue;
        square[d] = column.y;
#if NOTED
        wide[d] = wide_of(&t, &to, g, d, 0);
#else
        wide[d] = wide_of(&t, &to, g, d, below + head * t.f.below * 16 * D);
#endif
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint s = begin + get_local_id(0); s < begin + count; s += WG) {
        float weight = exp(t.biases[s] - log_mass), mass = node_mass;
        global float *row = slot_row(&to, s);
        for (uint d = 0; d < D; ++d) {
            float x = key_at(&t, s, d) - mean[d];
            row[d * STEP] = MAD(weight, MAD(2.0f * wide[d], x, from[d * STEP]), row[d * STEP]);
            mass = MAD(from[d * STEP], x, MAD(wide[d], MAD(x, x, -square[d]), mass));
        }
        for (uint e = 0; e < DV; ++e) {
            row[(D + e) * STEP] = MAD(weight, from[(D + e) * STEP], row[(D + e) * STEP]);
            mass = MAD(from[(D + e) * STEP], value_at(&t, s, e) - mean[D + e], mass);
        }
        *slot_bias(&to, s) = MAD(weight, mass, *slot_bias(&to, s));
    }
}
