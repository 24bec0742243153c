/* Write: what each splat learns of the keys, in segments of consecutive keys.
 *
 *     l_j = φ_s(k_j) + b_j      lse = ln Σ_j e^(l_j)      value = Σ_j e^(l_j − lse) v_j
 *
 * Shapes: k [B,Hk,M,D], v [B,Hk,M,DV], bias [B,Hk,M], mean [Hs,S,D], inverse [Hs,S,…];
 * state_lse [B,Hw,G,S], state_value [B,Hw,G,S,DV] for G segments.
 * Work: one work-item a splat and segment; grid (S rounded up to WG, G, B·Hw). No barrier.
 * Sums are kept in two levels, FOLD keys at a time (see softmax.cl). */
#ifndef K_TYPE
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#define X_TYPE K_TYPE
#include "shared/tensor.clh"
#include "shared/state.clh"
#include "splat/splat.clh"

#ifndef FOLD
#define FOLD 1024
#endif
#ifndef BIAS
#define BIAS 1
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gaussian_write(uint keys, uint segment, uint heads, uint group, uint splats, uint per_head, uint first_head,
               global const float *mean, global const float *inverse, global const float *centre,
               global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
               global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
               global float *state_lse, global float *state_value) {
    uint s = get_global_id(0), g = get_global_id(1), segments = get_global_size(1);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads;
    if (s >= splats)
        return;
    INDEX splat = (INDEX)(per_head ? first_head + h : 0) * splats + s;
    mean += splat * D;
    inverse += splat * INVERSE_SIZE;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif

    state all, block;
    state_clear(&all);
    uint last = min(keys, (g + 1) * segment);
    for (uint begin = g * segment; begin < last; begin += FOLD) {
        state_clear(&block);
        for (uint j = begin, end = min(begin + FOLD, last); j < end; ++j) {
            float l = 0.0f;
#if BIAS
            l = LOAD(BIAS_TYPE, bias, j * bias_at.s3);
            if (l == -INFINITY)
                continue;
#endif
            l += log_density_of(k + j * k_at.s3, mean, inverse);
            if (l == -INFINITY)
                continue;
            float weight = state_admit(&block, l);
            for (uint d = 0; d < DV; ++d)
                block.sum[d] = MAD(weight, LOAD(V_TYPE, v, j * v_at.s3 + d), block.sum[d]);
        }
        state_merge(&all, &block);
    }

    INDEX at = ((INDEX)get_global_id(2) * segments + g) * splats + s;
    float scale = inverse_mass(&all);
    state_lse[at] = log_mass(&all);
    for (uint d = 0; d < DV; ++d)
        state_value[at * DV + d] = all.sum[d] * scale;
}
