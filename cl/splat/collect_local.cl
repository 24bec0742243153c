/* Collect in tiles of local memory (local_rows.clh), for GPUs of any vendor. Mathematics and shapes as in collect.cl.
 *
 * Rows are splats, sources queries, LANES items a splat: they look for the largest of its log-weights in the segment
 * first, and then make the weights of a tile, so that none has to be scaled later.
 *
 * Work: a group for ROWS splats of a segment; grid (⌈S / ROWS⌉ · WG, G, B·H). */
#ifndef DOUT_TYPE
#define DOUT_TYPE F32
#endif
#ifndef DV
#define DV 64
#endif
#include "shared/local_rows.clh"
#include "shared/backward.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
collect_local(uint queries, uint heads, uint segment, int diagonal, uint levels, uint per_level, uint splats,
              uint per_head, uint first_head, global const float *log_weight, global const uint *level_begin,
              global const float *level_log_weight, global const float *query_log_density,
              global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats, INDEX4 stats_at,
              global float *state_lse, global float *state_value) {
    local float values[SOURCES * PITCH(DV)] ALIGNED, weights[SOURCES * PITCH_WEIGHTS] ALIGNED, meeting[WG];
    uint item = get_local_id(0), x = item % TX, y = item / TX, p = item % ROWS, lane = item / ROWS;
    uint first = get_group_id(0) * ROWS, g = get_global_id(1), segments = get_global_size(1);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads, s = first + ROW_OF(p), own = min(s, splats - 1);
    uint level = level_of(own, levels, level_begin);
    float base = log_weight[(INDEX)(per_head ? first_head + h : 0) * splats + own];
    base += per_level ? 0.0f : level_log_weight[level];
    query_log_density += (INDEX)get_global_id(2) * queries * splats + own;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
    stats += stats_at.s0 + b * stats_at.s1 + h * stats_at.s2 + (per_level ? level * STATS : 0);
    uint begin = (uint)clamp((int)(g * segment) - diagonal, 0, (int)queries);
    uint end = (uint)clamp((int)((g + 1) * segment) - diagonal, 0, (int)queries);

#define LOG_WEIGHT(i) (query_log_density[(INDEX)(i)*splats] - stats[(i)*stats_at.s3 + STATS_OFFSET])
    float top = -INFINITY, mass = 0.0f, delta = 0.0f;
    for (uint i = begin + lane; i < end; i += LANES)
        top = fmax(top, LOG_WEIGHT(i));
    top = lanes_largest(top, meeting);

    float4 sum[RT][VECTORS(DV)];
    SUMS_CLEAR(sum, DV)
    for (; begin < end; begin += SOURCES) {
        barrier(CLK_LOCAL_MEM_FENCE);
        ROWS_LOAD(DOUT_TYPE, values, dout, dout_at.s3, DV, begin, SOURCES, end)
        for (uint j = lane; j < SOURCES; j += LANES) {
            uint i = min(begin + j, end - 1);
            float e = begin + j < end ? LOG_WEIGHT(i) : -INFINITY;
            float weight = e == -INFINITY ? 0.0f : exp2(LOG2_E * (e - top));
            mass += weight;
            delta = MAD(weight, stats[i * stats_at.s3 + STATS_DELTA], delta);
            weights[j * PITCH_WEIGHTS + p] = weight;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        SUMS_ADD(sum, x, y, weights, values, DV)
    }

    INDEX at = ((INDEX)get_global_id(2) * segments + segments - 1 - g) * splats;
    mass = lanes_total(mass, meeting);
    delta = lanes_total(delta, meeting);
    float scale = mass == 0.0f ? 0.0f : 1.0f / mass;
    if (lane == 0 && s < splats) {
        state_lse[at + s] = mass == 0.0f ? -INFINITY : base + top + log(mass);
        state_value[(at + s) * (DV + 1) + DV] = delta * scale;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    meeting[item] = scale;
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a)
        UNROLL
    for (uint c = 0; c < VECTORS(DV); ++c)
        sum[a][c] *= meeting[RT * y + a];
    SUMS_STORE(F32, state_value + at * (DV + 1), (INDEX)(DV + 1), sum, 1.0f, x, y, first, splats, DV)
}
