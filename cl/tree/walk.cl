/* What rows of near-far attention decided, node by node, in the order in which they went from the roots down: for
 * pictures of it. The rows are walked once more by what the forward pass left of them (KEPT), as in its gradients.
 *
 * Of each node that a row looks at, closed or opened: the error that it costs to leave it closed, by which the row's
 * expected error is made up; the most that it may cost, which opens it if it is above what the row accepts, below 0
 * where it was opened; and how many keys it has.
 *
 * Shapes: as near_far.cl; kept [B,H,N,KEPT_NUMBERS], counts [B,H,N,2]: nodes looked at, and the level of the
 * highest roots; told [B,H,N,most,3]: the first of the nodes.
 * Work: one work-item a query, grid (N rounded up to WG, H, B). No local memory, no barrier. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"
#include "tree/near_far_recall.clh"

/* From a root down. Returns: how many nodes have been looked at in all. */
static inline uint tell_below(private const walker *w, private const trees *t, uint root_level, uint root, uint at,
                              uint most, global float *told) {
    uint level = root_level, g = root;
    float whole = 0.0f;
    do {
        node_view s = look_at(w, t, level, g, whole);
        bool open = opens(w, level, g, false, &s);
        float limit = exp(s.l - w->mass + s.hidden) * node_error(s.variance, s.spread * w->inverse_size);
        limit = limit > 0.0f ? limit : 0.0f; /* nor NaN, whose sign is anything */
        if (level == TOP)
            whole = s.variance;
        if (at < most)
            vstore3((float3)(s.error, open ? -limit : limit, s.count), at, told);
        ++at;
        if (open && level > 0) {
            g <<= fan_shift(level);
            --level;
            continue;
        }
        leave(&level, &g, root_level);
    } while (level < root_level);
    return at;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void walk_rows(INPUTS, global const float *kept, uint most,
                                                                      global uint *counts, global float *told) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2), kv = h / group;
    if (i >= queries)
        return;
    trees t = TREES;
    INDEX head = (INDEX)b * (get_global_size(1) / group) + kv, row = ((INDEX)b * get_global_size(1) + h) * queries + i;
    trees_move(&t, head);
    walker w;
    recall(&w, q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3, scale, visible_keys(i, diagonal, keys), tolerance,
           kept + KEPT_NUMBERS * row);
    told += row * most * 3;
    uint at = 0, highest = highest_level(t.f.levels, w.past);
    for (uint level = highest + 1; w.past && level-- > TOP;) {
        uint2 roots = roots_of(&w, &t, level, highest);
        for (uint root = roots.x; root < roots.y; ++root)
            at = tell_below(&w, &t, level, root, at, most, told);
    }
    counts[2 * row] = at;
    counts[2 * row + 1] = highest;
}
