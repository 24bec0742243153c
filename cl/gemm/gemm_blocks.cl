/* C = A Bᵀ for few rows of A and a B in blocks of integers (blocks.clh), as in decoding: B is read once, and
 * turned into numbers in registers. Mathematics and shapes as in gemm.cl.
 *
 * A weight is d q + m. A group of 32 of them adds d Σ q x + m Σ x to a sum, so that integers meet the rows of A
 * as they are. A work-group takes BLOCKS · COLUMNS rows of B one block of COLUMNS after the other; its items take
 * every WG-th tile of GROUPS groups of 32. On a CPU a work-group is one work-item and nothing meets; on a GPU the
 * items' sums meet in local memory.
 *
 * Measured on two Zen 5 cores: four rows of 600 bytes side by side are four streams that end before a CPU's
 * prefetching has begun: 12 GB/s. Row after row is one stream: 44 GB/s (Q8_0, weights of SmolLM2). Four groups at
 * once share the work on their halves.
 *
 * Work: grid (⌈N / (COLUMNS · BLOCKS)⌉ · WG, 1, B·H). Local memory: ROWS · COLUMNS · WG floats if WG > 1. */
#include "shared/tensor.clh"
#include "shared/blocks.clh"
#include "gemm/block_groups.clh"

#ifndef ROWS /* of A: all */
#define ROWS 1
#endif
#ifndef COLUMNS /* rows of B at once */
#define COLUMNS 4
#endif
#ifndef GROUPS /* of 32 numbers at once, of each; COLUMNS · GROUPS are at most 4 */
#define GROUPS 1
#endif
#ifndef BLOCKS /* of so many columns, per work-group */
#define BLOCKS 1
#endif
#ifndef A_TYPE
#define A_TYPE F32
#define C_TYPE F32
#endif
#ifndef B_TYPE
#define B_TYPE Q4_1
#endif

#define UNROLL _Pragma("unroll")
#define CHAINS (GROUPS > 1 && ROWS < 3 ? 2 : 1) /* sums of one element that do not wait for each other */

typedef struct sums {
    float16 s[ROWS][COLUMNS * CHAINS];
} sums;

/* The group's products with 32 numbers of a row of A, x and y; `both` is x + y. */
static inline float16 add_group(const group32 *g, float16 x, float16 y, float16 both, float16 sum) {
    if (LEAST(B_TYPE))
        sum = MAD((float16)(g->least), both, sum);
    if (TWO_SCALES(B_TYPE)) {
        sum = MAD((float16)(g->scale.x), g->lower * x, sum);
        return MAD((float16)(g->scale.y), g->upper * y, sum);
    }
    return MAD((float16)(g->scale.x), MAD(g->upper, y, g->lower * x), sum);
}

/* The scales of four blocks, and what lies beside them. */
static inline void take_halves(global const uchar *private const *block, private float *d, private float *e) {
    uint word[4];
    UNROLL
    for (uint t = 0; t < 4; ++t)
        word[t] = as_uint(vload2(0, (global const ushort *)(block[t] + HALVES_AT(B_TYPE))));
    uint4 words = (uint4)(word[0], word[1], word[2], word[3]);
    vstore4(floats_of_halves(SCALE_IS_UPPER(B_TYPE) ? words >> 16 : words & 0xffffu), 0, d);
    if (LEAST(B_TYPE))
        vstore4(floats_of_halves(words >> 16), 0, e);
}

/* The products of A's rows with group n in `block`, whose halves are d and e, to the sums from `at` on. */
static inline void add_block(global const ELEMENT(A_TYPE) *a, INDEX pitch, global const uchar *block, uint n, float d,
                             float e, uint at, private sums *sum) {
    group32 g;
    GROUP(B_TYPE, block, n, d, e, &g);
    UNROLL
    for (uint r = 0; r < ROWS; ++r) {
        float16 x = LOAD16(A_TYPE, a + r * pitch, 32 * n), y = LOAD16(A_TYPE, a + r * pitch, 32 * n + 16);
        sum->s[r][at] = add_group(&g, x, y, x + y, sum->s[r][at]);
    }
}

/* Groups n to n + GROUPS of COLUMNS rows of B. */
static inline void add_tile(global const ELEMENT(A_TYPE) *a, INDEX pitch, global const uchar *private const *column,
                            uint n, private sums *sum) {
    global const uchar *block[4];
    float d[4], e[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    UNROLL
    for (uint t = 0; t < 4; ++t)
        block[t] = BLOCK_OF(B_TYPE, column[t % COLUMNS], n + t / COLUMNS % GROUPS);
    take_halves(block, d, e);
    UNROLL
    for (uint t = 0; t < COLUMNS * GROUPS; ++t)
        add_block(a, pitch, block[t], n + t / COLUMNS, d[t], e[t], t % (COLUMNS * CHAINS), sum);
}

/* Group n of them. */
static inline void add_rest(global const ELEMENT(A_TYPE) *a, INDEX pitch, global const uchar *private const *column,
                            uint n, private sums *sum) {
    global const uchar *block[4];
    float d[4], e[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    UNROLL
    for (uint t = 0; t < 4; ++t)
        block[t] = BLOCK_OF(B_TYPE, column[t % COLUMNS], n);
    take_halves(block, d, e);
    UNROLL
    for (uint j = 0; j < COLUMNS; ++j)
        add_block(a, pitch, block[j], n, d[j], e[j], j, sum);
}

/* The products of A's rows with COLUMNS rows of B, every WG-th tile from `item` on; what is no whole tile is the
 * next item's. Sums are local so that they stay in registers. */
static inline void multiply(global const ELEMENT(A_TYPE) *a, INDEX pitch, global const uchar *private const *column,
                            uint item, uint groups, private sums *out) {
    sums sum;
    UNROLL
    for (uint r = 0; r < ROWS; ++r)
        UNROLL
    for (uint c = 0; c < COLUMNS * CHAINS; ++c)
        sum.s[r][c] = (float16)(0.0f);
    uint n = item * GROUPS;
    for (; n + GROUPS <= groups; n += WG * GROUPS)
        add_tile(a, pitch, column, n, &sum);
    for (; GROUPS > 1 && n < groups; ++n)
        add_rest(a, pitch, column, n, &sum);
    UNROLL
    for (uint r = 0; r < ROWS; ++r)
        UNROLL
    for (uint c = 0; c < COLUMNS; ++c)
        out->s[r][c] = CHAINS > 1 ? sum.s[r][c] + sum.s[r][c + COLUMNS * (CHAINS - 1)] : sum.s[r][c];
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gemm_blocks(uint rows, uint columns, uint depth, uint heads,
                                                                        global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                        global const ELEMENT(B_TYPE) *b, INDEX4 b_at,
                                                                        global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    uint item = get_local_id(0), batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    a += a_at.s0 + batch * a_at.s1 + head * a_at.s2;
    b = PLACE(B_TYPE, b, b_at.s0 + batch * b_at.s1 + head * b_at.s2);
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2;
#if WG > 1
    local float part[ROWS * COLUMNS][WG];
#endif

    for (uint block = 0; block < BLOCKS; ++block) {
        uint first = (get_group_id(0) * BLOCKS + block) * COLUMNS;
        if (first >= columns)
            break;
        global const uchar *column[COLUMNS];
        sums sum;
        UNROLL
        for (uint j = 0; j < COLUMNS; ++j)
            column[j] = PLACE(B_TYPE, b, (INDEX)min(first + j, columns - 1) * b_at.s3);
        multiply(a, a_at.s3, column, item, depth / 32, &sum);
        UNROLL
        for (uint x = 0; x < ROWS * COLUMNS; ++x) {
            float total = sum16(sum.s[x / COLUMNS][x % COLUMNS]);
#if WG > 1
            part[x][item] = total;
#else
            if (first + x % COLUMNS < columns)
                STORE(C_TYPE, c + x / COLUMNS * c_at.s3, first + x % COLUMNS, total);
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
