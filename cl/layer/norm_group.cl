/* Normalisation, SHARE items of a work-group to a row: for GPUs, where one work-item alone reads memory slowly.
 * Mathematics and shapes as in norm.cl.
 *
 * Work: grid (N·SHARE, H, B), whole groups; the items of a row take every SHARE-th column. Local memory: WG floats. */
#include "shared/tensor.clh"
#include "shared/group.clh"
#include "layer/norm.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
norm_group(uint columns, float epsilon, float offset, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
           global const ELEMENT(ADD_TYPE) *add, INDEX4 add_at, global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
           global const ELEMENT(WEIGHT_TYPE) *weight, INDEX4 weight_at, global const ELEMENT(SHIFT_TYPE) *shift,
           INDEX4 shift_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    local float part[WG];
    uint item = get_local_id(0) % SHARE, i = get_global_id(0) / SHARE, h = get_global_id(1), b = get_global_id(2);
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    add += add_at.s0 + b * add_at.s1 + h * add_at.s2 + i * add_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    bias += bias_at.s0;
    weight += weight_at.s0;
    shift += shift_at.s0;

    float total = 0.0f;
    for (uint d = item; d < columns; d += SHARE) {
        float value = norm_number(x, add, bias, d);
        total = CENTRED ? total + value : MAD(value, value, total);
    }
    norm_scale s = {0.0f, 0.0f, offset};
    if (WEIGHT)
        total = group_sum(part, total);
    if (WEIGHT && CENTRED) {
        s.mean = total / columns;
        total = 0.0f;
        for (uint d = item; d < columns; d += SHARE) {
            float value = LOAD(X_TYPE, x, d) - s.mean;
            total = MAD(value, value, total);
        }
        total = group_sum(part, total);
    }
    s.inverse = 1.0f / sqrt(total / columns + epsilon);
    for (uint d = item; d < columns; d += SHARE)
        norm_store(x, weight, shift, out, d, s);
}
