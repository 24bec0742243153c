/* Write, backward, in register tiles (wide.clh), for CPUs: not causal. Mathematics and shapes as in write_backward.cl.
 *
 * Needs a multiple of 16 splats. Work: one work-item for TILE keys; grid (⌈M / TILE⌉, Hk, B), work-groups of one.
 * Splats lie along the lanes. */
#ifndef V_TYPE
#define V_TYPE F32
#define BIAS_TYPE F32
#define DV_TYPE F32
#define DBIAS_TYPE F32
#define DBIAS 1
#endif
#ifndef BIAS
#define BIAS 1
#endif
#ifndef TILE
#define TILE 64
#endif
#ifndef DV
#define DV 64
#endif
#ifndef D
#define D DV
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/wide_backward.clh"
#include "shared/backward.clh"
#include "splat/write_backward_wide.clh"

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void write_backward_wide(
    uint keys, uint segments, uint group, uint levels, uint per_level, uint splats, uint per_head, uint first_head,
    global const float *log_weight, global const uint *level_begin, global const float *level_log_weight,
    global const float *state_lse, global const float *state_value, global const float *key_log_density,
    global const ELEMENT(V_TYPE) *v, INDEX4 v_at, global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at, global float *weights
#if BIAS
    ,
    global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#endif
#if DBIAS
    ,
    global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
) {
    uint first = get_global_id(0) * TILE, kv = get_global_id(1), b = get_global_id(2), kv_heads = get_global_size(1);
    uint rows = min((uint)TILE, keys - first), heads = kv_heads * group, writers = per_head ? heads : kv_heads;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2 + first * v_at.s3;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2 + first * dv_at.s3;
    key_tile t;
    state_block y;
    tile_open(&t, v, v_at.s3, rows);
#if BIAS
    for (uint r = 0; r < rows; ++r)
        t.bias[r] = LOAD(BIAS_TYPE, bias + bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2, (first + r) * bias_at.s3);
#endif
    for (uint h = kv * group; h < (kv + 1) * group; ++h) {
        INDEX head = (INDEX)b * heads + h, writer = (INDEX)b * writers + (per_head ? h : kv);
        INDEX own = (writer * keys + first) * splats;
        for (uint begin = 0; begin < splats; begin += BLOCK) {
            state_load(&y, state_lse + head * splats, state_value + head * splats * (DV + 1), begin, splats);
            tile_meet(&t, &y, key_log_density + own + begin, weights + own + begin, splats, rows,
                      per_head || h == kv * group);
        }
    }
    for (uint r = 0; r < rows; ++r) {
        for (uint d = 0; d < DV; d += 16)
            STORE16(DV_TYPE, dv, r * dv_at.s3 + d, VECTOR(t.dv + r * DV + d));
#if DBIAS
        STORE(DBIAS_TYPE, dbias + dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2, (first + r) * dbias_at.s3,
              sum16(VECTOR(t.dbias + 16 * r)));
#endif
    }
}
