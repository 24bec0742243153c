/* How well tokens were predicted, a work-group to a row: for GPUs. Mathematics and shapes as in score.cl.
 *
 * Work: grid (N·WG); the items of a group take every WG-th logit. Local memory: 3·WG numbers. */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
score_group(uint count, uint first_row, global const ELEMENT(X_TYPE) *logits, INDEX4 at, global const int *targets,
            global float *log_likelihood, global int *greedy) {
    local float top[WG], mass[WG];
    local uint place[WG];
    uint item = get_local_id(0), i = get_group_id(0);
    logits += at.s0 + i * at.s3;

    float most = -INFINITY;
    uint first = 0;
    for (uint v = item; v < count; v += WG) {
        float x = LOAD(X_TYPE, logits, v);
        if (x > most) {
            most = x;
            first = v;
        }
    }
    top[item] = most;
    place[item] = first;
    for (uint reach = WG / 2; reach > 0; reach /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < reach &&
            (top[item + reach] > top[item] || (top[item + reach] == top[item] && place[item + reach] < place[item]))) {
            top[item] = top[item + reach];
            place[item] = place[item + reach];
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float base = top[0] == -INFINITY ? 0.0f : top[0], total = 0.0f;
    for (uint v = item; v < count; v += WG)
        total += exp(LOAD(X_TYPE, logits, v) - base);
    mass[item] = total;
    for (uint reach = WG / 2; reach > 0; reach /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < reach)
            mass[item] += mass[item + reach];
    }
    if (item == 0) {
        uint target = targets[first_row + i];
        float own = LOAD(X_TYPE, logits, target);
        log_likelihood[first_row + i] = own - base - log(mass[0]);
        greedy[first_row + i] = own == top[0] && place[0] == target;
    }
}
