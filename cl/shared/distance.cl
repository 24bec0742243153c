/* How far rows are from reference rows: Σ (a − b)² and Σ b² of each.
 *
 * Shapes: a, b [B,H,N,C], out [B,H,N,2] dense.
 * Work: one work-item a row; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#include "shared/tensor.clh"

#ifndef A_TYPE
#define A_TYPE F32
#define B_TYPE F32
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void row_distance(uint rows, uint columns,
                                                                         global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                         global const ELEMENT(B_TYPE) *b, INDEX4 b_at,
                                                                         global float *out) {
    uint i = get_global_id(0), h = get_global_id(1), batch = get_global_id(2);
    if (i >= rows)
        return;
    a += a_at.s0 + batch * a_at.s1 + h * a_at.s2 + i * a_at.s3;
    b += b_at.s0 + batch * b_at.s1 + h * b_at.s2 + i * b_at.s3;
    float difference = 0.0f, size = 0.0f;
    for (uint c = 0; c < columns; ++c) {
        float y = LOAD(B_TYPE, b, c), d = LOAD(A_TYPE, a, c) - y;
        difference = MAD(d, d, difference);
        size = MAD(y, y, size);
    }
    out += (((INDEX)batch * get_global_size(1) + h) * rows + i) * 2;
    out[0] = difference;
    out[1] = size;
}
