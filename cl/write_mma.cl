/* Write on NVIDIA's matrix units (mma_tile.clh), isotropic splats. Mathematics and shapes as in write.cl; k and v of one 16-bit
 * type. With c the mean of the head's means and m = μ − c rounded to that type,
 *
 *     φ = r² (k·m − ½|k − c|²) − r² (c·m + ½|m|²)
 *
 * Keys are used as they are stored; all that is rounded are the means, by 2⁻⁹ (2⁻¹² in F16) of their distance from c. The
 * last term belongs to the splat and joins its lse at the end.
 *
 * Work: a group of WG / 32 warps for GROUP_ROWS splats and one segment; grid (⌈S / GROUP_ROWS⌉ · WG, G, B·Hw). Two tiles of
 * keys and values in local memory, as in softmax_mma.cl; a tile's ½|k − c|² are summed by all items before its products.
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
#include "tensor.clh"
#include "mma_tile.clh"

#define PARTS (WG / KEYS) /* items that share a key's ½|k − c|² */

/* The splats' operands m, their reach r² in base 2 and their shift r² (c·m + ½|m|²). */
INLINED void splats_load(warp w, private operands *o, private per_row *reach, private per_row *shift, global const float *mean,
                        global const float *inverse, local const float *centre, uint first, uint splats)
{
    FOR_ROWS(b, i) {
        uint row = min(first + row_of(w, b, i), splats - 1);
        float term = 0.0f, r = inverse[row];
        UNROLL for (uint n = 0; n < D / 8; ++n) {
            uint d = column_of(w, n);
            uint pair = pack_half(mean[row * D + d] - centre[d], mean[row * D + d + 1] - centre[d + 1]);
            o->a[b][n / 2][n % 2 * 2 + i] = pair;
            UNROLL for (uint x = 0; x < 2; ++x) {
                float m = HALF_OF(pair, x);
                term = MAD(m, centre[d + x] + 0.5f * m, term);
            }
        }
        reach->x[b][i] = fmax(r * r * LOG2_E, FLT_MIN);
        shift->x[b][i] = r * r * row_sum(w, term);
    }
}

/* ½|k − c|² of the tile's keys, PARTS items to a key. */
INLINED void half_squares(warp w, local const ushort *k, local const float *centre, local float *to)
{
    uint j = get_local_id(0) / PARTS, part = get_local_id(0) % PARTS;
    float total = 0.0f;
    UNROLL for (uint i = 0; i < (D / 8 + PARTS - 1) / PARTS; ++i) {
        uint d = (part * ((D / 8 + PARTS - 1) / PARTS) + i) * 8;
        if (D / 8 % PARTS != 0 && d >= D)
            break;
        uint4 eight = *(local const uint4 *)(k + TILE_AT(D, j, d));
        uint pairs[4] = {eight.x, eight.y, eight.z, eight.w};
        UNROLL for (uint x = 0; x < 8; ++x) {
            float y = HALF_OF(pairs[x / 2], x % 2) - centre[d + x];
            total = MAD(y, y, total);
        }
    }
    UNROLL for (uint mask = 1; mask < PARTS; mask *= 2)
        total += exchange(w, total, mask);
    if (part == 0)
        to[j] = 0.5f * total;
}

/* What the keys' own terms make of the products; keys from `count` on have no weight. Without a bias the rows' reach is left
 * to the weights. */
INLINED void scores_offset(warp w, private scores *s, private const per_row *reach, local const float *square,
                           local const float *offset, uint count)
{
    UNROLL for (uint n = 0; n < KEYS / 8; ++n)
        UNROLL for (uint x = 0; x < 2; ++x) {
            uint j = column_of(w, n) + x;
            float y = square[j];
            FOR_ROWS(b, i) {
                private float *l = &s->s[b][n][2 * i + x];
#if BIAS
                *l = offset[j] == -INFINITY ? -INFINITY : MAD(*l - y, reach->x[b][i], offset[j]);
#else
                *l -= y;
#endif
            }
        }
#if !BIAS
    if (count < KEYS)
        UNROLL for (uint n = 0; n < KEYS / 8; ++n)
            UNROLL for (uint x = 0; x < 2; ++x)
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
          global float *state_lse, global float *state_value)
{
    local ushort k_tile[2][TILE_SIZE(D)] TILE_ALIGNED, v_tile[2][TILE_SIZE(DV)] TILE_ALIGNED;
    local float centre[D] ALIGNED, square[KEYS] ALIGNED;
    WARP_DECLARE(w)
    uint item = get_local_id(0), first = get_group_id(0) * GROUP_ROWS + w.index * WARP_ROWS;
    uint g = get_global_id(1), b_ = get_global_id(2) / heads, h = get_global_id(2) % heads;
    uint set = per_head ? first_head + h : 0;
    global const ushort *k_from = (global const ushort *)k + k_at.s0 + b_ * k_at.s1 + (h / group) * k_at.s2;
    global const ushort *v_from = (global const ushort *)v + v_at.s0 + b_ * v_at.s1 + (h / group) * v_at.s2;
    uint begin = g * segment, last = min(keys, begin + segment);
#if BIAS
    local float offset[KEYS];
#define OFFSET offset
    bias += bias_at.s0 + b_ * bias_at.s1 + (h / group) * bias_at.s2;
#define LOAD_OFFSET(at)                                                                                \
    (item < KEYS && (at) + item < last ? LOG2_E * LOAD(BIAS_TYPE, bias, ((at) + item) * bias_at.s3) : -INFINITY)
#else
#define OFFSET 0
#endif

    feed k_feed = feed_of(D, k_from, k_at.s3, begin, keys), v_feed = feed_of(DV, v_from, v_at.s3, begin, keys);
    feed_tile(&k_feed, D, k_tile[0]);
    for (uint d = item; d < D; d += WG)
        centre[d] = centre_[set * D + d];
    copy_wait();
    barrier(CLK_LOCAL_MEM_FENCE);
    feed_tile(&k_feed, D, k_tile[1]);
    feed_tile(&v_feed, DV, v_tile[0]);
    operands a;
    rows r;
    per_row reach, shift, factor;
    splats_load(w, &a, &reach, &shift, mean + (INDEX)set * splats * D, inverse + set * splats, centre, first, splats);
    FOR_ROWS(b, i)
        factor.x[b][i] = BIAS ? 1.0f : reach.x[b][i];
    rows_clear(&r);
#if BIAS
    if (item < KEYS)
        offset[item] = LOAD_OFFSET(begin);
#endif
    half_squares(w, k_tile[0], centre, square);
    barrier(CLK_LOCAL_MEM_FENCE);
    uint stage = 0;
#if WGMMA && MATRIX_UNITS
    weights p;
    {
        scores s;
        tile_score(w, &s, &a, k_tile[0]);
        scores_offset(w, &s, &reach, square, OFFSET, last - begin);
        rows_weigh(w, &r, &s, factor, &p);
    }
    while (true) {
        scores s;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        tile_step(w, &s, &r, &a, k_tile[stage ^ 1], &p, v_tile[stage]);
        begin += KEYS;
        stage ^= 1;
        feed_tile(&k_feed, D, k_tile[stage ^ 1]);
        feed_tile(&v_feed, DV, v_tile[stage]);
#if BIAS
        if (item < KEYS)
            offset[item] = LOAD_OFFSET(begin);
#endif
        half_squares(w, k_tile[stage], centre, square);
        tile_settle(&s);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (begin >= last)
            break;
        scores_offset(w, &s, &reach, square, OFFSET, last - begin);
        rows_weigh(w, &r, &s, factor, &p);
    }
#else
    scores s;
    tile_score(w, &s, &a, k_tile[0]);
    while (true) {
        scores_offset(w, &s, &reach, square, OFFSET, last - begin);
        rows_admit(w, &r, &s, factor);
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        feed_tile(&k_feed, D, k_tile[stage]);
        feed_tile(&v_feed, DV, v_tile[stage ^ 1]);
        begin += KEYS;
#if BIAS
        if (item < KEYS)
            offset[item] = LOAD_OFFSET(begin);
#endif
        half_squares(w, k_tile[stage ^ 1], centre, square);
        tile_step(w, &s, &r, &a, k_tile[stage ^ 1], factor, v_tile[stage]);
        if (begin >= last)
            break;
        stage ^= 1;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
    copy_wait();

    rows_finish(w, &r);
    INDEX at = ((INDEX)get_global_id(2) * get_global_size(1) + g) * splats;
    FOR_ROWS(b, i) {
        uint row = first + row_of(w, b, i);
        if (row >= splats)
            continue;
        UNROLL for (uint n = 0; n < DV / 8; ++n)
            STORE2(F32, state_value, (at + row) * DV + column_of(w, n), r.sum[b][n][2 * i], r.sum[b][n][2 * i + 1]);
        if (w.lane % 4 == 0)
            state_lse[at + row] = r.top[b][i] - shift.x[b][i];
    }
}
