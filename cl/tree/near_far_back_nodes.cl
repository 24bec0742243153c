/* Gradients of near-far attention: what nodes and the keys of leaves receive of the rows that met them
 * (near_far_back.clh). A walk turned around: a node asks every row whether it came this way.
 *
 * Shapes: row_numbers and kept as in near_far_back_rows.cl; sums as near_far_back.clh tells, zero before; below [nodes
 * below chunks, as the forest's blocks][D]: what their chunk's variance receives of each.
 * Work: near_far_back_nodes, LANES work-items a node from leaves up, of which each asks its share of the rows, grid
 * (their number · LANES rounded up to WG, Hk, B); near_far_back_slots, one a slot, grid (slots rounded up to WG, Hk,
 * B), in local memory which of SHARE rows opened a leaf, of which each of its items asks one; near_far_back_apart,
 * LANES a slot of keys that stand apart, grid (slots · LANES rounded up to WG, Hk, B). Lanes give what they have one
 * after the other. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"
#include "tree/near_far_back_below.clh"

#ifndef UNROLL
#define UNROLL _Pragma("unroll")
#endif
#define SHARE (WG < LEAF ? WG : LEAF)
#ifndef LANES /* a divisor of WG */
#define LANES 16
#endif

/* A row on its way, and what has been received of all so far: of a key, or of a node's mean and mean value; of its
 * variance, or a chunk's. */
typedef struct receiver {
    float dout[DV], lse, delta, moved, below;
    float key[D], value[DV], variance[D], mass, share, slope;
} receiver;

static inline void receiver_clear(private receiver *r) {
    r->mass = r->share = r->slope = 0.0f;
    UNROLL
    for (uint d = 0; d < D; ++d)
        r->key[d] = r->variance[d] = 0.0f;
    UNROLL
    for (uint e = 0; e < DV; ++e)
        r->value[e] = 0.0f;
}

static inline void add_row(private receiver *r, private const walker *w, float lambda, float p) {
    UNROLL
    for (uint d = 0; d < D; ++d)
        r->key[d] = MAD(lambda, w->q[d], r->key[d]);
    UNROLL
    for (uint e = 0; e < DV; ++e)
        r->value[e] = MAD(p, r->dout[e], r->value[e]);
    r->mass += lambda;
}

static inline void receive_key(private receiver *r, private const walker *w, private const trees *t, uint slot,
                               float lambda, float p) {
    add_row(r, w, lambda, p);
}

static inline void receive_node(private receiver *r, private const walker *w, private const trees *t, uint level,
                                uint g, float lambda, float p) {
    add_row(r, w, lambda, p);
}

static inline void receive_slope(private receiver *r, private const walker *w, private const trees *t, uint g,
                                 float slope, float p) {
    r->slope = MAD(p, r->moved, r->slope);
}

static inline void receive_variance(private receiver *r, private const walker *w, private const trees *t, uint level,
                                    uint g, float lifted) {
    UNROLL
    for (uint d = 0; d < D; ++d)
        r->variance[d] = MAD(lifted * w->q[d], w->q[d], r->variance[d]);
}

static inline void receive_share(private receiver *r, private const walker *w, private const trees *t, uint level,
                                 uint g, float lifted, float whole) {
    r->share = MAD(lifted, whole, r->share);
    receive_variance(r, w, t, level, g, lifted * share_of(t, level, g));
}

static inline void receive_chunk(private receiver *r, private const walker *w, private const trees *t, uint g,
                                 float below) {}

#include "tree/near_far_back_walk.clh"

/* Whether a row comes to node g of a level: from a root down to it everything is open. `whole`: the variance of its
 * logits in the chunk, if that is above the node. */
static inline bool comes_to(private const walker *w, private const trees *t, uint level, uint g, private float *whole) {
    uint highest = highest_level(t->f.levels, w->past), lowest = level > TOP ? level : TOP;
    *whole = 0.0f;
    for (uint above = highest + 1; above-- > lowest;) {
        uint root = g >> (size_shift(above) - size_shift(level));
        uint2 roots = roots_of(w, t, above, highest);
        if (root < roots.x || root >= roots.y)
            continue;
        for (; above > level; --above) {
            uint at = g >> (size_shift(above) - size_shift(level));
            node_view s = look_at(w, t, above, at, *whole);
            if (!opens(w, above, at, false, &s))
                return false;
            *whole = above == TOP ? s.variance : *whole;
        }
        return true;
    }
    return false;
}

/* Whether it comes to a leaf and opens it. */
static inline bool opens_leaf(private const walker *w, private const trees *t, uint leaf) {
    float whole;
    if (!comes_to(w, t, 0, leaf, &whole))
        return false;
    node_view s = look_at(w, t, 0, leaf, whole);
    return opens(w, 0, leaf, false, &s);
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

static inline void give_row(private const receiver *r, global float *row) {
    for (uint d = 0; d < D; ++d)
        row[d * STEP] += r->key[d];
    for (uint e = 0; e < DV; ++e)
        row[(D + e) * STEP] += r->value[e];
}

/* To a slot's sums. */
static inline void give_key(private const receiver *r, private const sums *to, uint slot) {
    give_row(r, slot_row(to, slot));
    *slot_bias(to, slot) += r->mass;
}

/* `fresh`: nothing has been given of what is below chunks. */
static inline void give_node(private const receiver *r, private const sums *to, forest f, uint level, uint g,
                             global float *below, bool fresh) {
    give_row(r, node_row(to, f, level, g));
    *node_more(to, f, level, g, NODE_MASS) += r->mass;
    *node_more(to, f, level, g, NODE_SHARE) += r->share;
    *node_more(to, f, level, g, NODE_SLOPE) += r->slope;
    for (uint d = 0; d < D; ++d)
        if (level >= TOP)
            variance_row(to, f, level, g)[d * 16] += r->variance[d];
        else
            below_row(below, f, level, g)[d] =
                fresh ? r->variance[d] : below_row(below, f, level, g)[d] + r->variance[d];
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_nodes(INPUTS, global const float *kept, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                    global const float *row_numbers, SUMS, global float *below) {
    uint lane = get_global_id(0) % LANES, g = get_global_id(0) / LANES, level = 0;
    uint kv = get_global_id(1), b = get_global_id(2);
    trees t = TREES;
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    uint gathered = (keys + CHUNK - 1) / CHUNK * CHUNK, nodes = gathered >> size_shift(0);
    while (level < levels && g >= nodes) {
        g -= nodes;
        if (++level < levels)
            nodes = (gathered + (1u << size_shift(level)) - 1) >> size_shift(level);
    }
    bool live = level < levels;
    trees_move(&t, head);
    walker w;
    receiver r;
    sums to;
    float whole;
    sums_begin(&to, t.f, head, slot_sums, node_sums, variance_sums);
    receiver_clear(&r);
    /* A node that is a part comes before the rows that see its last key: only where there are no own chunks. */
    uint size = size_shift(level > TOP ? level : TOP);
    uint begin = first_row(((g >> (size - size_shift(level))) + 1) << size, diagonal);
    for (uint h = kv * group; live && h < (kv + 1) * group; ++h)
        for (uint i = begin + lane; i < queries; i += LANES) {
            RECALL_ROW(&w, &r, h, i)
            if (!(r.lse < INFINITY) || !comes_to(&w, &t, level, g, &whole))
                continue;
            node_view s = look_at(&w, &t, level, g, whole);
            if (!opens(&w, level, g, false, &s) && s.l > -INFINITY)
                receive_closed(&r, &w, &t, level, g, whole, &s);
        }
    for (uint turn = 0; turn < LANES; ++turn) {
        if (live && turn == lane)
            give_node(&r, &to, t.f, level, g, below + head * t.f.below * 16 * D, turn == 0);
        barrier(CLK_GLOBAL_MEM_FENCE);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_slots(INPUTS, global const float *kept,
                                                                                global const ELEMENT(DOUT_TYPE) *dout,
                                                                                INDEX4 dout_at,
                                                                                global const float *row_numbers, SUMS) {
    local uint open[WG];
    uint item = get_local_id(0), slot = get_global_id(0), kv = get_global_id(1), b = get_global_id(2);
    trees t = TREES;
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    bool live = slot < (keys + CHUNK - 1) / CHUNK * CHUNK;
    trees_move(&t, head);
    walker w;
    receiver r;
    sums to;
    sums_begin(&to, t.f, head, slot_sums, node_sums, variance_sums);
    receiver_clear(&r);
    uint begin = first_row(((slot - item) / CHUNK + 1) * CHUNK, diagonal);
    for (uint h = kv * group; h < (kv + 1) * group; ++h)
        for (uint first = begin; first < queries; first += SHARE) {
            uint asked = first + item % SHARE;
            bool opened = false;
            if (live && asked < queries) {
                RECALL_ROW(&w, &r, h, asked)
                opened = r.lse < INFINITY && opens_leaf(&w, &t, slot / LEAF);
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            open[item] = opened;
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint x = 0; x < SHARE; ++x)
                if (open[item / SHARE * SHARE + x]) {
                    uint i = first + x;
                    RECALL_ROW(&w, &r, h, i)
                    receive_keys(&r, &w, &t, slot, slot + 1);
                }
        }
    if (live)
        give_key(&r, &to, slot);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_apart(INPUTS, global const float *kept,
                                                                                global const ELEMENT(DOUT_TYPE) *dout,
                                                                                INDEX4 dout_at,
                                                                                global const float *row_numbers, SUMS) {
    uint lane = get_global_id(0) % LANES, x = get_global_id(0) / LANES, slot = chunks * CHUNK + x;
    uint kv = get_global_id(1), b = get_global_id(2);
    trees t = TREES;
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    bool live = x < apart_before(t.f, apart, head, (keys + CHUNK - 1) / CHUNK);
    trees_move(&t, head);
    walker w;
    receiver r;
    sums to;
    sums_begin(&to, t.f, head, slot_sums, node_sums, variance_sums);
    receiver_clear(&r);
    for (uint h = kv * group; live && h < (kv + 1) * group; ++h)
        for (uint i = lane; i < queries; i += LANES) {
            if (x >= apart_before(t.f, apart, head, past_of(visible_keys(i, diagonal, keys))))
                continue;
            RECALL_ROW(&w, &r, h, i)
            if (r.lse < INFINITY)
                receive_keys(&r, &w, &t, slot, slot + 1);
        }
    for (uint turn = 0; turn < LANES; ++turn) {
        if (live && turn == lane)
            give_key(&r, &to, slot);
        barrier(CLK_GLOBAL_MEM_FENCE);
    }
}
