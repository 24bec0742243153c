/* C = A Bᵀ in register tiles, for CPUs. Mathematics and shapes as in gemm.cl.
 *
 * Work: one work-item for TILE × WIDTH elements of c; grid (⌈M / TILE⌉, ⌈N / WIDTH⌉, B·H), work-groups of one. The
 * summed dimension goes by DEPTH at a time: that part of A's rows is copied side by side, that part of B's rows
 * transposed a block of 16·LANES at a time, and RT rows meet a block in registers, as in wide.clh.
 *
 * Measured (two Zen 4 cores, 2048³; multiply-adds alone reach 230 GFLOP/s, OpenBLAS 204): TILE 256 × WIDTH 256, DEPTH
 * 256 203; without the packing 224; DEPTH 128 198; tiles of 128 × 64 169; RT 6 × LANES 4 197, 8 × 3 193, 8 × 2 144. */
#define D 16
#define DV 16
#ifndef TILE /* rows of c per work-item */
#define TILE 256
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/blocks.clh"

#ifndef WIDTH /* columns of c per work-item; a multiple of BLOCK */
#define WIDTH 256
#endif
#ifndef DEPTH /* products per register tile */
#define DEPTH 256
#endif
#ifndef A_TYPE
#define A_TYPE F32
#define B_TYPE F32
#define C_TYPE F32
#endif

/* The columns [0, part) of a's rows, a row repeated where TILE goes past the last: left[r·DEPTH + d]. */
static inline void copy_rows(global const ELEMENT(A_TYPE) *a, INDEX pitch, uint rows, uint part, private float *left) {
    for (uint r = 0; r < TILE && r < (rows + RT - 1) / RT * RT; ++r) {
        global const ELEMENT(A_TYPE) *row = a + min(r, rows - 1) * pitch;
        uint d = 0;
        for (; d + 16 <= part; d += 16)
            VECTOR(left + r * DEPTH + d) = LOAD16(A_TYPE, row, d);
        for (; d < part; ++d)
            left[r * DEPTH + d] = LOAD(A_TYPE, row, d);
    }
}

/* The columns [k, k + part) of b's rows from `first`, transposed: packed[d·BLOCK + j]. */
static inline void pack_rows(global const ELEMENT(B_TYPE) *b, INDEX pitch, uint first, uint rows, uint k, uint part,
                             private float *packed) {
    for (uint j = 0; j < BLOCK; j += 16) {
        uint d = 0;
        for (; d + 16 <= part; d += 16) {
            float16 t[16];
            UNROLL
            for (uint x = 0; x < 16; ++x)
                t[x] = LOAD16(B_TYPE, PLACE(B_TYPE, b, min(first + j + x, rows - 1) * pitch), k + d);
            transpose16(t, packed + d * BLOCK + j);
        }
        for (; d < part; ++d)
            for (uint x = 0; x < 16; ++x)
                packed[d * BLOCK + j + x] = LOAD(B_TYPE, PLACE(B_TYPE, b, min(first + j + x, rows - 1) * pitch), k + d);
    }
}

/* sum[r·WIDTH + j] += Σ_d left[r·DEPTH + d] packed[d·BLOCK + j] for a block of columns. */
static inline void multiply(private float *left, private float *packed, uint rows, uint part, private float *sum) {
    for (uint r = 0; r < TILE && r < rows; r += RT) {
        scores s;
        scores_multiply(&s, left + r * DEPTH, DEPTH, packed, part);
        UNROLL
        for (uint i = 0; i < RT; ++i)
            UNROLL
        for (uint c = 0; c < LANES; ++c)
            VECTOR(sum + (r + i) * WIDTH + 16 * c) += s.s[i][c];
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void gemm_wide(uint rows, uint columns, uint depth, uint heads,
                                                                     global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                     global const ELEMENT(B_TYPE) *b, INDEX4 b_at,
                                                                     global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    uint first = get_global_id(0) * TILE, left_column = get_global_id(1) * WIDTH;
    uint batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    uint own = min((uint)TILE, rows - first), wide = min((uint)WIDTH, columns - left_column);
    a += a_at.s0 + batch * a_at.s1 + head * a_at.s2 + first * a_at.s3;
    b = PLACE(B_TYPE, b, b_at.s0 + batch * b_at.s1 + head * b_at.s2 + left_column * b_at.s3);
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2 + first * c_at.s3 + left_column;

    float left[TILE * DEPTH] ALIGNED, packed[DEPTH * BLOCK] ALIGNED, sum[TILE * WIDTH] ALIGNED;
    for (uint i = 0; i < TILE * WIDTH; i += 16)
        VECTOR(sum + i) = (float16)(0.0f);
    for (uint k = 0; k < depth; k += DEPTH) {
        uint part = min((uint)DEPTH, depth - k);
        copy_rows(a + k, a_at.s3, own, part, left);
        for (uint j = 0; j < wide; j += BLOCK) {
            pack_rows(b, b_at.s3, j, wide, k, part, packed);
            multiply(left, packed, own, part, sum + j);
        }
    }
    for (uint r = 0; r < own; ++r)
        for (uint j = 0; j < wide; j += 16)
            if (j + 16 <= wide)
                STORE16(C_TYPE, c, r * c_at.s3 + j, VECTOR(sum + r * WIDTH + j));
            else
                for (uint x = j; x < wide; ++x)
                    STORE(C_TYPE, c, r * c_at.s3 + x, sum[r * WIDTH + x]);
}
