/* Gradients of exact softmax attention on NVIDIA's matrix units (mma.clh). Mathematics, shapes and the two passes as in
 * softmax_backward_local.cl, whose stats it reads; q, k, v and dout of one 16-bit type, p and t rounded to it, sums in
 * float32; no bias.
 *
 * A warp has 16 rows of its own, as operands in registers, and goes with the three other warps of its group over tiles
 * of OTHERS in local memory, the next of which is copied meanwhile. Its products with them, 16 × OTHERS, become p and
 * t where they are, and these are the operands of the sums: nothing of a pair leaves the registers.
 *
 * Work: a group of 4 warps for 64 rows; grid (⌈rows / 64⌉ · WG, heads, B), the longest first.
 *
 * Needs rows of q, k, v and dout at multiples of 8 elements, of the sums at multiples of 2. */
#include "softmax/softmax.clh"
#ifndef OWN_1_TYPE
#define OWN_1_TYPE BF16
#define SUM_1_TYPE F32
#define SUM_2_TYPE F32
#endif
#ifndef BY_KEYS
#define BY_KEYS 1
#endif
#define HALF_TYPE OWN_1_TYPE
#define WG 128
#include "shared/tensor.clh"
#include "shared/mma.clh"

#define OTHERS 64 /* of a tile */
#define ROWS 64   /* of a group */
#define LOG2_E 1.44269504f
#define ALIGNED __attribute__((aligned(16)))
#define AT(columns, row, column) ((row) * ((columns) + 8) + (column)) /* eight rows meet eight different banks */

/* A warp's own rows as operands, and what they sum up. */
typedef struct own_rows {
    uint first_operand[D / 16][4], second_operand[DV / 16][4];
    float sum_1[D / 8][4], sum_2[DV / 8][4];
    float offset[2], less[2]; /* of its two rows in this item, where they are queries */
} own_rows;

/* Rows `first` and following; those past the last repeat it. */
INLINED void operands_load(warp w, private uint (*a)[4], const uint columns, global const ushort *x, INDEX stride,
                           uint first, uint count) {
    UNROLL
    for (uint d = 0; d < columns / 16; ++d)
        UNROLL
    for (uint i = 0; i < 4; ++i)
        a[d][i] = *(global const uint *)(x + (INDEX)min(first + w.lane / 4 + i % 2 * 8, count - 1) * stride + d * 16 +
                                         w.lane % 4 * 2 + i / 2 * 8);
}

/* Starts the copies of OTHERS rows. */
INLINED void tile_copy(const uint columns, local ushort *to, global const ushort *from, INDEX stride, uint first,
                       uint count) {
    UNROLL
    for (uint c = 0; c < OTHERS * columns / 8; c += WG) {
        uint chunk = c + get_local_id(0), row = chunk / (columns / 8), across = chunk % (columns / 8) * 8;
        if (OTHERS * columns / 8 % WG == 0 || row < OTHERS)
            copy_start(to + AT(columns, row, across), from + (INDEX)min(first + row, count - 1) * stride + across);
    }
}

/* Products of the warp's rows with the tile's. */
INLINED void tile_multiply(warp w, private float (*product)[4], const uint columns, private uint (*a)[4],
                           local const ushort *tile) {
    UNROLL
    for (uint n = 0; n < OTHERS / 16; ++n) {
        UNROLL
        for (uint x = 0; x < 4; ++x)
            product[2 * n][x] = product[2 * n + 1][x] = 0.0f;
        UNROLL
        for (uint d = 0; d < columns / 16; ++d) {
            uint c[4];
            load_tiles(w, c, tile + AT(columns, n * 16 + w.lane / 16 * 8 + w.lane % 8, d * 16 + w.lane / 8 % 2 * 8));
            mma(w, product[2 * n], a[d], c[0], c[1]);
            mma(w, product[2 * n + 1], a[d], c[2], c[3]);
        }
    }
}

/* sum += weights · tile */
INLINED void tile_add(warp w, private float (*sum)[4], const uint columns, private uint (*weights)[4],
                      local const ushort *tile) {
    UNROLL
    for (uint n = 0; n < OTHERS / 16; ++n)
        UNROLL
    for (uint d = 0; d < columns / 16; ++d) {
        uint c[4];
        load_tiles_transposed(w, c, tile + AT(columns, n * 16 + w.lane % 16, d * 16 + w.lane / 16 * 8));
        mma(w, sum[2 * d], weights[n], c[0], c[1]);
        mma(w, sum[2 * d + 1], weights[n], c[2], c[3]);
    }
}

/* Where a group and its tile are. */
typedef struct place {
    uint first, begin, own_count, other_count; /* the warp's first own row, the tile's first */
    int diagonal;
    float factor; /* scale in base 2 */
    bool edge;    /* some pairs do not see each other */
} place;

INLINED bool is_seen(private const place *at, uint own, uint other) {
    uint i = BY_KEYS ? other : own, j = BY_KEYS ? own : other, keys = BY_KEYS ? at->own_count : at->other_count;
    return other < at->other_count && j < visible_keys(i, at->diagonal, keys) && j >= first_key(i, at->diagonal, keys);
}

/* From products s and gains g to p and t, as operands. `rows` [2][OTHERS] has the others' stats where they are queries.
 */
INLINED void pairs_weigh(warp w, private const place *at, private const own_rows *own, private float (*s)[4],
                         private float (*g)[4], local const float *rows, private uint (*p)[4], private uint (*t)[4]) {
    UNROLL
    for (uint n = 0; n < OTHERS / 8; ++n)
        UNROLL
    for (uint i = 0; i < 2; ++i) {
        float weight[2], change[2];
        UNROLL
        for (uint x = 0; x < 2; ++x) {
            uint other = 8 * n + w.lane % 4 * 2 + x;
            float offset = BY_KEYS ? rows[other] : own->offset[i], less = BY_KEYS ? rows[OTHERS + other] : own->less[i];
            weight[x] = power_of_two(MAD(s[n][2 * i + x], at->factor, -offset));
            if (at->edge && !is_seen(at, at->first + 8 * i + w.lane / 4, at->begin + other))
                weight[x] = 0.0f;
            change[x] = weight[x] * (g[n][2 * i + x] - less);
        }
        t[n / 2][n % 2 * 2 + i] = pack_half(change[0], change[1]);
        if (BY_KEYS)
            p[n / 2][n % 2 * 2 + i] = pack_half(weight[0], weight[1]);
    }
}

#define SUM_STORE(type, to, at, columns, sum, factor)                                                                  \
    UNROLL                                                                                                             \
    for (uint i_ = 0; i_ < 2; ++i_) {                                                                                  \
        uint row_ = first + 8 * i_ + w.lane / 4;                                                                       \
        UNROLL                                                                                                         \
        for (uint n_ = 0; n_ < (columns) / 8; ++n_)                                                                    \
            if (row_ < own_count)                                                                                      \
                STORE2(type, (to) + (at).s0 + b * (at).s1 + h * (at).s2 + (INDEX)row_ * (at).s3,                       \
                       8 * n_ + w.lane % 4 * 2, (factor) * (sum)[n_][2 * i_], (factor) * (sum)[n_][2 * i_ + 1]);       \
    }

/* The others [from, to) that rows first to last have to do with. */
INLINED uint2 others_of(uint first, uint last, int diagonal, uint other_count) {
#if BY_KEYS
    return (uint2)((uint)clamp((int)first - diagonal, 0, (int)other_count),
                   WINDOW == 0 ? other_count : (uint)clamp((int)last - diagonal + WINDOW, 0, (int)other_count));
#else
    return (uint2)(first_key(first, diagonal, other_count), visible_keys(last, diagonal, other_count));
#endif
}

/* Whether all of the group's pairs of a tile see each other. */
INLINED bool is_whole(uint first, uint last, uint begin, uint own_count, uint other_count, int diagonal) {
    return WINDOW == 0 && begin + OTHERS <= other_count &&
           (BY_KEYS ? last < visible_keys(begin, diagonal, own_count)
                    : begin + OTHERS <= visible_keys(first, diagonal, other_count));
}

INLINED void own_begin(warp w, private own_rows *own, global const float *stats, uint first, uint own_count) {
    UNROLL
    for (uint x = 0; x < 4; ++x) {
        UNROLL
        for (uint n = 0; n < D / 8; ++n)
            own->sum_1[n][x] = 0.0f;
        UNROLL
        for (uint n = 0; n < DV / 8; ++n)
            own->sum_2[n][x] = 0.0f;
    }
    UNROLL
    for (uint i = 0; i < 2; ++i) {
        uint row = min(first + 8 * i + w.lane / 4, own_count - 1);
        own->offset[i] = BY_KEYS ? 0.0f : stats[2 * row];
        own->less[i] = BY_KEYS ? 0.0f : stats[2 * row + 1];
    }
}

/* Starts the copies of tile n, of `tiles` for each head of the group's: its rows, and their stats if they are queries.
 */
#define TILE_START(n, stage)                                                                                           \
    {                                                                                                                  \
        uint begin_ = from + (n) % tiles * OTHERS, head_ = BY_KEYS ? h * group + (n) / tiles : h / group;              \
        tile_copy(D, tile_1[stage],                                                                                    \
                  (global const ushort *)other_1 + other_1_at.s0 + b * other_1_at.s1 + head_ * other_1_at.s2,          \
                  other_1_at.s3, begin_, other_count);                                                                 \
        tile_copy(DV, tile_2[stage],                                                                                   \
                  (global const ushort *)other_2 + other_2_at.s0 + b * other_2_at.s1 + head_ * other_2_at.s2,          \
                  other_2_at.s3, begin_, other_count);                                                                 \
        if (BY_KEYS)                                                                                                   \
            rows[stage][item % 2 * OTHERS + item / 2] =                                                                \
                stats[2 * (((INDEX)b * heads + head_) * other_count + min(begin_ + item / 2, other_count - 1)) +       \
                      item % 2];                                                                                       \
    }

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_backward_mma(uint own_count, uint other_count, uint group, float scale, int diagonal,
                     global const ELEMENT(HALF_TYPE) *own_1, INDEX4 own_1_at, global const ELEMENT(HALF_TYPE) *own_2,
                     INDEX4 own_2_at, global const ELEMENT(HALF_TYPE) *other_1, INDEX4 other_1_at,
                     global const ELEMENT(HALF_TYPE) *other_2, INDEX4 other_2_at, global const float *stats,
                     global ELEMENT(SUM_1_TYPE) *sum_1, INDEX4 sum_1_at
#if BY_KEYS
                     ,
                     global ELEMENT(SUM_2_TYPE) *sum_2, INDEX4 sum_2_at
#endif
) {
    local ushort tile_1[2][OTHERS * (D + 8)] ALIGNED, tile_2[2][OTHERS * (DV + 8)] ALIGNED;
    local float rows[2][2 * OTHERS];
    WARP_DECLARE(w)
    uint item = get_local_id(0), h = get_global_id(1), b = get_global_id(2);
    uint heads = get_num_groups(1) * (BY_KEYS ? group : 1);
    uint group_first = (BY_KEYS ? get_group_id(0) : get_num_groups(0) - 1 - get_group_id(0)) * ROWS;
    uint group_last = min(group_first + ROWS, own_count) - 1, first = group_first + w.index * 16;
    own_rows own;
    own_begin(w, &own, stats + 2 * ((INDEX)b * heads + h) * own_count, first, own_count);
    operands_load(w, own.first_operand, D,
                  (global const ushort *)own_1 + own_1_at.s0 + b * own_1_at.s1 + h * own_1_at.s2, own_1_at.s3, first,
                  own_count);
    operands_load(w, own.second_operand, DV,
                  (global const ushort *)own_2 + own_2_at.s0 + b * own_2_at.s1 + h * own_2_at.s2, own_2_at.s3, first,
                  own_count);
    uint2 range = others_of(group_first, group_last, diagonal, other_count);
    uint from = range.x / OTHERS * OTHERS, tiles = range.y > from ? (range.y - from + OTHERS - 1) / OTHERS : 0;
    uint count = tiles * (BY_KEYS ? group : 1);
    if (count > 0)
        TILE_START(0, 0)
    for (uint n = 0, stage = 0; n < count; ++n, stage ^= 1) {
        uint begin = from + n % tiles * OTHERS, p[OTHERS / 16][4], t[OTHERS / 16][4];
        float s[OTHERS / 8][4], g[OTHERS / 8][4];
        place at = {first,
                    begin,
                    own_count,
                    other_count,
                    diagonal,
                    scale * LOG2_E,
                    !is_whole(group_first, group_last, begin, own_count, other_count, diagonal)};
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (n + 1 < count)
            TILE_START(n + 1, stage ^ 1)
        tile_multiply(w, s, D, own.first_operand, tile_1[stage]);
        tile_multiply(w, g, DV, own.second_operand, tile_2[stage]);
        pairs_weigh(w, &at, &own, s, g, rows[stage], p, t);
        tile_add(w, own.sum_1, D, t, tile_1[stage]);
        if (BY_KEYS)
            tile_add(w, own.sum_2, DV, p, tile_2[stage]);
    }
    SUM_STORE(SUM_1_TYPE, sum_1, sum_1_at, D, own.sum_1, scale)
#if BY_KEYS
    SUM_STORE(SUM_2_TYPE, sum_2, sum_2_at, DV, own.sum_2, 1.0f)
#endif
}
