/* Splat moments: all that a splat's gradients need of the weights of its log-densities, to be added to what is there.
 *
 *     Σ ω      Σ ω y      isotropic: Σ ω |y|²      diagonal: Σ ω y_d²      full: Σ ω y_c y_e, c ≤ e        y = x − μ
 *
 * since φ = −½ yᵀ Σ⁻¹ y / τ has no derivative of higher order in y. Σ ω is that of queries only (`amplitude`):
 * amplitudes stand in the read.
 *
 * Shapes: x [B,H/x_group,rows,D], weights [B,H,rows,S], mean [Hs,S,D], moments [Hs,S,1+D+INVERSE_SIZE].
 * Work: one work-item a splat, full: a splat and a row of its matrix; grid (S·PARTS rounded up to WG, 1, sets) with
 * one set of all heads or a set a head. No barrier.
 * Sums are kept in two levels, FOLD rows at a time (see softmax.cl).
 *
 * level_gradients: Σ_i of what the levels' log-weights receive (backward.clh), to be added to
 * level_gradients [B,H,levels]; one work-item a level; grid (levels rounded up to WG, H, B). */
#include "shared/tensor.clh"
#include "splat/splat.clh"
#include "shared/backward.clh"

#ifndef FOLD
#define FOLD 256
#endif

#if COVARIANCE == COVARIANCE_ISOTROPIC
#define SQUARES 1
#else
#define SQUARES D
#endif
#define PARTS (COVARIANCE == COVARIANCE_FULL ? D : 1)

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_moments(uint rows, uint batch, uint heads, uint x_group, uint amplitude, uint splats, uint per_head,
              uint first_head, global const float *mean, global const float *inverse, global const float *centre,
              global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const float *weights, global float *moments) {
    uint s = get_global_id(0) / PARTS, c = get_global_id(0) % PARTS, set = get_global_id(2);
    if (s >= splats)
        return;
    INDEX splat = (INDEX)(per_head ? first_head + set : 0) * splats + s;
    mean += splat * D;
    moments += splat * (1 + D + INVERSE_SIZE);

    float mass = 0.0f, sum[D], square[SQUARES], part_sum[D], part_square[SQUARES];
    for (uint d = 0; d < D; ++d)
        sum[d] = 0.0f;
    for (uint d = 0; d < SQUARES; ++d)
        square[d] = 0.0f;
    for (uint bh = 0; bh < batch * (per_head ? 1 : heads); ++bh) {
        uint b = per_head ? bh : bh / heads, h = per_head ? set : bh % heads;
        global const ELEMENT(X_TYPE) *token = x + x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2;
        global const float *weight = weights + ((INDEX)b * heads + h) * rows * splats + s;
        for (uint begin = 0; begin < rows; begin += FOLD) {
            float part = 0.0f;
            for (uint d = 0; d < D; ++d)
                part_sum[d] = 0.0f;
            for (uint d = 0; d < SQUARES; ++d)
                part_square[d] = 0.0f;
            for (uint i = begin, end = min(begin + FOLD, rows); i < end; ++i) {
                float w = weight[(INDEX)i * splats];
                if (w == 0.0f)
                    continue;
                part += w;
                float along = COVARIANCE == COVARIANCE_FULL ? LOAD(X_TYPE, token, i * x_at.s3 + c) - mean[c] : 0.0f;
                for (uint d = 0; d < D; ++d) {
                    float y = LOAD(X_TYPE, token, i * x_at.s3 + d) - mean[d];
                    part_sum[d] = MAD(w, y, part_sum[d]);
                    uint at = COVARIANCE == COVARIANCE_ISOTROPIC ? 0 : d;
                    part_square[at] = MAD(w * y, COVARIANCE == COVARIANCE_FULL ? along : y, part_square[at]);
                }
            }
            mass += part;
            for (uint d = 0; d < D; ++d)
                sum[d] += part_sum[d];
            for (uint d = 0; d < SQUARES; ++d)
                square[d] += part_square[d];
        }
    }
    for (uint d = 0; d < SQUARES; ++d)
        moments[1 + D + c * D + d] += square[d];
    if (c > 0)
        return;
    if (amplitude)
        moments[0] += mass;
    for (uint d = 0; d < D; ++d)
        moments[1 + d] += sum[d];
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
level_gradients(uint rows, uint levels, global const float *stats, INDEX4 stats_at, global float *level_gradients) {
    uint l = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (l >= levels)
        return;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + l * STATS + STATS_LIFT;
    float total = 0.0f;
    for (uint begin = 0; begin < rows; begin += FOLD) {
        float part = 0.0f;
        for (uint i = begin, end = min(begin + FOLD, rows); i < end; ++i)
            part += stats[i * stats_at.s3];
        total += part;
    }
    level_gradients[((INDEX)b * get_global_size(1) + h) * levels + l] += total;
}
