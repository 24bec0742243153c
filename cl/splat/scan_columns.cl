/* Scan for GPUs: a work-group a splat, its items side by side along the columns of the value. Mathematics, shapes and
 * order as in scan.cl, and the same bits up to the device's exp and log.
 *
 * Work: grid (S · WG, 1, B·Hw). Every item keeps the splat's top and mass for itself; a barrier separates everybody's
 * reading of them from the first item's writing. */
#include "shared/tensor.clh"

#ifndef DV
#define DV 64
#endif
#ifndef EXCLUSIVE
#define EXCLUSIVE 1
#endif
#define COLUMNS ((DV + WG - 1) / WG) /* per item */
#define UNROLL _Pragma("unroll")
#define FOR_COLUMNS(c, d)                                                                                              \
    UNROLL                                                                                                             \
    for (uint c = 0, d = get_local_id(0); c < COLUMNS; ++c, d += WG)                                                   \
        if (d < DV)

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
scan_columns(uint segments, uint splats, uint begin, global float *part_lse, global float *part_value,
             global float *carry, global float *result_lse, global float *result_value) {
    uint s = get_group_id(0);
    bool leads = get_local_id(0) == 0;
    INDEX head = get_global_id(2), row = head * splats + s;
    carry += row * (DV + 2);
    float top = begin ? -INFINITY : carry[0], mass = begin ? 0.0f : carry[1], sum[COLUMNS];
    FOR_COLUMNS(c, d) sum[c] = begin ? 0.0f : carry[2 + d];
    barrier(CLK_GLOBAL_MEM_FENCE);

    for (uint g = 0; g < segments; ++g) {
        INDEX at = (head * segments + g) * splats + s;
        float lse = part_lse[at], part[COLUMNS];
        FOR_COLUMNS(c, d) part[c] = part_value[at * DV + d];
#if EXCLUSIVE
        barrier(CLK_GLOBAL_MEM_FENCE);
        if (leads)
            part_lse[at] = mass == 0.0f ? -INFINITY : top + log(mass);
        float scale = mass == 0.0f ? 0.0f : 1.0f / mass;
        FOR_COLUMNS(c, d) part_value[at * DV + d] = sum[c] * scale;
#endif
        if (lse == -INFINITY)
            continue;
        float above = fmax(top, lse), shrink = exp(top - above), weight = exp(lse - above);
        top = above;
        mass = mass * shrink + weight;
        FOR_COLUMNS(c, d) sum[c] = MAD(weight, part[c], sum[c] * shrink);
    }

    if (leads) {
        carry[0] = top;
        carry[1] = mass;
#if !EXCLUSIVE
        result_lse[row] = mass == 0.0f ? -INFINITY : top + log(mass);
#endif
    }
    FOR_COLUMNS(c, d) {
        carry[2 + d] = sum[c];
#if !EXCLUSIVE
        result_value[row * DV + d] = mass == 0.0f ? 0.0f : sum[c] / mass;
#endif
    }
}
