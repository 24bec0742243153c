/* Gradients of near-far attention: what the variances of chunks receive of rows, for each of which
 * near_far_back_local.cl has left a number: C_d receives Σ_i spreads_i q'_d².
 *
 * Shapes: row_numbers, notes and spreads as in near_far_back_local.cl. Work: one work-item a column of EACH chunks,
 * grid (⌈chunks / EACH⌉ · D rounded up to WG, Hk, B). No local memory, no barrier. */
#include "shared/tensor.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"
#include "tree/near_far_back.clh"

#ifndef EACH
#define EACH 8
#endif
#define UNROLL _Pragma("unroll")

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_variances(INPUTS,
                                                                                    global const float *row_numbers,
                                                                                    global const uint *notes,
                                                                                    global const float *spreads, SUMS) {
    uint d = get_global_id(0) % D, first = get_global_id(0) / D * EACH, there = (keys + CHUNK - 1) / CHUNK;
    if (first >= there)
        return;
    INDEX kv = get_global_id(1), b = get_global_id(2), head = b * get_global_size(1) + kv;
    float sum[EACH];
    UNROLL
    for (uint x = 0; x < EACH; ++x)
        sum[x] = 0.0f;
    for (uint h = kv * group; h < (kv + 1) * group; ++h)
        for (uint i = first_row((first + 1) * CHUNK, diagonal); i < queries; ++i) {
            INDEX rows = (b * (get_global_size(1) * group) + h) * queries, at = (rows * chunks) + i;
            uint past = past_of(visible_keys(i, diagonal, keys));
            float x = scale * LOAD(Q_TYPE, q, q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3 + d);
            if (!(row_numbers[(rows + i) * ROW_NUMBERS] < INFINITY))
                continue;
            UNROLL
            for (uint g = 0; g < EACH; ++g)
                if (first + g < past && notes[at + (INDEX)(first + g) * queries])
                    sum[g] = MAD(spreads[at + (INDEX)(first + g) * queries] * x, x, sum[g]);
        }
    forest f = forest_of(levels, chunks, room, first_block);
    sums s;
    sums_begin(&s, f, head, slot_sums, node_sums, variance_sums);
    UNROLL
    for (uint g = 0; g < EACH; ++g)
        if (first + g < there)
            variance_row(&s, f, TOP, first + g)[d * 16] = sum[g];
}
