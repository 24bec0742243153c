/* Splat moments of isotropic and diagonal splats (splat_moments.cl has formula and shapes), for GPUs: a work-group for
 * SPLATS splats, its items along the columns and LANES rows at a time, so that rows are read side by side and a row
 * serves all of the group's splats. Lanes come together in local memory in the end, in their order.
 *
 * Work: WG = COLUMNS · LANES items; grid (⌈S / SPLATS⌉ · WG, 1, sets) with one set of all heads or a set a head. */
#include "shared/tensor.clh"
#include "splat/splat.clh"

#ifndef COLUMNS /* items along the columns; WG is a multiple of it */
#define COLUMNS 64
#endif
#ifndef FOLD /* rows of a lane that are added up by themselves */
#define FOLD 128
#endif
#define SPLATS 4
#define LANES (WG / COLUMNS)
#define EACH ((D + COLUMNS - 1) / COLUMNS) /* columns of an item */

typedef struct moments_of {
    float mass[SPLATS], sum[SPLATS][EACH], square[SPLATS][EACH];
} moments_of;

static inline void moments_clear(private moments_of *m) {
    for (uint k = 0; k < SPLATS; ++k) {
        m->mass[k] = 0.0f;
        for (uint e = 0; e < EACH; ++e)
            m->sum[k][e] = m->square[k][e] = 0.0f;
    }
}

static inline void moments_add(private moments_of *m, private const moments_of *more) {
    for (uint k = 0; k < SPLATS; ++k) {
        m->mass[k] += more->mass[k];
        for (uint e = 0; e < EACH; ++e) {
            m->sum[k][e] += more->sum[k][e];
            m->square[k][e] += more->square[k][e];
        }
    }
}

/* A head's rows lane, lane + LANES, …; `weight` from the group's first splat on, of which `live` exist. */
static inline void rows_add(private moments_of *m, global const ELEMENT(X_TYPE) *token, INDEX pitch,
                            global const float *weight, INDEX splats, uint live, private float (*mean)[EACH], uint rows,
                            uint lane, uint column) {
    moments_of part;
    for (uint begin = lane; begin < rows; begin += FOLD * LANES) {
        moments_clear(&part);
        for (uint i = begin, end = min(begin + FOLD * LANES, rows); i < end; i += LANES) {
            float x[EACH];
            for (uint e = 0; e < EACH; ++e)
                x[e] = column + e * COLUMNS < D ? LOAD(X_TYPE, token, i * pitch + column + e * COLUMNS) : 0.0f;
            for (uint k = 0; k < SPLATS; ++k) {
                float w = k < live ? weight[i * splats + k] : 0.0f;
                part.mass[k] += w;
                for (uint e = 0; e < EACH; ++e) {
                    float y = w == 0.0f ? 0.0f : x[e] - mean[k][e]; /* a token without weight may hold anything */
                    part.sum[k][e] = MAD(w, y, part.sum[k][e]);
                    part.square[k][e] = MAD(w * y, y, part.square[k][e]);
                }
            }
        }
        moments_add(m, &part);
    }
}

/* x of all lanes of a column; 0 for items of other lanes than the first. */
static inline float lanes_add(float x, local float *meeting, uint item) {
    float total = 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    meeting[item] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint lane = 0; item < COLUMNS && lane < LANES; ++lane)
        total += meeting[item + lane * COLUMNS];
    return total;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_moments_group(uint rows, uint batch, uint heads, uint x_group, uint amplitude, uint splats, uint per_head,
                    uint first_head, global const float *mean, global const float *inverse, global const float *centre,
                    global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const float *weights, global float *moments) {
    local float meeting[WG];
    uint item = get_local_id(0), column = item % COLUMNS, lane = item / COLUMNS, set = get_global_id(2);
    uint first = get_group_id(0) * SPLATS, live = min((uint)SPLATS, splats - first);
    INDEX splat = (INDEX)(per_head ? first_head + set : 0) * splats + first;
    float means[SPLATS][EACH];
    for (uint k = 0; k < SPLATS; ++k)
        for (uint e = 0; e < EACH; ++e)
            means[k][e] = k < live && column + e * COLUMNS < D ? mean[(splat + k) * D + column + e * COLUMNS] : 0.0f;
    moments_of all;
    moments_clear(&all);
    for (uint bh = 0; bh < batch * (per_head ? 1 : heads); ++bh) {
        uint b = per_head ? bh : bh / heads, h = per_head ? set : bh % heads;
        rows_add(&all, x + x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2, x_at.s3,
                 weights + ((INDEX)b * heads + h) * rows * splats + first, splats, live, means, rows, lane, column);
    }
    for (uint k = 0; k < SPLATS; ++k) {
        global float *to = moments + (splat + min(k, live - 1)) * (1 + D + INVERSE_SIZE);
        float mass = lanes_add(all.mass[k], meeting, item);
#if COVARIANCE == COVARIANCE_ISOTROPIC
        float squares = 0.0f;
#endif
        if (item == 0 && amplitude && k < live)
            to[0] += mass;
        for (uint e = 0; e < EACH; ++e) {
            uint d = column + e * COLUMNS;
            float sum = lanes_add(all.sum[k][e], meeting, item), square = lanes_add(all.square[k][e], meeting, item);
            if (lane == 0 && k < live && d < D) {
                to[1 + d] += sum;
#if COVARIANCE == COVARIANCE_ISOTROPIC
                squares += square;
#else
                to[1 + D + d] += square;
#endif
            }
        }
#if COVARIANCE == COVARIANCE_ISOTROPIC
        barrier(CLK_LOCAL_MEM_FENCE);
        meeting[item] = squares;
        barrier(CLK_LOCAL_MEM_FENCE);
        float total = 0.0f;
        for (uint c = 0; c < COLUMNS; ++c)
            total += meeting[c];
        if (item == 0 && k < live)
            to[1 + D] += total;
#endif
    }
}
