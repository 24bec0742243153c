/* Gradients of near-far attention, for CPUs: what the covariances of runs receive, as near_far_back_runs with its
 * mathematics and shapes (near_far_back_runs.cl), ROWS_EACH rows of all matrices at a time: their sums over a run's
 * rows stay in registers.
 *
 * Work: one work-item ROWS_EACH rows, grid (D / ROWS_EACH, Hk, B). */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"
#ifndef TILE
#define TILE 64
#endif
#include "shared/wide.clh"
#include "shared/wide_backward.clh"

#ifndef ROWS_EACH
#define ROWS_EACH 4
#endif

/* sum[a][e] += Σ_i scale q_i,a τ_i,e over the rows [begin, end) of a head, for ROWS_EACH columns of q. */
static inline void rows_add(private float *sum, global const ELEMENT(Q_TYPE) *q, INDEX pitch,
                            global const float *covariance_terms, float scale, uint begin, uint end) {
    for (uint e = 0; e < DV; e += 16 * PASS) {
        float16 o[ROWS_EACH][PASS];
        UNROLL
        for (uint a = 0; a < ROWS_EACH; ++a)
            UNROLL
        for (uint c = 0; c < PASS; ++c)
            o[a][c] = VECTOR(sum + a * DV + e + 16 * c);
        for (uint i = begin; i < end; ++i) {
            float16 covariance_term[PASS];
            UNROLL
            for (uint c = 0; c < PASS; ++c)
                covariance_term[c] = vload16(0, covariance_terms + (INDEX)i * DV + e + 16 * c);
            UNROLL
            for (uint a = 0; a < ROWS_EACH; ++a) {
                float16 x = (float16)(scale * LOAD(Q_TYPE, q, i * pitch + a));
                UNROLL
                for (uint c = 0; c < PASS; ++c)
                    o[a][c] = MAD(x, covariance_term[c], o[a][c]);
            }
        }
        UNROLL
        for (uint a = 0; a < ROWS_EACH; ++a)
            UNROLL
        for (uint c = 0; c < PASS; ++c)
            VECTOR(sum + a * DV + e + 16 * c) = o[a][c];
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_back_runs_wide(INPUTS, global const float *covariance_terms, global const float *masses,
                        global float *run_sums, global float *run_slopes) {
    uint d = get_global_id(0) * ROWS_EACH, kv = get_global_id(1), b = get_global_id(2),
         heads = get_global_size(1) * group;
    INDEX head = (INDEX)b * get_global_size(1) + kv, first = head * (chunks / RUN);
    float after[ROWS_EACH * DV] ALIGNED, sum[ROWS_EACH * DV] ALIGNED, slopes[ROWS_EACH] = {0.0f};
    for (uint e = 0; e < ROWS_EACH * DV; e += 16)
        VECTOR(after + e) = (float16)(0.0f);
    for (uint run = keys / CHUNK / RUN; run-- > 0;) {
        uint begin = OWN ? (uint)max((int)((run + 1) * RUN * CHUNK) - diagonal, 0) : 0, end = begin;
        for (; end < queries; ++end) {
            uint visible = visible_keys(end, diagonal, keys);
            if (run_after(past_of(visible), visible) != run + 1)
                break;
        }
        for (uint e = 0; e < ROWS_EACH * DV; e += 16)
            VECTOR(sum + e) = (float16)(0.0f);
        for (uint h = kv * group; h < (kv + 1) * group; ++h)
            rows_add(sum, q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + d, q_at.s3,
                     covariance_terms + ((INDEX)b * heads + h) * queries * DV, scale, begin, end);
        float inverse = masses[first + run] > 0.0f ? 1.0f / masses[first + run] : 0.0f;
        for (uint a = 0; a < ROWS_EACH; ++a) {
            INDEX at = (first + run) * D + d + a;
            float16 along = (float16)(0.0f);
            for (uint e = 0; e < DV; e += 16) {
                float16 s = VECTOR(sum + a * DV + e) * inverse, all = VECTOR(after + a * DV + e) + s;
                along = MAD(s, vload16(0, covariances + at * DV + e), along);
                VECTOR(after + a * DV + e) = all;
                vstore16(all, 0, run_sums + at * DV + e);
            }
            slopes[a] -= sum16(along);
            run_slopes[at] = slopes[a];
        }
    }
}
