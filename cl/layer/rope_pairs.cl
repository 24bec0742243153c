/* Rotary positions for GPUs, where neighbouring work-items read neighbouring numbers. Mathematics and shapes as in
 * rope.cl, without its norm.
 *
 * Work: one work-item `some` pairs of numbers (even.clh), grid (N · D/2 / SOME rounded up to WG, H+2·Hk, B), or H+Hk
 * where values stay as and where they are. No local memory, no barrier. */
#include "shared/tensor.clh"
#include "shared/even.clh"

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
#ifndef BIAS /* 1: there is a bias */
#define BIAS 1
#endif

#define STORE_PAIR(type, out, at, head, lower, upper)                                                                  \
    {                                                                                                                  \
        STORE_SOME(type, (out) + (at).s0 + batch * (at).s1 + (head) * (at).s2 + i * (at).s3, d, lower);                \
        STORE_SOME(type, (out) + (at).s0 + batch * (at).s1 + (head) * (at).s2 + i * (at).s3, d + D / 2, upper);        \
    }

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
rope_pairs(uint rows, uint heads, uint kv_heads, global const float *turn, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
           global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at, global ELEMENT(Q_TYPE) *q, INDEX4 q_at,
           global ELEMENT(K_TYPE) *k, INDEX4 k_at, global ELEMENT(V_TYPE) *v, INDEX4 v_at) {
    uint n = get_global_id(0) * SOME, h = get_global_id(1), batch = get_global_id(2), i = n / (D / 2), d = n % (D / 2);
    if (i >= rows)
        return;
    x += x_at.s0 + batch * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    some a = LOAD_SOME(X_TYPE, x, d), b = LOAD_SOME(X_TYPE, x, d + D / 2);
#if BIAS
    bias += bias_at.s0 + h * bias_at.s2;
    a += LOAD_SOME(BIAS_TYPE, bias, d);
    b += LOAD_SOME(BIAS_TYPE, bias, d + D / 2);
#endif
    some c = LOAD_SOME(F32, turn, i * D + d), s = LOAD_SOME(F32, turn, i * D + D / 2 + d);
    if (h < heads)
        STORE_PAIR(Q_TYPE, q, q_at, h, a * c - b * s, b * c + a * s)
    else if (h < heads + kv_heads)
        STORE_PAIR(K_TYPE, k, k_at, h - heads, a * c - b * s, b * c + a * s)
    else
        STORE_PAIR(V_TYPE, v, v_at, h - heads - kv_heads, a, b)
}
