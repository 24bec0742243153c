#include <math.h>
#include <stdlib.h>

#include "naive.h"

double naive_write(const clsplat_splats_parameters *splats, size_t head, size_t s, const naive_keys *keys,
                   double *value) {
    double *l = calloc(keys->count + 1, sizeof *l);
    for (size_t j = 0; j < keys->count; j++) {
        double bias = keys->key_bias ? keys->key_bias[j] : 0;
        l[j] = bias == -INFINITY ? bias : bias + naive_log_density(splats, head, s, keys->k + j * keys->dim);
    }
    naive_state state = {.value = value, .width = keys->value_dim};
    naive_state_of(&state, keys->count, l, keys->v);
    free(l);
    return state.lse;
}

/* The states of the splats of level `level` (all for −1), seen by a query. */
static double read_level(const clsplat_splats_parameters *splats, size_t head, int level, const double *q,
                         const double *lse, const double *value, naive_state *state) {
    size_t count = splats->shape.count;
    double *l = calloc(count, sizeof *l);
    for (size_t s = 0; s < count; s++) {
        l[s] =
            lse[s] + (double)splats->log_amplitude[head * count + s] + naive_log_density(splats, head, s, q);
        if (level < 0)
            l[s] += (double)splats->level_log_weight[splats->level[s]];
        else if (splats->level[s] != level)
            l[s] = -INFINITY;
    }
    naive_state_of(state, count, l, value);
    free(l);
    return state->lse;
}

double naive_read(const clsplat_splats_parameters *splats, size_t head, clsplat_mixing mixing,
                  const double *q, const double *lse, const double *value, size_t value_dim, double *out) {
    naive_state state = {.value = out, .width = value_dim};
    if (mixing == CLSPLAT_JOINT)
        return read_level(splats, head, -1, q, lse, value, &state);
    size_t levels = splats->shape.levels;
    double *level_lse = calloc(2 * levels, sizeof *level_lse), *log_weight = level_lse + levels;
    double *level_value = calloc(levels * value_dim, sizeof *level_value);
    for (size_t l = 0; l < levels; l++) {
        naive_state one = {.value = level_value + l * value_dim, .width = value_dim};
        level_lse[l] = read_level(splats, head, (int)l, q, lse, value, &one);
        log_weight[l] = (double)splats->level_log_weight[l];
    }
    naive_mix(&state, levels, log_weight, level_lse, level_value);
    free(level_lse);
    free(level_value);
    return state.lse;
}
