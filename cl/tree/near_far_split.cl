/* Near-far attention of few rows, as in decoding, for CPUs. Mathematics and shapes as in near_far.cl, rows as in
 * near_far_wide.cl.
 *
 * What a row does is little, and takes as long as what it reads takes from memory. So a tile's roots are split over
 * PARTS work-items, and each goes down breadth first: of a whole level it lists the nodes that rows opened, in the
 * order of memory, and while it works on one node those that come next are on their way.
 *   1. near_far_look: scores and deviations of a part's roots, and the state of each row over them, all closed. A part
 *      more, the first, has the own chunk and the keys that stand apart (apart.cl).
 *   2. near_far_split: the states of all parts give each row's base, mass and size. The acceptance test goes over the
 *      roots, then the children of those that were opened, level by level, and at last come the keys of leaves. The
 *      order of a row's sums does not depend on the other rows.
 *   3. near_far_merge.cl: what the parts found becomes one state.
 *
 * Workspaces, of [B][Hk][tiles]: scores [blocks from TOP on][2][TILE][16], log-weights and deviations; lists, of each
 * level's nodes, [blocks·16] with a part's from its own first node on; looks [PARTS+1][TILE][LOOK_NUMBERS] and
 * [PARTS+1][TILE][DV].
 *
 * Work: grid (Hk, tiles·PARTS, B), for near_far_look PARTS + 1; work-groups of one. */
#include "shared/tensor.clh"

#ifndef SPAN /* positions of a tile, a power of two that divides CHUNK */
#define SPAN 1
#endif
#ifndef GROUP /* query heads of a key head; SPAN·GROUP ≤ 32 */
#define GROUP 2
#endif
#ifndef PARTS
#define PARTS 2
#endif
#define TILE (SPAN * GROUP)
#if TILE % 4 == 0
#define RT 4
#elif TILE % 2 == 0
#define RT 2
#else
#define RT 1
#endif
#include "shared/wide.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"

#define LIMITED 0
#define AHEAD 2 /* nodes or leaves that are on their way */

#include "tree/near_far_rows.clh"
#include "tree/near_far_groups.clh"
#include "tree/near_far_begin.clh"

/* Of a row's state over some roots: top, mass relative to it, spreads_of_values; and of the own chunk its keys,
 * instead. */
#define LOOK_NUMBERS OP_LOOK_NUMBERS

/* The block that comes next in memory. */
static inline block after(private const nodes *n) {
    block next = {n->means + 16 * D, n->values + 16 * DV, n->stats + 16 * STATS};
    return next;
}

/* A block's log-weights in scores, and after them its deviations. */
static inline INDEX scores_of(private const trees *t, uint level, uint g) {
    return ((INDEX)first_block_of(t->f.first_block, level) + g / 16 - t->f.below) * 2 * TILE * 16;
}

/* Blocks of roots begin to end − 1, all closed, for all rows. */
static inline void look(private rows *w, private const trees *t, uint highest, uint begin, uint end,
                        global float *scores) {
    float l[TILE * 16] ALIGNED, deviation[TILE * 16] ALIGNED;
    nodes n;
    uint first;
    for (uint block = begin; block < end; ++block) {
        root_block(t, highest, !OWN, block, &n, &first);
        w->next = after(&n);
        global float *to = scores + scores_of(t, n.level, first);
        look_at_all(w, &n, l, deviation);
        for (uint r = 0; r < TILE; ++r) {
            float16 x = VECTOR(l + 16 * r), root = VECTOR(deviation + 16 * r);
            vstore16(x, r, to);
            vstore16(root, TILE + r, to);
            if (any_lane(x > w->t.top[r]))
                rebase(w, r, max16(x));
            float base = w->t.top[r] == -INFINITY ? 0.0f : w->t.top[r];
            x = select((float16)(0.0f), exp_weight(fmin(x + certain_lift16(root, n.knee) - base, MARGIN)), n.there);
            VECTOR(w->t.mass + 16 * r) += x;
            VECTOR(l + 16 * r) = x;
        }
        add_all(w, w->t.sum, l, &n);
    }
}

/* A part of `count` things. */
static inline uint2 part_of(uint part, uint count) {
    return (uint2)(part * count / PARTS, (part + 1) * count / PARTS);
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_look(INPUTS, global float *scores, global float *look_numbers, global float *look_values) {
    uint tiles = get_global_size(1) / (PARTS + 1), number = get_global_id(1) % tiles,
         look_part = get_global_id(1) / tiles;
    uint kv = get_global_id(0), b = get_global_id(2);
    INDEX head = (INDEX)b * get_global_size(0) + kv, tile_number = head * tiles + number;
    trees t = TREES;
    trees_move(&t, head);
    rows w;
    place at = rows_begin(&w, number, diagonal, keys, queries, scale, q + q_at.s0 + b * q_at.s1 + kv * GROUP * q_at.s2,
                          q_at.s3, q_at.s2);
    float2 spreads = (float2)(0.0f);
    trees_reach(&t, at, covariances + head * (chunks / RUN) * D * DV);
    if (look_part == 0) {
        ATTEND_OWN(&w, at)
        attend_apart(&w, &t, apart_before(t.f, apart, head, at.past));
    } else if (at.past) {
        uint highest = highest_level(levels, at.past);
        uint2 blocks = part_of(look_part - 1, root_blocks(&t, highest, !OWN)),
              all = part_of(look_part - 1, (at.past + 15) / 16);
        look(&w, &t, highest, blocks.x, blocks.y, scores + tile_number * (t.f.blocks - t.f.below) * 2 * TILE * 16);
        spreads = spreads_of_values(&t, all.x, all.y);
    }
    INDEX to = (tile_number * (PARTS + 1) + look_part) * TILE;
    for (uint r = 0; r < TILE; ++r) {
        float4 numbers = (float4)(w.t.top[r], sum16(VECTOR(w.t.mass + 16 * r)), spreads);
        if (look_part == 0)
            numbers.z = (float)w.exact[r];
        vstore4(numbers, to + r, look_numbers);
        for (uint d = 0; d < DV; d += 16)
            vstore16(VECTOR(w.t.sum + r * DV + d), 0, look_values + (to + r) * DV + d);
    }
}

/* Base, mass, size and limit of each row from the states of all parts; the own chunk's stays if this is the first
 * part. */
static inline void finalise(private rows *w, global const float *numbers, global const float *values, float tolerance,
                            uint past, bool first) {
    for (uint r = 0; r < TILE; ++r) {
        float base = -INFINITY, mass = 0.0f, sums[DV] ALIGNED;
        float2 spreads = (float2)(0.0f);
        for (uint p = 0; p <= PARTS; ++p)
            base = fmax(base, vload4(p * TILE + r, numbers).x);
        base = base == -INFINITY ? 0.0f : base;
        for (uint d = 0; d < DV; d += 16)
            VECTOR(sums + d) = (float16)(0.0f);
        for (uint p = 0; p <= PARTS; ++p) {
            float4 of = vload4(p * TILE + r, numbers);
            float weight = exp(of.x - base);
            mass = MAD(weight, of.y, mass);
            spreads += p > 0 ? of.zw : (float2)(0.0f);
            for (uint d = 0; d < DV; d += 16)
                VECTOR(sums + d) =
                    MAD((float16)(weight), vload16(0, values + (p * TILE + r) * DV + d), VECTOR(sums + d));
            if (p > 0 || !first)
                continue;
            w->exact[r] = (uint)of.z;
            w->t.mass[16 * r] = mass;
            for (uint d = 0; d < DV; d += 16)
                VECTOR(w->t.sum + r * DV + d) = VECTOR(sums + d);
        }
        w->t.top[r] = base;
        w->mass[r] = mass;
        w->inverse_size[r] = inverse_of(norm_of(sums, inverse_of(mass)));
        w->limit[r] = accepted_error(tolerance, spread_of_values(spreads) * w->inverse_size[r], past) * mass;
    }
}

/* Nodes to be opened, each with the set of its rows, by level: a part's lie where its nodes do, and so there is room
 * for all of them. */
typedef struct lists {
    global uint2 *of[FOREST_LEVELS];
    uint count[FOREST_LEVELS];
} lists;

static inline void lists_begin(private lists *s, private const trees *t, global uint2 *lists, uint first_slot) {
    for (uint level = 0; level < t->f.levels; ++level) {
        s->of[level] = lists + first_block_of(t->f.first_block, level) * 16 + (first_slot >> size_shift(level));
        s->count[level] = 0;
    }
}

/* Nodes first to first + 15. */
static inline void list_openers(private lists *s, uint level, uint first, private const openers *o) {
    for (uint c = 0; c < 16; ++c)
        if (o->of[0][c])
            s->of[level][s->count[level]++] = (uint2)(first + c, o->of[0][c]);
}

static inline void test_roots(private rows *w, private const trees *t, uint highest, uint2 blocks,
                              global const float *scores, private lists *s) {
    float weights[TILE * 16] ALIGNED, deviation[TILE * 16] ALIGNED;
    uint first, every[TILE];
    openers o;
    nodes n;
    for (uint r = 0; r < TILE; ++r)
        every[r] = r;
    for (uint block = blocks.x; block < blocks.y; ++block) {
        root_block(t, highest, !OWN, block, &n, &first);
        w->next = after(&n);
        global const float *from = scores + scores_of(t, n.level, first);
        UINTS(o.of[0]) = (uint16)(0);
        for (uint r = 0; r < TILE; ++r) {
            VECTOR(weights + 16 * r) = vload16(r, from);
            VECTOR(deviation + 16 * r) = vload16(TILE + r, from);
        }
        test_nodes(w, &n, every, TILE, deviation, weights, &o);
        add_all(w, w->t.sum, weights, &n);
        list_openers(s, n.level, first, &o);
    }
}

/* The children of node g, for the rows of a set. */
static inline void visit(private rows *w, private const trees *t, uint level, uint2 node, global float *scores,
                         private lists *s) {
    uint fan = 1u << fan_shift(level), child = node.x << fan_shift(level), set = node.y, list[TILE],
         count = list_rows(&set, list);
    float l[TILE * 16] ALIGNED, deviation[TILE * 16] ALIGNED;
    nodes n = block_of(t, level - 1, child, child % 16, child % 16 + fan);
    openers o;
    UINTS(o.of[0]) = (uint16)(0);
    if (level > TOP) {
        global float *to = scores + scores_of(t, level - 1, child);
        look_at_all(w, &n, l, deviation);
        for (uint i = 0; i < count; ++i) {
            uint r = list[i];
            float *weights = l + 16 * r;
            vstore16(VECTOR(deviation + 16 * r), TILE + r, to);
            test_nodes(w, &n, &r, 1, deviation + 16 * r, weights, &o);
            ADD_VALUES(1, w->t.sum, &r, weights, 16, FOREST_TYPE, n.values, n.begin, n.end)
        }
    } else {
        uint chunk = node.x >> (size_shift(TOP) - size_shift(level));
        global const float *from = scores + scores_of(t, TOP, chunk) + TILE * 16 + chunk % 16;
        for (uint r = 0; r < TILE; ++r)
            deviation[16 * r] = from[16 * r];
#define CALL(N) visit_##N(w, &n, list + i, deviation, &o);
        IN_GROUPS(count, CALL)
#undef CALL
    }
    list_openers(s, level - 1, child - child % 16, &o);
}

static inline block children_of(private const trees *t, uint level, uint g) {
    INDEX at = first_block_of(t->f.first_block, level - 1) + (g << fan_shift(level)) / 16;
    block of = {t->means + at * D * 16, t->mean_values + at * DV * 16, t->stats + at * STATS * 16};
    return of;
}

static inline block keys_of(private const trees *t, uint leaf) {
    INDEX slot = (INDEX)(leaf / LEAVES) * 16;
    block of = {t->keys + slot * D, t->values + slot * DV, t->biases + slot};
    return of;
}

/* What the nodes of a list lead to. */
static inline block below(private const trees *t, uint level, uint g) {
    return level ? children_of(t, level, g) : keys_of(t, g);
}

static inline void prefetch_numbers(block next, uint level) {
    for (uint i = 0; i < (level ? STATS * 16 : 16); i += 16)
        PREFETCH(next.numbers + i);
}

/* All of the first few; the others come line by line as those before them are used. */
static inline void prefetch_first(private const trees *t, uint level, global const uint2 *list, uint count) {
    const uint line = 64 / sizeof(ELEMENT(FOREST_TYPE));
    for (uint i = 0; i < min(count, (uint)AHEAD); ++i) {
        block next = below(t, level, list[i].x);
        prefetch_numbers(next, level);
        for (uint x = 0; x < 16 * D; x += line)
            PREFETCH(next.columns + x);
        for (uint x = 0; x < 16 * DV; x += line)
            PREFETCH(next.values + x);
    }
}

static inline void look_ahead(private rows *w, private const trees *t, uint level, global const uint2 *list, uint i,
                              uint count) {
    w->next = below(t, level, list[min(i + AHEAD, count - 1)].x);
    prefetch_numbers(w->next, level);
}

static inline void visit_all(private rows *w, private const trees *t, uint level, global float *scores,
                             private lists *s) {
    global const uint2 *list = s->of[level];
    uint count = s->count[level];
    prefetch_first(t, level, list, count);
    for (uint i = 0; i < count; ++i) {
        look_ahead(w, t, level, list, i, count);
        visit(w, t, level, list[i], scores, s);
    }
}

/* The keys of all leaves in the list; those of one block of 16 keys together. */
static inline void open_all(private rows *w, private const trees *t, private const lists *s) {
    global const uint2 *leaves = s->of[0];
    uint count = s->count[0];
    prefetch_first(t, 0, leaves, count);
    for (uint next = 0; next < count;) {
        uint leaf = leaves[next].x, every = 0, open[TILE], open_listed[TILE], list[TILE];
        for (uint r = 0; r < TILE; ++r)
            open[r] = 0;
        look_ahead(w, t, 0, leaves, next, count);
        for (; next < count && leaves[next].x / LEAVES == leaf / LEAVES; ++next) {
            every |= leaves[next].y;
            for (uint r = 0; r < TILE; ++r)
                open[r] |= (leaves[next].y >> r & 1) << leaves[next].x % LEAVES;
        }
        uint rows_count = list_rows(&every, list);
        for (uint i = 0; i < rows_count; ++i)
            open_listed[i] = open[list[i]];
        block of = keys_of(t, leaf);
        float16 bias = vload16(0, of.numbers);
#define CALL(N) open_##N(w, of.columns, of.values, bias, list + i, open_listed + i);
        IN_GROUPS(rows_count, CALL)
#undef CALL
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_split(INPUTS, global float *scores, global uint2 *listed, global const float *look_numbers,
               global const float *look_values, global float *part_numbers, global float *part_values) {
    uint tiles = get_global_size(1) / PARTS, number = get_global_id(1) % tiles, part = get_global_id(1) / tiles;
    uint kv = get_global_id(0), b = get_global_id(2), kv_heads = get_global_size(0);
    INDEX head = (INDEX)b * kv_heads + kv, tile_number = head * tiles + number,
          looks = tile_number * (PARTS + 1) * TILE;
    trees t = TREES;
    trees_move(&t, head);
    rows w;
    place at = rows_begin(&w, number, diagonal, keys, queries, scale, q + q_at.s0 + b * q_at.s1 + kv * GROUP * q_at.s2,
                          q_at.s3, q_at.s2);
    trees_reach(&t, at, covariances + head * (chunks / RUN) * D * DV);
    w.all = tolerance == 0.0f;
    finalise(&w, look_numbers + looks * LOOK_NUMBERS, look_values + looks * DV, tolerance, at.past, part == 0);
    uint highest = highest_level(levels, at.past), first;
    uint2 blocks = part_of(part, root_blocks(&t, highest, !OWN));
    nodes n;
    lists s;
    if (blocks.x < blocks.y) {
        scores += tile_number * (t.f.blocks - t.f.below) * 2 * TILE * 16;
        root_block(&t, highest, !OWN, blocks.x, &n, &first);
        lists_begin(&s, &t, listed + tile_number * t.f.blocks * 16, (first + n.begin) << size_shift(n.level));
        test_roots(&w, &t, highest, blocks, scores, &s);
        for (uint level = highest; level > 0; --level)
            visit_all(&w, &t, level, scores, &s);
        open_all(&w, &t, &s);
        if (t.covariance)
            add_covariance_terms(&w, t.covariance);
    }
    for (uint r = 0; r < TILE; ++r) {
        int i = at.i0 + (int)(r % SPAN);
        if (!w.bit[0][r])
            continue;
        INDEX to = ((head * GROUP + r / SPAN) * queries + i) * PARTS + part;
        float of_part = tile_scale(&w.t, r), of_all = w.mass[r] > 0.0f ? 1.0f / w.mass[r] : 0.0f;
        float numbers[PART_NUMBERS] = {tile_lse(&w.t, r),
                                       of_all * of_all * sum16(VECTOR(w.error_squares + 16 * r)),
                                       of_all * sum16(VECTOR(w.error_sum + 16 * r)),
                                       w.t.top[r] + log(w.mass[r]),
                                       (float)exact_keys(&w, r),
                                       w.inverse_size[r]};
        for (uint x = 0; x < PART_NUMBERS; ++x)
            part_numbers[to * PART_NUMBERS + x] = numbers[x];
        for (uint d = 0; d < DV; d += 16)
            vstore16(VECTOR(w.t.sum + r * DV + d) * of_part, 0, part_values + to * DV + d);
    }
}
