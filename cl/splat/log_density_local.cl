/* Log-densities in tiles of local memory (local_tile.clh), for GPUs of any vendor; isotropic and diagonal splats.
 * Mathematics and shapes as in log_density.cl; distances are measured from a common centre (local_splat.clh).
 *
 * Work: a group for ROWS rows and KEYS splats; grid (⌈rows / ROWS⌉ · WG, ⌈S / KEYS⌉, B·H). */
#ifndef X_TYPE
#define X_TYPE F32
#endif
#define SPLAT_ROWS 0
#define UNIT 1.0f
#define DV 4 /* no values here */
#include "shared/local_tile.clh"
#include "splat/local_splat.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
log_density_local(uint rows, uint heads, uint x_group, uint splats, uint per_head, uint first_head,
                  global const float *mean, global const float *inverse, global const float *centre,
                  global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global float *log_density) {
    local float row_tile[ROW_TILE] ALIGNED, shared[SHARED] ALIGNED, parts[PRODUCT ? TY * KEYS : 4] ALIGNED;
    uint item = get_local_id(0), tx = item % TX, ty = item / TX, first = get_group_id(0) * ROWS,
         begin = get_group_id(1) * KEYS;
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads, set = per_head ? first_head + h : 0;
    mean += (INDEX)set * splats * D;
    inverse += (INDEX)set * splats * FACTORS;
    centre += set * D;
    x += x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2;
    log_density += (INDEX)get_global_id(2) * rows * splats;

#define TOKEN min(first + j, rows - 1)
#define SPLAT min(begin + j, splats - 1)
#if PRODUCT
    float half_square[RT], factor[4];
    ROWS_HALF_SQUARE(half_square, tx, ty, shared, LOAD(X_TYPE, x, TOKEN * x_at.s3 + d) - centre[d])
    UNROLL
    for (uint c = 0; c < 4; ++c) {
        uint j = 4 * tx + c;
        factor[c] = inverse[SPLAT] * inverse[SPLAT];
    }
#endif
    scores s;
    scores_clear(&s);
    for (uint step = 0; step < STEPS; ++step) {
        barrier(CLK_LOCAL_MEM_FENCE);
        TOKENS_LOAD(X_TYPE, row_tile, ROWS, step, x, x_at.s3, TOKEN)
        SPLATS_LOAD(shared, KEYS, step, SPLAT)
        barrier(CLK_LOCAL_MEM_FENCE);
        scores_multiply(&s, tx, ty, row_tile, shared);
    }
    scores_gather(&s, tx, ty, parts);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint row = first + ty * RT + a;
        float score[4];
#if !PRODUCT
        vstore4(-0.5f * s.s[a], 0, score);
#else
        vstore4(vload4(0, factor) * (s.s[a] - s.half_square - half_square[a]), 0, score);
#endif
        UNROLL
        for (uint c = 0; c < 4; ++c)
            if (row < rows && begin + 4 * tx + c < splats)
                log_density[(INDEX)row * splats + begin + 4 * tx + c] = score[c];
    }
}
