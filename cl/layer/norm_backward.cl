/* Norm, backward (norm.cl has what it is of).
 *
 *     norm_backward_rows      x̂ = (x − m) r, g = (offset + weight) dout:  dx = r (g − [mean g] − x̂ mean(g x̂))
 *     norm_backward_columns   dweight += Σ_i dout_i x̂_i      dshift += Σ_i dout_i
 *
 * with m = mean x and [mean g] if CENTRED, else 0. ADD: dx is added to. AGAIN: dx of another type as well. OUT: what
 * the norm made, x̂ (offset + weight) + shift.
 *
 * Shapes: x, dout, dx, again, out [B,H,N,C], weight, shift [C], dweight, dshift [C], stats [B,H,N,2].
 * Work: rows, one work-item a row, grid (N rounded up to WG, H, B); columns, one a column over all rows in their order,
 * so that nothing is added to by two. No local memory, no barrier. Sums over rows are kept in two levels, FOLD rows at
 * a time (see softmax.cl). */
#include "shared/tensor.clh"

#include "layer/norm_backward.clh"

#ifndef FOLD
#define FOLD 256
#endif

static inline float2 row_stats(global const ELEMENT(X_TYPE) *x, uint columns, float epsilon) {
    float mean = 0.0f, square = 0.0f;
    for (uint d = 0; CENTRED && d < columns; ++d)
        mean += LOAD(X_TYPE, x, d);
    mean /= columns;
    for (uint d = 0; d < columns; ++d) {
        float y = LOAD(X_TYPE, x, d) - mean;
        square = MAD(y, y, square);
    }
    return (float2)(mean, 1.0f / sqrt(square / columns + epsilon));
}

/* stats [B,H,N,2]: m and r. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
norm_backward_rows(uint rows, uint columns, float epsilon, float offset, NORM_BACKWARD_TENSORS, global float *stats) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= rows)
        return;
    NORM_BACKWARD_GO(b, h, i)
    float2 s = row_stats(x, columns, epsilon);
    float gain = 0.0f, along = 0.0f;
    for (uint d = 0; d < columns; ++d) {
        float g = LOAD(DOUT_TYPE, dout, d) * (LOAD(WEIGHT_TYPE, weight, d) + offset);
        gain += CENTRED ? g : 0.0f;
        along = MAD(g, (LOAD(X_TYPE, x, d) - s.x) * s.y, along);
    }
    for (uint d = 0; d < columns; ++d) {
        float y = (LOAD(X_TYPE, x, d) - s.x) * s.y, w = LOAD(WEIGHT_TYPE, weight, d) + offset;
        NORM_BACKWARD_NUMBER(d, y, w, s.y, gain / columns, along / columns)
    }
    INDEX at = 2 * (((INDEX)b * get_global_size(1) + h) * rows + i);
    stats[at] = s.x;
    stats[at + 1] = s.y;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
norm_backward_columns(uint rows, uint columns, uint heads, uint batch, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                      global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats,
                      global float *dweight, uint has_shift, global float *dshift) {
    uint d = get_global_id(0);
    if (d >= columns)
        return;
    float weight = 0.0f, shift = 0.0f;
    for (uint bh = 0; bh < batch * heads; ++bh) {
        global const ELEMENT(X_TYPE) *from = x + x_at.s0 + (bh / heads) * x_at.s1 + (bh % heads) * x_at.s2;
        global const ELEMENT(DOUT_TYPE) *grad =
            dout + dout_at.s0 + (bh / heads) * dout_at.s1 + (bh % heads) * dout_at.s2;
        for (uint begin = 0; begin < rows; begin += FOLD) {
            float2 part = (float2)(0.0f);
            for (uint i = begin, end = min(begin + FOLD, rows); i < end; ++i) {
                global const float *s = stats + 2 * ((INDEX)bh * rows + i);
                float g = LOAD(DOUT_TYPE, grad, i * dout_at.s3 + d);
                part += (float2)(g * (LOAD(X_TYPE, from, i * x_at.s3 + d) - s[0]) * s[1], g);
            }
            weight += part.x;
            shift += part.y;
        }
    }
    dweight[d] += weight;
    if (has_shift)
        dshift[d] += shift;
}
