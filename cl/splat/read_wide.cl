/* Read in register tiles (wide.clh), for CPUs: not causal, joint mixing, isotropic and diagonal splats. Mathematics and
 * shapes as in read.cl; distances are measured from a common centre (wide_splat.clh).
 *
 * Work: one work-item for TILE queries; grid (⌈N / TILE⌉, H, B), work-groups of one. Splats lie along the lanes. */
#ifndef Q_TYPE
#define Q_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "splat/log_prior.clh"
#include "splat/wide_splat.clh"

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
read_wide(uint queries, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head,
          uint first_head, global const float *mean, global const float *inverse, global const float *centre,
          global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
          global const float *state_lse, global const float *state_value, global const ELEMENT(Q_TYPE) *q, INDEX4 q_at,
          global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    uint first = get_global_id(0) * TILE, h = get_global_id(1), b = get_global_id(2), heads = get_global_size(1);
    uint rows = min((uint)TILE, queries - first), set = per_head ? first_head + h : 0;
    INDEX writer = (INDEX)b * (per_head ? heads : heads / group) + (per_head ? h : h / group);
    mean += (INDEX)set * splats * D;
    inverse += (INDEX)set * splats * FACTORS;
    centre += set * D;
    log_weight += (INDEX)set * splats;
    state_lse += writer * splats;
    state_value += writer * splats * DV;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + first * q_at.s3;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + first * out_at.s3;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + first * lse_at.s3;

    tile t;
    centred_rows x;
    splat_block block;
    scores s;
    float weights[RT * BLOCK] ALIGNED, shrink[RT];
    tile_clear(&t);
    CENTRE_ROWS(&x, Q_TYPE, q, q_at.s3, rows, centre)
    for (uint begin = 0; begin < splats; begin += BLOCK) {
        block_load(&block, mean, inverse, centre, begin, splats);
        for (uint j = 0; j < BLOCK; ++j)
            block.offset[j] +=
                log_prior(begin + j, splats, levels, log_weight, level_begin, level_log_weight, state_lse);
        for (uint r = 0; r < TILE && r < rows; r += RT) {
            block_log_density(&s, &block, &x, r);
            tile_weigh(&t, r, &s, weights, shrink);
            TILE_ADD(&t, r, weights, shrink, F32, state_value + (INDEX)begin * DV, DV, min((uint)BLOCK, splats - begin))
        }
    }

    for (uint r = 0; r < rows; ++r) {
        float scale = tile_scale(&t, r);
        for (uint d = 0; d < DV; d += 16)
            STORE16(OUT_TYPE, out, r * out_at.s3 + d, VECTOR(t.sum + r * DV + d) * scale);
        STORE(LSE_TYPE, lse, r * lse_at.s3, tile_lse(&t, r));
    }
}
