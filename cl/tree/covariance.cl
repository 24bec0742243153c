/* How values follow keys within the leaves of a forest: its covariances (op_forest in src/op/op.h).
 *
 *     run r:  S_r = Σ over leaves and their keys of e^b n / Σ e^b · (k − c) vᵀ
 *             m_r = Σ n σ
 *             W_r = W_{r−1} + (S_r − m_r W_{r−1}) / Σ_{0…r} m
 *
 * c: the leaf's mean, n its number of keys; Σ e^b (k − c) = 0; σ: the leaf's slope (forest.clh).
 *
 * Work: gather_covariances, one work-item for ROWS rows of a run's matrix; average_covariances, one for COLUMNS
 * columns of a row of all; grid (their number rounded up to WG, Hk, B). No local memory, no barrier. */
#include "shared/tensor.clh"
#include "tree/forest.clh"

#ifndef BIAS
#define BIAS 1
#endif
#ifndef COLUMNS /* that an item averages: a divisor of DV */
#define COLUMNS DV
#endif
#define UNROLL _Pragma("unroll")

#ifndef ROWS /* that an item sums at a time, in registers: W / 4 */
#define ROWS 1
#endif
#define VECTORS (DV / W)
#define REST (DV % W)
#define KEY(s, a) LOAD(FOREST_TYPE, tree_keys, lane_of(0, s, D) + min(d0 + a, D - 1u) * 16)

/* A leaf's weights and its mean, in ROWS rows from d0 on: that of the node may be rounded. */
static inline void leaf_mean(private float weights[LEAF], private float mean[ROWS], uint slot, uint count,
                             float log_mass, uint d0, global const ELEMENT(FOREST_TYPE) *tree_keys,
                             global const float *biases) {
    UNROLL
    for (uint a = 0; a < ROWS; ++a)
        mean[a] = 0.0f;
    for (uint i = 0; i < count; ++i) {
        weights[i] = BIAS ? exp(biases[slot + i] - log_mass) : 1.0f / count;
        UNROLL
        for (uint a = 0; a < ROWS; ++a)
            mean[a] = MAD(weights[i], KEY(slot + i, a), mean[a]);
    }
}

/* ROWS rows of how values follow keys within the leaves of run first + i: sums over their keys (covariances in op.h),
 * not yet means. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gather_covariances(uint first, uint runs, uint levels, uint chunks, uint room, uint16 first_block,
                   global const ELEMENT(FOREST_TYPE) *tree_keys, global const ELEMENT(FOREST_TYPE) *tree_values,
                   global const float *biases, global const float *stats, global float *covariances) {
    const uint strips = (D + ROWS - 1) / ROWS, leaves = RUN * CHUNK / LEAF;
    uint run = first + get_global_id(0) / strips, d0 = get_global_id(0) % strips * ROWS;
    if (run >= first + runs)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1), slots = head * slots_of(f);
    tree_keys += slots * D;
    tree_values += slots * DV;
    biases += slots;
    stats += head * f.blocks * 16 * STATS;
    floatW sums[ROWS * VECTORS + 1];
    float rest[ROWS * REST + 1], x[ROWS], weights[LEAF], mean[ROWS];
    UNROLL
    for (uint i = 0; i < ROWS * VECTORS; ++i)
        sums[i] = (floatW)(0.0f);
    for (uint i = 0; i < ROWS * REST; ++i)
        rest[i] = 0.0f;
    for (uint leaf = run * leaves; leaf < (run + 1) * leaves; ++leaf) {
        global const float *stat = stats + lane_of(0, leaf, STATS);
        uint count = slope_of(stat[VARIANCE * 16], stat[SPREAD * 16]) > 0.0f ? count_of(0, stat) : 0;
        leaf_mean(weights, mean, leaf * LEAF, count, stat[LOG_MASS * 16], d0, tree_keys, biases);
        for (uint s = leaf * LEAF; s < leaf * LEAF + count; ++s) {
            UNROLL
            for (uint a = 0; a < ROWS; ++a)
                x[a] = count * weights[s % LEAF] * (KEY(s, a) - mean[a]);
            global const ELEMENT(FOREST_TYPE) *value = tree_values + (INDEX)s * DV;
            UNROLL
            for (uint i = 0; i < VECTORS; ++i) {
                floatW v = LOADW(FOREST_TYPE, value, i * W);
                UNROLL
                for (uint a = 0; a < ROWS; ++a)
                    sums[a * VECTORS + i] = MAD((floatW)(x[a]), v, sums[a * VECTORS + i]);
            }
            for (uint i = 0; i < REST; ++i)
                for (uint a = 0; a < ROWS; ++a)
                    rest[a * REST + i] = MAD(x[a], LOAD(FOREST_TYPE, value, VECTORS * W + i), rest[a * REST + i]);
        }
    }
    covariances += ((head * (chunks / RUN) + run) * D + d0) * DV;
    UNROLL
    for (uint a = 0; a < ROWS; ++a) {
        if (d0 + a >= D)
            continue;
        UNROLL
        for (uint i = 0; i < VECTORS; ++i)
            CAT(vstore, W)(sums[a * VECTORS + i], 0, covariances + a * DV + i * W);
        for (uint i = 0; i < REST; ++i)
            covariances[a * DV + VECTORS * W + i] = rest[a * REST + i];
    }
}

/* Those sums become means over all runs so far. One step after another, each from the mean before it, so that a
 * forest that grows has the bits of one that is gathered at once. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
average_covariances(uint first, uint runs, uint levels, uint chunks, uint room, uint16 first_block,
                    global const float *stats, global float *covariances) {
    uint e0 = get_global_id(0) * COLUMNS;
    if (e0 >= D * DV)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    stats += head * f.blocks * 16 * STATS;
    covariances += head * (chunks / RUN) * D * DV + e0;
    float all = 0.0f, mean[COLUMNS];
    for (uint e = 0; e < COLUMNS; ++e)
        mean[e] = 0.0f;
    for (uint run = 0; run < first + runs; ++run) {
        global float *of = covariances + (INDEX)run * D * DV;
        global const float *stat = stats + lane_of(0, run * (RUN * CHUNK / LEAF), STATS);
        float own = 0.0f;
        _Pragma("unroll 16") for (uint leaf = 0; leaf < RUN * CHUNK / LEAF; ++leaf) {
            global const float *its = stat + lane_of(0, leaf, STATS);
            own = MAD(its[COUNT * 16], slope_of(its[VARIANCE * 16], its[SPREAD * 16]), own);
        }
        all += own;
        for (uint e = 0; e < COLUMNS && run >= first; ++e)
            of[e] = all > 0.0f ? mean[e] + (of[e] - own * mean[e]) / all : 0.0f;
        for (uint e = 0; e < COLUMNS && run + 1 >= first; ++e)
            mean[e] = of[e];
    }
}
