/* Write, backward, in tiles of local memory (local_rows.clh), for GPUs of any vendor: not causal. Mathematics and
 * shapes as in write_backward.cl. Rows are keys, sources the splats of one head after the other.
 *
 * Work: a group for ROWS keys; grid (⌈M / ROWS⌉ · WG, Hk, B). */
#ifndef V_TYPE
#define V_TYPE F32
#define BIAS_TYPE F32
#define DV_TYPE F32
#define DBIAS_TYPE F32
#define DBIAS 1
#endif
#ifndef BIAS
#define BIAS 1
#endif
#ifndef DV
#define DV 64
#endif
#include "shared/local_rows.clh"

#if BIAS
#define BIAS_OF(row) (LOG2_E * LOAD(BIAS_TYPE, bias, (row)*bias_at.s3))
#else
#define BIAS_OF(row) 0.0f
#endif

/* lse in base 2, −inf past the last splat, and δ. */
INLINED float2 splat_numbers(global const float *state_lse, global const float *state_value, uint s, uint splats) {
    return s < splats ? (float2)(LOG2_E * state_lse[s], state_value[(INDEX)s * (DV + 1) + DV])
                      : (float2)(-INFINITY, 0.0f);
}

/* An item's keys, from `first` on, and splats, from `begin` on. */
typedef struct place {
    uint first, keys, begin, splats;
    bool fresh; /* weights hold nothing yet */
} place;

/* What a key and a splat weigh, and σ from what they gain, which goes to `weights` and the key's total. */
INLINED void keys_weigh(place p, private products *weight, private const products *gain, private products *total,
                        private const float *offset, local const float2 *numbers, global const float *log_density,
                        global float *weights) {
    FOR_PAIRS(a, c) {
        uint row = p.first + TY * a, s = p.begin + TX * c;
        INDEX at = (INDEX)min(row, p.keys - 1) * p.splats + min(s, p.splats - 1);
        float2 number = numbers[TX * c];
        float more = offset[a] + number.x;
        float r = more == -INFINITY ? 0.0f : exp2(MAD(LOG2_E, log_density[at], more));
        float sigma = r == 0.0f ? 0.0f : r * (gain->x[a][c] - number.y); /* padding may hold anything */
        weight->x[a][c] = r;
        total->x[a][c] += sigma;
        if (row < p.keys && s < p.splats)
            weights[at] = p.fresh ? sigma : weights[at] + sigma;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void write_backward_local(
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
) {
    local float rows[ROWS * PITCH(DV)] ALIGNED, values[SOURCES * PITCH(DV)] ALIGNED;
    local float passed[SOURCES * PITCH_WEIGHTS] ALIGNED;
    local float2 numbers[SOURCES];
    uint item = get_local_id(0), x = item % TX, y = item / TX, first = get_group_id(0) * ROWS;
    uint kv = get_global_id(1), b = get_global_id(2), heads = get_global_size(1) * group;
    uint writers = per_head ? heads : heads / group;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2;
#endif
    ROWS_LOAD(V_TYPE, rows, v, v_at.s3, DV, first, ROWS, keys)
    float offset[RT];
    UNROLL
    for (uint a = 0; a < RT; ++a)
        offset[a] = BIAS_OF(min(first + y + TY * a, keys - 1));
    float4 sum[RT][VECTORS(DV)];
    SUMS_CLEAR(sum, DV)
    products total, weight, gain;
    products_clear(&total);
    for (uint h = kv * group; h < (kv + 1) * group; ++h) {
        INDEX writer = ((INDEX)b * writers + (per_head ? h : kv)) * keys * splats;
        INDEX state = ((INDEX)b * heads + h) * splats;
        for (uint begin = 0; begin < splats; begin += SOURCES) {
            barrier(CLK_LOCAL_MEM_FENCE);
            ROWS_LOAD(F32, values, state_value + state * (DV + 1), (INDEX)(DV + 1), DV, begin, SOURCES, splats)
            if (item < SOURCES)
                numbers[item] = splat_numbers(state_lse + state, state_value + state * (DV + 1), begin + item, splats);
            barrier(CLK_LOCAL_MEM_FENCE);
            products_make(&gain, x, y, rows, values, DV);
            place p = {first + y, keys, begin + x, splats, per_head || h == kv * group};
            keys_weigh(p, &weight, &gain, &total, offset, numbers + x, key_log_density + writer, weights + writer);
            weights_pass(&weight, x, y, passed);
            SUMS_ADD(sum, x, y, passed, values, DV)
        }
    }
    SUMS_STORE(DV_TYPE, dv, dv_at.s3, sum, 1.0f, x, y, first, keys, DV)
#if DBIAS
    dbias += dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2;
    weights_pass(&total, x, y, passed);
    for (uint r = item; r < ROWS; r += WG)
        if (first + r < keys)
            STORE(DBIAS_TYPE, dbias, (first + r) * dbias_at.s3, weights_total(passed, r));
#endif
}
