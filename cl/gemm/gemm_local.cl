/* C = A Bᵀ in tiles of local memory, for GPUs of any vendor and any storage types. Mathematics and shapes as in
 * gemm.cl.
 *
 * A work-group of 8 × 8 items makes SIDE × SIDE elements of c. The summed dimension goes by STEP at a time: each item
 * copies STEP numbers of one row of a and of one of b, transposed, so that items write side by side; then it adds the
 * products of EACH rows and EACH columns in registers. Rows past the end repeat the last, products past the end are 0.
 *
 * Work: grid (⌈M / SIDE⌉ · 64, ⌈N / SIDE⌉, B·H). Local memory: 2 · STEP · SIDE floats. */
#include "shared/tensor.clh"
#include "shared/blocks.clh"

#include "shared/constants.h"
#define ITEMS 64                /* 8 × 8 */
#define EACH 8                  /* rows and columns of an item */
#define SIDE OP_GEMM_LOCAL_SIDE /* a row of the tile for each item to copy */
#ifndef STEP                    /* products per tile; a multiple of 4 */
#define STEP OP_GEMM_LOCAL_STEP
#endif
#ifndef A_TYPE
#define A_TYPE F32
#define B_TYPE F32
#define C_TYPE F32
#endif
#define UNROLL _Pragma("unroll")

/* tile[d·SIDE + item] = row[begin + d] for d < part, 0 behind. */
#define COPY(type, row, begin, part, tile)                                                                             \
    UNROLL                                                                                                             \
    for (uint d_ = 0; d_ < STEP; ++d_)                                                                                 \
        (tile)[d_ * SIDE + item] = d_ < (part) ? LOAD(type, row, (begin) + d_) : 0.0f;

kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
gemm_local(uint rows, uint columns, uint depth, uint heads, global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
           global const ELEMENT(B_TYPE) *b, INDEX4 b_at, global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    local float left[STEP * SIDE], right[STEP * SIDE];
    uint item = get_local_id(0), batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    uint first = get_group_id(0) * SIDE, left_column = get_group_id(1) * SIDE;
    uint row = item / 8 * EACH, column = item % 8 * EACH;
    a += a_at.s0 + batch * a_at.s1 + head * a_at.s2 + (INDEX)min(first + item, rows - 1) * a_at.s3;
    b = PLACE(B_TYPE, b,
              b_at.s0 + batch * b_at.s1 + head * b_at.s2 + (INDEX)min(left_column + item, columns - 1) * b_at.s3);
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2;

    float sum[EACH][EACH];
    UNROLL
    for (uint i = 0; i < EACH; ++i)
        UNROLL
    for (uint j = 0; j < EACH; ++j)
        sum[i][j] = 0.0f;
    for (uint d = 0; d < depth; d += STEP) {
        uint part = min((uint)STEP, depth - d);
        COPY(A_TYPE, a, d, part, left)
        COPY(B_TYPE, b, d, part, right)
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (uint e = 0; e < STEP; ++e) {
            float x[EACH], y[EACH];
            UNROLL
            for (uint i = 0; i < EACH; ++i) {
                x[i] = left[e * SIDE + row + i];
                y[i] = right[e * SIDE + column + i];
            }
            UNROLL
            for (uint i = 0; i < EACH; ++i)
                UNROLL
            for (uint j = 0; j < EACH; ++j)
                sum[i][j] = MAD(x[i], y[j], sum[i][j]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    UNROLL
    for (uint i = 0; i < EACH; ++i)
        UNROLL
    for (uint j = 0; j < EACH; ++j)
        if (first + row + i < rows && left_column + column + j < columns)
            STORE(C_TYPE, c + (INDEX)(first + row + i) * c_at.s3, left_column + column + j, sum[i][j]);
}
