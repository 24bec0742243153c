/* Causal read in register tiles (wide.clh), for CPUs; joint mixing, S a multiple of 16. Mathematics and shapes as in
 * read.cl with CAUSAL; since the log-densities are given, any covariance will do.
 *
 * Work: one work-item for the queries whose last keys lie in one chunk, at most TILE = CHUNK of them; grid (chunks, H,
 * B), work-groups of one. Item 0 has the chunk of query 0, which may lie before the first key: those rows are empty.
 *
 * Against the plain row the pairs within a chunk are 30 times faster: their exponentials, half a chunk of them for
 * every query and splat, go 16 at a time with splats along the lanes. */
#ifndef Q_TYPE
#define Q_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#ifndef CHUNK
#define CHUNK 32
#endif
#define TILE CHUNK
#include "shared/tensor.clh"
#include "shared/wide.clh"

#ifndef SPLATS /* S */
#define SPLATS 256
#endif
#ifndef BIAS
#define BIAS 1
#endif
#define KEYS 4 /* keys at a time in pair_log_weights */

/* base[s] = ln w + ln a */
static inline void load_base(private float *base, uint levels, global const float *log_weight,
                             global const uint *level_begin, global const float *level_log_weight) {
    for (uint level = 0; level < levels; ++level)
        for (uint s = level_begin[level]; s < level_begin[level + 1]; ++s)
            base[s] = level_log_weight[level] + log_weight[s];
}

/* pair[j] = ln Σ_s w a_s e^(φ_s(q) + φ_s(k_j)) for the first `count` keys; `query` holds ln w + ln a + φ_s(q). */
static inline void pair_log_weights(private float *query, global const float *key_log_density, uint count,
                                    private float *pair) {
    for (uint j = 0; j < count; j += KEYS) {
        float16 most[KEYS], mass[KEYS];
        float base[KEYS];
        global const float *key[KEYS];
        UNROLL
        for (uint x = 0; x < KEYS; ++x) {
            key[x] = key_log_density + (INDEX)min(j + x, count - 1) * SPLATS;
            most[x] = (float16)(-INFINITY);
            mass[x] = (float16)(0.0f);
        }
        for (uint s = 0; s < SPLATS; s += 16)
            UNROLL
        for (uint x = 0; x < KEYS; ++x)
            most[x] = fmax(most[x], VECTOR(query + s) + vload16(0, key[x] + s));
        UNROLL
        for (uint x = 0; x < KEYS; ++x) {
            float top = max16(most[x]);
            base[x] = top == -INFINITY ? 0.0f : top;
        }
        for (uint s = 0; s < SPLATS; s += 16)
            UNROLL
        for (uint x = 0; x < KEYS; ++x)
            mass[x] += exp(VECTOR(query + s) + vload16(0, key[x] + s) - base[x]);
        UNROLL
        for (uint x = 0; x < KEYS; ++x)
            pair[j + x] = j + x < count ? base[x] + log(sum16(mass[x])) : -INFINITY;
    }
}

/* The log-weights of rows r to r + RT − 1 and the splats from `begin` on: ln w + ln a + φ_s(q) + lse_s. */
INLINED void states_scores(private scores *s, uint r, uint rows, uint begin, private float *base,
                           global const float *state_lse, global const float *query_log_density) {
    UNROLL
    for (uint a = 0; a < RT; ++a)
        UNROLL
    for (uint c = 0; c < LANES; ++c) {
        uint x = begin + 16 * c;
        s->s[a][c] = x < SPLATS ? VECTOR(base + x) + vload16(0, state_lse + x) +
                                      vload16(0, query_log_density + (INDEX)min(r + a, rows - 1) * SPLATS + x)
                                : (float16)(-INFINITY);
    }
}

/* pair[j] as in pair_log_weights for the keys of the chunk that row `row` sees, −inf for the others. */
INLINED void row_pairs(uint row, uint seen, private float *base, private float *pair,
                       global const float *query_log_density, global const float *key_log_density) {
    float query[SPLATS] ALIGNED;
    for (uint x = 0; x < SPLATS; x += 16)
        VECTOR(query + x) = VECTOR(base + x) + vload16(0, query_log_density + (INDEX)row * SPLATS + x);
    for (uint j = 0; j < BLOCK; ++j)
        pair[j] = -INFINITY;
    pair_log_weights(query, key_log_density, seen, pair);
}

INLINED void scores_load(private scores *s, private float *from) {
    UNROLL
    for (uint a = 0; a < RT; ++a)
        UNROLL
    for (uint c = 0; c < LANES; ++c)
        s->s[a][c] = VECTOR(from + a * BLOCK + 16 * c);
}

/* A key of bias −inf has no weight, whatever the pair's. */
#if BIAS
#define PAIRS_BIAS(pair, seen)                                                                                         \
    for (uint j_ = 0; j_ < (seen); ++j_) {                                                                             \
        float x_ = LOAD(BIAS_TYPE, bias, j_ * bias_at.s3);                                                             \
        (pair)[j_] = x_ == -INFINITY ? x_ : (pair)[j_] + x_;                                                           \
    }
#else
#define PAIRS_BIAS(pair, seen)
#endif

/* The log-weights of rows r to r + RT − 1 and the chunk's keys. */
#define PAIRS_SCORES(s, r)                                                                                             \
    for (uint a_ = 0; a_ < RT; ++a_) {                                                                                 \
        uint row_ = min((r) + a_, rows - 1), seen_ = first + row_ + diagonal + 1 - begin_key;                          \
        row_pairs(row_, seen_, base, pair + a_ * BLOCK, query_log_density, key_log_density);                           \
        PAIRS_BIAS(pair + a_ * BLOCK, seen_)                                                                           \
    }                                                                                                                  \
    scores_load(&(s), pair);

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
read_causal_wide(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
                 uint first_head, global const float *mean, global const float *inverse, global const float *centre,
                 global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
                 global const float *state_lse, global const float *state_value, global const ELEMENT(Q_TYPE) *q,
                 INDEX4 q_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse,
                 INDEX4 lse_at, int diagonal, uint keys, global const float *query_log_density,
                 global const float *key_log_density, global const ELEMENT(V_TYPE) *v, INDEX4 v_at
#if BIAS
                 ,
                 global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#endif
) {
    uint h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    /* Rows first to last − 1 see chunk `chunk` last, rounding towards −∞. */
    int chunk = (diagonal >= 0 ? diagonal / CHUNK : -((CHUNK - 1 - diagonal) / CHUNK)) + (int)get_global_id(0);
    uint first = (uint)max(chunk * CHUNK - diagonal, 0);
    uint last = (uint)clamp((chunk + 1) * CHUNK - diagonal, 0, (int)queries);
    if (first >= last)
        return;
    uint rows = last - first, begin_key = (uint)max(chunk, 0) * CHUNK;
    uint near_keys = chunk < 0 ? 0 : min((uint)CHUNK, keys - begin_key);
    log_weight += (INDEX)(per_head ? first_head + h : 0) * splats;
    state_lse += (writer * segments + max(chunk, 0)) * splats;
    state_value += (writer * segments + max(chunk, 0)) * splats * DV;
    query_log_density += ((b * (INDEX)heads + h) * queries + first) * splats;
    key_log_density += (writer * keys + begin_key) * splats;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2 + begin_key * v_at.s3;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2 + begin_key * bias_at.s3;
#endif
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + first * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + first * lse_at.s3;

    tile t;
    scores s;
    float base[SPLATS] ALIGNED, pair[RT * BLOCK] ALIGNED, weights[RT * BLOCK] ALIGNED, shrink[RT];
    tile_clear(&t);
    load_base(base, levels, log_weight, level_begin, level_log_weight);
    for (uint begin = 0; chunk >= 0 && begin < SPLATS; begin += BLOCK)
        for (uint r = 0; r < rows; r += RT) {
            states_scores(&s, r, rows, begin, base, state_lse, query_log_density);
            tile_weigh(&t, r, &s, weights, shrink);
            TILE_ADD(&t, r, weights, shrink, F32, state_value + (INDEX)begin * DV, DV, min((uint)BLOCK, SPLATS - begin))
        }
    for (uint r = 0; chunk >= 0 && r < rows; r += RT) {
        PAIRS_SCORES(s, r)
        tile_weigh(&t, r, &s, weights, shrink);
        TILE_ADD(&t, r, weights, shrink, V_TYPE, v, v_at.s3, near_keys)
    }
    for (uint r = 0; r < rows; ++r) {
        float scale = tile_scale(&t, r);
        for (uint d = 0; d < DV; ++d)
            STORE(OUT_TYPE, out, r * out_at.s3 + d, t.sum[r * DV + d] * scale);
        STORE(LSE_TYPE, lse, r * lse_at.s3, tile_lse(&t, r));
    }
}
