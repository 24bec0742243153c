/* Exact softmax attention on matrix units, NVIDIA's or others' (mma_tile.clh). Mathematics and shapes as in softmax.cl;
 * q, k and v of one 16-bit type, weights rounded to it, sums in float32.
 *
 * Work: a group of WG / 32 warps for GROUP_ROWS consecutive queries; grid (⌈N / GROUP_ROWS⌉ · WG, H, B), the rows that
 * see most keys first, of all heads. Two tiles of keys and of values in local memory; the tiles after the last repeat
 * its last key, unused.
 *
 * Measured (H200, bf16, H = 16, D = 64; TFLOP/s at N = 4,096 and 16,384, causal counting the visible half; PyTorch's
 * SDPA 405 and 475, causal 280 and 430): 335 and 362, causal 310 and 355; with Hopper's instructions 406 and 490,
 * causal 380 and 478. Causal, head after head was 34 % slower at 4,096 and 10 % at 16,384, as the last head's longest
 * rows began last. With Hopper's instructions, at 16,384, it mattered to wait for the values' product after the
 * exponentials, not before, where the assembler puts it by itself (430 to 468), and to look for the largest logit only
 * when weights have grown too large (to 490). Slower: a quarter of the exponentials by polynomials 8 %, 128 keys per
 * tile 6 %, groups of 256 or 384 items 24 %, four groups per multiprocessor (spills) 14 %; without Hopper's
 * instructions one block of rows per warp 23 %, 32 keys per tile nothing.
 *
 * Needs rows of q, k and v at multiples of 8 elements, of out at multiples of 4; a positive scale; a key. */
#ifndef Q_TYPE
#define Q_TYPE BF16
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
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
#include "shared/constants.h"
#define SEES_ALL OP_SEES_ALL /* diagonal where it is not causal */
#include "shared/tensor.clh"
#include "shared/mma_tile.clh"

/* Takes their logit from keys that a query does not see. */
INLINED void scores_mask(warp w, private scores *s, uint first, int diagonal, uint begin, uint keys) {
    FOR_ROWS(b, i) {
        int seen = (int)visible_keys(first + row_of(w, b, i), diagonal, keys) - (int)begin;
        FOR_SPAN(n, KEYS, x)
        if ((int)(column_of(w, n) + x) >= seen)
            s->s[b][n][SPAN * i + x] = -INFINITY;
    }
}

/* Scales the scores and adds the keys' offsets; one of −inf wins over any score. */
INLINED void scores_offset(warp w, private scores *s, float factor, local const float *offset) {
    FOR_SPAN(n, KEYS, x) {
        float more = offset[column_of(w, n) + x];
        FOR_ROWS(b, i) {
            float *l = &s->s[b][n][SPAN * i + x];
            *l = more == -INFINITY ? more : MAD(*l, factor, more);
        }
    }
}

/* What the warp's rows, from `first` on, hold already. */
INLINED void rows_load(warp w, private rows *r, uint first, uint queries, global const ELEMENT(OUT_TYPE) *out,
                       INDEX out_pitch, global const ELEMENT(LSE_TYPE) *lse, INDEX lse_pitch) {
    FOR_ROWS(b, i) {
        uint row = min(first + row_of(w, b, i), queries - 1);
        r->top[b][i] = LOG2_E * LOAD(LSE_TYPE, lse, row * lse_pitch);
        r->mass[b][i] = is_first(w) && r->top[b][i] != -INFINITY ? 1.0f : 0.0f;
        FOR_SPAN(n, DV, x)
        r->sum[b][n][SPAN * i + x] = LOAD(OUT_TYPE, out, row * out_pitch + column_of(w, n) + x);
    }
}

#if UNITS == UNITS_DPAS && MATRIX_UNITS
#define OF_ONE_WIDTH __attribute__((intel_reqd_sub_group_size(WARP)))
#else
#define OF_ONE_WIDTH
#endif
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) OF_ONE_WIDTH void
softmax_mma(uint queries, uint keys, uint group, float scale, int diagonal, uint accumulate,
            global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(Q_TYPE) *k, INDEX4 k_at,
            global const ELEMENT(Q_TYPE) *v, INDEX4 v_at,
#if BIAS
            global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
            global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    local ushort k_tile[2][TILE_SIZE(D)] TILE_ALIGNED, v_tile[2][VALUE_SIZE] TILE_ALIGNED;
    WARP_DECLARE(w)
    uint item = get_local_id(0);
    uint tile = get_group_id(0), h = get_global_id(1), b_ = get_global_id(2);
    if (diagonal != SEES_ALL) { /* the longest of all heads first: groups begin in the order of their numbers */
        uint number = (b_ * get_num_groups(1) + h) * get_num_groups(0) + tile,
             heads = get_num_groups(1) * get_num_groups(2);
        tile = number / heads;
        h = number % heads % get_num_groups(1);
        b_ = number % heads / get_num_groups(1);
    }
    uint group_first = (get_num_groups(0) - 1 - tile) * GROUP_ROWS;
    uint first = group_first + w.index * WARP_ROWS;
    global const ushort *k_from = (global const ushort *)k + k_at.s0 + b_ * k_at.s1 + (h / group) * k_at.s2;
    global const ushort *v_from = (global const ushort *)v + v_at.s0 + b_ * v_at.s1 + (h / group) * v_at.s2;
    out += out_at.s0 + b_ * out_at.s1 + h * out_at.s2;
    lse += lse_at.s0 + b_ * lse_at.s1 + h * lse_at.s2;
#if BIAS
    local float offset[2][KEYS];
    bias += bias_at.s0 + b_ * bias_at.s1 + (h / group) * bias_at.s2;
#define LOAD_OFFSET(begin)                                                                                             \
    ((begin) + item < keys ? LOG2_E * LOAD(BIAS_TYPE, bias, ((begin) + item) * bias_at.s3) : -INFINITY)
#endif

    operands a;
    rows r;
    per_row factor;
    FOR_ROWS(b, i)
    factor.x[b][i] = BIAS ? 1.0f : scale * LOG2_E;
    operands_load(w, &a, (global const ushort *)q + q_at.s0 + b_ * q_at.s1 + h * q_at.s2, q_at.s3, first, queries);
    rows_clear(&r);
    if (accumulate)
        rows_load(w, &r, first, queries, out, out_at.s3, lse, lse_at.s3);

    uint last = visible_keys(min(group_first + GROUP_ROWS, queries) - 1, diagonal, keys), begin = 0;
    feed k_feed = feed_of(D, k_from, k_at.s3, 0, keys), v_feed = feed_of(DV, v_from, v_at.s3, 0, keys);
    feed_tile(&k_feed, D, k_tile[0]);
#if BIAS
    if (item < KEYS) {
        offset[0][item] = LOAD_OFFSET(0u);
        offset[1][item] = LOAD_OFFSET(KEYS);
    }
#define OFFSETS(stage) scores_offset(w, &s, scale *LOG2_E, offset[stage]);
#else
#define OFFSETS(stage)
#endif
    copy_wait();
    barrier(CLK_LOCAL_MEM_FENCE);
    feed_tile(&k_feed, D, k_tile[1]);
    feed_values(&v_feed, v_tile[0]);
    /* Even a group whose queries see nothing goes through one tile. Weights are multiplied while the next tile's are
     * made, so there are two of them in turns. */
#define WEIGH(stage, p)                                                                                                \
    OFFSETS(stage)                                                                                                     \
    if (begin + KEYS > visible_keys(first, diagonal, keys))                                                            \
        scores_mask(w, &s, first, diagonal, begin, keys);                                                              \
    rows_weigh(w, &r, &s, factor, p);
    scores s;
    weights p[TURNS];
    uint stage = 0;
    tile_score(w, &s, &a, k_tile[0]);
    WEIGH(0, &p[0])
    do
        UNROLL
    for (uint turn = 0; turn < TURNS; ++turn, stage ^= 1) {
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        tile_begin(&s, &r, &a, k_tile[stage ^ 1], &p[turn], v_tile[stage]);
        feed_tile(&k_feed, D, k_tile[stage]);
        feed_values(&v_feed, v_tile[stage ^ 1]);
#if BIAS
        if (item < KEYS)
            offset[stage][item] = LOAD_OFFSET(begin + 2 * KEYS);
#endif
        tile_end(w, &s, &r, &a, k_tile[stage ^ 1], &p[turn], v_tile[stage]);
        begin += KEYS;
        if (begin >= last)
            break;
        WEIGH(stage ^ 1, &p[(turn + 1) % TURNS])
    }
    while (begin < last)
        ;
    copy_wait();

    rows_finish(w, &r);
    FOR_ROWS(b, i) {
        uint row = first + row_of(w, b, i);
        bool inside = row < queries;
        STORE_ROW(OUT_TYPE, w, out + row * out_at.s3, inside, r.sum[b], i)
        if (inside && is_first(w))
            STORE(LSE_TYPE, lse, row * lse_at.s3, r.top[b][i]);
    }
}
