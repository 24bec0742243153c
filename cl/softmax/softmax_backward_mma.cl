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
 * Measured (H200, bf16, H = 16, D = 64; ms at N = 4,096 and 16,384): 0.89 and 12.3, causal 0.55 and 6.4, where the
 * forward pass takes 0.17 and 2.4; in Hopper's instructions (softmax_backward_wgmma.clh) 0.59 and 8.0, causal 0.37 and
 * 4.1. PyTorch's backward alone: flash 0.75 and 10.0, cuDNN 0.56 and 6.0. No gain: two blocks of rows a warp; tiles of
 * 32 sources (8 % slower), groups of 256 items (9 %). Hopper's takes 245 and 222 registers, nothing spilled; with a
 * third group on a multiprocessor it spills, and its products come one after the other.
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

/* sum[b][n]: columns 8n to 8n + 7 of the warp's rows 16b to 16b + 15, as in `rows` of mma_tile.clh. */
typedef struct sums {
    float x[BLOCKS][D / 8][4];
} sums;

/* What a warp has of its rows; first: dq or dk, second: dv. */
typedef struct own_rows {
    operands scored, gained;
    sums first, second;
    per_row offset, delta, total;
} own_rows;

/* Rows and sources of a tile; without `whole` some of its pairs do not meet, or are of sources past the last. */
typedef struct place {
    uint row, source, count;
    int reach;
    bool whole;
    float factor;
} place;

INLINED void sums_clear(private sums *s) {
    FOR_ROWS(b, i)
    UNROLL
    for (uint n = 0; n < D / 8; ++n)
        s->x[b][n][2 * i] = s->x[b][n][2 * i + 1] = 0.0f;
}

INLINED void sums_scale(private sums *s, float scale) {
    FOR_ROWS(b, i)
    UNROLL
    for (uint n = 0; n < D / 8; ++n) {
        s->x[b][n][2 * i] *= scale;
        s->x[b][n][2 * i + 1] *= scale;
    }
}

/* The numbers of sources 8n + column_of(0) and the next; none are read where none are needed. */
#define NUMBERS (OF_KEYS || BIAS)
INLINED float4 numbers_at(warp w, local const float2 *numbers, uint n) {
    return NUMBERS ? *(local const float4 *)(numbers + column_of(w, n)) : (float4)(0.0f);
}

/* Each score of the warp's block b and `blocks` times eight sources becomes its p. Keys have no offset without a bias:
 * that of rows past the last does not matter, as nobody stores them. */
INLINED void pairs_weigh(warp w, private const own_rows *own, uint b, private float (*score)[4],
                         local const float2 *numbers, const uint blocks, float factor) {
    UNROLL
    for (uint n = 0; n < blocks; ++n) {
        float4 column = numbers_at(w, numbers, n);
        UNROLL
        for (uint i = 0; i < 2; ++i)
            UNROLL
        for (uint x = 0; x < 2; ++x) {
            float more = x ? column.z : column.x, *s = &score[n][2 * i + x];
            more = BIAS ? own->offset.x[b][i] + more : OF_KEYS ? more : own->offset.x[b][i];
            *s = power_of_two(MAD(*s, factor, more));
            if (BIAS) /* a padding key may hold anything finite */
                *s = more == -INFINITY ? 0.0f : *s;
        }
    }
}

/* And each gain its t. */
INLINED void pairs_gain(warp w, private const own_rows *own, uint b, private float (*p)[4], private float (*gain)[4],
                        local const float2 *numbers, const uint blocks) {
    UNROLL
    for (uint n = 0; n < blocks; ++n) {
        float4 column = numbers_at(w, numbers, n);
        UNROLL
        for (uint i = 0; i < 2; ++i)
            UNROLL
        for (uint x = 0; x < 2; ++x) {
            float weight = p[n][2 * i + x], *g = &gain[n][2 * i + x];
            *g = weight * (*g - (OF_KEYS ? (x ? column.w : column.y) : own->delta.x[b][i]));
            if (BIAS)
                *g = weight == 0.0f ? 0.0f : *g;
        }
    }
}

/* Of pairs that do not meet both are 0. */
INLINED void pairs_mask(warp w, uint b, private float (*p)[4], private float (*t)[4], const uint blocks, place at) {
    UNROLL
    for (uint n = 0; n < blocks; ++n)
        UNROLL
    for (uint i = 0; i < 2; ++i)
        UNROLL
    for (uint x = 0; x < 2; ++x) {
        uint source = at.source + column_of(w, n) + x;
        if (source >= at.count || !meets(at.row + row_of(w, b, i), source, at.reach))
            p[n][2 * i + x] = t[n][2 * i + x] = 0.0f;
    }
}

/* Sixteen sources' as operands; t is added to the rows' totals. */
INLINED void pairs_pack(private own_rows *own, uint b, private float (*p)[4], private float (*t)[4],
                        private uint *p_pair, private uint *t_pair) {
    UNROLL
    for (uint n = 0; n < 2; ++n)
        UNROLL
    for (uint i = 0; i < 2; ++i) {
        own->total.x[b][i] += t[n][2 * i] + t[n][2 * i + 1];
        p_pair[2 * n + i] = pack_half(p[n][2 * i], p[n][2 * i + 1]);
        t_pair[2 * n + i] = pack_half(t[n][2 * i], t[n][2 * i + 1]);
    }
}

/* The rows times sources 16n to 16n + 15 of a tile. */
INLINED void strip_multiply(warp w, private float (*s)[2][4], private const operands *o, local const ushort *tile,
                            uint n) {
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
                s[b][i][x] = 0.0f;
            mma(w, s[b][i], o->a[b][d], c[2 * i], c[2 * i + 1]);
        }
    }
}

/* What the same sources add to the sums. */
INLINED void strip_add(warp w, private sums *s, private uint (*p)[4], local const ushort *tile, uint n) {
    UNROLL
    for (uint d = 0; d < D / 16; ++d) {
        uint c[4], row = n * 16 + w.lane % 16, column = d * 16 + w.lane / 16 * 8;
        load_tiles_transposed(w, c, tile + TILE_AT(D, row, column));
        UNROLL
        for (uint b = 0; b < BLOCKS; ++b) {
            mma(w, s->x[b][2 * d], p[b], c[0], c[1]);
            mma(w, s->x[b][2 * d + 1], p[b], c[2], c[3]);
        }
    }
}

#if WGMMA
#include "softmax/softmax_backward_wgmma.clh"
#else
#define SCORE_TILE(slot) score_tile[slot]
#define GAIN_TILE(slot) gain_tile[slot]
INLINED void tile_meet(warp w, private own_rows *own, local const ushort *score_tile, local const ushort *gain_tile,
                       local const float2 *numbers, place at) {
    UNROLL
    for (uint n = 0; n < KEYS / 16; ++n, at.source += 16) {
        float score[BLOCKS][2][4], gain[BLOCKS][2][4];
        uint p[BLOCKS][4], t[BLOCKS][4];
        strip_multiply(w, score, &own->scored, score_tile, n);
        strip_multiply(w, gain, &own->gained, gain_tile, n);
        UNROLL
        for (uint b = 0; b < BLOCKS; ++b) {
            pairs_weigh(w, own, b, score[b], numbers + 16 * n, 2, at.factor);
            pairs_gain(w, own, b, score[b], gain[b], numbers + 16 * n, 2);
            if (!at.whole)
                pairs_mask(w, b, score[b], gain[b], 2, at);
            pairs_pack(own, b, score[b], gain[b], p[b], t[b]);
        }
        strip_add(w, &own->first, t, score_tile, n);
        if (OF_KEYS)
            strip_add(w, &own->second, p, gain_tile, n);
    }
}
#endif

#if OF_KEYS && DBIAS
#define STORE_BIAS                                                                                                     \
    float sum = row_sum(w, own.total.x[b][i]);                                                                         \
    if (inside && w.lane % 4 == 0)                                                                                     \
        STORE(DBIAS_TYPE, dbias + dbias_at.s0 + b_ * dbias_at.s1 + kv * dbias_at.s2, row * dbias_at.s3, sum);
#else
#define STORE_BIAS
#endif
#define OF_ROW(at, head) ((at).s0 + b_ * (at).s1 + (head) * (at).s2 + row * (at).s3)
#if OF_KEYS
#define STORE_RESULTS                                                                                                  \
    STORE_ROW(DK_TYPE, w, dk + OF_ROW(dk_at, kv), inside, own.first.x[b], i)                                           \
    STORE_ROW(DV_TYPE, w, dv + OF_ROW(dv_at, kv), inside, own.second.x[b], i)                                          \
    STORE_BIAS
#else
#define STORE_RESULTS STORE_ROW(DQ_TYPE, w, dq + OF_ROW(dq_at, h), inside, own.first.x[b], i)
#endif
/* The sides of a group's pairs, of its first head of queries. */
typedef struct side {
    global const ushort *scored, *gained;
    INDEX scored_pitch, gained_pitch;
    uint count;
} side;

INLINED void side_begin(private side *s, global const ELEMENT(HALF_TYPE) *scored, INDEX4 scored_at,
                        global const ELEMENT(HALF_TYPE) *gained, INDEX4 gained_at, uint b, uint h, uint count) {
    s->scored = (global const ushort *)scored + scored_at.s0 + b * scored_at.s1 + h * scored_at.s2;
    s->gained = (global const ushort *)gained + gained_at.s0 + b * gained_at.s1 + h * gained_at.s2;
    s->scored_pitch = scored_at.s3;
    s->gained_pitch = gained_at.s3;
    s->count = count;
}

INLINED void own_begin(warp w, private own_rows *own, private const side *s, uint first) {
    operands_load(w, &own->scored, s->scored, s->scored_pitch, first, s->count);
    operands_load(w, &own->gained, s->gained, s->gained_pitch, first, s->count);
    sums_clear(&own->first);
    sums_clear(&own->second);
}

/* Copies of the tile of sources from `begin` on are begun. */
INLINED void tile_feed(private const side *s, uint begin, local ushort *score_tile, local ushort *gain_tile) {
    feed scored = feed_of(D, s->scored, s->scored_pitch, begin, s->count);
    feed gained = feed_of(D, s->gained, s->gained_pitch, begin, s->count);
    feed_tile(&scored, D, score_tile);
    feed_tile(&gained, D, gain_tile);
}

/* And their numbers come, and `next` and the head of queries become those of the tile after it. */
#define FEED(slot)                                                                                                     \
    {                                                                                                                  \
        tile_feed(&other, next, SCORE_TILE(slot), GAIN_TILE(slot));                                                    \
        if (NUMBERS && item < KEYS)                                                                                    \
            number = OF_KEYS ? query_numbers(stats, next + item, queries)                                              \
                             : KEY_NUMBERS(bias, bias_at.s3, next + item, keys);                                       \
        next += KEYS;                                                                                                  \
        if (OF_KEYS && next >= sources.y) {                                                                            \
            next = sources.x;                                                                                          \
            other.scored += q_at.s2;                                                                                   \
            other.gained += dout_at.s2;                                                                                \
            stats += 2 * (INDEX)queries;                                                                               \
        }                                                                                                              \
    }
#define NUMBERS_STORE(slot)                                                                                            \
    if (NUMBERS && item < KEYS)                                                                                        \
        numbers[slot][item] = number;

/* The group's next tile of sources and this warp's rows. */
#define PLACE_NEXT                                                                                                     \
    {                                                                                                                  \
        first, begin, other.count, reach,                                                                              \
            begin + KEYS <= other.count &&all_meet(first, WARP_ROWS, begin, KEYS, reach), scale *LOG2_E                \
    }

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
KERNEL(softmax_backward_mma)(uint queries, uint keys, uint group, float scale, int diagonal,
                             global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(Q_TYPE) *k, INDEX4 k_at,
                             global const ELEMENT(Q_TYPE) *v, INDEX4 v_at,
#if BIAS
                             global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                             global const ELEMENT(Q_TYPE) *dout, INDEX4 dout_at, global const float *stats RESULTS) {
#if WGMMA
    local float2 numbers[SLOTS][KEYS] ALIGNED;
    WIDE_ROOM(tiles, SLOTS * SLOT_BYTES)
#else
    local ushort score_tile[2][TILE_SIZE(D)] TILE_ALIGNED, gain_tile[2][TILE_SIZE(D)] TILE_ALIGNED;
    local float2 numbers[2][KEYS] ALIGNED;
#endif
    WARP_DECLARE(w)
    uint item = get_local_id(0), tile = get_group_id(0), b_ = get_global_id(2);
    uint h = OF_KEYS ? get_global_id(1) * group : get_global_id(1), kv = h / group;
    side mine, other;
    side_begin(OF_KEYS ? &other : &mine, q, q_at, dout, dout_at, b_, h, queries);
    side_begin(OF_KEYS ? &mine : &other, k, k_at, v, v_at, b_, kv, keys);
    uint group_first = (OF_KEYS ? tile : get_num_groups(0) - 1 - tile) * GROUP_ROWS;
    uint first = group_first + w.index * WARP_ROWS;
    stats += 2 * ((INDEX)b_ * get_num_groups(1) * (OF_KEYS ? group : 1) + h) * queries;
#if BIAS
    bias += bias_at.s0 + b_ * bias_at.s1 + kv * bias_at.s2;
#endif
    own_rows own;
    own_begin(w, &own, &mine, first);
    FOR_ROWS(b, i) {
        uint row = min(first + row_of(w, b, i), mine.count - 1);
        float2 its = OF_KEYS ? KEY_NUMBERS(bias, bias_at.s3, row, keys) : query_numbers(stats, row, queries);
        own.offset.x[b][i] = its.x;
        own.delta.x[b][i] = its.y;
        own.total.x[b][i] = 0.0f;
    }
    uint2 sources = sources_of(group_first, min(group_first + GROUP_ROWS, mine.count), diagonal, queries, keys);
    uint begin = sources.x, next = sources.x;
    uint steps = sources.y > sources.x ? (sources.y - sources.x + KEYS - 1) / KEYS * (OF_KEYS ? group : 1) : 0;
    float2 number = (float2)(0.0f);
    int reach = reach_of(diagonal, keys);
    if (steps > 0)
        FEED(0)
    NUMBERS_STORE(0)
#if WGMMA
    uint now = 0, before = 2, after = 1;
    pairs s;
    pair_operands o;
    if (steps > 0) {
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (steps > 1)
            FEED(1)
        STEP_BEGIN();
        pairs_begin(w, &s, &own, tiles, 0);
        place at = PLACE_NEXT;
        PAIRS_MEET(w, &own, &s, &o, numbers[0], at, "1", "0")
        NUMBERS_STORE(1)
    }
    for (uint step = 1; step < steps; ++step) {
        begin = begin + KEYS < sources.y ? begin + KEYS : sources.x;
        place at = PLACE_NEXT;
        before = now;
        now = after;
        after = after == SLOTS - 1 ? 0 : after + 1;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        STEP_BEGIN();
        pairs_begin(w, &s, &own, tiles, now);
        sums_begin(w, &own, &o, tiles, before);
        if (step + 1 < steps)
            FEED(after)
        PAIRS_MEET(w, &own, &s, &o, numbers[now], at, "2", "1")
        NUMBERS_STORE(after)
    }
    if (steps > 0) {
        STEP_BEGIN();
        sums_begin(w, &own, &o, tiles, now);
        sums_settle(&own);
    }
#else
    for (uint step = 0, stage = 0; step < steps; ++step, stage ^= 1) {
        place at = PLACE_NEXT;
        begin = next;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (step + 1 < steps)
            FEED(stage ^ 1)
        tile_meet(w, &own, SCORE_TILE(stage), GAIN_TILE(stage), numbers[stage], at);
        NUMBERS_STORE(stage ^ 1)
    }
#endif
    copy_wait();
    sums_scale(&own.first, scale);
    FOR_ROWS(b, i) {
        uint row = first + row_of(w, b, i);
        bool inside = row < mine.count;
        STORE_RESULTS
    }
}
