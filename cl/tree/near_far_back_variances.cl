/* Gradients of near-far attention: what the variances of chunks receive of rows, in tiles of local memory
 * (local_rows.clh): C_d receives Σ_i spreads_back_i q'_d², by what near_far_back_rows_local.cl has left of each row.
 *
 * Work: a group ROWS chunks, which takes SOURCES queries at a time, grid (⌈chunks / ROWS⌉ · WG, Hk, B). */
#include "shared/local_rows.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"
#include "tree/near_far_back.clh"

/* Squares of the queries from `begin` on, and what they leave of the chunks from `first` on; 0 of those that they do
 * not see. q, spreads_back: of a head. */
#define QUERIES_LOAD(sources, weights, q, pitch, spreads_back, begin, first)                                           \
    for (uint e_ = get_local_id(0); e_ < SOURCES * (PITCH(D) - 4); e_ += WG) {                                         \
        uint d_ = e_ % (PITCH(D) - 4), j_ = e_ / (PITCH(D) - 4), i_ = min((begin) + j_, queries - 1);                  \
        float x_ = d_ < D ? scale * LOAD(Q_TYPE, q, i_ * (pitch) + d_) : 0.0f;                                         \
        (sources)[j_ * PITCH(D) + d_] = x_ * x_;                                                                       \
    }                                                                                                                  \
    for (uint e_ = get_local_id(0); e_ < SOURCES * ROWS; e_ += WG) {                                                   \
        uint i_ = (begin) + e_ % SOURCES, g_ = (first) + e_ / SOURCES;                                                 \
        bool sees_ = i_ < queries && g_ < past_of(visible_keys(i_, diagonal, keys));                                   \
        (weights)[e_ % SOURCES * PITCH_WEIGHTS + WEIGHT_OF(e_ / SOURCES)] =                                            \
            sees_ ? (spreads_back)[(INDEX)g_ * queries + i_] : 0.0f;                                                   \
    }

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_variances(INPUTS, global const float *spreads_back, SUMS) {
    local float sources[SOURCES * PITCH(D)] ALIGNED, weights[SOURCES * PITCH_WEIGHTS] ALIGNED;
    uint x = get_local_id(0) % TX, y = get_local_id(0) / TX, first = get_group_id(0) * ROWS;
    INDEX kv = get_global_id(1), b = get_global_id(2), head = b * get_global_size(1) + kv;
    float4 sum[RT][VECTORS(D)];
    SUMS_CLEAR(sum, D)
    for (uint h = kv * group; h < (kv + 1) * group; ++h) {
        global const ELEMENT(Q_TYPE) *from = q + q_at.s0 + b * q_at.s1 + h * q_at.s2;
        global const float *left = spreads_back + (b * (get_global_size(1) * group) + h) * queries * chunks;
        for (uint begin = first_row((first + 1) * CHUNK, diagonal); begin < queries; begin += SOURCES) {
            barrier(CLK_LOCAL_MEM_FENCE);
            QUERIES_LOAD(sources, weights, from, q_at.s3, left, begin, first)
            barrier(CLK_LOCAL_MEM_FENCE);
            SUMS_ADD(sum, x, y, weights, sources, D)
        }
    }
    sums s;
    sums_begin(&s, forest_of(levels, chunks, room, first_block), head, slot_sums, node_sums, variance_sums);
    UNROLL
    for (uint a = 0; a < RT; ++a)
        UNROLL
    for (uint c = 0; c < VECTORS(D); ++c) {
        float four[4];
        uint g = first + y + TY * a, d = 4 * (x + TX * c);
        vstore4(sum[a][c], 0, four);
        UNROLL
        for (uint i = 0; i < 4; ++i)
            if (g < (keys + CHUNK - 1) / CHUNK && d + i < D)
                s.variances[lane_of(0, g, D) + (d + i) * 16] = four[i];
    }
}
