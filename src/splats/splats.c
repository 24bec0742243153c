#include "splats/splats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/sized.h"
#include "base/text.h"

size_t splats_covariance_size(const clsplat_splats_shape *shape) {
    switch (shape->covariance) {
    case CLSPLAT_ISOTROPIC:
        return 1;
    case CLSPLAT_DIAGONAL:
        return shape->dim;
    case CLSPLAT_FULL:
        return shape->dim * shape->dim;
    }
    return 0;
}

static clsplat_status check_shape(clsplat *lib, const clsplat_splats_shape *s) {
    size_t elements;
    if (s->covariance != CLSPLAT_ISOTROPIC && s->covariance != CLSPLAT_DIAGONAL &&
        s->covariance != CLSPLAT_FULL)
        return log_error(lib, CLSPLAT_INVALID, "there is no covariance %d", (int)s->covariance);
    if (s->heads == 0 || s->count == 0 || s->dim == 0 || s->levels == 0)
        return log_error(
            lib, CLSPLAT_INVALID,
            "a splat set has %zu heads, %zu splats, %zu dimensions and %zu levels; each is at least 1",
            s->heads, s->count, s->dim, s->levels);
    if (s->count > INT32_MAX || s->dim > INT32_MAX || s->levels > INT32_MAX ||
        __builtin_mul_overflow(s->heads, s->count, &elements) ||
        __builtin_mul_overflow(elements, splats_covariance_size(s), &elements) ||
        __builtin_mul_overflow(elements, s->dim * sizeof(float), &elements))
        return log_error(lib, CLSPLAT_INVALID, "%zu splats of %zu dimensions for %zu heads are too many",
                         s->count, s->dim, s->heads);
    return CLSPLAT_OK;
}

static bool allocate(clsplat_splats *set) {
    clsplat_splats_parameters *p = &set->parameters;
    size_t splats = p->shape.heads * p->shape.count, covariance = splats * splats_covariance_size(&p->shape);
    p->mean = calloc(splats * p->shape.dim, sizeof *p->mean);
    p->log_amplitude = calloc(splats, sizeof *p->log_amplitude);
    p->log_temperature = calloc(splats, sizeof *p->log_temperature);
    p->level = calloc(p->shape.count, sizeof *p->level);
    p->level_log_weight = calloc(p->shape.levels, sizeof *p->level_log_weight);
    set->level_names = calloc(p->shape.levels, sizeof *set->level_names);
    p->level_names = (const char *const *)set->level_names;
    float **factors = p->shape.covariance == CLSPLAT_FULL ? &p->precision_chol : &p->log_var;
    *factors = calloc(covariance, sizeof **factors);
    return p->mean && p->log_amplitude && p->log_temperature && p->level && p->level_log_weight &&
           set->level_names && *factors;
}

static clsplat_status name_levels(clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    char name[32];
    for (size_t l = 0; l < set->parameters.shape.levels; ++l) {
        snprintf(name, sizeof name, "level %zu", l);
        TRY(clsplat_splats_set_level_name(set, l, name));
    }
fail:
    return status;
}

clsplat_status clsplat_splats_create(clsplat *lib, clsplat_splats_shape shape, clsplat_splats **splats) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *set = NULL;
    *splats = NULL;
    TRY(check_shape(lib, &shape));
    set = calloc(1, sizeof *set);
    if (set) {
        set->lib = lib;
        set->version = 1;
        pthread_mutex_init(&set->lock, NULL);
        set->parameters.shape = shape;
    }
    if (!set || !allocate(set)) {
        status = log_error(lib, CLSPLAT_MEMORY, "no memory for %zu splats of %zu dimensions", shape.count,
                           shape.dim);
        goto fail;
    }
    TRY(name_levels(set));
    for (size_t s = 0; s < shape.heads * shape.count && shape.covariance == CLSPLAT_FULL; ++s)
        for (size_t d = 0; d < shape.dim; ++d)
            set->parameters.precision_chol[(s * shape.dim + d) * shape.dim + d] = 1.0f;
    *splats = set;
    return CLSPLAT_OK;
fail:
    clsplat_splats_destroy(&set);
    return status;
}

void clsplat_splats_destroy(clsplat_splats **splats) {
    if (!splats || !*splats)
        return;
    clsplat_splats *set = *splats;
    clsplat_splats_parameters *p = &set->parameters;
    splats_uploads_release(set);
    pthread_mutex_destroy(&set->lock);
    for (size_t l = 0; set->level_names && l < p->shape.levels; ++l)
        free(set->level_names[l]);
    free(set->level_names);
    free(p->mean);
    free(p->log_var);
    free(p->precision_chol);
    free(p->log_amplitude);
    free(p->log_temperature);
    free(p->level);
    free(p->level_log_weight);
    free(set);
    *splats = NULL;
}

void clsplat_splats_get_sized(clsplat_splats *splats, clsplat_splats_parameters *parameters) {
    sized_write(&splats->parameters, sizeof splats->parameters, parameters);
}

clsplat_status clsplat_splats_set_level_name(clsplat_splats *splats, size_t level, const char *name) {
    if (level >= splats->parameters.shape.levels || !name || !*name)
        return log_error(splats->lib, CLSPLAT_INVALID, "level %zu of %zu cannot be named '%s'", level,
                         splats->parameters.shape.levels, name ? name : "");
    char *copy = text_copy(name);
    if (!copy)
        return log_error(splats->lib, CLSPLAT_MEMORY, "no memory for the name of level %zu", level);
    free(splats->level_names[level]);
    splats->level_names[level] = copy;
    return CLSPLAT_OK;
}

/* An array of parameters: rows of `columns` numbers, of which the first row % triangle + 1 count; all of them
 * if triangle is 0. Above the diagonal of the factors anything may stand. */
typedef struct numbers {
    const char *name;
    const float *values;
    size_t rows, columns, triangle;
} numbers;

static clsplat_status check_finite(clsplat *lib, const numbers *n, clsplat_status bad, const char *where) {
    for (size_t row = 0; n->values && row < n->rows; ++row)
        for (size_t c = 0; c < (n->triangle ? row % n->triangle + 1 : n->columns); ++c)
            if (!isfinite(n->values[row * n->columns + c]))
                return log_error(lib, bad, "%s%s holds %f at element %zu; every value must be finite", where,
                                 n->name, (double)n->values[row * n->columns + c], row * n->columns + c);
    return CLSPLAT_OK;
}

clsplat_status splats_check(const clsplat_splats *splats, clsplat_status bad, const char *where) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_splats_parameters *p = &splats->parameters;
    size_t count = p->shape.heads * p->shape.count, dim = p->shape.dim;
    const numbers all[] = {
        {"mean", p->mean, count, dim, 0},
        {"log_var", p->log_var, count, splats_covariance_size(&p->shape), 0},
        {"precision_chol", p->precision_chol, count * dim, dim, dim},
        {"log_amplitude", p->log_amplitude, count, 1, 0},
        {"log_temperature", p->log_temperature, count, 1, 0},
        {"level_log_weight", p->level_log_weight, p->shape.levels, 1, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        TRY(check_finite(splats->lib, &all[i], bad, where));
    for (size_t s = 0; s < p->shape.count; ++s)
        if (p->level[s] < 0 || (size_t)p->level[s] >= p->shape.levels)
            return log_error(splats->lib, bad,
                             "%slevel holds %" PRId32 " at element %zu; there are levels 0 to %zu", where,
                             p->level[s], s, p->shape.levels - 1);
fail:
    return status;
}

clsplat_status clsplat_splats_changed(clsplat_splats *splats) {
    ++splats->version;
    return splats_check(splats, CLSPLAT_INVALID, "");
}
