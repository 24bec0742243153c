/* Gradients of exact softmax attention on NVIDIA's matrix units (mma_tile.clh). Mathematics and shapes as in
 * softmax_backward.cl, the two passes as in softmax_backward_tile.clh; q, k, v and dout of one 16-bit type, to which
 * weights and what they receive are rounded, sums in float32.
 *
 * Rows are turned so that all products have the form of the forward pass: scores and gains are a warp's rows in
 * registers times a tile of sources, and what they become is, as it lies in registers, the operand of the sums over the
 * same tiles. Sixteen sources at a time, so that little but operands and sums is in registers.
 *
 * Work: a group of WG / 32 warps for GROUP_ROWS consecutive rows; grid (⌈rows / GROUP_ROWS⌉ · WG, H or Hk, B), the rows
 * that meet most sources first. Tiles of sources come two at a time into local memory, for two steps: one is on its way
 * while the other is used. A group of keys takes its heads of queries one after the other.
 *
 * Needs D = DV, rows at multiples of 8 elements. */
#ifndef Q_TYPE
#define Q_TYPE BF16
#define BIAS_TYPE F32
#endif
#ifndef DQ_TYPE
#define DQ_TYPE F32
#define DK_TYPE F32
#define DV_TYPE F32
#define DBIAS_TYPE F32
#define DBIAS 1
#endif
#ifndef D
#define D 64
#endif
#ifndef DV
#define DV 64
#endif
#ifndef BIAS
#define BIAS 1
#endif
#ifndef WG /* a multiple of 32 */
#define WG 128
#endif
#define HALF_TYPE Q_TYPE
#include "shared/tensor.clh"
#include "shared/mma_tile.clh"
#include "softmax/softmax_backward_tile.clh"

/* [b][n]: columns 8n to 8n + 7 of the warp's rows 16b to 16b + 15, as in `rows` of mma_tile.clh. */
typedef struct sums {
    float x[BLOCKS][D / 8][4];
} sums;
typedef struct strip { /* sixteen sources */
    float x[BLOCKS][2][4];
} strip;
typedef struct strip_weights { /* as operands */
    uint a[BLOCKS][4];
} strip_weights;

INLINED void sums_clear(private sums *s) {
    FOR_ROWS(b, i)
    UNROLL
    for (uint n = 0; n < D / 8; ++n)
        s->x[b][n][2 * i] = s->x[b][n][2 * i + 1] = 0.0f;
}

/* The rows times sources 16n to 16n + 15 of a tile. */
INLINED void strip_multiply(warp w, private strip *s, private const operands *o, local const ushort *tile, uint n) {
    UNROLL
    for (uint d = 0; d < D / 16; ++d) {
        uint c[4], row = n * 16 + w.lane / 16 * 8 + w.lane % 8, column = d * 16 + w.lane / 8 % 2 * 8;
        load_tiles(w, c, tile + TILE_AT(D, row, column));
        UNROLL
        for (uint b = 0; b < BLOCKS; ++b)
            UNROLL
        for (uint i = 0; i < 2; ++i) {
            if (d == 0)
                UNROLL
            for (uint x = 0; x < 4; ++x)
                s->x[b][i][x] = 0.0f;
            mma(w, s->x[b][i], o->a[b][d], c[2 * i], c[2 * i + 1]);
        }
    }
}

/* What the same sources add to the sums. */
INLINED void strip_add(warp w, private sums *s, private const strip_weights *p, local const ushort *tile, uint n) {
    UNROLL
    for (uint d = 0; d < D / 16; ++d) {
        uint c[4], row = n * 16 + w.lane % 16, column = d * 16 + w.lane / 16 * 8;
        load_tiles_transposed(w, c, tile + TILE_AT(D, row, column));
        UNROLL
        for (uint b = 0; b < BLOCKS; ++b) {
            mma(w, s->x[b][2 * d], p->a[b], c[0], c[1]);
            mma(w, s->x[b][2 * d + 1], p->a[b], c[2], c[3]);
        }
    }
}

/* Rows and sources from which a strip is. */
typedef struct place {
    uint row, source;
    int reach;
    bool masked; /* some do not meet */
} place;

/* p from scores, t from gains too, and what t adds to `total`. */
INLINED void strip_weigh(warp w, private strip_weights *p, private strip_weights *t, private per_row *total,
                         private const strip *score, private const strip *gain, float factor,
                         private const per_row *offset, private const per_row *delta, local const float2 *numbers,
                         place at) {
    UNROLL
    for (uint n = 0; n < 2; ++n) {
        float4 column = *(local const float4 *)(numbers + column_of(w, n));
        FOR_ROWS(b, i) {
            float weight[2], gained[2];
            UNROLL
            for (uint x = 0; x < 2; ++x) {
                float more = offset->x[b][i] + (x ? column.z : column.x);
                bool seen = more != -INFINITY &&
                            (!at.masked || meets(at.row + row_of(w, b, i), at.source + column_of(w, n) + x, at.reach));
                weight[x] = seen ? power_of_two(MAD(score->x[b][n][2 * i + x], factor, more)) : 0.0f;
                gained[x] =
                    weight[x] * (gain->x[b][n][2 * i + x] - (OF_KEYS ? (x ? column.w : column.y) : delta->x[b][i]));
                gained[x] = weight[x] == 0.0f ? 0.0f : gained[x]; /* a padding key may hold anything finite */
            }
            total->x[b][i] += gained[0] + gained[1];
            p->a[b][2 * n + i] = pack_half(weight[0], weight[1]);
            t->a[b][2 * n + i] = pack_half(gained[0], gained[1]);
        }
    }
}

INLINED void sums_scale(private sums *s, float scale) {
    FOR_ROWS(b, i)
    UNROLL
    for (uint n = 0; n < D / 8; ++n) {
        s->x[b][n][2 * i] *= scale;
        s->x[b][n][2 * i + 1] *= scale;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
KERNEL(softmax_backward_mma)(uint queries, uint keys, uint group, float scale, int diagonal,
                             global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(Q_TYPE) *k, INDEX4 k_at,
                             global const ELEMENT(Q_TYPE) *v, INDEX4 v_at,
#if BIAS
                             global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                             global const ELEMENT(Q_TYPE) *dout, INDEX4 dout_at, global const float *stats,
#if OF_KEYS
                             global ELEMENT(DK_TYPE) *dk, INDEX4 dk_at, global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at
#if DBIAS
                             ,
                             global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
#else
                             global ELEMENT(DQ_TYPE) *dq, INDEX4 dq_at
#endif
) {
    local ushort score_tile[2][TILE_SIZE(D)] TILE_ALIGNED, gain_tile[2][TILE_SIZE(D)] TILE_ALIGNED;
    local float2 numbers[2][KEYS] ALIGNED;
    WARP_DECLARE(w)
    uint item = get_local_id(0), tile = get_group_id(0), b_ = get_global_id(2);
    uint h = OF_KEYS ? get_global_id(1) * group : get_global_id(1), kv = h / group; /* the first head of queries */
    uint heads = OF_KEYS ? get_global_size(1) * group : get_global_size(1);
    uint rows_all = OF_KEYS ? keys : queries, sources_all = OF_KEYS ? queries : keys;
    uint group_first = (OF_KEYS ? tile : get_num_groups(0) - 1 - tile) * GROUP_ROWS,
         first = group_first + w.index * WARP_ROWS;
    global const ushort *q_from = (global const ushort *)q + q_at.s0 + b_ * q_at.s1 + h * q_at.s2;
    global const ushort *k_from = (global const ushort *)k + k_at.s0 + b_ * k_at.s1 + kv * k_at.s2;
    global const ushort *v_from = (global const ushort *)v + v_at.s0 + b_ * v_at.s1 + kv * v_at.s2;
    global const ushort *dout_from = (global const ushort *)dout + dout_at.s0 + b_ * dout_at.s1 + h * dout_at.s2;
    stats += 2 * ((INDEX)b_ * heads + h) * queries;
#if BIAS
    bias += bias_at.s0 + b_ * bias_at.s1 + kv * bias_at.s2;
#endif

    operands scored, gained;
    sums to_first, to_second; /* dq, or dk and dv */
    per_row offset, delta, total;
    int reach = reach_of(diagonal, keys);
    operands_load(w, &scored, OF_KEYS ? k_from : q_from, OF_KEYS ? k_at.s3 : q_at.s3, first, rows_all);
    operands_load(w, &gained, OF_KEYS ? v_from : dout_from, OF_KEYS ? v_at.s3 : dout_at.s3, first, rows_all);
    sums_clear(&to_first);
    sums_clear(&to_second);
    FOR_ROWS(b, i) {
        uint row = min(first + row_of(w, b, i), rows_all - 1);
        float2 own = OF_KEYS ? KEY_NUMBERS(bias, bias_at.s3, row, keys) : query_numbers(stats, row, queries);
        offset.x[b][i] = own.x;
        delta.x[b][i] = own.y;
        total.x[b][i] = 0.0f;
    }

    uint2 sources = sources_of(group_first, min(group_first + GROUP_ROWS, rows_all), diagonal, queries, keys);
    uint begin = sources.x, next = sources.x, next_head = 0, stage = 0;
    uint steps = sources.y > sources.x ? (sources.y - sources.x + KEYS - 1) / KEYS * (OF_KEYS ? group : 1) : 0;
    float2 number = (float2)(0.0f);
    /* Copies of the next tile begin; then `next` is the one after it. */
#define FEED(stage)                                                                                                    \
    {                                                                                                                  \
        feed score_feed = feed_of(D, OF_KEYS ? q_from + next_head * q_at.s2 : k_from, OF_KEYS ? q_at.s3 : k_at.s3,     \
                                  next, sources_all);                                                                  \
        feed gain_feed = feed_of(D, OF_KEYS ? dout_from + next_head * dout_at.s2 : v_from,                             \
                                 OF_KEYS ? dout_at.s3 : v_at.s3, next, sources_all);                                   \
        feed_tile(&score_feed, D, score_tile[stage]);                                                                  \
        feed_tile(&gain_feed, D, gain_tile[stage]);                                                                    \
        if (item < KEYS)                                                                                               \
            number = OF_KEYS ? query_numbers(stats + 2 * (INDEX)next_head * queries, next + item, queries)             \
                             : KEY_NUMBERS(bias, bias_at.s3, next + item, keys);                                       \
        next += KEYS;                                                                                                  \
        if (next >= sources.y) {                                                                                       \
            next = sources.x;                                                                                          \
            ++next_head;                                                                                               \
        }                                                                                                              \
    }
    if (steps > 0) {
        FEED(0)
        if (item < KEYS)
            numbers[0][item] = number;
    }
    for (uint step = 0; step < steps; ++step, stage ^= 1) {
        place at = {first, begin, reach, !all_meet(first, WARP_ROWS, begin, KEYS, reach)};
        begin = next;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (step + 1 < steps)
            FEED(stage ^ 1)
        UNROLL
        for (uint n = 0; n < KEYS / 16; ++n) {
            strip score, gain;
            strip_weights p, t;
            strip_multiply(w, &score, &scored, score_tile[stage], n);
            strip_multiply(w, &gain, &gained, gain_tile[stage], n);
            strip_weigh(w, &p, &t, &total, &score, &gain, scale * LOG2_E, &offset, &delta, numbers[stage] + 16 * n, at);
            at.source += 16;
            strip_add(w, &to_first, &t, score_tile[stage], n);
            if (OF_KEYS)
                strip_add(w, &to_second, &p, gain_tile[stage], n);
        }
        if (item < KEYS)
            numbers[stage ^ 1][item] = number;
    }
    copy_wait();

    sums_scale(&to_first, scale);
#if OF_KEYS
    dk += dk_at.s0 + b_ * dk_at.s1 + kv * dk_at.s2;
    dv += dv_at.s0 + b_ * dv_at.s1 + kv * dv_at.s2;
#if DBIAS
    dbias += dbias_at.s0 + b_ * dbias_at.s1 + kv * dbias_at.s2;
#endif
#else
    dq += dq_at.s0 + b_ * dq_at.s1 + h * dq_at.s2;
#endif
    FOR_ROWS(b, i) {
        uint row = first + row_of(w, b, i);
        bool inside = row < rows_all;
#if OF_KEYS
        STORE_ROW(DK_TYPE, w, dk + row * dk_at.s3, inside, to_first.x[b], i)
        STORE_ROW(DV_TYPE, w, dv + row * dv_at.s3, inside, to_second.x[b], i)
#if DBIAS
        float sum = row_sum(w, total.x[b][i]);
        if (inside && w.lane % 4 == 0)
            STORE(DBIAS_TYPE, dbias, row * dbias_at.s3, sum);
#endif
#else
        STORE_ROW(DQ_TYPE, w, dq + row * dq_at.s3, inside, to_first.x[b], i)
#endif
    }
}
