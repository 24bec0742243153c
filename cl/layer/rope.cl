/* Rotary positions, and the way of projected rows into heads.
 *
 *     turn_rows: angle_id = (first + i) f_d      turn_i = [cos angle_i · factor, sin angle_i · factor]
 *     rope_rows: x += bias; queries and keys: x = weight · x / √(mean x² + ε) (NORM), then for d < D / 2
 *                (x_d, x_{d+D/2}) → (x_d cos − x_{d+D/2} sin, x_{d+D/2} cos + x_d sin)
 *
 * Shapes: frequencies [D/2], turn [N,D]; x [B,H+2·Hk,N,D] (heads of queries, of keys, of values), bias [H+2·Hk,D],
 * weights [D], q [B,H,N,D], k, v [B,Hk,N,D]; q may be where x is.
 * Work: one work-item an angle, grid (D/2 rounded up to WG, N); one work-item a row, grid (N rounded up to WG, H+2·Hk,
 * B). No local memory, no barrier. */
#include "shared/tensor.clh"

#ifndef D
#define D 64
#endif
#ifndef X_TYPE
#define X_TYPE F32
#define Q_TYPE F32
#define K_TYPE F32
#define V_TYPE F32
#endif
#ifndef BIAS_TYPE
#define BIAS_TYPE F32
#endif
#ifndef QW_TYPE
#define QW_TYPE F32
#define KW_TYPE F32
#endif
#ifndef BIAS /* 1: there is a bias */
#define BIAS 1
#endif
#ifndef NORM /* 1: queries and keys are normalised, head by head */
#define NORM 1
#endif

/* Positions are exact as floats, and an angle is rounded once, as where the models were trained. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
turn_rows(uint first, float factor, global const float *frequencies, global float *turn) {
    uint d = get_global_id(0), i = get_global_id(1);
    if (d >= D / 2)
        return;
    float angle = (float)(first + i) * frequencies[d];
    turn[i * D + d] = cos(angle) * factor;
    turn[i * D + D / 2 + d] = sin(angle) * factor;
}

/* One head's row, biased, and if it is to be normalised (DO), weighted. */
#define READ(row, d) (BIAS ? LOAD(X_TYPE, row, d) + LOAD(BIAS_TYPE, bias, d) : LOAD(X_TYPE, row, d))
#define TURN_ROW(type, out, weight_type, weight)                                                                       \
    {                                                                                                                  \
        float inverse = 1.0f;                                                                                          \
        if (NORM) {                                                                                                    \
            float total = 0.0f;                                                                                        \
            for (uint d = 0; d < D; ++d) {                                                                             \
                float value = READ(x, d);                                                                              \
                total = MAD(value, value, total);                                                                      \
            }                                                                                                          \
            inverse = 1.0f / sqrt(total / D + epsilon);                                                                \
        }                                                                                                              \
        for (uint d = 0; d < D / 2; ++d) {                                                                             \
            float a = READ(x, d), b = READ(x, d + D / 2);                                                              \
            if (NORM) {                                                                                                \
                a *= inverse * LOAD(weight_type, weight, d);                                                           \
                b *= inverse * LOAD(weight_type, weight, d + D / 2);                                                   \
            }                                                                                                          \
            float c = turn[d], s = turn[d + D / 2];                                                                    \
            STORE(type, out, d, a *c - b * s);                                                                         \
            STORE(type, out, d + D / 2, b * c + a * s);                                                                \
        }                                                                                                              \
    }

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
rope_rows(uint rows, uint heads, uint kv_heads, float epsilon, global const float *turn,
          global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
          global const ELEMENT(QW_TYPE) *q_weight, INDEX4 q_weight_at, global const ELEMENT(KW_TYPE) *k_weight,
          INDEX4 k_weight_at, global ELEMENT(Q_TYPE) *q, INDEX4 q_at, global ELEMENT(K_TYPE) *k, INDEX4 k_at,
          global ELEMENT(V_TYPE) *v, INDEX4 v_at) {
    uint i = get_global_id(0), h = get_global_id(1), batch = get_global_id(2);
    if (i >= rows)
        return;
    x += x_at.s0 + batch * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    bias += bias_at.s0 + h * bias_at.s2;
    turn += i * D;
    if (h < heads) {
        q += q_at.s0 + batch * q_at.s1 + h * q_at.s2 + i * q_at.s3;
        q_weight += q_weight_at.s0;
        TURN_ROW(Q_TYPE, q, QW_TYPE, q_weight)
    } else if (h < heads + kv_heads) {
        k += k_at.s0 + batch * k_at.s1 + (h - heads) * k_at.s2 + i * k_at.s3;
        k_weight += k_weight_at.s0;
        TURN_ROW(K_TYPE, k, KW_TYPE, k_weight)
    } else {
        v += v_at.s0 + batch * v_at.s1 + (h - heads - kv_heads) * v_at.s2 + i * v_at.s3;
        for (uint d = 0; d < D; ++d)
            STORE(V_TYPE, v, d, READ(x, d));
    }
}
