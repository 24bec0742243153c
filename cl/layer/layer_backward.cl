/* Gradients of what a transformer's layers need beside products, attention, norms and activations.
 *
 *     embed_backward       dtable[ids_i] += scale · dout_i
 *     cross_entropy_rows   logits become scale (softmax − the target's 1)
 *     turn_back_rows       dx of a row that rope turned: turned back, by the same factor
 *     transpose            out = xᵀ
 *     column_sums          out += Σ_i x_i
 *
 * Shapes: op/layer/layer_backward.h.
 * Work: rows: one work-item a row; columns: one work-item a column over all rows, in their order, so that nothing is
 * added to by two. No local memory, no barrier. Sums over many are kept in two levels, FOLD at a time (see
 * softmax.cl). */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#endif
#ifndef DX_TYPE
#define DX_TYPE F32
#endif
#ifndef FOLD
#define FOLD 256
#endif
#ifndef SIDE
#include "shared/constants.h"
#define SIDE OP_TRANSPOSE_SIDE
#endif

/* A work-item a column: tokens come in their order, however often one comes. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void embed_backward(uint rows, uint columns, uint first,
                                                                           float scale, global const int *ids,
                                                                           global const ELEMENT(DOUT_TYPE) *dout,
                                                                           INDEX4 dout_at, global float *dtable) {
    uint d = get_global_id(0);
    for (uint i = 0; d < columns && i < rows; ++i)
        dtable[(INDEX)ids[first + i] * columns + d] += scale * LOAD(DOUT_TYPE, dout + dout_at.s0, i * dout_at.s3 + d);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
cross_entropy_rows(uint rows, uint count, uint first, float scale, global ELEMENT(X_TYPE) *logits, INDEX4 at,
                   global const int *targets, global float *log_likelihood) {
    uint i = get_global_id(0);
    if (i >= rows)
        return;
    logits += at.s0 + i * at.s3;
    int target = targets[first + i];
    float top = -INFINITY, mass = 0.0f;
    for (uint v = 0; v < count; ++v)
        top = fmax(top, LOAD(X_TYPE, logits, v));
    for (uint begin = 0; begin < count; begin += FOLD) {
        float part = 0.0f;
        for (uint v = begin, end = min(begin + FOLD, count); v < end; ++v)
            part += exp(LOAD(X_TYPE, logits, v) - top);
        mass += part;
    }
    log_likelihood[first + i] = target < 0 ? 0.0f : LOAD(X_TYPE, logits, target) - top - log(mass);
    for (uint v = 0; v < count; ++v) {
        float p = target < 0 ? 0.0f : exp(LOAD(X_TYPE, logits, v) - top) / mass - (v == (uint)target ? 1.0f : 0.0f);
        STORE(X_TYPE, logits, v, scale * p);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
turn_back_rows(uint rows, uint half_dim, uint heads, global const float *turn, global const ELEMENT(DOUT_TYPE) *dout,
               INDEX4 dout_at, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= rows)
        return;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + h * dx_at.s2 + i * dx_at.s3;
    turn += (INDEX)i * 2 * half_dim;
    for (uint d = 0; d < half_dim; ++d) {
        float c = turn[d], s = turn[half_dim + d];
        float lower = LOAD(DOUT_TYPE, dout, d), upper = LOAD(DOUT_TYPE, dout, half_dim + d);
        STORE(DX_TYPE, dx, d, MAD(c, lower, s * upper));
        STORE(DX_TYPE, dx, half_dim + d, MAD(c, upper, -s * lower));
    }
}

/* A work-item has SIDE × SIDE numbers: whole cache lines of both. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void transpose(uint rows, uint columns, uint heads,
                                                                      global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                                                                      global ELEMENT(DX_TYPE) *out, INDEX4 out_at) {
    uint i = SIDE * get_global_id(0), d = SIDE * get_global_id(1), h = get_global_id(2) % heads;
    uint b = get_global_id(2) / heads, right = min(i + SIDE, rows), below = min(d + SIDE, columns);
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2;
    for (; d < below; ++d)
        for (uint j = i; j < right; ++j)
            STORE(DX_TYPE, out, d * out_at.s3 + j, LOAD(X_TYPE, x, j * x_at.s3 + d));
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void column_sums(uint rows, uint columns, uint heads, uint batch,
                                                                        global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                                                                        global float *sums) {
    uint d = get_global_id(0);
    if (d >= columns)
        return;
    float total = 0.0f;
    for (uint bh = 0; bh < batch * heads; ++bh) {
        global const ELEMENT(X_TYPE) *from = x + x_at.s0 + (bh / heads) * x_at.s1 + (bh % heads) * x_at.s2;
        for (uint begin = 0; begin < rows; begin += FOLD) {
            float part = 0.0f;
            for (uint i = begin, end = min(begin + FOLD, rows); i < end; ++i)
                part += LOAD(X_TYPE, from, i * x_at.s3 + d);
            total += part;
        }
    }
    sums[d] += total;
}
