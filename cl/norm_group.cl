/* Root mean square normalisation, a work-group to a row: for GPUs, where one work-item alone reads memory slowly.
 * Mathematics and shapes as in norm.cl.
 *
 * Work: grid (N·WG, H, B); the items of a group take every WG-th column. Local memory: WG floats. */
#include "tensor.clh"
#include "norm.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
norm_group(uint columns, float epsilon, global ELEMENT(X_TYPE) *x, INDEX4 x_at, global const ELEMENT(ADD_TYPE) *add,
           INDEX4 add_at, global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
           global const ELEMENT(WEIGHT_TYPE) *weight, INDEX4 weight_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    local float part[WG];
    uint item = get_local_id(0), i = get_group_id(0), h = get_global_id(1), b = get_global_id(2);
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    add += add_at.s0 + b * add_at.s1 + h * add_at.s2 + i * add_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    bias += bias_at.s0;
    weight += weight_at.s0;

    float total = 0.0f;
    for (uint d = item; d < columns; d += WG) {
        float value = norm_number(x, add, bias, d);
        total = MAD(value, value, total);
    }
    part[item] = total;
    for (uint reach = WG / 2; reach > 0; reach /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < reach)
            part[item] += part[item + reach];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float inverse = 1.0f / sqrt(part[0] / columns + epsilon);
    for (uint d = item; d < columns; d += WG)
        STORE(OUT_TYPE, out, d, LOAD(X_TYPE, x, d) * inverse * LOAD(WEIGHT_TYPE, weight, d));
}
