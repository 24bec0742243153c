/* Which nodes any row of near-far attention opens, as far as the trees are here: for trees whose lower levels and keys
 * are elsewhere (src/parallel/far.c). The rows are walked once more by what the forward pass left of them (KEPT), as in
 * its gradients, 16 nodes at a time; below a chunk whose nodes are not here no row goes.
 *
 * `ease`, below 1, is for what rows decided with other roundings than these: a node counts as opened that would be at
 * that share of the accepted error.
 *
 * Shapes: as near_far.cl; kept [B,H,N,KEPT_NUMBERS]; here [B,Hk,chunks]: 1 where the nodes below a chunk are; wanted
 * [B,Hk,blocks]: of each block of 16 nodes the bits of those that are opened, of whole chunks and of leaves; 0 before.
 * Work: one work-item a query, grid (N rounded up to WG, H, B). No local memory, no barrier.
 *
 * Measured (PoCL, 65,536 real keys of a model, two heads on one, chunks of 256): a third of the forward pass's time;
 * one node after another, which a lane of a block strides through, took twelve times as long. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "shared/blocks.clh"
#include "tree/near_far_back.clh"
#include "tree/near_far_recall.clh"

/* Unrolled as a whole, a GPU's compiler wants more private memory than there is. */
#define FEW_AT_A_TIME _Pragma("unroll 4")

/* Where a row's walk is: at each level the first node of a block of 16, and which of them are still to be gone below.
 */
typedef struct path {
    uint first[FOREST_LEVELS], todo[FOREST_LEVELS];
    float whole[16]; /* variances of the block at level TOP */
} path;

static inline float16 lift16(float16 variance, float knee) {
    return select(knee * (sqrt(variance) - 0.5f * knee), 0.5f * variance, variance <= knee * knee);
}

/* The lanes from `begin` to end − 1 that the row opens of the block with node g: `opens` in near_far.cl, for 16. */
static inline uint opened_of(private const walker *w, private const trees *t, uint level, uint g, uint begin, uint end,
                             private path *p, float whole) {
    const int16 lane = (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint block = first_block_of(t->f.first_block, level) + g / 16;
    global const ELEMENT(FOREST_TYPE) *means = t->means + (INDEX)block * D * 16;
    global const float *stats = t->stats + (INDEX)block * STATS * 16;
    float16 l = vload16(LOG_MASS, stats), count = vload16(COUNT, stats), variance = whole * vload16(VARIANCE, stats);
    FEW_AT_A_TIME
    for (uint d = 0; d < D; ++d)
        l = MAD((float16)(w->q[d]), LOAD16(FOREST_TYPE, means, d * 16), l);
    if (level >= TOP) {
        global const float *variances = t->variances + ((INDEX)block - t->f.below) * D * 16;
        variance = (float16)(0.0f);
        FEW_AT_A_TIME
        for (uint d = 0; d < D; ++d)
            variance = MAD((float16)(w->q[d] * w->q[d]), vload16(d, variances), variance);
        if (level == TOP)
            vstore16(variance, 0, p->whole);
    }
    float knee = knee_of(size_shift(level));
    float16 lifted = lift16(variance, knee), deviation = sqrt(variance),
            spread = vload16(SPREAD, stats) * w->inverse_size;
    float16 outlier = fmax(2.0f * vload16(REACH, stats), level < TOP ? 0.0f : OUTLIER * 2.0f * knee);
    outlier = select(outlier, fmax(outlier, (float16)(SHARP_OUTLIER)), deviation > SHARP);
    float16 hidden = fmax(outlier * deviation - log(count) - lifted, (float16)(0.0f)),
            factor = deviation * MAD(deviation, MAD((float16)(CURVE), spread, (float16)(MASS_ERROR)), spread);
    int16 open = count > 0.0f && lane >= (int)begin &&
                 lane < (int)min(end, ((w->covered - 1) >> size_shift(level)) + 1 - g / 16 * 16);
    open = open && (w->all ? variance > 0.0f : exp(l + lifted - w->mass + hidden) * factor > w->accepted);
    int lanes[16];
    vstore16(open, 0, lanes);
    uint set = 0;
    for (uint i = 0; i < 16; ++i)
        set |= (uint)(lanes[i] != 0) << i;
    return set;
}

/* Notes the lanes that are opened, and which of them the row goes below. */
static inline void visit(private const walker *w, private const trees *t, uint level, uint g, uint2 lanes,
                         private path *p, float whole, global uint *wanted) {
    uint set = opened_of(w, t, level, g, lanes.x, lanes.y, p, whole);
    p->first[level] = g - g % 16;
    p->todo[level] = level ? set : 0;
    if (set && (level == TOP || level == 0))
        atomic_or(wanted + first_block_of(t->f.first_block, level) + g / 16, set);
}

/* Everything below the block of roots that was visited last. */
static inline void want_below(private const walker *w, private const trees *t, uint root_level, private path *p,
                              global const uint *here, global uint *wanted) {
    float whole = 0.0f;
    for (uint level = root_level; level <= root_level;) {
        uint todo = p->todo[level];
        if (!todo) {
            ++level;
            continue;
        }
        uint lane = 31 - clz(todo & (0 - todo)), g = p->first[level] + lane, child = g << fan_shift(level);
        p->todo[level] = todo & (todo - 1);
        if (level == TOP) {
            whole = p->whole[lane];
            if (!here[g])
                continue;
        }
        visit(w, t, level - 1, child, (uint2)(child % 16, child % 16 + (1u << fan_shift(level))), p, whole, wanted);
        --level;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void wanted_nodes(INPUTS, global const float *kept, float ease,
                                                                         global const uint *here, global uint *wanted) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2), kv = h / group;
    if (i >= queries)
        return;
    trees t = TREES;
    INDEX head = (INDEX)b * (get_global_size(1) / group) + kv, row = ((INDEX)b * get_global_size(1) + h) * queries + i;
    trees_move(&t, head);
    walker w;
    path p;
    recall(&w, q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3, scale, visible_keys(i, diagonal, keys), tolerance,
           kept + KEPT_NUMBERS * row);
    w.accepted *= ease;
    here += head * chunks;
    wanted += head * t.f.blocks;
    uint highest = highest_level(t.f.levels, w.past);
    for (uint level = highest + 1; w.past && level-- > TOP;) {
        uint2 roots = roots_of(&w, &t, level, highest);
        for (uint first = roots.x / 16 * 16; first < roots.y; first += 16) {
            visit(&w, &t, level, first, (uint2)(max(roots.x, first) - first, min(roots.y - first, 16u)), &p, 0.0f,
                  wanted);
            want_below(&w, &t, level, &p, here, wanted);
        }
    }
}
