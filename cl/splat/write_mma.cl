/* Write on NVIDIA's matrix units (mma_tile.clh), isotropic splats. Mathematics and shapes as in write.cl; k and v of
 * one 16-bit type. With c the mean of the head's means and m = μ − c rounded to that type,
 *
 *     φ = r² (k·m − ½|k − c|²) − r² (c·m + ½|m|²)
 *
 * Where the means are few widths from the origin (ORIGIN), c is 0 and the |k|² come from matrix units, too. Keys are
 * used as they are stored; all that is rounded are the means, by 2⁻⁹ (2⁻¹² in F16) of their distance from c. The last
 * term belongs to the splat and joins its lse at the end.
 *
 * Work: a group of WG / 32 warps for GROUP_ROWS splats and one segment; grid (⌈S / GROUP_ROWS⌉ · WG, G, B·Hw). Three
 * tiles of keys and two of values in local memory, one of keys more than in softmax_mma.cl: its ½|k − c|² are summed
 * while those before it are at work, and cost no barrier of their own.
 *
 * Measured (H200, bf16, N = 65,536, S = 256, H = 16, with Hopper's instructions; milliseconds): 0.28 with tops that
 * rise by 8 already, 0.23 with LIMIT. Segments beyond those that are resident at once cost up to 10 %.
 *
 * Needs rows of k and v at multiples of 8 elements. */
#ifndef K_TYPE
#define K_TYPE BF16
#define BIAS_TYPE F32
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
#ifndef WG /* a multiple of 32 and of KEYS */
#define WG 128
#endif
#define HALF_TYPE K_TYPE
#include "shared/tensor.clh"
#include "shared/mma_tile.clh"

#ifndef ORIGIN
#define ORIGIN 0
#endif
#define PARTS (WG / KEYS) /* items that share a key's ½|k − c|² */

#if ORIGIN
#define CENTRE(d) 0.0f
#else
#define CENTRE(d) centre[d]
#endif

/* The splats' operands m, their reach r² in base 2 and their shift r² (c·m + ½|m|²). */
INLINED void splats_load(warp w, private operands *o, private per_row *reach, private per_row *shift,
                         global const float *mean, global const float *inverse, local const float *centre, uint first,
                         uint splats) {
    FOR_ROWS(b, i) {
        uint row = min(first + row_of(w, b, i), splats - 1);
        float term = 0.0f, r = inverse[row];
        UNROLL
        for (uint n = 0; n < D / 8; ++n) {
            uint d = column_of(w, n);
            uint pair = pack_half(mean[row * D + d] - CENTRE(d), mean[row * D + d + 1] - CENTRE(d + 1));
            o->a[b][n / 2][n % 2 * 2 + i] = pair;
            UNROLL
            for (uint x = 0; x < 2; ++x) {
                float m = HALF_OF(pair, x);
                term = MAD(m, CENTRE(d + x) + 0.5f * m, term);
            }
        }
        reach->x[b][i] = fmax(r * r * LOG2_E, FLT_MIN);
        shift->x[b][i] = r * r * row_sum(w, term);
    }
}

#if ORIGIN
/* ½|k|² of the tile's keys: the diagonal of K · Kᵀ, eight keys at a time. */
INLINED void half_squares(warp w, local const ushort *k, local const float *centre, local float *to) {
    UNROLL
    for (uint block = 0; block < KEYS / 8; block += WG / 32) {
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        uint first = (block + w.index) * 8;
        UNROLL
        for (uint d = 0; d < D; d += 32) {
            uint x[4];
            load_tiles(w, x, k + TILE_AT(D, first + w.lane % 8, min(d + w.lane / 8 * 8, (uint)(D - 8))));
            uint lower[4] = {x[0], 0, x[1], 0}, upper[4] = {x[2], 0, x[3], 0};
            mma(w, c, lower, x[0], x[1]);
            if (d + 16 < D)
                mma(w, c, upper, x[2], x[3]);
        }
        if (w.lane % 4 == w.lane / 8)
            to[first + w.lane / 4] = 0.5f * (w.lane / 4 % 2 ? c[1] : c[0]);
    }
}
#else
/* ½|k − c|² of the tile's keys, PARTS items to a key. */
INLINED void half_squares(warp w, local const ushort *k, local const float *centre, local float *to) {
    uint j = get_local_id(0) / PARTS, part = get_local_id(0) % PARTS;
    float total = 0.0f;
    UNROLL
    for (uint i = 0; i < (D / 8 + PARTS - 1) / PARTS; ++i) {
        uint d = (part * ((D / 8 + PARTS - 1) / PARTS) + i) * 8;
        if (D / 8 % PARTS != 0 && d >= D)
            break;
        uint4 eight = *(local const uint4 *)(k + TILE_AT(D, j, d));
        uint pairs[4] = {eight.x, eight.y, eight.z, eight.w};
        UNROLL
        for (uint x = 0; x < 8; ++x) {
            float y = HALF_OF(pairs[x / 2], x % 2) - centre[d + x];
            total = MAD(y, y, total);
        }
    }
    UNROLL
    for (uint mask = 1; mask < PARTS; mask *= 2)
        total += exchange(w, total, mask);
    if (part == 0)
        to[j] = 0.5f * total;
}
#endif

/* What the keys' own terms make of the products; keys from `count` on have no weight. Without a bias the rows' reach is
 * left to the weights. */
INLINED void scores_offset(warp w, private scores *s, private const per_row *reach, local const float *square,
                           local const float *offset, uint count) {
    UNROLL
    for (uint n = 0; n < KEYS / 8; ++n)
        UNROLL
    for (uint x = 0; x < 2; ++x) {
        uint j = column_of(w, n) + x;
        float y = square[j];
        FOR_ROWS(b, i) {
            float *l = &s->s[b][n][2 * i + x];
#if BIAS
            *l = offset[j] == -INFINITY ? -INFINITY : MAD(*l - y, reach->x[b][i], offset[j]);
#else
            *l -= y;
#endif
        }
    }
#if !BIAS
    if (count < KEYS)
        UNROLL
    for (uint n = 0; n < KEYS / 8; ++n)
        UNROLL
    for (uint x = 0; x < 2; ++x)
        if (column_of(w, n) + x >= count)
            FOR_ROWS(b, i) s->s[b][n][2 * i + x] = -INFINITY;
#endif
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
write_mma(uint keys, uint segment, uint heads, uint group, uint splats, uint per_head, uint first_head,
          global const float *mean, global const float *inverse, global const float *centre_,
          global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(K_TYPE) *v, INDEX4 v_at,
#if BIAS
          global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
          global float *state_lse, global float *state_value) {
    local ushort k_tile[3][TILE_SIZE(D)] TILE_ALIGNED, v_tile[2][TILE_SIZE(DV)] TILE_ALIGNED;
    local float centre[D] ALIGNED, square[2][KEYS] ALIGNED;
    WARP_DECLARE(w)
    uint item = get_local_id(0), first = get_group_id(0) * GROUP_ROWS + w.index * WARP_ROWS;
    uint g = get_global_id(1), b_ = get_global_id(2) / heads, h = get_global_id(2) % heads;
    uint set = per_head ? first_head + h : 0;
    global const ushort *k_from = (global const ushort *)k + k_at.s0 + b_ * k_at.s1 + (h / group) * k_at.s2;
    global const ushort *v_from = (global const ushort *)v + v_at.s0 + b_ * v_at.s1 + (h / group) * v_at.s2;
    uint begin = g * segment, last = min(keys, begin + segment);
#if BIAS
    local float offset[2][KEYS];
#define OFFSET(stage) offset[stage]
    bias += bias_at.s0 + b_ * bias_at.s1 + (h / group) * bias_at.s2;
#define LOAD_OFFSET(at)                                                                                                \
    (item < KEYS && (at) + item < last ? LOG2_E * LOAD(BIAS_TYPE, bias, ((at) + item) * bias_at.s3) : -INFINITY)
#else
#define OFFSET(stage) 0
#endif

    feed k_feed = feed_of(D, k_from, k_at.s3, begin, keys), v_feed = feed_of(DV, v_from, v_at.s3, begin, keys);
    feed_tile(&k_feed, D, k_tile[0]);
    feed_tile(&k_feed, D, k_tile[1]);
#if !ORIGIN
    for (uint d = item; d < D; d += WG)
        centre[d] = centre_[set * D + d];
#endif
    copy_wait();
    barrier(CLK_LOCAL_MEM_FENCE);
    feed_tile(&k_feed, D, k_tile[2]);
    feed_tile(&v_feed, DV, v_tile[0]);
    operands a;
    rows r;
    per_row reach, shift, factor;
    splats_load(w, &a, &reach, &shift, mean + (INDEX)set * splats * D, inverse + set * splats, centre, first, splats);
    FOR_ROWS(b, i)
    factor.x[b][i] = BIAS ? 1.0f : reach.x[b][i];
    rows_clear(&r);
#if BIAS
    if (item < KEYS) {
        offset[0][item] = LOAD_OFFSET(begin);
        offset[1][item] = LOAD_OFFSET(begin + KEYS);
    }
#endif
    half_squares(w, k_tile[0], centre, square[0]);
    half_squares(w, k_tile[1], centre, square[1]);
    barrier(CLK_LOCAL_MEM_FENCE);
    scores s;
    weights p[TURNS];
    uint stage = 0, now = 0; /* where the values, and where the keys of the tile lie whose values are added */
    tile_score(w, &s, &a, k_tile[0]);
    scores_offset(w, &s, &reach, square[0], OFFSET(0), last - begin);
    rows_weigh(w, &r, &s, factor, &p[0]);
    do
        UNROLL
    for (uint turn = 0; turn < TURNS; ++turn, stage ^= 1) {
        uint next = now == 2 ? 0 : now + 1, later = next == 2 ? 0 : next + 1;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        tile_begin(&s, &r, &a, k_tile[next], &p[turn], v_tile[stage]);
        feed_tile(&k_feed, D, k_tile[now]);
        feed_tile(&v_feed, DV, v_tile[stage ^ 1]);
#if BIAS
        if (item < KEYS)
            offset[stage][item] = LOAD_OFFSET(begin + 2 * KEYS);
#endif
        half_squares(w, k_tile[later], centre, square[stage]);
        tile_end(w, &s, &r, &a, k_tile[next], &p[turn], v_tile[stage]);
        begin += KEYS;
        now = next;
        if (begin >= last)
            break;
        scores_offset(w, &s, &reach, square[stage ^ 1], OFFSET(stage ^ 1), last - begin);
        rows_weigh(w, &r, &s, factor, &p[(turn + 1) % TURNS]);
    }
    while (begin < last)
        ;
    copy_wait();

    rows_finish(w, &r);
    INDEX at = ((INDEX)get_global_id(2) * get_global_size(1) + g) * splats;
    FOR_ROWS(b, i) {
        uint row = first + row_of(w, b, i);
        bool inside = row < splats;
        STORE_ROW(F32, w, state_value + (at + row) * DV, inside, r.sum[b], i)
        if (inside && w.lane % 4 == 0)
            state_lse[at + row] = r.top[b][i] - shift.x[b][i];
    }
}
