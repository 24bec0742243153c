/* Gradients of near-far attention, for CPUs: from a chunk's nodes down to their keys' slots, as near_far_back_chunks
 * (near_far_back_down.cl) with its mathematics, and vectors along the columns of a key.
 *
 * Shapes: key_rows as near_far_back_turn.cl makes them; sums in rows.
 * Work: one work-item a chunk, grid (chunks, Hk, B). */
#define ROWS_ALONE
#include "tree/near_far.cl"
#ifndef ROW_SUMS
#define ROW_SUMS 1
#endif
#include "tree/near_far_back.clh"
#ifndef TILE
#define TILE 64
#endif
#include "shared/wide.clh"

/* A chunk's run: G of it, 0 if there is none, and what m receives. */
typedef struct view {
    sums to;
    global const float *key_rows, *run;
    float slopes;
    float whole, whole_back; /* the sum of the chunk's variances, and what it receives */
} view;

/* A node's keys, and their means; spread: squared. */
typedef struct node_keys {
    uint begin, count;
    float log_mass, spread;
    float mean[D] ALIGNED, mean_value[DV] ALIGNED, square[D] ALIGNED;
} node_keys;

static inline float weight_of(private const trees *t, private const node_keys *n, uint s) {
    return exp(t->biases[s] - n->log_mass);
}

static inline float16 key_from_mean(private const view *v, private const node_keys *n, uint s, uint d) {
    return vload16(0, v->key_rows + (INDEX)s * D + d) - VECTOR(n->mean + d);
}

static inline float16 value_from_mean(private const trees *t, private const node_keys *n, uint s, uint e) {
    return LOAD16(FOREST_TYPE, t->values + (INDEX)s * DV, e) - VECTOR(n->mean_value + e);
}

static inline void node_look(private const trees *t, private const view *v, uint level, uint g, private node_keys *n) {
    global const float *stat = t->stats + lane_of(first_block_of(t->f.first_block, level), g, STATS);
    n->begin = g << size_shift(level);
    n->count = count_of(level, stat);
    n->log_mass = stat[LOG_MASS * 16];
    for (uint d = 0; d < D; d += 16)
        VECTOR(n->mean + d) = VECTOR(n->square + d) = (float16)(0.0f);
    for (uint e = 0; e < DV; e += 16)
        VECTOR(n->mean_value + e) = (float16)(0.0f);
    for (uint s = n->begin; s < n->begin + n->count; ++s) {
        float16 weight = (float16)(weight_of(t, n, s));
        for (uint d = 0; d < D; d += 16)
            VECTOR(n->mean + d) = MAD(weight, vload16(0, v->key_rows + (INDEX)s * D + d), VECTOR(n->mean + d));
        for (uint e = 0; e < DV; e += 16)
            VECTOR(n->mean_value + e) =
                MAD(weight, LOAD16(FOREST_TYPE, t->values + (INDEX)s * DV, e), VECTOR(n->mean_value + e));
    }
    float16 spread = (float16)(0.0f);
    for (uint s = n->begin; s < n->begin + n->count; ++s) {
        float16 weight = (float16)(weight_of(t, n, s));
        for (uint d = 0; d < D; d += 16) {
            float16 x = key_from_mean(v, n, s, d);
            VECTOR(n->square + d) = MAD(weight * x, x, VECTOR(n->square + d));
        }
        for (uint e = 0; e < DV; e += 16) {
            float16 y = value_from_mean(t, n, s, e);
            spread = MAD(weight * y, y, spread);
        }
    }
    n->spread = sum16(spread);
}

/* The node's sums to its keys; `wide` [D]: what its variances receive, `spread`: its squared spread. */
static inline void keys_back(private const trees *t, private const view *v, private const node_keys *n,
                             global const float *from, float node_mass, private const float *wide, float spread) {
    for (uint s = n->begin; s < n->begin + n->count; ++s) {
        float weight = weight_of(t, n, s);
        global float *to = slot_row(&v->to, s), *bias = slot_bias(&v->to, s);
        float16 mass = (float16)(0.0f), square = (float16)(0.0f);
        for (uint d = 0; d < D; d += 16) {
            float16 x = key_from_mean(v, n, s, d), received = vload16(0, from + d), w = VECTOR(wide + d);
            vstore16(MAD((float16)(weight), MAD(2.0f * w, x, received), vload16(0, to + d)), 0, to + d);
            mass = MAD(received, x, MAD(w, MAD(x, x, -VECTOR(n->square + d)), mass));
        }
        for (uint e = 0; e < DV; e += 16) {
            float16 y = value_from_mean(t, n, s, e), received = vload16(0, from + D + e);
            global float *value = to + D + e;
            vstore16(MAD((float16)(weight), MAD((float16)(2.0f * spread), y, received), vload16(0, value)), 0, value);
            mass = MAD(received, y, mass);
            square = MAD(y, y, square);
        }
        *bias = MAD(weight, MAD(spread, sum16(square) - n->spread, node_mass + sum16(mass)), *bias);
    }
}

/* What a leaf's keys receive of its run. */
static inline void leaf_back(private const trees *t, private const view *v, private const node_keys *n) {
    float along[LEAF], mean = 0.0f, x[D] ALIGNED, y[DV] ALIGNED, of_key[D] ALIGNED, of_values[DV] ALIGNED;
    for (uint i = 0; i < n->count; ++i) {
        uint s = n->begin + i;
        float weight = weight_of(t, n, s);
        float16 many = (float16)(weight * (float)n->count), sum = (float16)(0.0f);
        global float *to = slot_row(&v->to, s);
        for (uint d = 0; d < D; d += 16)
            VECTOR(x + d) = key_from_mean(v, n, s, d);
        for (uint e = 0; e < DV; e += 16) {
            VECTOR(y + e) = value_from_mean(t, n, s, e);
            VECTOR(of_values + e) = (float16)(0.0f);
        }
        for (uint d = 0; d < D; ++d) {
            float16 products = (float16)(0.0f);
            for (uint e = 0; e < DV; e += 16) {
                float16 g = vload16(0, v->run + d * DV + e);
                products = MAD(g, VECTOR(y + e), products);
                VECTOR(of_values + e) = MAD(g, (float16)(x[d]), VECTOR(of_values + e));
            }
            of_key[d] = sum16(products);
        }
        for (uint d = 0; d < D; d += 16) {
            sum = MAD(VECTOR(x + d), VECTOR(of_key + d), sum);
            vstore16(MAD(many, VECTOR(of_key + d), vload16(0, to + d)), 0, to + d);
        }
        for (uint e = 0; e < DV; e += 16)
            vstore16(MAD(many, VECTOR(of_values + e), vload16(0, to + D + e)), 0, to + D + e);
        along[i] = sum16(sum);
        mean = MAD(weight, along[i], mean);
    }
    for (uint i = 0; i < n->count; ++i) {
        uint s = n->begin + i;
        *slot_bias(&v->to, s) += weight_of(t, n, s) * (float)n->count * (along[i] - mean);
    }
}

/* A node below chunks. */
static inline void node_back(private const trees *t, private view *v, uint level, uint g) {
    node_keys n;
    float wide[D] ALIGNED;
    node_look(t, v, level, g, &n);
    if (n.count == 0)
        return;
    global const float *stat = t->stats + lane_of(first_block_of(t->f.first_block, level), g, STATS);
    float share = stat[VARIANCE * 16], spread = stat[SPREAD * 16], spread_back = 0.0f,
          share_back = *node_more(&v->to, t->f, level, g, NODE_SHARE);
    bool follows = level == 0 && slope_of(share, spread) > 0.0f;
    if (follows) {
        float slope_back = MAD((float)n.count, v->slopes, *node_more(&v->to, t->f, level, g, NODE_SLOPE));
        share_back = MAD(0.5f * slope_back, spread / sqrt(share), share_back);
        spread_back = 0.5f * slope_back * sqrt(share) / spread;
    }
    share_back = v->whole > 0.0f ? share_back / v->whole : 0.0f;
    v->whole_back = MAD(-share_back, share, v->whole_back);
    for (uint d = 0; d < D; d += 16)
        VECTOR(wide + d) = (float16)(share_back);
    keys_back(t, v, &n, node_row(&v->to, t->f, level, g), *node_more(&v->to, t->f, level, g, NODE_MASS), wide,
              spread_back);
    if (follows && v->run)
        leaf_back(t, v, &n);
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_back_chunks_wide(INPUTS, global const float *key_rows, global const float *run_sums,
                          global const float *run_slopes, SUMS) {
    uint g = get_global_id(0);
    if (g >= (keys + CHUNK - 1) / CHUNK)
        return;
    trees t = TREES;
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    trees_move(&t, head);
    view see;
    sums_begin(&see.to, t.f, head, slot_sums, node_sums, variance_sums);
    see.key_rows = key_rows + head * slots_of(t.f) * D;
    see.run = run_of(g, keys, chunks, head, run_sums, run_slopes, &see.slopes);
    see.whole_back = 0.0f;
    node_keys n;
    float wide[D] ALIGNED;
    float16 whole = (float16)(0.0f);
    node_look(&t, &see, TOP, g, &n);
    for (uint d = 0; d < D; d += 16)
        whole += VECTOR(n.square + d);
    see.whole = sum16(whole);
    for (uint level = 0; level < TOP; ++level) {
        uint nodes = CHUNK >> size_shift(level);
        for (uint x = 0; x < nodes; ++x)
            node_back(&t, &see, level, g * nodes + x);
    }
    for (uint d = 0; d < D; ++d)
        wide[d] = variance_row(&see.to, t.f, TOP, g)[d * 16] + see.whole_back;
    if (n.count > 0)
        keys_back(&t, &see, &n, node_row(&see.to, t.f, TOP, g), *node_more(&see.to, t.f, TOP, g, NODE_MASS), wide,
                  0.0f);
}
