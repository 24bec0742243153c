/* Log-densities: φ_s(x) for every row and splat, [B,H,rows,S]; the pairs within a causal chunk need them.
 *
 * Shapes: x [B,H/x_group,rows,D], mean [Hs,S,D], inverse [Hs,S,…].
 * Work: one work-item a splat and row; grid (S rounded up to WG, rows, B·H). No barrier. */
#include "shared/tensor.clh"
#include "splat/splat.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
log_density_rows(uint rows, uint heads, uint x_group, uint splats, uint per_head, uint first_head,
                 global const float *mean, global const float *inverse, global const float *centre,
                 global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global float *log_density) {
    uint s = get_global_id(0), i = get_global_id(1);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads;
    if (s >= splats)
        return;
    INDEX splat = (INDEX)(per_head ? first_head + h : 0) * splats + s;
    x += x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2 + i * x_at.s3;
    log_density[((INDEX)get_global_id(2) * rows + i) * splats + s] =
        log_density_of(x, mean + splat * D, inverse + splat * INVERSE_SIZE);
}
