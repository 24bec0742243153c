/* Normalisation of rows, after what is to be added to them was added.
 *
 *     x += add + bias (ADD, BIAS)        out = (offset + weight) · (x − m) / √(mean (x − m)² + ε) + shift
 *
 * with m = mean x if CENTRED, else 0; without a weight (WEIGHT 0) out = x. REPLACE: x becomes that, too.
 *
 * Shapes: x, add, out [B,H,N,C], out perhaps where x is; bias, weight, shift [C].
 * Work: one work-item a row; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#include "shared/tensor.clh"
#include "layer/norm.clh"

/* Σ (x − m)² of a row that is stored. */
static inline float row_squares(global const ELEMENT(X_TYPE) *x, uint columns, float mean) {
    floatW lanes = (floatW)(0.0f);
    uint d = 0;
    for (; d + W <= columns; d += W) {
        floatW value = LOADW(X_TYPE, x, d) - mean;
        lanes = MAD(value, value, lanes);
    }
    float total = SUM(lanes);
    for (; d < columns; ++d) {
        float value = LOAD(X_TYPE, x, d) - mean;
        total = MAD(value, value, total);
    }
    return total;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
norm_rows(uint rows, uint columns, float epsilon, float offset, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
          global const ELEMENT(ADD_TYPE) *add, INDEX4 add_at, global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
          global const ELEMENT(WEIGHT_TYPE) *weight, INDEX4 weight_at, global const ELEMENT(SHIFT_TYPE) *shift,
          INDEX4 shift_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= rows)
        return;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    add += add_at.s0 + b * add_at.s1 + h * add_at.s2 + i * add_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    bias += bias_at.s0;
    weight += weight_at.s0;
    shift += shift_at.s0;

    floatW lanes = (floatW)(0.0f);
    uint d = 0;
    for (; d + W <= columns; d += W) {
        floatW value = norm_vector(x, add, bias, d);
        lanes = CENTRED ? lanes + value : MAD(value, value, lanes);
    }
    float total = SUM(lanes);
    for (; d < columns; ++d) {
        float value = norm_number(x, add, bias, d);
        total = CENTRED ? total + value : MAD(value, value, total);
    }
    norm_scale s = {0.0f, 0.0f, offset};
    if (CENTRED) {
        s.mean = total / columns;
        total = row_squares(x, columns, s.mean);
    }
    s.inverse = 1.0f / sqrt(total / columns + epsilon);
    for (d = 0; d + W <= columns; d += W) {
        floatW value = normed_vector(LOADW(X_TYPE, x, d), weight, shift, d, s);
        if (REPLACE)
            STOREW(X_TYPE, x, d, value);
        STOREW(OUT_TYPE, out, d, value);
    }
    for (; d < columns; ++d)
        norm_store(x, weight, shift, out, d, s);
}
