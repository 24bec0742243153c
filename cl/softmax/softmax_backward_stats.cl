/* What the rows of softmax's gradients in tiles begin with (softmax_backward.cl): lse as it is and δ_i = dout_i·out_i −
 * dlse_i, for every query.
 *
 * Shapes: out, dout [B,H,N,DV], lse, dlse [B,H,N], stats [B,H,N,2]: lse, +inf for a row without keys, and δ.
 * Work: SHARE work-items a query, so that they read consecutive numbers; grid (N · SHARE rounded up to WG, H, B). Local
 * memory: WG floats. */
#include "softmax/softmax.clh"
#include "softmax/softmax_backward.clh"
#include "shared/tensor.clh"

#ifndef SHARE /* a divisor of WG */
#define SHARE 8
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_backward_stats(uint queries, global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
                       global const ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at, global const ELEMENT(DOUT_TYPE) *dout,
                       INDEX4 dout_at, global float *stats DLSE_ARGUMENTS) {
    local float part[WG];
    uint item = get_local_id(0), i = get_global_id(0) / SHARE, h = get_global_id(1), b = get_global_id(2);
    uint row = min(i, queries - 1);
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + row * out_at.s3;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + row * dout_at.s3;
    float sum = 0.0f;
    for (uint d = item % SHARE; d < DV; d += SHARE)
        sum = MAD(LOAD(DOUT_TYPE, dout, d), LOAD(OUT_TYPE, out, d), sum);
    part[item] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item % SHARE > 0 || i >= queries)
        return;
    float delta = -DLSE_OF(b, h, i);
    for (uint n = 0; n < SHARE; ++n)
        delta += part[item + n];
    float row_lse = LOAD(LSE_TYPE, lse + lse_at.s0 + b * lse_at.s1 + h * lse_at.s2, i * lse_at.s3);
    stats += 2 * (((INDEX)b * get_global_size(1) + h) * queries + i);
    stats[0] = row_lse == -INFINITY ? INFINITY : row_lse;
    stats[1] = row_lse == -INFINITY ? 0.0f : delta;
}
