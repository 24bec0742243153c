/* Causal read, backward, in register tiles (wide.clh), for CPUs; joint mixing. Mathematics and shapes as in
 * read_backward.cl with CAUSAL.
 *
 * Needs a multiple of 16 splats. Work: one work-item for the queries whose last keys lie in one chunk; grid (chunks, H,
 * B), work-groups of one, chunks as in read_causal_wide.cl. Splats lie along the lanes. The exponentials of a row, of
 * its splats and of every key of the chunk with every splat, are taken once and kept until δ is known. */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
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

typedef struct chunk_rows {
    float dout[CHUNK * DV] ALIGNED, gain[CHUNK * BLOCK] ALIGNED; /* dout_i·v_j */
    float bias[CHUNK];
} chunk_rows;

/* One row. */
typedef struct row_scratch {
    float base[SPLATS] ALIGNED, query[SPLATS] ALIGNED;       /* ln w a, and φ added */
    float far[SPLATS] ALIGNED, near[CHUNK * SPLATS] ALIGNED; /* weights relative to the top */
    float top, mass, gain;
} row_scratch;

static inline void chunk_load(private chunk_rows *t, global const ELEMENT(DOUT_TYPE) *dout, INDEX pitch, uint rows,
                              global const ELEMENT(V_TYPE) *v, INDEX v_pitch, uint near) {
    float packed[DV * BLOCK] ALIGNED;
    for (uint r = 0; r < CHUNK; ++r) {
        t->bias[r] = 0.0f;
        for (uint d = 0; d < DV; d += 16)
            VECTOR(t->dout + r * DV + d) = LOAD16(DOUT_TYPE, dout + min(r, rows - 1) * pitch, d);
    }
    PACK_VALUES(V_TYPE, v, v_pitch, 0, near, packed)
    for (uint r = 0; r < CHUNK; r += RT) {
        scores gain;
        scores_multiply(&gain, t->dout + r * DV, DV, packed, DV);
        for (uint a = 0; a < RT; ++a)
            for (uint c = 0; c < LANES; ++c)
                VECTOR(t->gain + (r + a) * BLOCK + 16 * c) = gain.s[a][c];
    }
}

/* dout_i·value_s, which waits where the weights will be. */
static inline void far_gains(private chunk_rows *t, global const float *value, global float *weights, uint rows) {
    float packed[DV * BLOCK] ALIGNED;
    for (uint begin = 0; begin < SPLATS; begin += BLOCK) {
        PACK_VALUES(F32, value, DV, begin, (uint)SPLATS, packed)
        for (uint r = 0; r < rows; r += RT) {
            scores gain;
            scores_multiply(&gain, t->dout + r * DV, DV, packed, DV);
            for (uint a = 0; a < RT && r + a < rows; ++a)
                for (uint c = 0; c < LANES && begin + 16 * c < SPLATS; ++c)
                    vstore16(gain.s[a][c], 0, weights + (INDEX)(r + a) * SPLATS + begin + 16 * c);
        }
    }
}

static inline float row_top(private row_scratch *x, private const float *bias, global const float *past,
                            global const float *keys, uint seen) {
    float16 most = (float16)(-INFINITY);
    for (uint s = 0; s < SPLATS; s += 16)
        most = fmax(most, VECTOR(x->query + s) + vload16(0, past + s));
    for (uint j = 0; j < seen; ++j)
        for (uint s = 0; s < SPLATS && bias[j] != -INFINITY; s += 16)
            most = fmax(most, VECTOR(x->query + s) + vload16(0, keys + (INDEX)j * SPLATS + s) + bias[j]);
    return max16(most);
}

/* Weights of the row relative to its top, their sum, and what they gain; a padding key's are 0. */
static inline void row_measure(private row_scratch *x, private const float *bias, private const float *near_gain,
                               global const float *past, global const float *keys, global const float *far_gain,
                               uint seen) {
    float16 mass = (float16)(0.0f), gain = mass;
    for (uint s = 0; s < SPLATS; s += 16) {
        float16 w = exp_weight(VECTOR(x->query + s) + vload16(0, past + s) - x->top);
        VECTOR(x->far + s) = w;
        mass += w;
        gain = MAD(w, vload16(0, far_gain + s), gain);
    }
    for (uint j = 0; j < seen; ++j) {
        float16 sum = (float16)(0.0f);
        for (uint s = 0; s < SPLATS; s += 16) {
            float16 w = (float16)(0.0f);
            if (bias[j] != -INFINITY)
                w = exp_weight(VECTOR(x->query + s) + vload16(0, keys + (INDEX)j * SPLATS + s) + bias[j] - x->top);
            VECTOR(x->near + j * SPLATS + s) = w;
            sum += w;
        }
        mass += sum;
        gain = bias[j] == -INFINITY ? gain : MAD(sum, (float16)(near_gain[j]), gain);
    }
    x->mass = sum16(mass);
    x->gain = sum16(gain);
}

static inline void row_weigh(private row_scratch *x, private const float *bias, private const float *near_gain,
                             global float *weights, uint seen) {
    float inverse = 1.0f / x->mass, delta = x->gain * inverse;
    for (uint s = 0; s < SPLATS; s += 16) {
        float16 w = VECTOR(x->far + s) * (vload16(0, weights + s) - delta);
        for (uint j = 0; j < seen; ++j)
            if (bias[j] != -INFINITY)
                w = MAD(VECTOR(x->near + j * SPLATS + s), (float16)(near_gain[j] - delta), w);
        vstore16(w * inverse, 0, weights + s);
    }
}

static inline void row_empty(global float *weights, global float *stats) {
    for (uint s = 0; s < SPLATS; s += 16)
        vstore16((float16)(0.0f), 0, weights + s);
    stats[STATS_OFFSET] = INFINITY;
    stats[STATS_DELTA] = stats[STATS_LIFT] = 0.0f;
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void read_backward_causal_wide(
    uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head, uint first_head,
    global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
    global const float *state_lse, global const float *state_value, global const ELEMENT(DOUT_TYPE) *dout,
    INDEX4 dout_at, global float *stats, INDEX4 stats_at, global const float *query_log_density, global float *weights,
    int diagonal, uint keys, global const float *key_log_density, global const ELEMENT(V_TYPE) *v, INDEX4 v_at
#if BIAS
    ,
    global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#endif
) {
    uint h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    int chunk = (diagonal >= 0 ? diagonal / CHUNK : -((CHUNK - 1 - diagonal) / CHUNK)) + (int)get_global_id(0);
    uint first = (uint)max(chunk * CHUNK - diagonal, 0);
    uint last = (uint)clamp((chunk + 1) * CHUNK - diagonal, 0, (int)queries);
    if (first >= last)
        return;
    uint rows = last - first, begin_key = (uint)max(chunk, 0) * CHUNK;
    INDEX own = (((INDEX)b * heads + h) * queries + first) * SPLATS;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + first * stats_at.s3;
    weights += own;
    for (uint r = 0; chunk < 0 && r < rows; ++r)
        row_empty(weights + (INDEX)r * SPLATS, stats + r * stats_at.s3);
    if (chunk < 0)
        return;
    log_weight += (INDEX)(per_head ? first_head + h : 0) * SPLATS;
    state_lse += (writer * segments + chunk) * SPLATS;
    state_value += (writer * segments + chunk) * SPLATS * DV;
    key_log_density += (writer * keys + begin_key) * SPLATS;

    chunk_rows t;
    row_scratch x;
    chunk_load(&t, dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + first * dout_at.s3, dout_at.s3, rows,
               v + v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2 + begin_key * v_at.s3, v_at.s3,
               min((uint)CHUNK, keys - begin_key));
#if BIAS
    for (uint j = 0; j < CHUNK && begin_key + j < keys; ++j)
        t.bias[j] = LOAD(BIAS_TYPE, bias + bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2,
                         (begin_key + j) * bias_at.s3);
#endif
    load_base(x.base, levels, log_weight, level_begin, level_log_weight);
    far_gains(&t, state_value, weights, rows);
    for (uint r = 0; r < rows; ++r) {
        uint seen = (uint)((int)(first + r) + diagonal + 1) - begin_key;
        global float *weight = weights + (INDEX)r * SPLATS, *stat = stats + r * stats_at.s3;
        for (uint s = 0; s < SPLATS; s += 16)
            VECTOR(x.query + s) = VECTOR(x.base + s) + vload16(0, query_log_density + own + (INDEX)r * SPLATS + s);
        x.top = row_top(&x, t.bias, state_lse, key_log_density, seen);
        if (x.top == -INFINITY) {
            row_empty(weight, stat);
            continue;
        }
        row_measure(&x, t.bias, t.gain + r * BLOCK, state_lse, key_log_density, weight, seen);
        row_weigh(&x, t.bias, t.gain + r * BLOCK, weight, seen);
        stat[STATS_OFFSET] = x.top + log(x.mass);
        stat[STATS_DELTA] = x.gain / x.mass;
        stat[STATS_LIFT] = 0.0f;
    }
}
