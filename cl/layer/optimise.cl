/* One step of an optimiser, number by number.
 *
 *     square_sums   partial_p = Σ g² over the p-th of `parts` runs of numbers
 *     clip_factor   norm = √Σ partials, factor = min(1, limit / (norm + 1e-6)): result = [norm, factor]
 *     adamw         g ← factor g,  w ← (1 − rate decay) w,  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,
 *                   w ← w − rate / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
 *
 * Shapes: w, g, m, v [count]; partials [parts], result [2].
 * Work: square_sums one work-item a run; clip_factor one work-item; adamw one a number. No local memory, no barrier.
 * Sums are kept in two levels, FOLD at a time (see softmax.cl), and in one order: the same bits every time. */
#include "shared/tensor.clh"

#ifndef FOLD
#define FOLD 256
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void square_sums(INDEX count, uint parts, INDEX run, uint first,
                                                                        global const float *g, global float *partials) {
    uint p = get_global_id(0);
    if (p >= parts)
        return;
    INDEX from = p * run, end = min((INDEX)(from + run), count);
    float total = 0.0f;
    for (INDEX begin = from; begin < end; begin += FOLD) {
        float part = 0.0f;
        for (INDEX i = begin; i < min((INDEX)(begin + FOLD), end); ++i)
            part = MAD(g[i], g[i], part);
        total += part;
    }
    partials[first + p] = total;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
clip_factor(uint parts, float limit, global const float *partials, global float *result) {
    if (get_global_id(0) != 0)
        return;
    float total = 0.0f;
    for (uint begin = 0; begin < parts; begin += FOLD) {
        float part = 0.0f;
        for (uint i = begin; i < min(begin + FOLD, parts); ++i)
            part += partials[i];
        total += part;
    }
    float norm = sqrt(total);
    result[0] = norm;
    result[1] = limit > 0.0f ? fmin(1.0f, limit / (norm + 1e-6f)) : 1.0f;
}

/* `rates`: rate / (1 − β₁ᵗ), rate · decay, √(1 − β₂ᵗ), ε. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void adamw(INDEX count, float beta1, float beta2, float4 rates,
                                                                  global const float *clip, global const float *g,
                                                                  global float *w, global float *m, global float *v) {
    INDEX i = get_global_id(0);
    if (i >= count)
        return;
    float gradient = clip[1] * g[i];
    float first = MAD(beta1, m[i], (1.0f - beta1) * gradient);
    float second = MAD(beta2, v[i], (1.0f - beta2) * gradient * gradient);
    m[i] = first;
    v[i] = second;
    w[i] = w[i] * (1.0f - rates.y) - rates.x * first / (sqrt(second) / rates.z + rates.w);
}
