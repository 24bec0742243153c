/* Matrix products for projections: C = A Bᵀ, both factors with their summed dimension along the rows.
 *
 *     c_ij = Σ_d a_id b_jd
 *
 * Shapes: a [B,H,M,K], b [B,H,N,K], c [B,H,M,N]; a batch or head stride of 0 repeats a matrix.
 * Work: one work-item an element of c; grid (N rounded up to WG, M, B·H). No local memory, no barrier.
 *
 * The sum has two levels, FOLD products at a time, so that its error does not grow with K. */
#include "shared/tensor.clh"
#include "shared/blocks.clh"

#ifndef FOLD /* products per inner sum, each lane on its own */
#define FOLD 1024
#endif
#ifndef A_TYPE
#define A_TYPE F32
#define B_TYPE F32
#define C_TYPE F32
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gemm(uint rows, uint columns, uint depth, uint heads,
                                                                 global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                 global const ELEMENT(B_TYPE) *b, INDEX4 b_at,
                                                                 global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    uint column = get_global_id(0), row = get_global_id(1);
    uint batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    if (column >= columns)
        return;
    a += a_at.s0 + batch * a_at.s1 + head * a_at.s2 + row * a_at.s3;
    b = PLACE(B_TYPE, b, b_at.s0 + batch * b_at.s1 + head * b_at.s2 + column * b_at.s3);
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2 + row * c_at.s3;

    floatW whole = (floatW)(0.0f);
    uint d = 0;
    while (d + W <= depth) {
        floatW part = (floatW)(0.0f);
        for (uint end = min(d + FOLD, depth); d + W <= end; d += W)
            part = MAD(LOADW(A_TYPE, a, d), LOADW(B_TYPE, b, d), part);
        whole += part;
    }
    float total = SUM(whole);
    for (; d < depth; ++d)
        total = MAD(LOAD(A_TYPE, a, d), LOAD(B_TYPE, b, d), total);
    STORE(C_TYPE, c, column, total);
}
