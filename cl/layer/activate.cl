/* Biases and activations of feed-forward layers, gated or not, and token embeddings: what works on numbers one by one.
 *
 *     activate_rows: y_d = x_d + bias_d      out_d = f(y_d)                        (GATED 0)
 *                                            out_d = f(y_d) y_{C+d}                (GATED 1)
 *     embed_rows:    out_i = SCALE · table[ids_i − TABLE_ROW], if there is such a row
 *
 *     f (ACTIVATION): 0 y · 1 y / (1 + e^(−y)) · 2 y Φ(y) · 3 y / (1 + e^(−2u)), u = √(2/π) (y + 0.044715 y³)
 *                     4 max(y, 0) · 5 tanh y · 6 cap tanh(y / cap)
 *
 * Shapes: x [B,H,N,C], gated [B,H,N,2·C], bias as many columns as x, out [B,H,N,C], perhaps where x is; ids [N], table
 * [V,C].
 * Work: one work-item for W columns of a row; grid (⌈C / W⌉ rounded up to WG, N, B·H). No local memory, no barrier.
 *
 * Φ(y) = ½ erfc(−y/√2) is a product, e^(−y²/2) t P(t) with t = 1 / (1 + 0.4 |y|/√2): erf of the compilers is a call
 * for every lane. P is a Chebyshev fit of e^(z²) erfc(z) / t, of relative error 4e-8; with the rest rounded to float32,
 * Φ is right to 3e-7. */
#include "shared/tensor.clh"
#include "shared/blocks.clh"
#include "shared/even.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef BIAS_TYPE
#define BIAS_TYPE F32
#endif
#ifndef OUT_TYPE
#define OUT_TYPE F32
#endif
#ifndef TABLE_TYPE
#define TABLE_TYPE F32
#endif
#ifndef BIAS /* 1: there is a bias */
#define BIAS 1
#endif
#include "shared/constants.h"
#ifndef ACTIVATION
#define ACTIVATION ACTIVATION_SILU
#endif
#ifndef GATED
#define GATED 1
#endif

static inline floatW normal_share(floatW y) {
    floatW z = fabs(y) * 0.70710678f, t = 1.0f / (1.0f + 0.4f * z);
    floatW p = MAD(t, 0.0397290459f, -0.132729599f);
    p = MAD(p, t, (floatW)(0.0678879768f));
    p = MAD(p, t, (floatW)(0.106916992f));
    p = MAD(p, t, (floatW)(0.0662480463f));
    p = MAD(p, t, (floatW)(0.199346459f));
    p = MAD(p, t, (floatW)(0.200307542f));
    p = MAD(p, t, (floatW)(0.226673457f));
    p = MAD(p, t, (floatW)(0.225620137f));
    floatW tail = 0.5f * p * t * exp(-z * z);
    return select(tail, 1.0f - tail, y > 0.0f);
}

/* By e^(−2|y|), which cannot overflow: relative error of a few ulp of 1. */
static inline floatW tanh_of(floatW y) {
    floatW e = exp(-2.0f * fabs(y));
    return copysign((1.0f - e) / (1.0f + e), y);
}

static inline floatW activated(floatW y, float cap) {
#if ACTIVATION == ACTIVATION_SILU
    return y / (1.0f + exp(-y));
#elif ACTIVATION == ACTIVATION_GELU
    return y * normal_share(y);
#elif ACTIVATION == ACTIVATION_GELU_TANH
    return y / (1.0f + exp(-1.5957691f * MAD(y * y * y, (floatW)(0.044715f), y)));
#elif ACTIVATION == ACTIVATION_RELU
    return fmax(y, 0.0f);
#elif ACTIVATION == ACTIVATION_TANH
    return tanh_of(y);
#elif ACTIVATION == ACTIVATION_SOFT_CAP
    return cap * tanh_of(y / cap);
#else
    return y;
#endif
}

static inline floatW biased_vector(global const ELEMENT(X_TYPE) *x, global const ELEMENT(BIAS_TYPE) *bias, uint d) {
#if EVEN
    return BIAS ? LOAD_SOME(X_TYPE, x, d) + LOAD_SOME(BIAS_TYPE, bias, d) : LOAD_SOME(X_TYPE, x, d);
#else
    return BIAS ? LOADW(X_TYPE, x, d) + LOADW(BIAS_TYPE, bias, d) : LOADW(X_TYPE, x, d);
#endif
}

static inline float biased_number(global const ELEMENT(X_TYPE) *x, global const ELEMENT(BIAS_TYPE) *bias, uint d) {
    return BIAS ? LOAD(X_TYPE, x, d) + LOAD(BIAS_TYPE, bias, d) : LOAD(X_TYPE, x, d);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
activate_rows(uint columns, uint heads, float cap, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    uint d = get_global_id(0) * W, i = get_global_id(1), h = get_global_id(2) % heads, b = get_global_id(2) / heads;
    if (d >= columns)
        return;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    bias += bias_at.s0;
    if (d + W <= columns) {
        floatW value = activated(biased_vector(x, bias, d), cap);
        if (GATED)
            value *= biased_vector(x, bias, columns + d);
#if EVEN
        STORE_SOME(OUT_TYPE, out, d, value);
#else
        STOREW(OUT_TYPE, out, d, value);
#endif
        return;
    }
    for (; d < columns; ++d) {
        float value = activated((floatW)(biased_number(x, bias, d)), cap).s0;
        if (GATED)
            value *= biased_number(x, bias, columns + d);
        STORE(OUT_TYPE, out, d, value);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
embed_rows(uint columns, uint first, uint table_row, uint rows, float scale, global const int *ids,
           global const ELEMENT(TABLE_TYPE) *table, INDEX4 table_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    uint d = get_global_id(0) * W, i = get_global_id(1), id = (uint)ids[first + i] - table_row;
    if (d >= columns || id >= rows)
        return;
    table = PLACE(TABLE_TYPE, table, table_at.s0 + (INDEX)id * table_at.s3);
    out += out_at.s0 + i * out_at.s3;
    if (d + W <= columns) {
        STOREW(OUT_TYPE, out, d, scale * LOADW(TABLE_TYPE, table, d));
        return;
    }
    for (; d < columns; ++d)
        STORE(OUT_TYPE, out, d, scale * LOAD(TABLE_TYPE, table, d));
}
