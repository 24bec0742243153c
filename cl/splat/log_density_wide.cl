/* Log-densities in register tiles (wide.clh), for CPUs; isotropic and diagonal splats. Mathematics and shapes as in
 * log_density.cl; distances are measured from a common centre as in write_wide.cl.
 *
 * Work: one work-item for TILE rows; grid (⌈rows / TILE⌉, 1, B·H), work-groups of one. Splats lie along the lanes. */
#include "shared/tensor.clh"
#define DV 16 /* wide.clh wants one; no values here */
#include "shared/wide.clh"
#include "splat/wide_splat.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
log_density_wide(uint rows, uint heads, uint x_group, uint splats, uint per_head, uint first_head,
                 global const float *mean, global const float *inverse, global const float *centre,
                 global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global float *log_density) {
    uint first = get_global_id(0) * TILE, here = min((uint)TILE, rows - first);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads, set = per_head ? first_head + h : 0;
    mean += (INDEX)set * splats * D;
    inverse += (INDEX)set * splats * FACTORS;
    centre += set * D;
    x += x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2 + first * x_at.s3;
    log_density += ((INDEX)get_global_id(2) * rows + first) * splats;

    centred_rows c;
    splat_block block;
    scores s;
    CENTRE_ROWS(&c, X_TYPE, x, x_at.s3, here, centre)
    for (uint begin = 0; begin < splats; begin += BLOCK) {
        block_load(&block, mean, inverse, centre, begin, splats);
        for (uint r = 0; r < TILE && r < here; r += RT) {
            block_log_density(&s, &block, &c, r);
            for (uint a = 0; a < RT && r + a < here; ++a)
                for (uint j = 0; j < BLOCK && begin + j < splats; j += 16) {
                    global float *to = log_density + (INDEX)(r + a) * splats + begin + j;
                    if (begin + j + 16 <= splats)
                        vstore16(s.s[a][j / 16], 0, to);
                    else
                        for (uint e = 0; begin + j + e < splats; ++e)
                            to[e] = ((private float *)&s.s[a][j / 16])[e];
                }
        }
    }
}
