/* Matrix products on NVIDIA's matrix units (mma.clh). Mathematics and shapes as in gemm.cl; a and b of one 16-bit type,
 * sums in float32.
 *
 * Work: a group of 4 warps for 128 × 128 elements of c, a warp for 64 × 64 of them; grid (⌈N / 128⌉ · WG, ⌈M / 128⌉,
 * B·H). DEPTH of the summed dimension at a time lies in local memory, twice, so that the next part is copied while this
 * one is multiplied: 40 KiB. Rows past the last repeat it; columns past the last are zeros.
 *
 * Measured (H200, bf16, 4096³): 275 TFLOP/s; PyTorch 577.
 *
 * Needs rows of a and b at multiples of 8 elements, and K a multiple of 8. */
#ifndef A_TYPE
#define A_TYPE BF16
#define C_TYPE F32
#endif
#define HALF_TYPE A_TYPE
#define WG 128
#include "shared/tensor.clh"
#include "shared/mma.clh"

#include "shared/constants.h"
#define SIDE OP_GEMM_MMA_SIDE /* of a group's part of c */
#define DEPTH 32
#define PITCH (DEPTH + 8) /* eight rows meet eight different banks */
#define ALIGNED __attribute__((aligned(16)))

/* Starts the copies of DEPTH columns of SIDE rows. */
INLINED void part_copy(local ushort *to, global const ushort *from, INDEX stride, uint row, uint rows, uint column,
                       uint columns) {
    UNROLL
    for (uint c = 0; c < SIDE * DEPTH / 8; c += WG) {
        uint chunk = c + get_local_id(0), down = chunk / (DEPTH / 8), across = chunk % (DEPTH / 8) * 8;
        bool inside = column + across < columns;
        copy_start_or_zero(to + down * PITCH + across,
                           from + (INDEX)min(row + down, rows - 1) * stride + (inside ? column + across : 0), inside);
    }
}

/* c[i][j] += A · Bᵀ for blocks of 16 rows and 8 columns of the warp. */
INLINED void part_multiply(warp w, private float c[4][8][4], local const ushort *a, local const ushort *b) {
    UNROLL
    for (uint d = 0; d < DEPTH; d += 16) {
        uint x[4][4], y[4][4];
        UNROLL
        for (uint i = 0; i < 4; ++i)
            load_tiles(w, x[i], a + (i * 16 + w.lane % 16) * PITCH + d + w.lane / 16 * 8);
        UNROLL
        for (uint j = 0; j < 4; ++j)
            load_tiles(w, y[j], b + (j * 16 + w.lane / 16 * 8 + w.lane % 8) * PITCH + d + w.lane / 8 % 2 * 8);
        UNROLL
        for (uint i = 0; i < 4; ++i)
            UNROLL
        for (uint j = 0; j < 8; ++j)
            mma(w, c[i][j], x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gemm_mma(uint rows, uint columns, uint depth, uint heads,
                                                                     global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                     global const ELEMENT(A_TYPE) *b, INDEX4 b_at,
                                                                     global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    local ushort a_part[2][SIDE * PITCH] ALIGNED, b_part[2][SIDE * PITCH] ALIGNED;
    WARP_DECLARE(w)
    uint batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    uint row = get_group_id(1) * SIDE, column = get_group_id(0) * SIDE;
    global const ushort *a_from = (global const ushort *)a + a_at.s0 + batch * a_at.s1 + head * a_at.s2;
    global const ushort *b_from = (global const ushort *)b + b_at.s0 + batch * b_at.s1 + head * b_at.s2;
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2;

    float sum[4][8][4];
    UNROLL
    for (uint i = 0; i < 4; ++i)
        UNROLL
    for (uint j = 0; j < 8; ++j)
        UNROLL
    for (uint x = 0; x < 4; ++x)
        sum[i][j][x] = 0.0f;
    part_copy(a_part[0], a_from, a_at.s3, row, rows, 0, depth);
    part_copy(b_part[0], b_from, b_at.s3, column, columns, 0, depth);
    uint down = w.index / 2 * 64, across = w.index % 2 * 64;
    for (uint d = 0, stage = 0; d < depth; d += DEPTH, stage ^= 1) {
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (d + DEPTH < depth) {
            part_copy(a_part[stage ^ 1], a_from, a_at.s3, row, rows, d + DEPTH, depth);
            part_copy(b_part[stage ^ 1], b_from, b_at.s3, column, columns, d + DEPTH, depth);
        }
        part_multiply(w, sum, a_part[stage] + down * PITCH, b_part[stage] + across * PITCH);
    }

    UNROLL
    for (uint i = 0; i < 4; ++i)
        UNROLL
    for (uint j = 0; j < 8; ++j)
        UNROLL
    for (uint x = 0; x < 4; ++x) {
        uint at = row + down + i * 16 + x / 2 * 8 + w.lane / 4, to = column + across + j * 8 + w.lane % 4 * 2 + x % 2;
        if (at < rows && to < columns)
            STORE(C_TYPE, c, at * c_at.s3 + to, sum[i][j][x]);
    }
}
