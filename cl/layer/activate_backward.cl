/* Activations, backward (activate.cl has the functions f).
 *
 *     dx = f'(y) dout      gated: dx_d = f'(y_d) y_{C+d} dout_d, dx_{C+d} = f(y_d) dout_d      y = x + bias
 *
 * Shapes: x, dx [B,H,N,C or 2·C], bias as many columns, dout, out [B,H,N,C]; OUT: what the activation made.
 * Work: one work-item for EACH columns of dout that are WG apart, since small groups take longer to start than to work;
 * grid (⌈C / (EACH · WG)⌉ · WG, N, B·H). No local memory, no barrier. */
#include "shared/tensor.clh"

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

/* f and its derivative. */
static inline float2 activation_of(float y, float cap) {
#if ACTIVATION == ACTIVATION_SILU
    float s = 1.0f / (1.0f + exp(-y));
    return (float2)(y * s, s * MAD(y, 1.0f - s, 1.0f));
#elif ACTIVATION == ACTIVATION_GELU
    float share = 0.5f * erfc(-0.70710678f * y);
    return (float2)(y * share, MAD(y * 0.39894228f, exp(-0.5f * y * y), share));
#elif ACTIVATION == ACTIVATION_GELU_TANH
    float slope = 1.5957691f * MAD(0.134145f * y, y, 1.0f);
    float s = 1.0f / (1.0f + exp(-1.5957691f * MAD(y * y * y, 0.044715f, y)));
    /* Where s is 0 or 1, the slope may have no bound. */
    return (float2)(y * s, s == 0.0f || s == 1.0f ? s : MAD(y * s * (1.0f - s), slope, s));
#elif ACTIVATION == ACTIVATION_RELU
    return (float2)(fmax(y, 0.0f), y > 0.0f ? 1.0f : 0.0f);
#elif ACTIVATION == ACTIVATION_TANH
    float t = tanh(y);
    return (float2)(t, (1.0f - t) * (1.0f + t));
#elif ACTIVATION == ACTIVATION_SOFT_CAP
    float t = tanh(y / cap);
    return (float2)(cap * t, (1.0f - t) * (1.0f + t));
#else
    return (float2)(y, 1.0f);
#endif
}

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
    uint d = get_group_id(0) * EACH * WG + get_local_id(0);
    _Pragma("unroll") for (uint n = 0; n < EACH; ++n, d += WG) {
        if (d >= columns)
            return;
        float grad = LOAD(DOUT_TYPE, dout, d);
        float2 f = activation_of(LOAD(X_TYPE, x, d) + (BIAS ? LOAD(BIAS_TYPE, bias, d) : 0.0f), cap);
#if GATED
        float gate = LOAD(X_TYPE, x, columns + d) + (BIAS ? LOAD(BIAS_TYPE, bias, columns + d) : 0.0f);
        STORE(DX_TYPE, dx, d, f.y * gate * grad);
        STORE(DX_TYPE, dx, columns + d, f.x * grad);
        f.x *= gate;
#else
        STORE(DX_TYPE, dx, d, f.y * grad);
#endif
        if (OUT)
            STORE(OUT_TYPE, out, d, f.x);
    }
}
