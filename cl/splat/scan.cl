/* Scan: merges the states of consecutive segments, in their order, into what came before.
 *
 * The carry is kept unnormalised, [B·Hw,S,DV+2] as (top, mass, sum): a logarithm taken and undone at every one of
 * 30,000 chunks would lose two digits. It is all that decoding needs to remember.
 *
 *     EXCLUSIVE 1   segment g of part becomes the state of everything before it (causal)
 *     EXCLUSIVE 0   the merged state goes to result_lse [B·Hw,S], result_value [B·Hw,S,DV]
 *
 * Shapes: part_lse [B·Hw,G,S], part_value [B·Hw,G,S,DV].
 * Work: one work-item a splat, walking the segments; grid (S rounded up to WG, 1, B·Hw). No barrier. */
#include "shared/tensor.clh"
#include "shared/state.clh"

#ifndef EXCLUSIVE
#define EXCLUSIVE 1
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
scan_segments(uint segments, uint splats, uint begin, global float *part_lse, global float *part_value,
              global float *carry, global float *result_lse, global float *result_value) {
    uint s = get_global_id(0);
    if (s >= splats)
        return;
    INDEX head = get_global_id(2), row = head * splats + s;
    carry += row * (DV + 2);

    state past;
    state_clear(&past);
    if (!begin) {
        past.top = carry[0];
        past.mass = carry[1];
        for (uint d = 0; d < DV; ++d)
            past.sum[d] = carry[2 + d];
    }
    for (uint g = 0; g < segments; ++g) {
        INDEX at = (head * segments + g) * splats + s;
        float lse = part_lse[at];
        global float *value = part_value + at * DV;
#if EXCLUSIVE
        float part[DV];
        for (uint d = 0; d < DV; ++d)
            part[d] = value[d];
        float scale = inverse_mass(&past);
        part_lse[at] = log_mass(&past);
        for (uint d = 0; d < DV; ++d)
            value[d] = past.sum[d] * scale;
#else
        global float *part = value;
#endif
        if (lse == -INFINITY)
            continue;
        float weight = state_admit(&past, lse);
        for (uint d = 0; d < DV; ++d)
            past.sum[d] = MAD(weight, part[d], past.sum[d]);
    }

    carry[0] = past.top;
    carry[1] = past.mass;
    for (uint d = 0; d < DV; ++d)
        carry[2 + d] = past.sum[d];
#if !EXCLUSIVE
    float scale = inverse_mass(&past);
    result_lse[row] = log_mass(&past);
    for (uint d = 0; d < DV; ++d)
        result_value[row * DV + d] = past.sum[d] * scale;
#endif
}
