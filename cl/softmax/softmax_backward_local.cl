/* Gradients of exact softmax attention in tiles of local memory (local_rows.clh), for GPUs of any vendor. Mathematics
 * and shapes as in softmax_backward.cl, the two passes as in softmax_backward_tile.clh; any storage types, float32
 * arithmetic. Weights are handed over p first, then t.
 *
 * Work: grid (⌈rows / ROWS⌉ · WG, H or Hk, B), the rows that meet most sources first.
 *
 * Measured (H200, F32, H = 16; ms at N = 4,096): D = 64 queries 3.8, keys 5.4, where the forward pass takes 2.2 and
 * PyTorch's backward 5.2; D = 128 25.6, 4.9 and 9.7. */
#include "softmax/softmax.clh"
#include "softmax/softmax_backward.clh"
#include "shared/local_rows.clh"
#include "softmax/softmax_backward_tile.clh"

/* p from scores, t from gains. */
INLINED void weigh(private products *score, private products *gain, uint x, uint y, float factor,
                   private const float2 *own, local const float2 *numbers, uint first, uint begin, int reach) {
    bool masked = !all_meet(first, ROWS, begin, SOURCES, reach);
    UNROLL
    for (uint c = 0; c < CT; ++c) {
        float2 number = numbers[x + TX * c];
        UNROLL
        for (uint a = 0; a < RT; ++a) {
            float more = own[a].x + number.x, delta = OF_KEYS ? number.y : own[a].y;
            bool seen = more != -INFINITY && (!masked || meets(first + y + TY * a, begin + x + TX * c, reach));
            float p = seen ? exp2(MAD(score->x[a][c], factor, more)) : 0.0f;
            score->x[a][c] = p;
            gain->x[a][c] = p == 0.0f ? 0.0f : p * (gain->x[a][c] - delta); /* a padding key may hold anything finite */
        }
    }
}

/* What differs between the passes: rows and sources, what the rows are for, and what comes out. */
#if OF_KEYS
#define OWN_LOAD                                                                                                       \
    ROWS_LOAD(K_TYPE, rows, k, k_at.s3, D, first, ROWS, keys)                                                          \
    ROWS_LOAD(V_TYPE, row_gains, v, v_at.s3, DV, first, ROWS, keys)
#define OTHERS_LOAD                                                                                                    \
    ROWS_LOAD(Q_TYPE, sources, q, q_at.s3, D, begin, SOURCES, queries)                                                 \
    ROWS_LOAD(DOUT_TYPE, source_gains, dout, dout_at.s3, DV, begin, SOURCES, queries)                                  \
    if (item < SOURCES)                                                                                                \
        numbers[item] = query_numbers(stats, begin + item, queries);
#define VALUES_ADD                                                                                                     \
    weights_pass(&score, x, y, weights);                                                                               \
    SUMS_ADD(value_sum, x, y, weights, source_gains, DV)
#define STORE_SUMS                                                                                                     \
    dk += dk_at.s0 + b * dk_at.s1 + kv * dk_at.s2;                                                                     \
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2;                                                                     \
    SUMS_STORE(DK_TYPE, dk, dk_at.s3, sum, scale, x, y, first, keys, D)                                                \
    SUMS_STORE(DV_TYPE, dv, dv_at.s3, value_sum, 1.0f, x, y, first, keys, DV)
#else
#define OWN_LOAD                                                                                                       \
    ROWS_LOAD(Q_TYPE, rows, q, q_at.s3, D, first, ROWS, queries)                                                       \
    ROWS_LOAD(DOUT_TYPE, row_gains, dout, dout_at.s3, DV, first, ROWS, queries)
#define OTHERS_LOAD                                                                                                    \
    ROWS_LOAD(K_TYPE, sources, k, k_at.s3, D, begin, SOURCES, keys)                                                    \
    ROWS_LOAD(V_TYPE, source_gains, v, v_at.s3, DV, begin, SOURCES, keys)                                              \
    if (item < SOURCES)                                                                                                \
        numbers[item] = KEY_NUMBERS(bias, bias_at.s3, begin + item, keys);
#define VALUES_ADD
#define STORE_SUMS                                                                                                     \
    dq += dq_at.s0 + b * dq_at.s1 + h * dq_at.s2;                                                                      \
    SUMS_STORE(DQ_TYPE, dq, dq_at.s3, sum, scale, x, y, first, queries, D)
#endif
#if OF_KEYS && DBIAS
#define STORE_BIAS                                                                                                     \
    dbias += dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2;                                                         \
    weights_pass(&total, x, y, weights);                                                                               \
    for (uint r = item; r < ROWS; r += WG) {                                                                           \
        if (first + r < keys)                                                                                          \
            STORE(DBIAS_TYPE, dbias, (first + r) * dbias_at.s3, weights_total(weights, r));                            \
    }
#else
#define STORE_BIAS
#endif

INLINED void products_add(private products *to, private const products *p) {
    FOR_PAIRS(a, c)
    to->x[a][c] += p->x[a][c];
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void KERNEL(softmax_backward_local)(
    uint queries, uint keys, uint group, float scale, int diagonal, global const ELEMENT(Q_TYPE) *q, INDEX4 q_at,
    global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
    global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
    global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats RESULTS) {
    local float rows[ROWS * PITCH(D)] ALIGNED, row_gains[ROWS * PITCH(DV)] ALIGNED;
    local float sources[SOURCES * PITCH(D)] ALIGNED, source_gains[SOURCES * PITCH(DV)] ALIGNED;
    local float weights[SOURCES * PITCH_WEIGHTS] ALIGNED;
    local float2 numbers[SOURCES];
    uint item = get_local_id(0), x = item % TX, y = item / TX, tile = get_group_id(0), b = get_global_id(2);
    uint h = OF_KEYS ? get_global_id(1) * group : get_global_id(1), kv = h / group; /* the first head of queries */
    uint rows_all = OF_KEYS ? keys : queries, first = (OF_KEYS ? tile : get_num_groups(0) - 1 - tile) * ROWS;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2;
    k += k_at.s0 + b * k_at.s1 + kv * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
    stats += 2 * ((INDEX)b * get_global_size(1) * (OF_KEYS ? group : 1) + h) * queries;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2;
#endif
    float2 own[RT];
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint row = min(first + y + TY * a, rows_all - 1);
        own[a] = OF_KEYS ? KEY_NUMBERS(bias, bias_at.s3, row, keys) : query_numbers(stats, row, queries);
    }
    OWN_LOAD
    float4 sum[RT][VECTORS(D)], value_sum[RT][VECTORS(DV)];
    SUMS_CLEAR(sum, D)
    SUMS_CLEAR(value_sum, DV)
    products total;
    products_clear(&total);
    uint2 seen = sources_of(first, min(first + ROWS, rows_all), diagonal, queries, keys);
    int reach = reach_of(diagonal, keys);
    for (uint head = 0; head < (OF_KEYS ? group : 1); ++head) {
        for (uint begin = seen.x; begin < seen.y; begin += SOURCES) {
            barrier(CLK_LOCAL_MEM_FENCE);
            OTHERS_LOAD
            barrier(CLK_LOCAL_MEM_FENCE);
            products score, gain;
            products_make(&score, x, y, rows, sources, D);
            products_make(&gain, x, y, row_gains, source_gains, DV);
            weigh(&score, &gain, x, y, scale * LOG2_E, own, numbers, first, begin, reach);
            products_add(&total, &gain);
            VALUES_ADD
            weights_pass(&gain, x, y, weights);
            SUMS_ADD(sum, x, y, weights, sources, D)
        }
        q += q_at.s2;
        dout += dout_at.s2;
        stats += 2 * (INDEX)queries;
    }
    STORE_SUMS
    STORE_BIAS
}
