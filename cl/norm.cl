/* Root mean square normalisation of rows, after what is to be added to them was added.
 *
 *     x += add + bias (ADD, BIAS)        out = weight · x / √(mean x² + ε)
 *
 * Shapes: x, add, out [B,H,N,C], bias, weight [C].
 * Work: one work-item a row; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#include "tensor.clh"
#include "norm.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
norm_rows(uint rows, uint columns, float epsilon, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
          global const ELEMENT(ADD_TYPE) *add, INDEX4 add_at, global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
          global const ELEMENT(WEIGHT_TYPE) *weight, INDEX4 weight_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= rows)
        return;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    add += add_at.s0 + b * add_at.s1 + h * add_at.s2 + i * add_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    bias += bias_at.s0;
    weight += weight_at.s0;

    floatW lanes = (floatW)(0.0f);
    uint d = 0;
    for (; d + W <= columns; d += W) {
        floatW value = norm_vector(x, add, bias, d);
        lanes = MAD(value, value, lanes);
    }
    float total = SUM(lanes);
    for (; d < columns; ++d) {
        float value = norm_number(x, add, bias, d);
        total = MAD(value, value, total);
    }
    float inverse = 1.0f / sqrt(total / columns + epsilon);
    for (d = 0; d + W <= columns; d += W)
        STOREW(OUT_TYPE, out, d, LOADW(X_TYPE, x, d) * inverse * LOADW(WEIGHT_TYPE, weight, d));
    for (; d < columns; ++d)
        STORE(OUT_TYPE, out, d, LOAD(X_TYPE, x, d) * inverse * LOAD(WEIGHT_TYPE, weight, d));
}
