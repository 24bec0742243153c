/* Activations, backward (activate.cl has the functions f).
 *
 *     dx = f'(y) dout      gated: dx_d = f'(y_d) y_{C+d} dout_d, dx_{C+d} = f(y_d) dout_d      y = x + bias
 *
 * Shapes: x, dx [B,H,N,C or 2·C], bias as many columns, dout, out [B,H,N,C]; OUT: what the activation made.
 * Work: one work-item for EACH times `some` columns of dout (even.clh), WG · SOME apart, since small groups take longer
 * to start than to work; grid (⌈C / (EACH · SOME · WG)⌉ · WG, N, B·H). No local memory, no barrier. */
#include "shared/tensor.clh"
#include "shared/even.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef BIAS_TYPE
#define BIAS_TYPE F32
#endif
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#endif
#ifndef DX_TYPE
#define DX_TYPE F32
#endif
#ifndef OUT_TYPE
#define OUT_TYPE F32
#endif
#ifndef OUT /* 1: what the activation made is wanted, too */
#define OUT 1
#endif
#ifndef BIAS /* 1: there is a bias */
#define BIAS 1
#endif
#include "shared/constants.h"
#ifndef ACTIVATION /* op_activation */
#define ACTIVATION ACTIVATION_SILU
#endif
#ifndef GATED
#define GATED 1
#endif
#ifndef EACH
#define EACH 1
#endif

/* f, and its slope. */
static inline some activation_of(some y, float cap, private some *slope) {
#if ACTIVATION == ACTIVATION_SILU
    some s = 1.0f / (1.0f + exp(-y));
    *slope = s * MAD(y, 1.0f - s, (some)(1.0f));
    return y * s;
#elif ACTIVATION == ACTIVATION_GELU
    some share = 0.5f * erfc(-0.70710678f * y);
    *slope = MAD(y * 0.39894228f, exp(-0.5f * y * y), share);
    return y * share;
#elif ACTIVATION == ACTIVATION_GELU_TANH
    some steep = 1.5957691f * MAD(0.134145f * y, y, (some)(1.0f));
    some s = 1.0f / (1.0f + exp(-1.5957691f * MAD(y * y * y, (some)(0.044715f), y)));
    /* Where s is 0 or 1, it may have no bound. */
    *slope = ((s == 0.0f) | (s == 1.0f)) ? s : MAD(y * s * (1.0f - s), steep, s);
    return y * s;
#elif ACTIVATION == ACTIVATION_RELU
    *slope = y > 0.0f ? (some)(1.0f) : (some)(0.0f);
    return fmax(y, (some)(0.0f));
#elif ACTIVATION == ACTIVATION_TANH
    some t = tanh(y);
    *slope = (1.0f - t) * (1.0f + t);
    return t;
#elif ACTIVATION == ACTIVATION_SOFT_CAP
    some t = tanh(y / cap);
    *slope = (1.0f - t) * (1.0f + t);
    return cap * t;
#else
    *slope = (some)(1.0f);
    return y;
#endif
}

/* x_d, with its bias. */
#define BIASED(d) (LOAD_SOME(X_TYPE, x, d) + (BIAS ? LOAD_SOME(BIAS_TYPE, bias, d) : (some)(0.0f)))

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
activate_backward_rows(uint columns, uint heads, float cap, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                       global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at, global const ELEMENT(DOUT_TYPE) *dout,
                       INDEX4 dout_at, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at, global ELEMENT(OUT_TYPE) *out,
                       INDEX4 out_at) {
    uint i = get_global_id(1), h = get_global_id(2) % heads, b = get_global_id(2) / heads;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + h * dx_at.s2 + i * dx_at.s3;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    out += OUT ? out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 : 0;
    bias += bias_at.s0;
    uint d = (get_group_id(0) * EACH * WG + get_local_id(0)) * SOME;
    _Pragma("unroll") for (uint n = 0; n < EACH; ++n, d += WG * SOME) {
        if (d >= columns)
            return;
        some grad = LOAD_SOME(DOUT_TYPE, dout, d), slope, made = activation_of(BIASED(d), cap, &slope);
#if GATED
        some gate = BIASED(columns + d);
        STORE_SOME(DX_TYPE, dx, columns + d, made * grad);
        made *= gate;
        slope *= gate;
#endif
        STORE_SOME(DX_TYPE, dx, d, slope * grad);
        if (OUT)
            STORE_SOME(OUT_TYPE, out, d, made);
    }
}
