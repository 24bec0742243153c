/* Gradients of exact softmax attention in register tiles (wide.clh), for CPUs. Mathematics and shapes as in
 * softmax_backward.cl, but that lse is taken as it is: an ulp of it is the relative error of a row's weights.
 *
 * One pass: weights are computed once and used for dq, dk and dv, five products a pair of rows where two passes take
 * seven. A work-item owns every `ranges`-th block of keys of a head, whose dk and dv it keeps while it goes over all
 * queries of the group; dq it adds to an array of its own, and softmax_backward_merge adds the arrays in their order.
 * Taking every ranges-th block, and not consecutive ones, gives causal work-items equal shares.
 *
 * Shapes: part_dq [ranges,B,H,N,D]; stats [B,H,N,2]: lse, +inf for a row without keys, and δ.
 * Work: softmax_backward_begin, one work-item a query, grid (N, H, B); softmax_backward_wide, work-groups of one, grid
 * (ranges, Hk, B); softmax_backward_merge, one work-item a query, grid (N, H, B). */
#include "softmax/softmax.clh"
#include "softmax/softmax_backward.clh"
#ifndef TILE /* queries at a time */
#define TILE 64
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/wide_backward.clh"

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
softmax_backward_begin(uint queries, global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
                       global const ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at, global const ELEMENT(DOUT_TYPE) *dout,
                       INDEX4 dout_at, global float *stats DLSE_ARGUMENTS) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    stats += 2 * (((INDEX)b * get_global_size(1) + h) * queries + i);
    float row_lse = LOAD(LSE_TYPE, lse + lse_at.s0 + b * lse_at.s1 + h * lse_at.s2, i * lse_at.s3);
    float16 lanes = (float16)(0.0f);
    for (uint d = 0; d < DV; d += 16)
        lanes = MAD(LOAD16(DOUT_TYPE, dout, d), LOAD16(OUT_TYPE, out, d), lanes);
    float delta = sum16(lanes) - DLSE_OF(b, h, i);
    stats[0] = row_lse == -INFINITY ? INFINITY : row_lse;
    stats[1] = row_lse == -INFINITY ? 0.0f : delta;
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
softmax_backward_merge(uint queries, uint ranges, float scale, global const float *part_dq, global ELEMENT(DQ_TYPE) *dq,
                       INDEX4 dq_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    INDEX heads = get_global_size(1), rows = get_global_size(2) * heads * queries;
    part_dq += ((b * heads + h) * queries + i) * D;
    dq += dq_at.s0 + b * dq_at.s1 + h * dq_at.s2 + i * dq_at.s3;
    for (uint d = 0; d < D; d += 16) {
        float16 total = (float16)(0.0f);
        for (uint r = 0; r < ranges; ++r)
            total += vload16(0, part_dq + r * rows * D + d);
        STORE16(DQ_TYPE, dq, d, total * scale);
    }
}

/* A block of keys, and what it has received so far. */
typedef struct key_block {
    float k[BLOCK * D] ALIGNED, packed_k[D * BLOCK] ALIGNED, packed_v[DV * BLOCK] ALIGNED;
    float offset[BLOCK] ALIGNED; /* bias; −inf for padding and past the end */
    float dk[BLOCK * D] ALIGNED, dv[BLOCK * DV] ALIGNED, dbias[BLOCK] ALIGNED;
} key_block;

/* A tile of queries: scaled, so that dk needs no scale. */
typedef struct query_tile {
    float q[TILE * D] ALIGNED, dout[TILE * DV] ALIGNED;
    float lse[TILE], delta[TILE];
    float p[TILE * BLOCK] ALIGNED, t[TILE * BLOCK] ALIGNED;
} query_tile;

/* Rows r to r + RT − 1 of the tile: p = e^(s − lse), t = p (gain − δ), and the block's dbias. What p makes 0 may be no
 * number in gain: a padding key may hold anything finite. */
static inline void weigh(private query_tile *x, private key_block *y, uint r, private scores *s, private scores *gain) {
    UNROLL
    for (uint c = 0; c < LANES; ++c) {
        float16 total = VECTOR(y->dbias + 16 * c);
        UNROLL
        for (uint a = 0; a < RT; ++a) {
            float16 p = exp_weight(s->s[a][c] - x->lse[r + a]);
            float16 t = select(p * (gain->s[a][c] - x->delta[r + a]), (float16)(0.0f), p == 0.0f);
            VECTOR(x->p + (r + a) * BLOCK + 16 * c) = p;
            VECTOR(x->t + (r + a) * BLOCK + 16 * c) = t;
            total += t;
        }
        VECTOR(y->dbias + 16 * c) = total;
    }
}

/* The queries [first, last) that see some of the keys [begin, end). */
static inline uint2 rows_that_see(uint begin, uint end, int diagonal, uint queries) {
    uint first = (uint)clamp((int)begin - diagonal, 0, (int)queries);
    return (uint2)(first, WINDOW == 0 ? queries : (uint)clamp((int)end - 1 - diagonal + WINDOW, 0, (int)queries));
}

static inline void block_begin(private key_block *y, global const ELEMENT(K_TYPE) *k, INDEX k_pitch,
                               global const ELEMENT(V_TYPE) *v, INDEX v_pitch, uint begin, uint keys) {
    PACK(K_TYPE, k, k_pitch, begin, keys, y->packed_k)
    PACK_VALUES(V_TYPE, v, v_pitch, begin, keys, y->packed_v)
    for (uint j = 0; j < BLOCK; ++j) {
        y->offset[j] = begin + j < keys ? 0.0f : -INFINITY;
        y->dbias[j] = 0.0f;
        for (uint d = 0; d < D; d += 16) {
            VECTOR(y->k + j * D + d) = LOAD16(K_TYPE, k + min(begin + j, keys - 1) * k_pitch, d);
            VECTOR(y->dk + j * D + d) = (float16)(0.0f);
        }
        for (uint d = 0; d < DV; d += 16)
            VECTOR(y->dv + j * DV + d) = (float16)(0.0f);
    }
}

/* Rows live to end − 1 of a tile of `rows` queries; the last repeats past its end, without any weight. */
static inline void tile_load(private query_tile *x, global const ELEMENT(Q_TYPE) *q, INDEX q_pitch,
                             global const ELEMENT(DOUT_TYPE) *dout, INDEX dout_pitch, global const float *stats,
                             float scale, uint3 rows) {
    for (uint r = rows.x; r < rows.y; ++r) {
        uint row = min(r, rows.z - 1);
        for (uint d = 0; d < D; d += 16)
            VECTOR(x->q + r * D + d) = LOAD16(Q_TYPE, q + row * q_pitch, d) * scale;
        for (uint d = 0; d < DV; d += 16)
            VECTOR(x->dout + r * DV + d) = LOAD16(DOUT_TYPE, dout + row * dout_pitch, d);
        x->lse[r] = r < rows.z ? stats[2 * r] : INFINITY;
        x->delta[r] = r < rows.z ? stats[2 * r + 1] : 0.0f;
    }
}

/* The weights of the tile's rows, the first of which is query `first`, for the block from key `begin` on. */
static inline void tile_meet(private query_tile *x, private key_block *y, uint first, uint begin, uint keys,
                             int diagonal, uint3 rows) {
    bool masked = BIAS || begin + BLOCK > keys;
    for (uint r = rows.x; r < rows.y; r += RT) {
        scores s, gain;
        scores_multiply(&s, x->q + r * D, D, y->packed_k, D);
        if (masked || begin + BLOCK > visible_keys(first + r, diagonal, keys)) {
            uint seen[RT];
            UNROLL
            for (uint a = 0; a < RT; ++a)
                seen[a] = visible_keys(first + r + a, diagonal, keys);
            scores_mask(&s, y->offset, seen, begin);
        }
#if WINDOW
        uint unseen[RT];
        UNROLL
        for (uint a = 0; a < RT; ++a)
            unseen[a] = first_key(first + r + a, diagonal, keys);
        scores_mask_before(&s, unseen, begin);
#endif
        scores_multiply(&gain, x->dout + r * DV, DV, y->packed_v, DV);
        weigh(x, y, r, &s, &gain);
    }
}

static inline void tile_pass_on(private query_tile *x, private key_block *y, global float *dq, uint3 rows) {
    for (uint r = rows.x; r < rows.y; r += RT) {
        if (r + RT <= rows.z) {
            ACCUMULATE(global, dq + r * D, x->t + r * BLOCK, BLOCK, 1, y->k, D, BLOCK)
        } else {
            float rest[RT * D] ALIGNED;
            for (uint d = 0; d < RT * D; d += 16)
                VECTOR(rest + d) = (float16)(0.0f);
            ACCUMULATE(private, rest, x->t + r * BLOCK, BLOCK, 1, y->k, D, BLOCK)
            for (uint d = 0; d < (rows.z - r) * D; ++d)
                dq[r * D + d] += rest[d];
        }
    }
    uint live = rows.x, count = rows.y - rows.x;
    for (uint j = 0; j < BLOCK; j += RT) {
        ACCUMULATE(private, y->dk + j * D, x->t + live * BLOCK + j, 1, BLOCK, x->q + live * D, D, count)
        ACCUMULATE(private, y->dv + j * DV, x->p + live * BLOCK + j, 1, BLOCK, x->dout + live * DV, DV, count)
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void softmax_backward_wide(
    uint queries, uint keys, uint group, float scale, int diagonal, global const ELEMENT(Q_TYPE) *q, INDEX4 q_at,
    global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
    global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
    global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats, global float *part_dq,
    global ELEMENT(DK_TYPE) *dk, INDEX4 dk_at, global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at
#if DBIAS
    ,
    global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
) {
    uint range = get_global_id(0), ranges = get_global_size(0), kv = get_global_id(1), b = get_global_id(2);
    uint heads = get_global_size(1) * group;
    k += k_at.s0 + b * k_at.s1 + kv * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2;
    dk += dk_at.s0 + b * dk_at.s1 + kv * dk_at.s2;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2;
    INDEX of_head = ((INDEX)b * heads + kv * group) * queries;
    part_dq += ((INDEX)range * get_global_size(2) * heads * queries + of_head) * D;
    for (INDEX i = 0; i < (INDEX)group * queries * D; i += 16)
        vstore16((float16)(0.0f), 0, part_dq + i);

    key_block y;
    query_tile x;
    for (uint begin = range * BLOCK; begin < keys; begin += ranges * BLOCK) {
        block_begin(&y, k, k_at.s3, v, v_at.s3, begin, keys);
#if BIAS
        for (uint j = 0; j < BLOCK && begin + j < keys; ++j)
            y.offset[j] =
                LOAD(BIAS_TYPE, bias + bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2, (begin + j) * bias_at.s3);
#endif
        uint2 seen = rows_that_see(begin, min(begin + BLOCK, keys), diagonal, queries);
        for (uint h = kv * group; h < (kv + 1) * group; ++h)
            for (uint first = seen.x / TILE * TILE; first < seen.y; first += TILE) {
                INDEX at = ((INDEX)b * heads + h) * queries + first;
                uint3 rows = (uint3)(0, 0, min((uint)TILE, queries - first)); /* live, end, all */
                rows.x = first < seen.x ? (seen.x - first) / RT * RT : 0;
                rows.y = (rows.z + RT - 1) / RT * RT;
                tile_load(&x, q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + first * q_at.s3, q_at.s3,
                          dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + first * dout_at.s3, dout_at.s3,
                          stats + 2 * at, scale, rows);
                tile_meet(&x, &y, first, begin, keys, diagonal, rows);
                tile_pass_on(&x, &y, part_dq + ((INDEX)(h - kv * group) * queries + first) * D, rows);
            }
        for (uint j = 0; j < BLOCK && begin + j < keys; ++j) {
            for (uint d = 0; d < D; d += 16)
                STORE16(DK_TYPE, dk, (begin + j) * dk_at.s3 + d, VECTOR(y.dk + j * D + d));
            for (uint d = 0; d < DV; d += 16)
                STORE16(DV_TYPE, dv, (begin + j) * dv_at.s3 + d, VECTOR(y.dv + j * DV + d));
#if DBIAS
            STORE(DBIAS_TYPE, dbias + dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2, (begin + j) * dbias_at.s3,
                  y.dbias[j]);
#endif
        }
    }
}
