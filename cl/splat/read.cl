/* Read: every query's output from what the splats know.
 *
 *     l_is = ln w_level(s) + ln a_s + φ_s(q_i) + lse_s      out_i = Σ_s e^(l_is − lse_i) value_s
 *
 * Per level: out_i = Σ_l share_l out_l,i with each level normalised without w, shares w_l over the levels
 * that have a key; lse is the same number either way.
 *
 * CAUSAL: the states are those before each chunk of CHUNK keys; query i, at key position i + diagonal, reads its
 * chunk's state and then the chunk's keys up to itself, pair by pair:
 *     l_ij = ln Σ_s w a_s e^(φ_s(q_i) + φ_s(k_j)) + b_j
 * A row thus never meets a number that a later key had a part in.
 *
 * Shapes: q [B,H,N,D], out [B,H,N,DV], lse [B,H,N], state_lse [B,Hw,G,S], state_value [B,Hw,G,S,DV];
 * query_log_density [B,H,N,S], key_log_density [B,Hw,keys,S], v [B,Hk,keys,DV], bias [B,Hk,keys].
 * Work: one work-item a query; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#ifndef Q_TYPE
#define Q_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#define X_TYPE Q_TYPE
#include "shared/tensor.clh"
#include "shared/state.clh"
#include "splat/splat.clh"

#ifndef CAUSAL
#define CAUSAL 1
#endif
#ifndef CHUNK /* keys whose pairs are formed one by one */
#define CHUNK 32
#endif
#ifndef BIAS
#define BIAS 1
#endif

/* A splat set's own numbers: ln a of one head, the levels' ranges and ln w. */
typedef struct mixture {
    global const float *log_weight;
    global const uint *level_begin;
    global const float *level_log_weight;
} mixture;

/* Levels first to last − 1 under one normaliser, weighted by w if they are several. */
typedef struct level_range {
    uint first, last, weighted;
} level_range;

static inline float level_weight(mixture m, level_range r, uint level) {
    return r.weighted ? m.level_log_weight[level] : 0.0f;
}

#if CAUSAL
/* ln Σ_s w a_s e^(φ_s(q) + φ_s(k)) over the levels of r. */
static inline float pair_log_weight(mixture m, level_range r, global const float *query, global const float *key) {
    float top = -INFINITY;
    for (uint level = r.first; level < r.last; ++level) {
        float w = level_weight(m, r, level);
        for (uint s = m.level_begin[level]; s < m.level_begin[level + 1]; ++s)
            top = fmax(top, w + m.log_weight[s] + query[s] + key[s]);
    }
    if (top == -INFINITY)
        return top;
    float mass = 0.0f;
    for (uint level = r.first; level < r.last; ++level) {
        float w = level_weight(m, r, level);
        for (uint s = m.level_begin[level]; s < m.level_begin[level + 1]; ++s)
            mass += exp(w + m.log_weight[s] + query[s] + key[s] - top);
    }
    return top + log(mass);
}

/* Adds the keys `begin` to `end` − 1, pair by pair. */
static inline void add_pairs(private state *row, mixture m, level_range r, uint splats,
                             global const float *query_log_density, global const float *key_log_density, uint begin,
                             uint end,
#if BIAS
                             global const ELEMENT(BIAS_TYPE) *bias, INDEX bias_pitch,
#endif
                             global const ELEMENT(V_TYPE) *v, INDEX pitch) {
    for (uint j = begin; j < end; ++j) {
        float x = 0.0f;
#if BIAS
        x = LOAD(BIAS_TYPE, bias, j * bias_pitch);
        if (x == -INFINITY)
            continue;
#endif
        x += pair_log_weight(m, r, query_log_density, key_log_density + (INDEX)j * splats);
        if (x == -INFINITY)
            continue;
        float weight = state_admit(row, x);
        for (uint d = 0; d < DV; ++d)
            row->sum[d] = MAD(weight, LOAD(V_TYPE, v, j * pitch + d), row->sum[d]);
    }
}
#if BIAS
#define BIAS_OF bias, bias_at.s3,
#else
#define BIAS_OF
#endif
#define LOG_DENSITY(s) query_log_density[s]
#else
#define LOG_DENSITY(s) log_density_of(q, mean + (splat + (s)) * D, inverse + (splat + (s)) * INVERSE_SIZE)
#endif

/* Adds what was written to the splats of the levels of r. */
#define ADD_STATES(row, m, r)                                                                                          \
    for (uint level_ = (r).first; level_ < (r).last; ++level_) {                                                       \
        float w_ = level_weight(m, r, level_);                                                                         \
        for (uint s_ = level_begin[level_]; s_ < level_begin[level_ + 1]; ++s_) {                                      \
            float past_ = state_lse[s_];                                                                               \
            if (past_ == -INFINITY)                                                                                    \
                continue;                                                                                              \
            float x_ = w_ + (m).log_weight[s_] + LOG_DENSITY(s_) + past_;                                              \
            if (x_ == -INFINITY)                                                                                       \
                continue;                                                                                              \
            float weight_ = state_admit(&(row), x_);                                                                   \
            for (uint d = 0; d < DV; ++d)                                                                              \
                (row).sum[d] = MAD(weight_, state_value[s_ * DV + d], (row).sum[d]);                                   \
        }                                                                                                              \
    }

/* All that the query sees. */
#if CAUSAL
#define ADD_SOURCES(row, m, r)                                                                                         \
    if (visible > 0)                                                                                                   \
        ADD_STATES(row, m, r)                                                                                          \
    add_pairs(&(row), m, r, splats, query_log_density, key_log_density, near_begin, visible, BIAS_OF v, v_at.s3);
#else
#define ADD_SOURCES(row, m, r) ADD_STATES(row, m, r)
#endif

/* Levels mixed by their shares, with ln Σ_l w_l e^(lse_l) as a state without a value. */
typedef struct level_mix {
    state mean;
    float top, mass;
} level_mix;

static inline void mix_add(private level_mix *to, private const state *row, float share) {
    float total = share + log_mass(row);
    float scale = state_admit(&to->mean, share) * inverse_mass(row);
    for (uint d = 0; d < DV; ++d)
        to->mean.sum[d] = MAD(scale, row->sum[d], to->mean.sum[d]);
    float top = fmax(to->top, total);
    to->mass = to->mass * exp(to->top - top) + exp(total - top);
    to->top = top;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gaussian_read(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
              uint first_head, global const float *mean, global const float *inverse, global const float *centre,
              global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
              global const float *state_lse, global const float *state_value, global const ELEMENT(Q_TYPE) *q,
              INDEX4 q_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at
#if CAUSAL
              ,
              int diagonal, uint keys, global const float *query_log_density, global const float *key_log_density,
              global const ELEMENT(V_TYPE) *v, INDEX4 v_at
#if BIAS
              ,
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#endif
#endif
) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    if (i >= queries)
        return;
    INDEX splat = (INDEX)(per_head ? first_head + h : 0) * splats;
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group), segment = 0;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3;
    mixture m = {log_weight + splat, level_begin, level_log_weight};
#if CAUSAL
    uint visible = visible_keys(i, diagonal, keys);
    uint near_begin = visible == 0 ? 0 : (visible - 1) / CHUNK * CHUNK;
    segment = near_begin / CHUNK;
    query_log_density += ((b * (INDEX)heads + h) * queries + i) * splats;
    key_log_density += writer * keys * splats;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif
#endif
    state_lse += (writer * segments + segment) * splats;
    state_value += (writer * segments + segment) * splats * DV;

    state row;
    level_mix mixed;
    mixed.top = -INFINITY;
    mixed.mass = 0.0f;
    state_clear(&mixed.mean);
    for (uint l = 0; l < (per_level ? levels : 1); ++l) {
        level_range r = {l, per_level ? l + 1 : levels, !per_level};
        state_clear(&row);
        ADD_SOURCES(row, m, r)
        if (row.mass != 0.0f)
            mix_add(&mixed, &row, per_level ? level_log_weight[l] : 0.0f);
    }

    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    float scale = inverse_mass(&mixed.mean);
    for (uint d = 0; d < DV; ++d)
        STORE(OUT_TYPE, out, d, mixed.mean.sum[d] * scale);
    STORE(LSE_TYPE, lse + lse_at.s0 + b * lse_at.s1 + h * lse_at.s2, i * lse_at.s3,
          mixed.mass == 0.0f ? -INFINITY : mixed.top + log(mixed.mass));
}
