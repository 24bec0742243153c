/* Causal write, backward, in register tiles (wide.clh), for CPUs; joint mixing. Mathematics and shapes as in
 * write_backward.cl with CAUSAL.
 *
 * Needs a multiple of 16 splats. Work: one work-item for a chunk of keys; grid (chunks, Hk, B), work-groups of one.
 * Splats lie along the lanes. */
#ifndef V_TYPE
#define V_TYPE F32
#define BIAS_TYPE F32
#define DV_TYPE F32
#define DBIAS_TYPE F32
#define DOUT_TYPE F32
#define DBIAS 1
#endif
#ifndef BIAS
#define BIAS 1
#endif
#ifndef CHUNK
#define CHUNK 32
#endif
#define TILE CHUNK
#ifndef SPLATS /* S */
#define SPLATS 256
#endif
#ifndef DV
#define DV 64
#endif
#ifndef D
#define D DV
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/wide_backward.clh"
#include "shared/backward.clh"
#include "splat/write_backward_wide.clh"

/* The rows of the chunk that keys of it are seen by. */
typedef struct near_rows {
    float dout[BLOCK * DV] ALIGNED, packed[DV * BLOCK] ALIGNED;
    float gain[CHUNK * BLOCK] ALIGNED, mixed[CHUNK * BLOCK] ALIGNED; /* [key][row]: dout_i·v_j, Σ_s r_ijs */
    float base[SPLATS] ALIGNED, query[SPLATS] ALIGNED;
    uint count;
} near_rows;

static inline void near_load(private near_rows *y, private key_tile *t, global const ELEMENT(DOUT_TYPE) *dout,
                             INDEX pitch) {
    PACK_VALUES(DOUT_TYPE, dout, pitch, 0, y->count, y->packed)
    for (uint i = 0; i < y->count; ++i)
        for (uint d = 0; d < DV; d += 16)
            VECTOR(y->dout + i * DV + d) = LOAD16(DOUT_TYPE, dout + i * pitch, d);
    for (uint r = 0; r < CHUNK; r += RT) {
        scores gain;
        scores_multiply(&gain, t->v + r * DV, DV, y->packed, DV);
        for (uint a = 0; a < RT; ++a)
            for (uint c = 0; c < LANES; ++c) {
                VECTOR(y->gain + (r + a) * BLOCK + 16 * c) = gain.s[a][c];
                VECTOR(y->mixed + (r + a) * BLOCK + 16 * c) = (float16)(0.0f);
            }
    }
}

/* Row i, whose log-weights less the keys' are in `query`, and the first `seen` keys. */
static inline void near_row(private near_rows *y, private key_tile *t, uint i, uint seen, float offset, float delta,
                            global const float *log_density, global float *weights) {
    for (uint j = 0; j < seen; ++j) {
        if (t->bias[j] == -INFINITY)
            continue;
        float shift = t->bias[j] - offset, gain = y->gain[j * BLOCK + i] - delta;
        global const float *key = log_density + (INDEX)j * SPLATS;
        global float *weight = weights + (INDEX)j * SPLATS;
        float16 mixed = (float16)(0.0f);
        for (uint s = 0; s < SPLATS; s += 16) {
            float16 r = exp_weight(VECTOR(y->query + s) + vload16(0, key + s) + shift);
            mixed += r;
            vstore16(MAD(r, (float16)(gain), vload16(0, weight + s)), 0, weight + s);
        }
        VECTOR(t->dbias + 16 * j) = MAD(mixed, (float16)(gain), VECTOR(t->dbias + 16 * j));
        y->mixed[j * BLOCK + i] = sum16(mixed);
    }
}

static inline void near_back(private near_rows *y, private key_tile *t, uint first_seen,
                             global const float *query_log_density, global const float *stats, INDEX stats_pitch,
                             global const float *log_density, global float *weights) {
    for (uint i = 0; i < y->count; ++i) {
        for (uint s = 0; s < SPLATS; s += 16)
            VECTOR(y->query + s) = VECTOR(y->base + s) + vload16(0, query_log_density + (INDEX)i * SPLATS + s);
        near_row(y, t, i, first_seen + i, stats[i * stats_pitch + STATS_OFFSET], stats[i * stats_pitch + STATS_DELTA],
                 log_density, weights);
    }
    for (uint j = 0; j < CHUNK; j += RT)
        ACCUMULATE(private, t->dv + j * DV, y->mixed + j * BLOCK, BLOCK, 1, y->dout, DV, y->count)
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void write_backward_causal_wide(
    uint keys, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head, uint first_head,
    global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
    global const float *state_lse, global const float *state_value, global const float *key_log_density,
    global const ELEMENT(V_TYPE) *v, INDEX4 v_at, global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at, global float *weights
#if BIAS
    ,
    global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#endif
#if DBIAS
    ,
    global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
    ,
    int diagonal, uint queries, global const float *query_log_density, global const ELEMENT(DOUT_TYPE) *dout,
    INDEX4 dout_at, global const float *stats, INDEX4 stats_at) {
    uint chunk = get_global_id(0), kv = get_global_id(1), b = get_global_id(2), kv_heads = get_global_size(1);
    uint begin_key = chunk * CHUNK, rows = min((uint)CHUNK, keys - begin_key), heads = kv_heads * group;
    uint first = (uint)clamp((int)begin_key - diagonal, 0, (int)queries);
    uint last = (uint)clamp((int)begin_key + CHUNK - diagonal, 0, (int)queries);
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2 + begin_key * v_at.s3;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2 + begin_key * dv_at.s3;
    key_tile t;
    state_block y;
    near_rows near;
    tile_open(&t, v, v_at.s3, rows);
#if BIAS
    for (uint r = 0; r < rows; ++r)
        t.bias[r] = LOAD(BIAS_TYPE, bias + bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2, (begin_key + r) * bias_at.s3);
#endif
    for (uint h = kv * group; h < (kv + 1) * group; ++h) {
        INDEX head = (INDEX)b * heads + h, writer = per_head ? head : (INDEX)b * kv_heads + kv;
        INDEX own = (writer * keys + begin_key) * SPLATS, state = (head * segments + segments - 1 - chunk) * SPLATS;
        for (uint begin = 0; begin < SPLATS; begin += BLOCK) {
            state_load(&y, state_lse + state, state_value + state * (DV + 1), begin, SPLATS);
            tile_meet(&t, &y, key_log_density + own + begin, weights + own + begin, SPLATS, rows,
                      per_head || h == kv * group);
        }
        near.count = last - first;
        if (near.count == 0)
            continue;
        load_base(near.base, levels, log_weight + (INDEX)(per_head ? first_head + h : 0) * SPLATS, level_begin,
                  level_log_weight);
        near_load(&near, &t, dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + first * dout_at.s3, dout_at.s3);
        near_back(&near, &t, (uint)((int)first + diagonal + 1 - (int)begin_key),
                  query_log_density + (head * queries + first) * SPLATS,
                  stats + stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + first * stats_at.s3, stats_at.s3,
                  key_log_density + own, weights + own);
    }
    for (uint r = 0; r < rows; ++r) {
        for (uint d = 0; d < DV; d += 16)
            STORE16(DV_TYPE, dv, r * dv_at.s3 + d, VECTOR(t.dv + r * DV + d));
#if DBIAS
        STORE(DBIAS_TYPE, dbias + dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2, (begin_key + r) * dbias_at.s3,
              sum16(VECTOR(t.dbias + 16 * r)));
#endif
    }
}
