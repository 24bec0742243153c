/* The gated activation of a feed-forward layer, and token embeddings: what works on numbers one by one.
 *
 *     swiglu_rows: g = x_d + bias_d, u = x_{C+d} + bias_{C+d}      out_d = u g / (1 + e^(−g))
 *     embed_rows:  out_i = table[ids_i]
 *
 * Shapes: x [B,H,N,2·C], bias [2·C], out [B,H,N,C]; ids [N], table [V,C].
 * Work: one work-item for W columns of a row; grid (⌈C / W⌉ rounded up to WG, N, B·H). No local memory, no barrier. */
#include "tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef BIAS_TYPE
#define BIAS_TYPE F32
#endif
#ifndef OUT_TYPE
#define OUT_TYPE F32
#endif
#ifndef TABLE_TYPE
#define TABLE_TYPE F32
#endif
#ifndef BIAS /* 1: there is a bias */
#define BIAS 1
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
swiglu_rows(uint columns, uint heads, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
            global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at, global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    uint d = get_global_id(0) * W, i = get_global_id(1), h = get_global_id(2) % heads, b = get_global_id(2) / heads;
    if (d >= columns)
        return;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    bias += bias_at.s0;
    if (d + W <= columns) {
        floatW gate = LOADW(X_TYPE, x, d), up = LOADW(X_TYPE, x, columns + d);
        if (BIAS) {
            gate += LOADW(BIAS_TYPE, bias, d);
            up += LOADW(BIAS_TYPE, bias, columns + d);
        }
        STOREW(OUT_TYPE, out, d, up * gate / (1.0f + exp(-gate)));
        return;
    }
    for (; d < columns; ++d) {
        float gate = LOAD(X_TYPE, x, d), up = LOAD(X_TYPE, x, columns + d);
        if (BIAS) {
            gate += LOAD(BIAS_TYPE, bias, d);
            up += LOAD(BIAS_TYPE, bias, columns + d);
        }
        STORE(OUT_TYPE, out, d, up * gate / (1.0f + exp(-gate)));
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void embed_rows(uint columns, uint first, global const int *ids,
                                                                       global const ELEMENT(TABLE_TYPE) *table,
                                                                       INDEX4 table_at, global ELEMENT(OUT_TYPE) *out,
                                                                       INDEX4 out_at) {
    uint d = get_global_id(0) * W, i = get_global_id(1);
    if (d >= columns)
        return;
    table += table_at.s0 + (INDEX)ids[first + i] * table_at.s3;
    out += out_at.s0 + i * out_at.s3;
    if (d + W <= columns) {
        STOREW(OUT_TYPE, out, d, LOADW(TABLE_TYPE, table, d));
        return;
    }
    for (; d < columns; ++d)
        STORE(OUT_TYPE, out, d, LOAD(TABLE_TYPE, table, d));
}
