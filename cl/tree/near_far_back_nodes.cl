/* Gradients of near-far attention: what nodes and the keys of leaves receive of the rows that met them
 * (near_far_back.clh). A walk turned around: a node asks every row whether it came this way.
 *
 * Shapes: row_numbers and kept as in near_far_back_rows.cl; sums as near_far_back.clh tells, zero before. Work:
 * near_far_back_nodes, one work-item a node from chunks up, with all below a chunk, grid (their number rounded up to
 * WG, Hk, B); near_far_back_apart, one a slot of keys that stand apart, grid (slots rounded up to WG, Hk, B). No local
 * memory, no barrier. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"

typedef struct receiver {
    float dout[DV], lse, delta, moved, below;
    sums to;
} receiver;

static inline void add_row(private const receiver *r, private const walker *w, global float *to, global float *mass,
                           float lambda, float p) {
    for (uint d = 0; d < D; ++d)
        to[d * STEP] = MAD(lambda, w->q[d], to[d * STEP]);
    for (uint e = 0; e < DV; ++e)
        to[(D + e) * STEP] = MAD(p, r->dout[e], to[(D + e) * STEP]);
    *mass += lambda;
}

static inline void receive_key(private receiver *r, private const walker *w, private const trees *t, uint slot,
                               float lambda, float p) {
    add_row(r, w, slot_row(&r->to, slot), slot_bias(&r->to, slot), lambda, p);
}

static inline void receive_node(private receiver *r, private const walker *w, private const trees *t, uint level,
                                uint g, float lambda, float p) {
    add_row(r, w, node_row(&r->to, t->f, level, g), node_more(&r->to, t->f, level, g, NODE_MASS), lambda, p);
}

static inline void receive_slope(private receiver *r, private const walker *w, private const trees *t, uint g,
                                 float slope, float p) {
    *node_more(&r->to, t->f, 0, g, NODE_SLOPE) += p * r->moved;
}

static inline void receive_variance(private receiver *r, private const walker *w, private const trees *t, uint level,
                                    uint g, float lifted) {
    global float *to = variance_row(&r->to, t->f, level, g);
    for (uint d = 0; d < D; ++d)
        to[d * 16] = MAD(lifted * w->q[d], w->q[d], to[d * 16]);
}

static inline void receive_share(private receiver *r, private const walker *w, private const trees *t, uint level,
                                 uint g, float lifted, float whole) {
    *node_more(&r->to, t->f, level, g, NODE_SHARE) += lifted * whole;
}

static inline void receive_chunk(private receiver *r, private const walker *w, private const trees *t, uint g,
                                 float below) {
    receive_variance(r, w, t, TOP, g, below);
}

#include "tree/near_far_back_walk.clh"

/* Whether a row comes to node g of a level: from a root down to it everything is open. */
static inline bool comes_to(private const walker *w, private const trees *t, uint level, uint g) {
    uint highest = highest_level(t->f.levels, w->past);
    for (uint above = highest + 1; above-- > level;) {
        uint root = g >> (size_shift(above) - size_shift(level));
        uint2 roots = roots_of(w, t, above, highest);
        if (root < roots.x || root >= roots.y)
            continue;
        for (; above > level; --above) {
            uint at = g >> (size_shift(above) - size_shift(level));
            node_view s = look_at(w, t, above, at, 0.0f);
            if (!opens(w, above, at, false, &s))
                return false;
        }
        return true;
    }
    return false;
}

/* A row for these kernels; false: it meets nothing. */
#define RECALL_ROW(w, r, h, i)                                                                                         \
    {                                                                                                                  \
        INDEX row_ = ((INDEX)b * (get_global_size(1) * group) + h) * queries + i;                                      \
        global const ELEMENT(DOUT_TYPE) *d_ = dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;    \
        recall(w, q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3, scale, visible_keys(i, diagonal, keys),       \
               tolerance, kept + KEPT_NUMBERS * row_);                                                                 \
        for (uint e = 0; e < DV; ++e)                                                                                  \
            (r)->dout[e] = LOAD(DOUT_TYPE, d_, e);                                                                     \
        (r)->lse = row_numbers[ROW_NUMBERS * row_];                                                                    \
        (r)->delta = row_numbers[ROW_NUMBERS * row_ + 1];                                                              \
        (r)->moved = row_numbers[ROW_NUMBERS * row_ + 2];                                                              \
    }

/* The first query that sees beyond slot `end`, if it is causal: earlier ones have not come so far. */
static inline uint first_row(uint end, int diagonal) {
    return OWN ? (uint)max((int)end - diagonal, 0) : 0;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_nodes(INPUTS, global const float *kept,
                                                                                global const ELEMENT(DOUT_TYPE) *dout,
                                                                                INDEX4 dout_at,
                                                                                global const float *row_numbers, SUMS) {
    uint g = get_global_id(0), level = TOP, kv = get_global_id(1), b = get_global_id(2);
    trees t = TREES;
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    uint gathered = (keys + CHUNK - 1) / CHUNK * CHUNK, nodes = gathered >> size_shift(TOP);
    while (g >= nodes) {
        g -= nodes;
        if (++level >= levels)
            return;
        nodes = (gathered + (1u << size_shift(level)) - 1) >> size_shift(level);
    }
    trees_move(&t, head);
    walker w;
    receiver r;
    sums_begin(&r.to, t.f, head, slot_sums, node_sums, variance_sums);
    /* A node that is a part comes before the rows that see its last key: only where there are no own chunks. */
    uint begin = first_row((g + 1) << size_shift(level), diagonal);
    for (uint h = kv * group; h < (kv + 1) * group; ++h)
        for (uint i = begin; i < queries; ++i) {
            RECALL_ROW(&w, &r, h, i)
            if (r.lse < INFINITY && comes_to(&w, &t, level, g))
                receive_from(&r, &w, &t, level, g);
        }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_apart(INPUTS, global const float *kept,
                                                                                global const ELEMENT(DOUT_TYPE) *dout,
                                                                                INDEX4 dout_at,
                                                                                global const float *row_numbers, SUMS) {
    uint x = get_global_id(0), kv = get_global_id(1), b = get_global_id(2), slot = chunks * CHUNK + x;
    trees t = TREES;
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    if (x >= apart_before(t.f, apart, head, (keys + CHUNK - 1) / CHUNK))
        return;
    trees_move(&t, head);
    walker w;
    receiver r;
    sums_begin(&r.to, t.f, head, slot_sums, node_sums, variance_sums);
    for (uint h = kv * group; h < (kv + 1) * group; ++h)
        for (uint i = 0; i < queries; ++i) {
            if (x >= apart_before(t.f, apart, head, past_of(visible_keys(i, diagonal, keys))))
                continue;
            RECALL_ROW(&w, &r, h, i)
            if (r.lse < INFINITY)
                receive_keys(&r, &w, &t, slot, slot + 1);
        }
}
