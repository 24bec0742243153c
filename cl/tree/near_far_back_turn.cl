/* Gradients of near-far attention, for CPUs: a head's keys, values and nodes turned round for near_far_back_wide.cl,
 * and the sums of its ranges put together.
 *
 * Shapes: blocks of 16 slots or nodes, of a head: columns [blocks][D][16] become rows [blocks·16][D], and values
 * [blocks·16][DV] lanes [blocks][DV][16], F32 both; variances [blocks][D][16] rows [blocks·16][D]. sums
 * [ranges][count].
 * Work: one work-item a block, grid (blocks, Hk, B); near_far_back_add one 16 numbers, grid (count / 16, 1, 1). */
#include "shared/tensor.clh"

#ifndef TILE
#define TILE 64
#endif
#include "shared/wide.clh"
#include "tree/forest.clh"

/* 16 rows of `width` numbers of [width][16]. */
#define TO_ROWS(type, columns, rows)                                                                                   \
    for (uint d_ = 0; d_ < D; d_ += 16) {                                                                              \
        float16 t_[16], u_[16];                                                                                        \
        UNROLL                                                                                                         \
        for (uint x_ = 0; x_ < 16; ++x_)                                                                               \
            t_[x_] = LOAD16(type, columns, (d_ + x_) * 16);                                                            \
        ROUND(t_, u_) ROUND(u_, t_) ROUND(t_, u_) ROUND(u_, t_) UNROLL                                                 \
        for (uint x_ = 0; x_ < 16; ++x_)                                                                               \
            vstore16(t_[x_], 0, (rows) + x_ * D + d_);                                                                 \
    }

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_back_turn(global const ELEMENT(FOREST_TYPE) *columns, global const ELEMENT(FOREST_TYPE) *values,
                   global float *rows, global float *lanes) {
    INDEX block =
        ((INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1)) * get_global_size(0) + get_global_id(0);
    columns += block * (16 * D);
    rows += block * (16 * D);
    values += block * (16 * DV);
    lanes += block * (16 * DV);
    TO_ROWS(FOREST_TYPE, columns, rows)
    for (uint d = 0; d < DV; d += 16) {
        float16 t[16], u[16];
        UNROLL
        for (uint x = 0; x < 16; ++x)
            t[x] = LOAD16(FOREST_TYPE, values, x * DV + d);
        ROUND(t, u) ROUND(u, t) ROUND(t, u) ROUND(u, t) UNROLL
        for (uint x = 0; x < 16; ++x)
            vstore16(t[x], d + x, lanes);
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void near_far_back_turn_variances(global const float *variances,
                                                                                        global float *rows) {
    INDEX block =
        ((INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1)) * get_global_size(0) + get_global_id(0);
    variances += block * (16 * D);
    rows += block * (16 * D);
    TO_ROWS(F32, variances, rows)
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void near_far_back_add(uint ranges, global float *sums) {
    INDEX count = (INDEX)get_global_size(0) * 16;
    float16 sum = vload16(get_global_id(0), sums);
    for (uint r = 1; r < ranges; ++r)
        sum += vload16(get_global_id(0), sums + r * count);
    vstore16(sum, get_global_id(0), sums);
}
