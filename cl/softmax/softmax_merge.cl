/* The second pass of softmax attention whose keys were cut into ranges (softmax_split.cl, softmax_few.cl): merges the
 * states of a row's ranges, and with `accumulate` what out and lse held before, in the order of the ranges. part_lse is
 * used up.
 *
 * Work: a work-group for a row; grid (WG, N·H/Hk, Hk·B). */
#include "softmax/softmax.clh"
#include "shared/tensor.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_merge(uint queries, uint kv_heads, uint group, uint splits, uint accumulate, global float *part_lse,
              global const float *part_value, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
              global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    uint item = get_local_id(0), row = get_global_id(1), h = get_global_id(2) % kv_heads,
         b = get_global_id(2) / kv_heads;
    uint head = h * group + row / queries, i = row % queries;
    INDEX at = (((INDEX)b * kv_heads + h) * group * queries + row) * splits;
    part_lse += at;
    part_value += at * DV;
    out += out_at.s0 + b * out_at.s1 + head * out_at.s2 + i * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + head * lse_at.s2 + i * lse_at.s3;

    float before = accumulate ? LOAD(LSE_TYPE, lse, 0) : -INFINITY, top = before;
    for (uint p = 0; p < splits; ++p)
        top = fmax(top, part_lse[p]);
    float base = top == -INFINITY ? 0.0f : top, kept = exp(before - base), mass = kept;
    barrier(CLK_GLOBAL_MEM_FENCE); /* all have read what is written now */
    for (uint p = item; p < splits; p += WG)
        part_lse[p] = exp(part_lse[p] - base);
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (uint p = 0; p < splits; ++p)
        mass += part_lse[p];
    for (uint d = item; d < DV; d += WG) {
        float sum = before == -INFINITY ? 0.0f : kept * LOAD(OUT_TYPE, out, d);
        for (uint p = 0; p < splits; ++p)
            sum = MAD(part_lse[p], part_value[p * DV + d], sum);
        STORE(OUT_TYPE, out, d, mass == 0.0f ? 0.0f : sum / mass);
    }
    if (item == 0)
        STORE(LSE_TYPE, lse, 0, mass == 0.0f ? -INFINITY : top + log(mass));
}
