/* Matrix products on matrix units, NVIDIA's or others' (mma.clh). Mathematics and shapes as in gemm.cl; a and b of one
 * 16-bit type, sums in float32.
 *
 * Work: a group of 4 warps (8 of Intel's of 8 items) for HIGH × BROAD elements of c, two warps beside each other, each
 * for BLOCKS × PARTS tiles of a matrix unit; grid (⌈N / BROAD⌉ · WG, ⌈M / HIGH⌉, B·H). DEPTH of the summed dimension at
 * a time lies in local memory, twice, so that the next part is copied while this one is multiplied: 40 KiB, of which
 * others' devices have 24 or 18. Rows past the last repeat it; columns past the last are zeros.
 *
 * Measured (H200, bf16, 4096³): 275 TFLOP/s; PyTorch 577. Others' are compiled and emulated, not run.
 *
 * Needs rows of a and b at multiples of 8 elements, and K a multiple of 8; with UNITS also rows of c at multiples of 4,
 * and N a multiple of 4. */
#ifndef A_TYPE
#define A_TYPE BF16
#define C_TYPE F32
#endif
#define HALF_TYPE A_TYPE
#ifndef WG
#define WG 128
#endif
#include "shared/tensor.clh"
#include "shared/mma.clh"

#include "shared/constants.h"
/* A warp's BLOCKS × PARTS tiles, of TALL rows and SPREAD columns of c, of which an item has EACH elements. */
#define BLOCKS 4
#if UNITS
#define PARTS (UNITS == UNITS_DPAS ? 2 : 4)
#define TALL COLUMNS
#define SPREAD 16
#define EACH SPAN
#define DEPTH 16
#else
#define PARTS 8
#define TALL 16
#define SPREAD 8
#define EACH 4
#define DEPTH 32
#endif
#define BROAD (2 * PARTS * SPREAD) /* of a group's part of c */
#define HIGH (WG / WARP / 2 * BLOCKS * TALL)
#if HIGH != OP_GEMM_MMA_SIDE
#error "the host counts groups by OP_GEMM_MMA_SIDE rows"
#endif
#define PITCH (DEPTH + 8) /* eight rows meet eight different banks */
#define ALIGNED __attribute__((aligned(16)))
#if MATRIX_UNITS && UNITS == UNITS_DPAS
#define OF_ONE_WIDTH __attribute__((intel_reqd_sub_group_size(WARP)))
#else
#define OF_ONE_WIDTH
#endif

/* Starts the copies of DEPTH columns of `side` rows. */
INLINED void part_copy(local ushort *to, uint side, global const ushort *from, INDEX stride, uint row, uint rows,
                       uint column, uint columns) {
    UNROLL
    for (uint c = 0; c < side * DEPTH / 8; c += WG) {
        uint chunk = c + get_local_id(0), down = chunk / (DEPTH / 8), across = chunk % (DEPTH / 8) * 8;
        bool inside = column + across < columns;
        copy_start_or_zero(to + down * PITCH + across,
                           from + (INDEX)min(row + down, rows - 1) * stride + (inside ? column + across : 0), inside);
    }
}

/* c[i][j] += A · Bᵀ for tiles of the warp; and their elements' way to c, four at a time with others' units. */
#if UNITS
INLINED void part_multiply(warp w, private float c[BLOCKS][PARTS][EACH], local const ushort *a, local const ushort *b) {
    UNROLL
    for (uint d = 0; d < DEPTH; d += 16) {
        uint x[B_WORDS], y[PARTS][A_WORDS];
        UNROLL
        for (uint j = 0; j < PARTS; ++j)
            fragment_load(w, y[j], b + j * SPREAD * PITCH + d, PITCH);
        UNROLL
        for (uint i = 0; i < BLOCKS; ++i) {
            local const ushort *row = a + (i * TALL + w.lane % COLUMNS) * PITCH + d;
            UNROLL
            for (uint word = 0; word < B_WORDS; ++word)
                x[word] = ((local const uint *)row)[word + (B_WORDS < 8 ? w.lane / COLUMNS * B_WORDS : 0)];
            UNROLL
            for (uint j = 0; j < PARTS; ++j)
                units_multiply(w, c[i][j], y[j], x);
        }
    }
}
INLINED void block_store(warp w, private float c[PARTS][EACH], uint row, uint rows, uint column, uint columns,
                         global ELEMENT(C_TYPE) *to, INDEX stride) {
    uint at = row + w.lane % COLUMNS;
    UNROLL
    for (uint j = 0; j < PARTS; ++j)
        UNROLL
    for (uint x = 0; x < EACH; x += 4) {
        uint across = column + j * SPREAD + w.lane / COLUMNS * SPAN + x;
        if (at < rows && across < columns)
            STORE_FOUR(C_TYPE, to + at * stride + across, c[j] + x);
    }
}
#else
INLINED void part_multiply(warp w, private float c[BLOCKS][PARTS][EACH], local const ushort *a, local const ushort *b) {
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
INLINED void block_store(warp w, private float c[PARTS][EACH], uint row, uint rows, uint column, uint columns,
                         global ELEMENT(C_TYPE) *to, INDEX stride) {
    UNROLL
    for (uint j = 0; j < PARTS; ++j)
        UNROLL
    for (uint x = 0; x < EACH; ++x) {
        uint at = row + x / 2 * 8 + w.lane / 4, across = column + j * 8 + w.lane % 4 * 2 + x % 2;
        if (at < rows && across < columns)
            STORE(C_TYPE, to, at * stride + across, c[j][x]);
    }
}
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) OF_ONE_WIDTH void
gemm_mma(uint rows, uint columns, uint depth, uint heads, global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
         global const ELEMENT(A_TYPE) *b, INDEX4 b_at, global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    local ushort a_part[2][HIGH * PITCH] ALIGNED, b_part[2][BROAD * PITCH] ALIGNED;
    WARP_DECLARE(w)
    uint batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    uint row = get_group_id(1) * HIGH, column = get_group_id(0) * BROAD;
    global const ushort *a_from = (global const ushort *)a + a_at.s0 + batch * a_at.s1 + head * a_at.s2;
    global const ushort *b_from = (global const ushort *)b + b_at.s0 + batch * b_at.s1 + head * b_at.s2;
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2;

    float sum[BLOCKS][PARTS][EACH];
    UNROLL
    for (uint i = 0; i < BLOCKS; ++i)
        UNROLL
    for (uint j = 0; j < PARTS; ++j)
        UNROLL
    for (uint x = 0; x < EACH; ++x)
        sum[i][j][x] = 0.0f;
    part_copy(a_part[0], HIGH, a_from, a_at.s3, row, rows, 0, depth);
    part_copy(b_part[0], BROAD, b_from, b_at.s3, column, columns, 0, depth);
    uint down = w.index / 2 * (BLOCKS * TALL), across = w.index % 2 * (PARTS * SPREAD);
    for (uint d = 0, stage = 0; d < depth; d += DEPTH, stage ^= 1) {
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (d + DEPTH < depth) {
            part_copy(a_part[stage ^ 1], HIGH, a_from, a_at.s3, row, rows, d + DEPTH, depth);
            part_copy(b_part[stage ^ 1], BROAD, b_from, b_at.s3, column, columns, d + DEPTH, depth);
        }
        part_multiply(w, sum, a_part[stage] + down * PITCH, b_part[stage] + across * PITCH);
    }
    row += down;
    column += across;
    /* No loop: IGC would not unroll it, and so keep the sums in memory. */
    block_store(w, sum[0], row, rows, column, columns, c, c_at.s3);
    block_store(w, sum[1], row + TALL, rows, column, columns, c, c_at.s3);
    block_store(w, sum[2], row + 2 * TALL, rows, column, columns, c, c_at.s3);
    block_store(w, sum[3], row + 3 * TALL, rows, column, columns, c, c_at.s3);
}
