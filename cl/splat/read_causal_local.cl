/* Causal read in tiles of local memory (local_tile.clh), for GPUs of any vendor: joint mixing, chunks of 32 keys; any
 * storage types, float32 arithmetic. Mathematics and shapes as in read.cl with CAUSAL; since the log-densities are
 * given, any covariance will do.
 *
 * Work: a group of 64 for the queries whose last keys lie in one chunk; grid (chunks · WG, H, B). Group 0 has the chunk
 * of query 0, which may lie before the first key: those rows are empty. For every tile of splats, item (x, y) adds to
 * the log-weights of the pairs of its queries and its keys of the chunk, and to its queries' means over what was
 * written before. */
#ifndef Q_TYPE
#define Q_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#ifndef BIAS
#define BIAS 1
#endif
#define TY 8 /* with RT 4 as many rows as keys, both the chunk's 32 */
#define RT 4
#include "shared/local_tile.clh"
#define CHUNK_KEYS 32

/* ln Σ_s w a_s e^(φ_s(q) + φ_s(k)) of the item's queries and keys, in base 2: references and masses. */
typedef struct pairs {
    float4 top[RT], mass[RT];
} pairs;

INLINED void pairs_clear(private pairs *p) {
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        p->top[a] = (float4)(-INFINITY);
        p->mass[a] = (float4)(0.0f);
    }
}

/* One tile of splats; queries [KEYS][ROWS] have ln w + ln a added. */
INLINED void pairs_add(private pairs *p, uint x, uint y, local const float *queries, local const float *keys) {
    float4 base[RT];
    UNROLL
    for (uint a = 0; a < RT; ++a)
        base[a] = p->top[a];
    _Pragma("unroll 4") for (uint s = 0; s < KEYS; ++s) {
        float4 query = VECTOR(queries + PLACE(ROWS, s, 4 * y)), key = VECTOR(keys + PLACE(CHUNK_KEYS, s, 4 * x));
        base[0] = fmax(base[0], query.x + key);
        base[1] = fmax(base[1], query.y + key);
        base[2] = fmax(base[2], query.z + key);
        base[3] = fmax(base[3], query.w + key);
    }
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        float4 top = base[a];
        base[a] = select(top, (float4)(0.0f), top == (float4)(-INFINITY));
        p->mass[a] *= exp2(p->top[a] - base[a]);
        p->top[a] = top;
    }
    _Pragma("unroll 4") for (uint s = 0; s < KEYS; ++s) {
        float4 query = VECTOR(queries + PLACE(ROWS, s, 4 * y)), key = VECTOR(keys + PLACE(CHUNK_KEYS, s, 4 * x));
        p->mass[0] += exp2(query.x + key - base[0]);
        p->mass[1] += exp2(query.y + key - base[1]);
        p->mass[2] += exp2(query.z + key - base[2]);
        p->mass[3] += exp2(query.w + key - base[3]);
    }
}

/* The log-weights of an item's queries and the splats of a tile: queries as for pairs_add, and what was written
 * before. */
INLINED void past_scores(private float score[RT][4], uint x, uint y, local const float *queries,
                         local const float *past) {
    UNROLL
    for (uint c = 0; c < 4; ++c) {
        float4 l = VECTOR(queries + PLACE(ROWS, 4 * x + c, 4 * y)) + past[4 * x + c];
        score[0][c] = l.x;
        score[1][c] = l.y;
        score[2][c] = l.z;
        score[3][c] = l.w;
    }
}

/* The log-weights of an item's queries and its keys of the chunk. */
INLINED void pairs_scores(private float score[RT][4], private const pairs *p) {
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        float4 l = select(p->top[a] + log2(p->mass[a]), (float4)(-INFINITY), p->top[a] == (float4)(-INFINITY));
        vstore4(l, 0, score[a]);
    }
}

#if BIAS
/* A key of bias −inf has no weight, whatever its logit. */
INLINED void scores_bias(private float score[RT][4], uint x, uint last_key, global const ELEMENT(BIAS_TYPE) *bias,
                         INDEX pitch) {
    UNROLL
    for (uint c = 0; c < 4; ++c) {
        float more = LOG2_E * LOAD(BIAS_TYPE, bias, min(4 * x + c, last_key) * pitch);
        UNROLL
        for (uint a = 0; a < RT; ++a)
            score[a][c] = more == -INFINITY ? more : score[a][c] + more;
    }
}
#endif

/* The queries first … first + count − 1 that see chunk number `number` last, its first key and the last of those there
 * are. */
typedef struct chunk {
    int number; /* below 0: it lies before the first key */
    uint first, count, begin_key, last_key;
    uint seen, more; /* keys of the chunk that the first of them sees, and how many more the last one */
} chunk;

INLINED void chunk_find(private chunk *c, uint group, int diagonal, uint queries, uint keys) {
    /* Rounding towards −∞. */
    c->number = (diagonal >= 0 ? diagonal / CHUNK_KEYS : -((CHUNK_KEYS - 1 - diagonal) / CHUNK_KEYS)) + (int)group;
    c->first = (uint)max(c->number * CHUNK_KEYS - diagonal, 0);
    c->count = (uint)clamp((c->number + 1) * CHUNK_KEYS - diagonal, 0, (int)queries) - c->first;
    c->begin_key = (uint)max(c->number, 0) * CHUNK_KEYS;
    c->last_key = min((uint)CHUNK_KEYS, keys - c->begin_key) - 1;
    c->seen = c->number < 0 ? 0 : c->first + diagonal + 1 - c->begin_key;
    c->more = c->number < 0 ? 0 : c->count - 1;
}

/* An item's rows, from `row` on, do not see the chunk's keys behind them. */
INLINED void scores_mask(private float score[RT][4], uint x, uint row, chunk chunk) {
    UNROLL
    for (uint a = 0; a < RT; ++a)
        UNROLL
    for (uint c = 0; c < 4; ++c)
        if (4 * x + c >= chunk.seen + min(row + a, chunk.more))
            score[a][c] = -INFINITY;
}

#define SPLAT min(begin + j, splats - 1)

/* Of a tile of splats, from `begin` on: ln w + ln a, and the states. */
#define STATES_LOAD                                                                                                    \
    for (uint j = get_local_id(0); j < KEYS; j += WG) {                                                                \
        uint level = 0;                                                                                                \
        while (level + 1 < levels && level_begin[level + 1] <= SPLAT)                                                  \
            ++level;                                                                                                   \
        prior[j] = begin + j < splats ? LOG2_E * (level_log_weight[level] + log_weight[SPLAT]) : -INFINITY;            \
        past[j] = LOG2_E * state_lse[SPLAT];                                                                           \
    }                                                                                                                  \
    VALUES_LOAD(F32, value_tile, state_value, DV, SPLAT)

/* The log-densities of queries and keys to them. */
#define LOG_DENSITIES_LOAD                                                                                             \
    TILE_LOAD(ROWS, KEYS,                                                                                              \
              query_tile[PLACE(ROWS, d, j)] =                                                                          \
                  MAD(LOG2_E, query_log_density[(INDEX)min(j, c.count - 1) * splats + min(begin + d, splats - 1)],     \
                      prior[d]);)                                                                                      \
    TILE_LOAD(CHUNK_KEYS, KEYS,                                                                                        \
              shared[PLACE(CHUNK_KEYS, d, j)] =                                                                        \
                  LOG2_E * key_log_density[(INDEX)min(j, c.last_key) * splats + min(begin + d, splats - 1)];)

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
read_causal_local(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
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
    local float query_tile[KEYS * ROWS] ALIGNED, shared[KEYS * ROWS] ALIGNED; /* of keys, then weights */
    local float value_tile[KEYS * PITCH_V] ALIGNED, prior[KEYS], past[KEYS];
    local int raise;
    uint item = get_local_id(0), x = item % TX, y = item / TX;
    uint h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    chunk c;
    chunk_find(&c, get_group_id(0), diagonal, queries, keys);
    log_weight += (INDEX)(per_head ? first_head + h : 0) * splats;
    state_lse += (writer * segments + max(c.number, 0)) * splats;
    state_value += (writer * segments + max(c.number, 0)) * splats * DV;
    query_log_density += ((b * (INDEX)heads + h) * queries + c.first) * splats;
    key_log_density += (writer * keys + c.begin_key) * splats;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2 + c.begin_key * v_at.s3;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2 + c.begin_key * bias_at.s3;
#endif
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + c.first * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + c.first * lse_at.s3;
    rows r;
    pairs p;
    float score[RT][4];
    rows_clear(&r);
    pairs_clear(&p);
    if (item == 0)
        raise = 0;
    for (uint begin = 0; begin < (c.number < 0 ? 0 : splats); begin += KEYS) {
        barrier(CLK_LOCAL_MEM_FENCE);
        STATES_LOAD
        barrier(CLK_LOCAL_MEM_FENCE);
        LOG_DENSITIES_LOAD
        barrier(CLK_LOCAL_MEM_FENCE);
        pairs_add(&p, x, y, query_tile, shared);
        past_scores(score, x, y, query_tile, past);
        rows_weigh(&r, score, x, y, shared, &raise);
        rows_add(&r, x, y, shared, value_tile);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    VALUES_LOAD(V_TYPE, value_tile, v, v_at.s3, min(j, c.last_key))
    pairs_scores(score, &p);
#if BIAS
    scores_bias(score, x, c.last_key, bias, bias_at.s3);
#endif
    scores_mask(score, x, y * RT, c);
    rows_weigh(&r, score, x, y, shared, &raise);
    rows_add(&r, x, y, shared, value_tile);
    ROWS_STORE(r, y * RT, c.count, x, y, shared, OUT_TYPE, out, out_at.s3, LSE_TYPE, lse, lse_at.s3)
}
