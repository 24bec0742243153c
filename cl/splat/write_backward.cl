/* Write, backward: what the rows that see a key pass back to its value and its log-weights (backward.clh has the
 * mathematics).
 *
 *     σ_js = e^(κ_js + lse_s) (v_j·value_s − δ_s)  +  CAUSAL: Σ_i r_ijs (dout_i·v_j − δ_i), i of its own chunk
 *     dv_j = Σ_s e^(κ_js + lse_s) value_s          +  CAUSAL: Σ_i (Σ_s r_ijs) dout_i
 *     db_j = Σ_s σ_js
 *
 * with (lse, [value, δ]) what collect.cl left: of all rows, or, causal, of those of later chunks. Summed over the
 * query heads of the key's group; σ is kept for every head if the sets are the heads' own, since their means are.
 *
 * Shapes: key_log_density [B,Hw,M,S], v, dv [B,Hk,M,DV], bias, dbias [B,Hk,M], state_lse [B,H,G,S], state_value
 * [B,H,G,S,DV+1], query_log_density [B,H,N,S], dout [B,H,N,DV], stats [B,H,N,…]; weights σ [B,Hw,M,S].
 * Work: one work-item a key; grid (M rounded up to WG, Hk, B). No local memory, no barrier. */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#define DV_TYPE F32
#define DBIAS_TYPE F32
#define DBIAS 1
#endif
#include "shared/tensor.clh"
#include "shared/backward.clh"

#ifndef CAUSAL
#define CAUSAL 1
#endif
#ifndef CHUNK
#define CHUNK 32
#endif
#ifndef BIAS
#define BIAS 1
#endif

static inline float dot_state(global const ELEMENT(V_TYPE) *v, global const float *x) {
    floatW lanes = (floatW)(0.0f);
    uint d = 0;
    for (; d + W <= DV; d += W)
        lanes = MAD(LOADW(V_TYPE, v, d), CAT(vload, W)(0, x + d), lanes);
    float total = SUM(lanes);
    for (; d < DV; ++d)
        total = MAD(LOAD(V_TYPE, v, d), x[d], total);
    return total;
}

/* A key, and what it has received so far. */
typedef struct key_view {
    uint levels, per_level, splats, fresh; /* fresh: its weights hold nothing yet */
    float bias, dbias, dv[DV];
    global const ELEMENT(V_TYPE) *v;
    global const float *log_density, *level_log_weight;
    global const uint *level_begin;
    global float *weights;
} key_view;

static inline void key_begin(private key_view *key, uint levels, uint per_level, uint splats,
                             global const uint *level_begin, global const float *level_log_weight) {
    key->levels = levels;
    key->per_level = per_level;
    key->splats = splats;
    key->level_begin = level_begin;
    key->level_log_weight = level_log_weight;
    key->bias = key->dbias = 0.0f;
    for (uint d = 0; d < DV; ++d)
        key->dv[d] = 0.0f;
}

/* What rows of one head have for it: states of later chunks, and rows of its own chunk. */
typedef struct head_view {
    global const float *log_weight, *state_lse, *state_value;
#if CAUSAL
    uint near; /* rows of the own chunk that see the key */
    global const ELEMENT(DOUT_TYPE) *dout;
    global const float *stats, *log_density;
    INDEX dout_pitch, stats_pitch;
    float gain[CHUNK], mixed[CHUNK]; /* dout_i·v_j, Σ_s r_ijs */
#endif
} head_view;

/* σ of one splat. */
static inline float splat_back(private key_view *key, private head_view *head, uint level, uint s) {
    float sigma = 0.0f, kappa = key->log_density[s] + key->bias;
    if (head->state_lse[s] != -INFINITY) {
        float far = exp(kappa + head->state_lse[s]);
        global const float *mean = head->state_value + s * (DV + 1);
        sigma = far * (dot_state(key->v, mean) - mean[DV]);
        for (uint d = 0; d < DV; ++d)
            key->dv[d] = MAD(far, mean[d], key->dv[d]);
    }
#if CAUSAL
    float base = (key->per_level ? 0.0f : key->level_log_weight[level]) + head->log_weight[s];
    for (uint i = 0; i < head->near; ++i) {
        global const float *row = head->stats + i * head->stats_pitch + (key->per_level ? level * STATS : 0);
        float r = exp(base + head->log_density[(INDEX)i * key->splats + s] + kappa - row[STATS_OFFSET]);
        head->mixed[i] += r;
        sigma = MAD(r, head->gain[i] - row[STATS_DELTA], sigma);
    }
#endif
    return sigma;
}

static inline void head_back(private key_view *key, private head_view *head) {
    bool padding = key->bias == -INFINITY; /* what it holds may be no number at all */
#if CAUSAL
    head->near = padding ? 0 : head->near;
    for (uint i = 0; i < head->near; ++i) {
        head->gain[i] = dot_value(head->dout + i * head->dout_pitch, key->v);
        head->mixed[i] = 0.0f;
    }
#endif
    for (uint level = 0; level < key->levels; ++level)
        for (uint s = key->level_begin[level]; s < key->level_begin[level + 1]; ++s) {
            float sigma = padding ? 0.0f : splat_back(key, head, level, s);
            key->dbias += sigma;
            key->weights[s] = key->fresh ? sigma : key->weights[s] + sigma;
        }
#if CAUSAL
    for (uint i = 0; i < head->near; ++i)
        for (uint d = 0; d < DV; ++d)
            key->dv[d] = MAD(head->mixed[i], LOAD(DOUT_TYPE, head->dout, i * head->dout_pitch + d), key->dv[d]);
#endif
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gaussian_write_backward(
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
#if CAUSAL
    ,
    int diagonal, uint queries, global const float *query_log_density, global const ELEMENT(DOUT_TYPE) *dout,
    INDEX4 dout_at, global const float *stats, INDEX4 stats_at
#endif
) {
    uint j = get_global_id(0), kv = get_global_id(1), b = get_global_id(2), kv_heads = get_global_size(1);
    uint heads = kv_heads * group, writers = per_head ? heads : kv_heads, segment = 0;
    if (j >= keys)
        return;
    key_view key;
    key_begin(&key, levels, per_level, splats, level_begin, level_log_weight);
    key.v = v + v_at.s0 + b * v_at.s1 + kv * v_at.s2 + j * v_at.s3;
#if BIAS
    key.bias = LOAD(BIAS_TYPE, bias, bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2 + j * bias_at.s3);
#endif
#if CAUSAL
    uint chunk = j / CHUNK, first = (uint)clamp((int)j - diagonal, 0, (int)queries);
    uint last = (uint)clamp((int)((chunk + 1) * CHUNK) - diagonal, 0, (int)queries);
    segment = segments - 1 - chunk;
#endif
    for (uint h = kv * group; h < (kv + 1) * group; ++h) {
        INDEX writer = ((INDEX)b * writers + (per_head ? h : kv)) * keys + j, at = (INDEX)b * heads + h;
        key.fresh = per_head || h == kv * group;
        key.log_density = key_log_density + writer * splats;
        key.weights = weights + writer * splats;
        head_view head;
        head.log_weight = log_weight + (INDEX)(per_head ? first_head + h : 0) * splats;
        head.state_lse = state_lse + (at * segments + segment) * splats;
        head.state_value = state_value + (at * segments + segment) * splats * (DV + 1);
#if CAUSAL
        head.near = last - first;
        head.dout = dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + first * dout_at.s3;
        head.stats = stats + stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + first * stats_at.s3;
        head.log_density = query_log_density + (at * queries + first) * splats;
        head.dout_pitch = dout_at.s3;
        head.stats_pitch = stats_at.s3;
#endif
        head_back(&key, &head);
    }
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2 + j * dv_at.s3;
    for (uint d = 0; d < DV; ++d)
        STORE(DV_TYPE, dv, d, key.dv[d]);
#if DBIAS
    STORE(DBIAS_TYPE, dbias + dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2, j * dbias_at.s3, key.dbias);
#endif
}
