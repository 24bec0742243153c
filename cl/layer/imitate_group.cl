/* How far rows are from those of a model that is imitated, a work-group to a row: for GPUs. Mathematics and shapes as
 * in imitate.cl.
 *
 * Work: grid (N·WG); the items of a group take every WG-th number. Local memory: WG numbers. */
#include "shared/tensor.clh"
#include "shared/group.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef GOAL_TYPE
#define GOAL_TYPE F32
#endif
#define UNITS __attribute__((reqd_work_group_size(WG, 1, 1)))

kernel UNITS void relative_error_group(uint count, uint first, float scale, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
                                       global const ELEMENT(GOAL_TYPE) *goal, INDEX4 goal_at, global float *error) {
    local float part[WG];
    uint item = get_local_id(0), i = get_group_id(0);
    x += x_at.s0 + i * x_at.s3;
    goal += goal_at.s0 + i * goal_at.s3;
    float off = 0.0f, all = 0.0f;
    for (uint d = item; d < count; d += WG) {
        float t = LOAD(GOAL_TYPE, goal, d), e = LOAD(X_TYPE, x, d) - t;
        off = MAD(e, e, off);
        all = MAD(t, t, all);
    }
    off = group_sum(part, off);
    all = group_sum(part, all);
    if (item == 0)
        error[first + i] = all > 0.0f ? off / all : 0.0f;
    float factor = all > 0.0f ? scale * 2.0f / all : 0.0f;
    for (uint d = item; d < count; d += WG)
        STORE(X_TYPE, x, d, factor * (LOAD(X_TYPE, x, d) - LOAD(GOAL_TYPE, goal, d)));
}

kernel UNITS void divergence_group(uint count, uint first, float scale, global ELEMENT(X_TYPE) *x, INDEX4 x_at,
                                   global const ELEMENT(GOAL_TYPE) *goal, INDEX4 goal_at, global float *error) {
    local float part[WG];
    uint item = get_local_id(0), i = get_group_id(0);
    x += x_at.s0 + i * x_at.s3;
    goal += goal_at.s0 + i * goal_at.s3;
    float top = -INFINITY, goal_top = -INFINITY, mass = 0.0f, goal_mass = 0.0f, sum = 0.0f;
    for (uint v = item; v < count; v += WG) {
        top = fmax(top, LOAD(X_TYPE, x, v));
        goal_top = fmax(goal_top, LOAD(GOAL_TYPE, goal, v));
    }
    top = group_largest(part, top);
    goal_top = group_largest(part, goal_top);
    for (uint v = item; v < count; v += WG) {
        mass += exp(LOAD(X_TYPE, x, v) - top);
        goal_mass += exp(LOAD(GOAL_TYPE, goal, v) - goal_top);
    }
    mass = log(group_sum(part, mass));
    goal_mass = log(group_sum(part, goal_mass));
    for (uint v = item; v < count; v += WG) {
        float l = LOAD(X_TYPE, x, v) - top - mass, g = LOAD(GOAL_TYPE, goal, v) - goal_top - goal_mass, p = exp(g);
        sum = p > 0.0f ? MAD(p, g - l, sum) : sum;
        STORE(X_TYPE, x, v, scale * (exp(l) - p));
    }
    sum = group_sum(part, sum);
    if (item == 0)
        error[first + i] = sum;
}
