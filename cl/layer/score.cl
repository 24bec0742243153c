/* How well tokens were predicted: for every row of logits
 *
 *     log_likelihood_i = l_i,target − ln Σ_v e^(l_iv)      greedy_i = whether target is the first v of the largest l_iv
 *
 * Shapes: logits [N,V], targets, log_likelihood, greedy [N].
 * Work: one work-item a row; grid (N rounded up to WG). No local memory, no barrier. */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
score_rows(uint rows, uint count, uint first_row, global const ELEMENT(X_TYPE) *logits, INDEX4 at,
           global const int *targets, global float *log_likelihood, global int *greedy) {
    uint i = get_global_id(0), v = 0;
    if (i >= rows)
        return;
    logits += at.s0 + i * at.s3;

    floatW most = (floatW)(-INFINITY);
    for (; v + W <= count; v += W)
        most = fmax(most, LOADW(X_TYPE, logits, v));
    float top = LARGEST(most);
    for (; v < count; ++v)
        top = fmax(top, LOAD(X_TYPE, logits, v));

    float base = top == -INFINITY ? 0.0f : top;
    floatW lanes = (floatW)(0.0f);
    for (v = 0; v + W <= count; v += W)
        lanes += exp(LOADW(X_TYPE, logits, v) - base);
    float mass = SUM(lanes);
    for (; v < count; ++v)
        mass += exp(LOAD(X_TYPE, logits, v) - base);

    uint target = targets[first_row + i];
    float own = LOAD(X_TYPE, logits, target);
    int first = own == top;
    for (v = 0; first && v < target; ++v)
        first = LOAD(X_TYPE, logits, v) != top;
    log_likelihood[first_row + i] = own - base - log(mass);
    greedy[first_row + i] = first;
}
