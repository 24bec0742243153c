/* Read on NVIDIA's matrix units (mma_tile.clh): not causal, joint mixing, isotropic splats. Mathematics and shapes as
 * in read.cl; q of a 16-bit type. With c the mean of the head's means and m = μ − c rounded to that type,
 *
 *     φ = r² (q·m − ½|q − c|²) − r² (c·m + ½|m|²)
 *
 * Where the means are few widths from the origin (ORIGIN), c is 0 and the |q|² come from matrix units, too.
 * Queries are used as they are stored; what is rounded are the means and the states' values.
 *
 * Two kernels. read_pack rounds means and values to 16 bits once, and sums what belongs to a splat alone:
 *     packed_mean [B·Hw,S',D], packed_value [B·Hw,S',DV],
 *     packed_term [B·Hw,S',2] = r² and ln w + ln a + lse − r² (c·m + ½|m|²),
 *     both in base 2, with S' the splats rounded up to whole tiles. Work: one group a splat; grid (S' · WG, 1, B·Hw).
 * read_mma: a group of WG / 32 warps for GROUP_ROWS queries at a time, walking over the queries so that the copy of the
 * next tile of splats never waits for a new group; grid (walkers · WG, H, B). Walkers should be resident all at once: a
 * few more leave most of the device idle at the end.
 *
 * Measured (H200, bf16, N = 65,536, S = 256, H = 16, with Hopper's instructions; milliseconds): 0.40 with tops that
 * rise by 8 already, 0.31 with LIMIT, 0.28 with splats copied without bounds and |q|² from matrix units, always with a
 * third of the device idle at the end. */
#ifndef Q_TYPE
#define Q_TYPE BF16
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#ifndef D
#define D 64
#endif
#ifndef DV
#define DV 64
#endif
#ifndef WG /* a multiple of 32 */
#define WG 128
#endif
#ifndef ORIGIN
#define ORIGIN 0
#endif
#define HALF_TYPE Q_TYPE
#include "shared/tensor.clh"
#include "shared/mma_tile.clh"
#include "splat/log_prior.clh"

#if ORIGIN
#define CENTRE(d) 0.0f
#else
#define CENTRE(d) centre[d]
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
read_pack(uint levels, uint state_heads, uint splats, uint per_head, uint first_head, global const float *mean,
          global const float *inverse, global const float *centre, global const float *log_weight,
          global const uint *level_begin, global const float *level_log_weight, global const float *state_lse,
          global const float *state_value, global ushort *packed_mean, global ushort *packed_value,
          global float *packed_term) {
    local float part[WG];
    uint item = get_local_id(0), s = get_group_id(0), writer = get_global_id(2);
    uint set = per_head ? first_head + writer % state_heads : 0, row = min(s, splats - 1);
    INDEX to = (INDEX)writer * get_num_groups(0) + s;
    mean += ((INDEX)set * splats + row) * D;
    centre += set * D;
    state_value += ((INDEX)writer * splats + row) * DV;
    part[item] = 0.0f;
    for (uint d = item; d < D; d += WG) {
        uint m = pack_half(mean[d] - CENTRE(d), 0.0f);
        packed_mean[to * D + d] = (ushort)m;
        part[item] += HALF_OF(m, 0) * (CENTRE(d) + 0.5f * HALF_OF(m, 0));
    }
    for (uint d = item; d < DV; d += WG)
        packed_value[to * DV + d] = (ushort)pack_half(state_value[d], 0.0f);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item > 0)
        return;
    float total = 0.0f, r = inverse[set * splats + row];
    UNROLL
    for (uint i = 0; i < (D < WG ? D : WG); ++i)
        total += part[i];
    packed_term[to * 2] = LOG2_E * r * r;
    packed_term[to * 2 + 1] = LOG2_E * (log_prior(s, splats, levels, log_weight + (INDEX)set * splats, level_begin,
                                                  level_log_weight, state_lse + (INDEX)writer * splats) -
                                        r * r * total);
}

/* ½|q − c|² of the warp's queries; without a centre the diagonal of Q · Qᵀ. */
INLINED void half_squares(warp w, private per_row *total, private const operands *q, local const float *centre) {
#if ORIGIN
    UNROLL
    for (uint b = 0; b < BLOCKS; ++b) {
        float c[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
        UNROLL
        for (uint i = 0; i < 2; ++i) {
            UNROLL
            for (uint d = 0; d < D / 16; ++d)
                mma(w, c[i], q->a[b][d], q->a[b][d][i], q->a[b][d][2 + i]);
            float own = w.lane / 4 % 2 ? c[i][2 * i + 1] : c[i][2 * i];
            total->x[b][i] = 0.5f * row_sum(w, w.lane % 4 == w.lane / 8 ? own : 0.0f);
        }
    }
#else
    FOR_ROWS(b, i) {
        float sum = 0.0f;
        UNROLL
        for (uint n = 0; n < D / 8; ++n)
            UNROLL
        for (uint x = 0; x < 2; ++x) {
            float y = HALF_OF(q->a[b][n / 2][n % 2 * 2 + i], x) - centre[column_of(w, n) + x];
            sum = MAD(y, y, sum);
        }
        total->x[b][i] = 0.5f * row_sum(w, sum);
    }
#endif
}

/* From products to logits in base 2. */
INLINED void scores_offset(warp w, private scores *s, per_row square, local const float4 *term) {
    UNROLL
    for (uint n = 0; n < KEYS / 8; ++n) {
        float4 t = term[column_of(w, n) / 2];
        FOR_ROWS(b, i) {
            s->s[b][n][2 * i] = MAD(s->s[b][n][2 * i] - square.x[b][i], t.x, t.y);
            s->s[b][n][2 * i + 1] = MAD(s->s[b][n][2 * i + 1] - square.x[b][i], t.z, t.w);
        }
    }
}

#define STORE_ROWS(first)                                                                                              \
    FOR_ROWS(b, i) {                                                                                                   \
        uint row = (first) + row_of(w, b, i);                                                                          \
        bool inside = row < queries;                                                                                   \
        STORE_ROW(OUT_TYPE, w, out + row * out_at.s3, inside, r.sum[b], i)                                             \
        if (inside && w.lane % 4 == 0)                                                                                 \
            STORE(LSE_TYPE, lse, row *lse_at.s3, r.top[b][i]);                                                         \
    }

/* Where local memory has room for them, the queries of a group's next rows are copied there while it works on these. A
 * warp copies and takes its own rows alone. */
#define AHEAD (WGMMA && D <= 64)
#define PITCH_Q (D + 8)
#if AHEAD
INLINED void ahead_copy(warp w, local ushort *to, global const ushort *q, INDEX stride, uint first, uint count) {
    UNROLL
    for (uint c = 0; c < WARP_ROWS * D / 8; c += 32) {
        uint row = (c + w.lane) / (D / 8), across = (c + w.lane) % (D / 8) * 8;
        if (row < WARP_ROWS)
            copy_start(to + row * PITCH_Q + across, q + (INDEX)min(first + row, count - 1) * stride + across);
    }
}
INLINED void ahead_take(warp w, private operands *o, local const ushort *from) {
    UNROLL
    for (uint b = 0; b < BLOCKS; ++b)
        UNROLL
    for (uint d = 0; d < D / 16; ++d)
        load_tiles(w, o->a[b][d], from + (b * 16 + w.lane % 16) * PITCH_Q + d * 16 + w.lane / 16 * 8);
}
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
read_mma(uint queries, uint group, uint splats, uint per_head, uint first_head, global const float *centre_,
         global const ushort *packed_mean, global const ushort *packed_value, global const float *packed_term,
         global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
         global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    local ushort k_tile[2][TILE_SIZE(D)] TILE_ALIGNED, v_tile[2][TILE_SIZE(DV)] TILE_ALIGNED;
    local float4 term[2][KEYS / 2]; /* of two splats */
    local float centre[D];
#if AHEAD
    local ushort q_tile[GROUP_ROWS * PITCH_Q] ALIGNED;
#define COPY_AHEAD(first)                                                                                              \
    ahead_copy(w, q_tile + w.index * WARP_ROWS * PITCH_Q, (global const ushort *)q, q_at.s3, first, queries);
#define TAKE(first) ahead_take(w, &a, q_tile + w.index * WARP_ROWS * PITCH_Q);
#else
#define COPY_AHEAD(first)
#define TAKE(first) operands_load(w, &a, (global const ushort *)q, q_at.s3, first, queries);
#endif
    WARP_DECLARE(w)
    uint h = get_global_id(1), b_ = get_global_id(2), heads = get_global_size(1), tiles = (splats + KEYS - 1) / KEYS;
    INDEX writer = ((INDEX)b_ * (per_head ? heads : heads / group) + (per_head ? h : h / group)) * tiles * KEYS;
    packed_mean += writer * D;
    packed_value += writer * DV;
    packed_term += writer * 2;
    q += q_at.s0 + b_ * q_at.s1 + h * q_at.s2;
    out += out_at.s0 + b_ * out_at.s1 + h * out_at.s2;
    lse += lse_at.s0 + b_ * lse_at.s1 + h * lse_at.s2;
    for (uint d = get_local_id(0); !ORIGIN && d < D; d += WG)
        centre[d] = centre_[(per_head ? first_head + h : 0) * D + d];
    barrier(CLK_LOCAL_MEM_FENCE);

    uint mean_tile = 0, value_tile = 0; /* the next ones to copy; after the last comes the first again */
#define FEED_MEANS(stage)                                                                                              \
    if (get_local_id(0) < KEYS / 2)                                                                                    \
        copy_start(&term[stage][get_local_id(0)], packed_term + mean_tile * KEYS * 2 + get_local_id(0) * 4);           \
    tile_copy(D, k_tile[stage], packed_mean + mean_tile * KEYS * D);                                                   \
    mean_tile = mean_tile + 1 == tiles ? 0 : mean_tile + 1;
#define FEED_VALUES(stage)                                                                                             \
    tile_copy(DV, v_tile[stage], packed_value + value_tile * KEYS * DV);                                               \
    value_tile = value_tile + 1 == tiles ? 0 : value_tile + 1;
    FEED_MEANS(0)
    copy_wait();
    barrier(CLK_LOCAL_MEM_FENCE);
    FEED_MEANS(1)
    FEED_VALUES(0)

    uint stride = get_num_groups(0) * GROUP_ROWS, first = get_group_id(0) * GROUP_ROWS + w.index * WARP_ROWS;
    uint blocks = (queries - get_group_id(0) * GROUP_ROWS + stride - 1) / stride, steps = blocks * tiles, tile = 0;
    operands a;
    rows r;
    per_row one;
    FOR_ROWS(b, i)
    one.x[b][i] = 1.0f;
    operands_load(w, &a, (global const ushort *)q, q_at.s3, first, queries);
    per_row square;
    half_squares(w, &square, &a, centre);
    rows_clear(&r);
    COPY_AHEAD(first + stride)
    scores s;
    weights p[TURNS];
    uint stage = 0;
    tile_score(w, &s, &a, k_tile[0]);
    scores_offset(w, &s, square, term[0]);
    rows_weigh(w, &r, &s, one, &p[0]);
    do
        UNROLL
    for (uint turn = 0; turn < TURNS; ++turn, stage ^= 1) {
        bool ends = ++tile == tiles;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (ends)
            TAKE(first + stride)
        tile_begin(&s, &r, &a, k_tile[stage ^ 1], &p[turn], v_tile[stage]);
        FEED_MEANS(stage)
        FEED_VALUES(stage ^ 1)
        tile_end(w, &s, &r, &a, k_tile[stage ^ 1], &p[turn], v_tile[stage]);
        if (ends) {
            rows_finish(w, &r);
            STORE_ROWS(first)
            first += stride;
            tile = 0;
            COPY_AHEAD(first + stride)
            half_squares(w, &square, &a, centre);
            rows_clear(&r);
        }
        if (--steps == 0)
            break;
        scores_offset(w, &s, square, term[stage ^ 1]);
        rows_weigh(w, &r, &s, one, &p[(turn + 1) % TURNS]);
    }
    while (steps > 0)
        ;
    copy_wait();
}
