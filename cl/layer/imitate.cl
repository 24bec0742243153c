/* How far rows are from those of a model that is imitated, and the gradient of that, in place of the rows.
 *
 *     relative_error_rows  error_i = |x_i − t_i|² / |t_i|²          x becomes scale · 2 (x_i − t_i) / |t_i|²
 *     divergence_rows      error_i = Σ_v p_v (ln p_v − ln q_v)      x becomes scale · (q − p)
 *
 * with q and p the softmax of x and of t. A row t of zeros does not count.
 * Shapes: op/layer/imitate.h.
 * Work: one work-item a row. No local memory, no barrier. Sums are kept in two levels, FOLD at a time (see
 * softmax.cl). */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef GOAL_TYPE
#define GOAL_TYPE F32
#endif
#ifndef FOLD
#define FOLD 256
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
relative_error_rows(uint rows, uint count, uint first, float scale, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
                    global const ELEMENT(GOAL_TYPE) *goal, INDEX4 goal_at, global float *error) {
    uint i = get_global_id(0);
    if (i >= rows)
        return;
    x += x_at.s0 + i * x_at.s3;
    goal += goal_at.s0 + i * goal_at.s3;
    float off = 0.0f, all = 0.0f;
    for (uint begin = 0; begin < count; begin += FOLD) {
        float off_part = 0.0f, part = 0.0f;
        for (uint d = begin, end = min(begin + FOLD, count); d < end; ++d) {
            float t = LOAD(GOAL_TYPE, goal, d), e = LOAD(X_TYPE, x, d) - t;
            off_part = MAD(e, e, off_part);
            part = MAD(t, t, part);
        }
        off += off_part;
        all += part;
    }
    error[first + i] = all > 0.0f ? off / all : 0.0f;
    float factor = all > 0.0f ? scale * 2.0f / all : 0.0f;
    for (uint d = 0; d < count; ++d)
        STORE(X_TYPE, x, d, factor * (LOAD(X_TYPE, x, d) - LOAD(GOAL_TYPE, goal, d)));
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
divergence_rows(uint rows, uint count, uint first, float scale, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
                global const ELEMENT(GOAL_TYPE) *goal, INDEX4 goal_at, global float *error) {
    uint i = get_global_id(0);
    if (i >= rows)
        return;
    x += x_at.s0 + i * x_at.s3;
    goal += goal_at.s0 + i * goal_at.s3;
    float top = -INFINITY, goal_top = -INFINITY, mass = 0.0f, goal_mass = 0.0f, sum = 0.0f;
    for (uint v = 0; v < count; ++v) {
        top = fmax(top, LOAD(X_TYPE, x, v));
        goal_top = fmax(goal_top, LOAD(GOAL_TYPE, goal, v));
    }
    for (uint begin = 0; begin < count; begin += FOLD) {
        float part = 0.0f, goal_part = 0.0f;
        for (uint v = begin, end = min(begin + FOLD, count); v < end; ++v) {
            part += exp(LOAD(X_TYPE, x, v) - top);
            goal_part += exp(LOAD(GOAL_TYPE, goal, v) - goal_top);
        }
        mass += part;
        goal_mass += goal_part;
    }
    mass = log(mass);
    goal_mass = log(goal_mass);
    for (uint begin = 0; begin < count; begin += FOLD) {
        float part = 0.0f;
        for (uint v = begin, end = min(begin + FOLD, count); v < end; ++v) {
            float l = LOAD(X_TYPE, x, v) - top - mass, g = LOAD(GOAL_TYPE, goal, v) - goal_top - goal_mass, p = exp(g);
            part = p > 0.0f ? MAD(p, g - l, part) : part;
            STORE(X_TYPE, x, v, scale * (exp(l) - p));
        }
        sum += part;
    }
    error[first + i] = sum;
}
