/* Token gradient: what the weights of the log-densities of a token (ρ of read_backward.cl, σ of write_backward.cl)
 * mean for it.
 *
 *     dx_i = Σ_s ω_is ∂φ_s(x_i)/∂x = −Σ_s ω_is Σ_s⁻¹ (x_i − μ_s) / τ_s
 *
 * Shapes: x, dx [B,Hx,rows,D], weights [B,Hw,rows,S] with Hw = Hx·sources, mean [Hs,S,D], inverse as in splat.clh.
 * Work: one work-item a token; grid (rows rounded up to WG, Hx, B). No local memory, no barrier. */
#ifndef DX_TYPE
#define DX_TYPE F32
#endif
#include "shared/tensor.clh"
#include "splat/splat.clh"

/* Adds −weight Σ⁻¹ y / τ. */
static inline void add_pull(private float *total, private const float *y, float weight, global const float *inverse) {
#if COVARIANCE == COVARIANCE_FULL
    float pull[D];
    for (uint e = 0; e < D; ++e)
        pull[e] = 0.0f;
    for (uint c = 0; c < D; ++c) {
        float t = 0.0f;
        for (uint e = c; e < D; ++e)
            t = MAD(inverse[c * D + e], y[e], t);
        for (uint e = c; e < D; ++e)
            pull[e] = MAD(inverse[c * D + e], t, pull[e]);
    }
    for (uint e = 0; e < D; ++e)
        total[e] = MAD(-weight, pull[e], total[e]);
#else
    for (uint d = 0; d < D; ++d) {
        float r = inverse[COVARIANCE == COVARIANCE_DIAGONAL ? d : 0];
        total[d] = MAD(-weight * r, r * y[d], total[d]);
    }
#endif
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_gradient(uint rows, uint sources, uint splats, uint per_head, uint first_head, global const float *mean,
               global const float *inverse, global const float *centre, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
               global const float *weights, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at) {
    uint i = get_global_id(0), t = get_global_id(1), b = get_global_id(2), tokens = get_global_size(1);
    if (i >= rows)
        return;
    x += x_at.s0 + b * x_at.s1 + t * x_at.s2 + i * x_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + t * dx_at.s2 + i * dx_at.s3;
    float total[D], y[D];
    for (uint d = 0; d < D; ++d)
        total[d] = 0.0f;
    for (uint h = t * sources; h < (t + 1) * sources; ++h) {
        INDEX splat = (INDEX)(per_head ? first_head + h : 0) * splats;
        global const float *weight = weights + (((INDEX)b * tokens * sources + h) * rows + i) * splats;
        for (uint s = 0; s < splats; ++s) {
            if (weight[s] == 0.0f)
                continue;
            for (uint d = 0; d < D; ++d)
                y[d] = LOAD(X_TYPE, x, d) - mean[(splat + s) * D + d];
            add_pull(total, y, weight[s], inverse + (splat + s) * INVERSE_SIZE);
        }
    }
    for (uint d = 0; d < D; ++d)
        STORE(DX_TYPE, dx, d, total[d]);
}
