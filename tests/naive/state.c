#include <math.h>

#include "naive.h"

void naive_state_clear(naive_state *state) {
    state->lse = -INFINITY;
    for (size_t d = 0; d < state->width; d++)
        state->value[d] = 0;
}

void naive_state_of(naive_state *state, size_t count, const double *l, const double *v) {
    naive_state_clear(state);
    double largest = -INFINITY, mass = 0;
    for (size_t j = 0; j < count; j++)
        largest = fmax(largest, l[j]);
    if (largest == -INFINITY)
        return;
    for (size_t j = 0; j < count; j++) {
        if (l[j] == -INFINITY)
            continue; /* its value may be anything */
        double weight = exp(l[j] - largest);
        mass += weight;
        for (size_t d = 0; d < state->width; d++)
            state->value[d] += weight * v[j * state->width + d];
    }
    for (size_t d = 0; d < state->width; d++)
        state->value[d] /= mass;
    state->lse = largest + log(mass);
}

void naive_mix(naive_state *mixed, size_t levels, const double *log_weight, const double *lse,
               const double *value) {
    naive_state_clear(mixed);
    double heaviest = -INFINITY, largest = -INFINITY, shares = 0, mass = 0;
    for (size_t l = 0; l < levels; l++) {
        if (lse[l] == -INFINITY)
            continue;
        heaviest = fmax(heaviest, log_weight[l]);
        largest = fmax(largest, log_weight[l] + lse[l]);
    }
    if (largest == -INFINITY)
        return;
    for (size_t l = 0; l < levels; l++) {
        if (lse[l] == -INFINITY)
            continue;
        double share = exp(log_weight[l] - heaviest);
        shares += share;
        mass += exp(log_weight[l] + lse[l] - largest);
        for (size_t d = 0; d < mixed->width; d++)
            mixed->value[d] += share * value[l * mixed->width + d];
    }
    for (size_t d = 0; d < mixed->width; d++)
        mixed->value[d] /= shares;
    mixed->lse = largest + log(mass);
}
