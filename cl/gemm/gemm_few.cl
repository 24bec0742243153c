/* C = A Bᵀ for few rows of A, as in decoding: all the time goes into reading B, once and in order. Mathematics and
 * shapes as in gemm.cl.
 *
 * A work-group takes BLOCKS · COLUMNS rows of B one block of COLUMNS after the other; its items take every WG-th vector
 * of the summed dimension. On a CPU a group is one work-item (WG 1) and nothing meets; on a GPU the items' sums meet in
 * local memory.
 *
 * A CPU takes COLUMNS 1, one stream for its prefetching: on two Zen 5 cores the weights of SmolLM2 go by in 8.2 ms
 * instead of 9.9 (F32), 5.2 instead of 9.3 (BF16), one row of A; with four 10.5 instead of 15.2, 5.9 instead of 11.3.
 *
 * Work: grid (⌈N / (COLUMNS · BLOCKS)⌉ · WG, 1, B·H). Local memory: ROWS · COLUMNS · WG floats if WG > 1. */
#include "shared/tensor.clh"

#ifndef ROWS /* of A: all */
#define ROWS 1
#endif
#ifndef COLUMNS /* rows of B at once */
#define COLUMNS 4
#endif
#ifndef BLOCKS /* of so many columns, per work-group */
#define BLOCKS 1
#endif
#ifndef A_TYPE
#define A_TYPE F32
#define B_TYPE F32
#define C_TYPE F32
#endif

#define UNROLL _Pragma("unroll")
#define INLINED static inline __attribute__((always_inline))

/* The item's vectors of the summed dimension: sum[r][j] += those of row r with column j. Returns where they end; what
 * is left of the dimension is the next item's, of those that go round in turns. */
INLINED uint vectors_add(private floatW sum[ROWS][COLUMNS], uint item, uint depth, global const ELEMENT(A_TYPE) *a,
                         INDEX pitch, global const ELEMENT(B_TYPE) *private const *column) {
    uint d = item * W;
    for (; d + W <= depth; d += WG * W) {
        floatW x[ROWS];
        UNROLL
        for (uint r = 0; r < ROWS; ++r)
            x[r] = LOADW(A_TYPE, a + r * pitch, d);
        UNROLL
        for (uint j = 0; j < COLUMNS; ++j) {
            floatW y = LOADW(B_TYPE, column[j], d);
            UNROLL
            for (uint r = 0; r < ROWS; ++r)
                sum[r][j] = MAD(x[r], y, sum[r][j]);
        }
    }
    return d;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gemm_few(uint rows, uint columns, uint depth, uint heads,
                                                                     global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                     global const ELEMENT(B_TYPE) *b, INDEX4 b_at,
                                                                     global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    uint item = get_local_id(0), batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    a += a_at.s0 + batch * a_at.s1 + head * a_at.s2;
    b += b_at.s0 + batch * b_at.s1 + head * b_at.s2;
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2;
#if WG > 1
    local float part[ROWS * COLUMNS][WG];
#endif

    for (uint block = 0; block < BLOCKS; ++block) {
        uint first = (get_group_id(0) * BLOCKS + block) * COLUMNS;
        if (first >= columns)
            break;
        global const ELEMENT(B_TYPE) *column[COLUMNS];
        UNROLL
        for (uint j = 0; j < COLUMNS; ++j)
            column[j] = b + (INDEX)min(first + j, columns - 1) * b_at.s3;
        floatW sum[ROWS][COLUMNS];
        UNROLL
        for (uint r = 0; r < ROWS; ++r)
            UNROLL
        for (uint j = 0; j < COLUMNS; ++j)
            sum[r][j] = (floatW)(0.0f);
        uint d = vectors_add(sum, item, depth, a, a_at.s3, column);
        UNROLL
        for (uint r = 0; r < ROWS; ++r)
            UNROLL
        for (uint j = 0; j < COLUMNS; ++j) {
            float total = SUM(sum[r][j]);
            for (uint e = d; e < depth && e < d + W; ++e)
                total = MAD(LOAD(A_TYPE, a + r * a_at.s3, e), LOAD(B_TYPE, column[j], e), total);
#if WG > 1
            part[r * COLUMNS + j][item] = total;
#else
            if (first + j < columns)
                STORE(C_TYPE, c + r * c_at.s3, first + j, total);
#endif
        }
#if WG > 1
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint x = item; x < ROWS * COLUMNS; x += WG) {
            float total = 0.0f;
            for (uint i = 0; i < WG; ++i)
                total += part[x][i];
            if (first + x % COLUMNS < columns)
                STORE(C_TYPE, c + x / COLUMNS * c_at.s3, first + x % COLUMNS, total);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#endif
    }
}
