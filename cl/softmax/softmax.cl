/* Exact softmax attention, never N×M.
 *
 *     l_ij = cap(scale q_i·k_j) + b_j      out_i = Σ_j e^(l_ij − lse_i) v_j      lse_i = ln Σ_j e^(l_ij)
 *
 * over the keys j ≤ i + diagonal, with WINDOW over the last so many of those; cap(x) is x, or with CAP
 * cap tanh(x / cap).
 *
 * Shapes: q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,DV], bias [B,Hk,M], out [B,H,N,DV], lse [B,H,N].
 * Work: one work-item a query; grid (N rounded up to WG, H, B). No local memory, no barrier.
 *
 * Sums are kept in two levels, FOLD keys at a time, so that a row over a million keys is as exact as one over a
 * thousand: one running sum alone has an error that grows like √M. */
#include "softmax/softmax.clh"
#include "shared/tensor.clh"
#include "shared/state.clh"

#ifndef FOLD /* keys per inner sum */
#define FOLD 1024
#endif

#include "shared/dot.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_attention(uint queries, uint keys, uint group, float scale, int diagonal, uint accumulate,
                  global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
                  global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
                  global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                  global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= queries)
        return;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3;

    uint visible = visible_keys(i, diagonal, keys);
    state row, block;
    state_clear(&row);
    float before = accumulate ? LOAD(LSE_TYPE, lse, 0) : -INFINITY;
    if (before != -INFINITY) {
        float weight = state_admit(&row, before);
        for (uint d = 0; d < DV; ++d)
            row.sum[d] = weight * LOAD(OUT_TYPE, out, d);
    }
    for (uint begin = first_key(i, diagonal, keys); begin < visible; begin += FOLD) {
        state_clear(&block);
        for (uint j = begin, end = min(begin + FOLD, visible); j < end; ++j) {
            float l = 0.0f;
#if BIAS
            l = LOAD(BIAS_TYPE, bias, j * bias_at.s3);
            if (l == -INFINITY)
                continue;
#endif
#if CAP
            l += CAPPED(scale * dot_row(q, k + j * k_at.s3));
#else
            l = MAD(scale, dot_row(q, k + j * k_at.s3), l);
#endif
            if (l == -INFINITY)
                continue;
            float weight = state_admit(&block, l);
            for (uint d = 0; d < DV; ++d)
                block.sum[d] = MAD(weight, LOAD(V_TYPE, v, j * v_at.s3 + d), block.sum[d]);
        }
        state_merge(&row, &block);
    }
    float inverse = inverse_mass(&row);
    for (uint d = 0; d < DV; ++d)
        STORE(OUT_TYPE, out, d, row.sum[d] * inverse);
    STORE(LSE_TYPE, lse, 0, log_mass(&row));
}
