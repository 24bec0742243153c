#include "adapt/population.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double *population_splat(const population *p, size_t head, size_t column) {
    return p->splats + (head * p->capacity + column) * p->form.numbers;
}

splat_life *population_life(const population *p, size_t head, size_t column) {
    return p->life + head * p->capacity + column;
}

uint64_t population_name(population *p, size_t head, size_t column, unsigned cycle) {
    *population_life(p, head, column) = (splat_life){.number = ++p->born[head], .born = cycle};
    return p->born[head];
}

static void copy_in(const splat_form *form, const clsplat_splats_parameters *from, size_t at, double *splat) {
    const float *covariance = form->covariance == CLSPLAT_FULL ? from->precision_chol : from->log_var;
    for (size_t d = 0; d < form->dim; ++d)
        splat[d] = (double)from->mean[at * form->dim + d];
    for (size_t i = 0; i < form->size; ++i)
        splat_covariance(form, splat)[i] = (double)covariance[at * form->size + i];
    *splat_log_amplitude(form, splat) = (double)from->log_amplitude[at];
    *splat_log_temperature(form, splat) = (double)from->log_temperature[at];
}

static void copy_out(const splat_form *form, double *splat, const clsplat_splats_parameters *to, size_t at) {
    float *covariance = form->covariance == CLSPLAT_FULL ? to->precision_chol : to->log_var;
    for (size_t d = 0; d < form->dim; ++d)
        to->mean[at * form->dim + d] = (float)splat[d];
    for (size_t i = 0; i < form->size; ++i)
        covariance[at * form->size + i] = (float)splat_covariance(form, splat)[i];
    to->log_amplitude[at] = (float)*splat_log_amplitude(form, splat);
    to->log_temperature[at] = (float)*splat_log_temperature(form, splat);
}

clsplat_status population_open(clsplat_splats *set, size_t capacity, population *p) {
    clsplat_splats_parameters from = clsplat_splats_get(set);
    size_t heads = from.shape.heads, levels = from.shape.levels;
    capacity = capacity > from.shape.count ? capacity : from.shape.count;
    *p = (population){.form = splat_form_of(&from.shape),
                      .heads = heads,
                      .levels = levels,
                      .count = from.shape.count,
                      .capacity = capacity};
    p->level = calloc(capacity, sizeof *p->level);
    p->splats = calloc(heads * capacity * p->form.numbers, sizeof *p->splats);
    p->life = calloc(heads * capacity, sizeof *p->life);
    p->born = calloc(heads, sizeof *p->born);
    p->level_log_weight = calloc(levels, sizeof *p->level_log_weight);
    p->of_level = calloc(levels, sizeof *p->of_level);
    if (!p->level || !p->splats || !p->life || !p->born || !p->level_log_weight || !p->of_level)
        return CLSPLAT_MEMORY; /* the caller has the words */
    for (size_t l = 0; l < levels; ++l)
        p->level_log_weight[l] = (double)from.level_log_weight[l];
    for (size_t c = 0; c < p->count; ++c) {
        p->level[c] = from.level[c];
        ++p->of_level[from.level[c]];
        for (size_t h = 0; h < heads; ++h) {
            copy_in(&p->form, &from, h * p->count + c, population_splat(p, h, c));
            population_name(p, h, c, 0);
        }
    }
    return CLSPLAT_OK;
}

void population_close(population *p) {
    free(p->level);
    free(p->splats);
    free(p->life);
    free(p->born);
    free(p->level_log_weight);
    free(p->of_level);
    *p = (population){0};
}

size_t population_append(population *p, size_t level) {
    p->level[p->count] = (int32_t)level;
    ++p->of_level[level];
    return p->count++;
}

clsplat_status population_set(const population *p, clsplat *lib, clsplat_splats *like, clsplat_splats **set) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_shape shape = {p->form.covariance, p->heads, p->count, p->form.dim, p->levels};
    *set = NULL;
    TRY(clsplat_splats_create(lib, shape, set));
    clsplat_splats_parameters to = clsplat_splats_get(*set), from = clsplat_splats_get(like);
    memcpy(to.level, p->level, p->count * sizeof *to.level);
    for (size_t l = 0; l < p->levels; ++l) {
        to.level_log_weight[l] = (float)p->level_log_weight[l];
        TRY(clsplat_splats_set_level_name(*set, l, from.level_names[l]));
    }
    for (size_t h = 0; h < p->heads; ++h)
        for (size_t c = 0; c < p->count; ++c)
            copy_out(&p->form, population_splat(p, h, c), &to, h * p->count + c);
    TRY(clsplat_splats_changed(*set));
    return CLSPLAT_OK;
fail:
    clsplat_splats_destroy(set);
    return status;
}

clsplat_status population_loose(const population *p, clsplat *lib, double *splats, size_t count,
                                clsplat_splats **set) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_shape shape = {p->form.covariance, p->heads, count, p->form.dim, 1};
    *set = NULL;
    TRY(clsplat_splats_create(lib, shape, set));
    clsplat_splats_parameters to = clsplat_splats_get(*set);
    for (size_t i = 0; i < p->heads * count; ++i)
        copy_out(&p->form, splats + i * p->form.numbers, &to, i);
    TRY(clsplat_splats_changed(*set));
    return CLSPLAT_OK;
fail:
    clsplat_splats_destroy(set);
    return status;
}
