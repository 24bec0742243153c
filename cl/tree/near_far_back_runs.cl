/* Gradients of near-far attention: what the covariances of the runs of chunks (covariance.cl) receive of the rows that
 * go by them, near_far_back.clh. W_r = Σ_{0…r} S / M_r with M_r = Σ_{0…r} m, so that the sums S of run r receive
 *
 *     G_r = Σ_{r' ≥ r} Σ_i q'_i τ_iᵀ / M_r'         and m_r receives       Σ_{r' ≥ r} −Σ (Σ_i q'_i τ_iᵀ) W_r' / M_r'
 *
 * over the rows i of run r'. Shapes: masses M [B,Hk,runs], run_sums G [B,Hk,runs,D,DV], run_slopes
 * [B,Hk,runs,STRIPS,D], of m_r a part for each d and strip of STRIP columns; runs: chunks / RUN. Work:
 * near_far_back_masses, one work-item a head, grid (1, Hk, B); near_far_back_runs, one a strip of a row d of a matrix,
 * grid (runs · STRIPS · D rounded up to WG, Hk, B); near_far_back_behind, one a strip of a row d of all, grid (STRIPS ·
 * D rounded up to WG, Hk, B). No local memory, no barrier. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"

#define UNROLL _Pragma("unroll") /* sums in registers */

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void near_far_back_masses(uint keys, uint levels, uint chunks,
                                                                                uint room, uint16 first_block,
                                                                                global const float *stats,
                                                                                global float *masses) {
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    stats += head * f.blocks * 16 * STATS;
    masses += head * (chunks / RUN);
    float all = 0.0f;
    for (uint run = 0; run < keys / CHUNK / RUN; ++run) {
        const uint leaves = RUN * CHUNK / LEAF;
        float own = 0.0f;
        for (uint leaf = run * leaves; leaf < (run + 1) * leaves; ++leaf) {
            global const float *its = stats + lane_of(0, leaf, STATS);
            own = MAD(its[COUNT * 16], slope_of(its[VARIANCE * 16], its[SPREAD * 16]), own);
        }
        masses[run] = all += own;
    }
}

/* A strip of one row d of one run's matrix, of its own rows alone: Σ_i q'_i τ_iᵀ. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_runs(INPUTS, global const float *covariance_terms, global float *run_sums) {
    uint d = get_global_id(0) % D, e0 = get_global_id(0) / D % STRIPS * STRIP, run = get_global_id(0) / (STRIPS * D);
    uint kv = get_global_id(1), b = get_global_id(2);
    if (run >= keys / CHUNK / RUN)
        return;
    INDEX head = (INDEX)b * get_global_size(1) + kv, at = (head * (chunks / RUN) + run) * D + d;
    float sum[STRIP];
    UNROLL
    for (uint e = 0; e < STRIP; ++e)
        sum[e] = 0.0f;
    uint begin = OWN ? (uint)max((int)((run + 1) * RUN * CHUNK) - diagonal, 0) : 0;
    for (uint h = kv * group; h < (kv + 1) * group; ++h)
        for (uint i = begin; i < queries; ++i) {
            uint visible = visible_keys(i, diagonal, keys);
            if (run_after(past_of(visible), visible) != run + 1)
                break;
            global const float *covariance_term =
                covariance_terms + (((INDEX)b * (get_global_size(1) * group) + h) * queries + i) * DV + e0;
            float x = scale * LOAD(Q_TYPE, q, q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3 + d);
            UNROLL
            for (uint e = 0; e < STRIP; ++e)
                sum[e] = MAD(x, covariance_term[e], sum[e]);
        }
    UNROLL
    for (uint e = 0; e < STRIP; ++e)
        run_sums[at * DV + e0 + e] = sum[e];
}

/* Those of the runs behind it, to each. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_behind(INPUTS, global const float *masses, global float *run_sums, global float *run_slopes) {
    uint d = get_global_id(0) % D, strip = get_global_id(0) / D, e0 = strip * STRIP;
    if (strip >= STRIPS)
        return;
    INDEX first = ((INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1)) * (chunks / RUN);
    float after[STRIP], slopes = 0.0f;
    UNROLL
    for (uint e = 0; e < STRIP; ++e)
        after[e] = 0.0f;
    for (uint run = keys / CHUNK / RUN; run-- > 0;) {
        INDEX at = ((first + run) * D + d) * DV + e0;
        float inverse = masses[first + run] > 0.0f ? 1.0f / masses[first + run] : 0.0f;
        UNROLL
        for (uint e = 0; e < STRIP; ++e) {
            float sum = run_sums[at + e];
            slopes = MAD(-inverse * sum, covariances[at + e], slopes);
            run_sums[at + e] = after[e] = MAD(sum, inverse, after[e]);
        }
        run_slopes[((first + run) * STRIPS + strip) * D + d] = slopes;
    }
}
