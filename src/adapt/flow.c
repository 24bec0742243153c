/* What levels have of each other: coarse splats that are the sums of fine ones, and means that flow between
 * parents and children. A splat's parent is the one of the next coarser level that is nearest in that one's
 * widths. */
#include <clsplat/adapt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/population.h"
#include "base/random.h"

enum { LLOYD_STEPS = 10 };

typedef struct family {
    population people;
    size_t head;
    size_t *fine, *coarse; /* columns of two levels */
    size_t fines, coarses;
    size_t *parent; /* [fines]: index into coarse */
    double *room;   /* [numbers] and what merging wants */
} family;

static clsplat_status no_memory(clsplat *lib, size_t splats) {
    return log_error(lib, CLSPLAT_MEMORY, "no memory for the families of %zu splats", splats);
}

static clsplat_status family_open(clsplat *lib, clsplat_splats *splats, family *f) {
    size_t count = clsplat_splats_get(splats).shape.count, dim = clsplat_splats_get(splats).shape.dim;
    *f = (family){0};
    bool memory = population_open(splats, 0, &f->people) == CLSPLAT_OK;
    f->fine = calloc(3 * count, sizeof *f->fine);
    f->coarse = f->fine ? f->fine + count : NULL;
    f->parent = f->fine ? f->coarse + count : NULL;
    f->room = calloc(2 * f->people.form.numbers + 3 * dim * dim + dim, sizeof *f->room);
    return memory && f->fine && f->room ? CLSPLAT_OK : no_memory(lib, count);
}

static void family_close(family *f) {
    population_close(&f->people);
    free(f->fine);
    free(f->room);
}

/* The columns of a level and of the next coarser one. False: one of them has none. */
static bool take_levels(family *f, size_t level) {
    f->fines = f->coarses = 0;
    for (size_t c = 0; c < f->people.count; ++c) {
        if ((size_t)f->people.level[c] == level)
            f->fine[f->fines++] = c;
        if ((size_t)f->people.level[c] == level + 1)
            f->coarse[f->coarses++] = c;
    }
    return f->fines && f->coarses;
}

static double *splat(const family *f, size_t column) {
    return population_splat(&f->people, f->head, column);
}

static double variance(const family *f, const double *of, size_t d) {
    const splat_form *form = &f->people.form;
    if (form->covariance != CLSPLAT_FULL)
        return splat_variance(form, of, d);
    double root = of[form->dim + d * (form->dim + 1)];
    return exp(of[form->dim + form->size + 1]) / fmax(root * root, 1e-30);
}

/* Distance of means; in the coarse one's widths if `wide`. */
static double distance(const family *f, const double *fine, const double *coarse, bool wide) {
    double sum = 0;
    for (size_t d = 0; d < f->people.form.dim; ++d)
        sum += (fine[d] - coarse[d]) * (fine[d] - coarse[d]) / (wide ? variance(f, coarse, d) : 1);
    return sum;
}

static void find_parents(family *f, bool wide) {
    for (size_t i = 0; i < f->fines; ++i) {
        double best = INFINITY;
        for (size_t p = 0; p < f->coarses; ++p) {
            double apart = distance(f, splat(f, f->fine[i]), splat(f, f->coarse[p]), wide);
            if (apart < best)
                best = apart, f->parent[i] = p;
        }
    }
}

/* The sum of a parent's children, to room: masses add, mean and second moment are theirs. False: it has none.
 */
static bool sum_children(family *f, size_t parent) {
    const splat_form *form = &f->people.form;
    bool any = false;
    for (size_t i = 0; i < f->fines; ++i) {
        if (f->parent[i] != parent)
            continue;
        if (!any)
            memcpy(f->room, splat(f, f->fine[i]), form->numbers * sizeof *f->room);
        else if (moments_merge(form, f->room, splat(f, f->fine[i]), f->room + 2 * form->numbers,
                               f->room + form->numbers))
            memcpy(f->room, f->room + form->numbers, form->numbers * sizeof *f->room);
        any = true;
    }
    return any;
}

/* Fine splats drawn by mass times distance from those before; Lloyd steps by mass; then sums. */
static void coarsen(family *f, random_state *random) {
    const splat_form *form = &f->people.form;
    for (size_t p = 0; p < f->coarses; ++p) {
        double total = 0, left;
        size_t pick = p % f->fines;
        for (int turn = 0; turn < 2; ++turn) {
            left = turn ? random_uniform(random) * total : 0;
            for (size_t i = 0; i < f->fines; ++i) {
                double near = p ? INFINITY : 1;
                for (size_t o = 0; o < p; ++o)
                    near = fmin(near, distance(f, splat(f, f->fine[i]), splat(f, f->coarse[o]), false));
                double weight = near * exp(*splat_log_amplitude(form, splat(f, f->fine[i])));
                total += turn ? 0 : weight;
                left -= turn ? weight : 0;
                if (turn && left < 0) {
                    pick = i;
                    break;
                }
            }
        }
        memcpy(splat(f, f->coarse[p]), splat(f, f->fine[pick]), form->numbers * sizeof(double));
    }
    for (unsigned step = 0; step <= LLOYD_STEPS; ++step) {
        find_parents(f, false);
        for (size_t p = 0; p < f->coarses; ++p) {
            bool last = step == LLOYD_STEPS, any = sum_children(f, p);
            if (any)
                memcpy(splat(f, f->coarse[p]), f->room, (last ? form->numbers : form->dim) * sizeof(double));
            else if (last) /* nobody is its child: a twin of another, of no mass to speak of */
                *splat_log_amplitude(form, splat(f, f->coarse[p])) -= 40;
        }
    }
}

static clsplat_status give_back(const family *f, clsplat *lib, clsplat_splats *splats) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *made = NULL;
    TRY(population_set(&f->people, lib, splats, &made));
    clsplat_splats_parameters from = clsplat_splats_get(made), to = clsplat_splats_get(splats);
    size_t all = to.shape.heads * to.shape.count, size = f->people.form.size;
    memcpy(to.mean, from.mean, all * to.shape.dim * sizeof(float));
    memcpy(to.log_var ? to.log_var : to.precision_chol, from.log_var ? from.log_var : from.precision_chol,
           all * size * sizeof(float));
    memcpy(to.log_amplitude, from.log_amplitude, all * sizeof(float));
    memcpy(to.log_temperature, from.log_temperature, all * sizeof(float));
    TRY(clsplat_splats_changed(splats));
fail:
    clsplat_splats_destroy(&made);
    return status;
}

clsplat_status clsplat_splats_coarsen(clsplat *lib, clsplat_splats *splats, uint64_t seed) {
    clsplat_status status = CLSPLAT_OK;
    family f;
    TRY(family_open(lib, splats, &f));
    for (f.head = 0; f.head < f.people.heads; ++f.head) {
        random_state random = random_stream(seed, f.head);
        for (size_t level = 0; level + 1 < f.people.levels; ++level)
            if (take_levels(&f, level))
                coarsen(&f, &random);
    }
    TRY(give_back(&f, lib, splats));
fail:
    family_close(&f);
    return status;
}

/* Means of `to` go the share of the way to `from`. */
static void pull(const family *f, double *to, const double *from, double share) {
    for (size_t d = 0; d < f->people.form.dim; ++d)
        to[d] += share * (from[d] - to[d]);
}

clsplat_status clsplat_splats_flow(clsplat *lib, clsplat_splats *splats, double top_down, double bottom_up) {
    clsplat_status status = CLSPLAT_OK;
    family f = {0};
    if (!(top_down >= 0 && top_down <= 1 && bottom_up >= 0 && bottom_up <= 1))
        return log_error(lib, CLSPLAT_INVALID, "flows of %g down and %g up; both are from 0 to 1", top_down,
                         bottom_up);
    TRY(family_open(lib, splats, &f));
    for (f.head = 0; f.head < f.people.heads; ++f.head) {
        for (size_t level = 0; level + 1 < f.people.levels; ++level) {
            if (!take_levels(&f, level))
                continue;
            find_parents(&f, true);
            for (size_t p = 0; p < f.coarses; ++p)
                if (sum_children(&f, p))
                    pull(&f, splat(&f, f.coarse[p]), f.room, bottom_up);
        }
        for (size_t level = f.people.levels - 1; level-- > 0;) {
            if (!take_levels(&f, level))
                continue;
            find_parents(&f, true);
            for (size_t i = 0; i < f.fines; ++i)
                pull(&f, splat(&f, f.fine[i]), splat(&f, f.coarse[f.parent[i]]), top_down);
        }
    }
    TRY(give_back(&f, lib, splats));
fail:
    family_close(&f);
    return status;
}
