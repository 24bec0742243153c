/* Rows mixed with those of the token before, each column by a weight of its own; a text's first token has none before
 * it.
 *
 *     token_shift            out_i = x_i + mix ⊙ (x_(i−1) − x_i)
 *     token_shift_backward   dx_i = (1 − mix) ⊙ dout_i + mix ⊙ dout_(i+1), where there is a token before i, and one
 *                            behind it; parts_p = Σ dout_i ⊙ (x_(i−1) − x_i) over the p-th run of rows
 *
 * A text is `length` tokens, and x's first row is token `first` of its own: rows in front of x are read if that is not
 * 0.
 * Shapes: x, out, dout, dx [1,1,N,C], mix [C], parts [P,C].
 * Work: an item a number; backward one a column and run. No local memory, no barrier. */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef OUT_TYPE
#define OUT_TYPE F32
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void token_shift(uint columns, uint first, uint length,
                                                                        global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                                                                        global const float *mix,
                                                                        global ELEMENT(OUT_TYPE) *out, INDEX4 out_at) {
    uint c = get_global_id(0), i = get_global_id(1);
    if (c >= columns)
        return;
    x += x_at.s0 + i * x_at.s3 + c;
    float y = LOAD(X_TYPE, x, 0);
    if ((first + i) % length != 0)
        y = MAD(mix[c], LOAD(X_TYPE, x - x_at.s3, 0) - y, y);
    STORE(OUT_TYPE, out, out_at.s0 + i * out_at.s3 + c, y);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_shift_backward(uint rows, uint columns, uint run, uint length, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                     global const ELEMENT(X_TYPE) *dout, INDEX4 dout_at, global const float *mix,
                     global ELEMENT(X_TYPE) *dx, INDEX4 dx_at, global float *parts) {
    uint c = get_global_id(0), p = get_global_id(1), begin = p * run, end = min(begin + run, rows);
    if (c >= columns)
        return;
    x += x_at.s0 + c;
    dout += dout_at.s0 + c;
    dx += dx_at.s0 + c;
    float m = mix[c], total = 0.0f, d = begin < end ? LOAD(X_TYPE, dout, begin * dout_at.s3) : 0.0f;
    float before = begin > 0 && begin < end ? LOAD(X_TYPE, x, (begin - 1) * x_at.s3) : 0.0f;
    for (uint i = begin; i < end; ++i) {
        float own = LOAD(X_TYPE, x, i * x_at.s3), received = d;
        if (i % length != 0) {
            received -= m * d;
            total = MAD(d, before - own, total);
        }
        before = own;
        if (i + 1 < rows) {
            d = LOAD(X_TYPE, dout, (i + 1) * dout_at.s3);
            if ((i + 1) % length != 0)
                received = MAD(m, d, received);
        }
        STORE(X_TYPE, dx, i * dx_at.s3, received);
    }
    parts[p * columns + c] = total;
}
