/* Merges the states that the parts of a row left (near_far_split.cl), in the order of the parts.
 *
 * Shapes: part_numbers [B,H,N,PARTS,PART_NUMBERS], part_values [B,H,N,PARTS,DV], results as in near_far.cl.
 * Work: one work-item a row; grid (N, H, B), work-groups of one. */
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"

#ifndef PARTS
#define PARTS 2
#endif
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void near_far_merge(global const float *part_numbers,
                                                                          global const float *part_values, RESULTS) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    INDEX part = (((INDEX)b * get_global_size(1) + h) * get_global_size(0) + i) * PARTS;
    float top = -INFINITY, mass = 0.0f, unit = 0.0f, size = 0.0f, squares = 0.0f, sum = 0.0f, keys = 0.0f,
          values[DV] ALIGNED;
    part_numbers += part * PART_NUMBERS;
    part_values += part * DV;
    for (uint p = 0; p < PARTS; ++p)
        top = fmax(top, part_numbers[p * PART_NUMBERS]);
    float base = top == -INFINITY ? 0.0f : top;
    for (uint d = 0; d < DV; ++d)
        values[d] = 0.0f;
    for (uint p = 0; p < PARTS; ++p) {
        float weight = exp(part_numbers[p * PART_NUMBERS] - base);
        mass += weight;
        squares += part_numbers[p * PART_NUMBERS + 1];
        sum += part_numbers[p * PART_NUMBERS + 2];
        keys += part_numbers[p * PART_NUMBERS + 4];
        for (uint d = 0; d < DV; d += 16)
            VECTOR(values + d) = MAD((float16)(weight), vload16(0, part_values + p * DV + d), VECTOR(values + d));
    }
    float inverse = mass == 0.0f ? 0.0f : 1.0f / mass, total = mass == 0.0f ? -INFINITY : top + log(mass);
    for (uint d = 0; d < DV; ++d)
        unit = fmax(unit, fabs(values[d] * inverse));
    for (uint d = 0; d < DV; ++d) {
        float x = unit > 0.0f ? values[d] * inverse / unit : 0.0f;
        size = MAD(x, x, size);
        STORE(OUT_TYPE, out, out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 + d, values[d] * inverse);
    }
    STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3, total);
#if COUNTED
    exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + i * exact_at.s3] = (int)keys;
#endif
#if ESTIMATED
    float estimate = expected_error(squares, sum, exp(part_numbers[3] - total), part_numbers[5] * unit * sqrt(size));
    STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + i * error_at.s3, estimate);
#endif
}
