#include "adapt/health.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double far_from_middle = 4.605170186; /* ln 100 */
static const double dead_below = -200, twins_below = 1e-9, all_but = 1e-6, far_per_dimension = -50;

const char *clsplat_failure_name(clsplat_failure failure) {
    static const char *const names[CLSPLAT_FAILURES] = {
        "not finite", "collapsed", "exploding", "dead", "duplicate", "far away", "one level", "oscillating"};
    return (unsigned)failure < CLSPLAT_FAILURES ? names[failure] : NULL;
}

void clsplat_health_free(clsplat_health *health) {
    free(health->finding);
    *health = (clsplat_health){0};
}

clsplat_status health_add(clsplat *lib, clsplat_health *health, clsplat_finding finding) {
    size_t room = health->findings;
    if ((room & (room - 1)) == 0) { /* as many as a power of two: it is full */
        clsplat_finding *more = realloc(health->finding, (room ? 2 * room : 1) * sizeof *more);
        if (!more)
            return log_error(lib, CLSPLAT_MEMORY, "no memory for %zu findings", room + 1);
        health->finding = more;
    }
    health->finding[health->findings++] = finding;
    ++health->count[finding.failure];
    return CLSPLAT_OK;
}

bool health_is_finite(const population *p, size_t head, size_t column) {
    const double *splat = population_splat(p, head, column);
    bool finite = true;
    for (size_t i = 0; i < p->form.numbers; ++i) {
        bool counts = p->form.covariance != CLSPLAT_FULL || i < p->form.dim ||
                      i >= p->form.dim + p->form.size ||
                      (i - p->form.dim) % p->form.dim <= (i - p->form.dim) / p->form.dim;
        finite &= !counts || isfinite(splat[i]);
    }
    return finite;
}

double health_log_width(const splat_form *form, const double *splat) {
    double sum = 0, dim = (double)form->dim;
    for (size_t d = 0; d < form->dim; ++d)
        sum += form->covariance == CLSPLAT_FULL ? -log(fabs(splat[form->dim + d * (form->dim + 1)]))
                                                : 0.5 * splat[form->dim + (form->size == 1 ? 0 : d)];
    return sum / dim + 0.5 * splat[form->dim + form->size + 1];
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

clsplat_status health_middle_width(clsplat *lib, const population *p, size_t head, double *width) {
    double *all = malloc(p->count * sizeof *all);
    size_t count = 0;
    if (!all)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for the widths of %zu splats", p->count);
    for (size_t c = 0; c < p->count; ++c)
        if (health_is_finite(p, head, c))
            all[count++] = health_log_width(&p->form, population_splat(p, head, c));
    qsort(all, count, sizeof *all, by_value);
    *width = count ? all[count / 2] : 0;
    free(all);
    return count ? CLSPLAT_OK
                 : log_error(lib, CLSPLAT_INVALID, "no splat of head %zu is finite; make the splats anew",
                             head);
}

bool health_oscillates(const double *errors, size_t count) {
    enum { LEAST = 4, LOOKED_AT = 6 };
    size_t turns = 0, first = count > LOOKED_AT ? count - LOOKED_AT : 0;
    if (count < LEAST)
        return false;
    for (size_t i = first + 2; i < count; ++i) {
        double before = errors[i - 1] - errors[i - 2], after = errors[i] - errors[i - 1];
        turns += before * after < 0 && fabs(after) > 1e-3 * errors[i];
    }
    return turns == count - first - 2 && errors[count - 1] > 0.99 * errors[first];
}

void health_score(clsplat_health *health, size_t heads, size_t splats) {
    double bad = 0, levels = 0;
    for (size_t i = 0; i < health->findings; ++i) {
        const clsplat_finding *f = &health->finding[i];
        bool seen = false;
        for (size_t j = 0; j < i && !seen; ++j)
            seen = health->finding[j].head == f->head && health->finding[j].splat == f->splat;
        bad += !seen && f->splat != SIZE_MAX;
        levels += f->failure == CLSPLAT_FAILURE_ONE_LEVEL;
    }
    health->score = 1 - bad / (double)(heads * splats) - 0.5 * levels / (double)heads -
                    (health->count[CLSPLAT_FAILURE_OSCILLATING] ? 0.25 : 0);
    health->score = fmin(fmax(health->score, 0), 1);
}

clsplat_status health_find_numbers(clsplat *lib, population *p, clsplat_health *health) {
    clsplat_status status = CLSPLAT_OK;
    double width;
    for (size_t head = 0; head < p->heads; ++head) {
        size_t good = 0;
        TRY(health_middle_width(lib, p, head, &width)); /* one at least is finite */
        while (!health_is_finite(p, head, good))
            ++good;
        for (size_t c = 0; c < p->count; ++c) {
            if (health_is_finite(p, head, c))
                continue;
            memcpy(population_splat(p, head, c), population_splat(p, head, good),
                   p->form.numbers * sizeof(double));
            TRY(health_add(lib, health,
                           (clsplat_finding){CLSPLAT_FAILURE_NOT_FINITE, head, (size_t)p->level[c], c, NAN}));
        }
    }
    for (size_t l = 0; l < p->levels; ++l) {
        if (isfinite(p->level_log_weight[l]))
            continue;
        p->level_log_weight[l] = -log((double)p->levels);
        TRY(health_add(lib, health, (clsplat_finding){CLSPLAT_FAILURE_NOT_FINITE, 0, l, SIZE_MAX, NAN}));
    }
fail:
    return status;
}

/* Where one head is looked at. */
typedef struct looking {
    const herd *h;
    const herd_look *look;
    clsplat_health *health;
    size_t head;
} looking;

static clsplat_status note(const looking *k, clsplat_failure failure, size_t column, double value) {
    const population *p = &k->h->people;
    clsplat_finding f = {failure, k->head, (size_t)p->level[column], column, value};
    return health_add(k->h->layer->device->lib, k->health, f);
}

static bool was_not_finite(const looking *k, size_t column) {
    for (size_t i = 0; i < k->health->findings; ++i)
        if (k->health->finding[i].failure == CLSPLAT_FAILURE_NOT_FINITE &&
            k->health->finding[i].head == k->head && k->health->finding[i].splat == column)
            return true;
    return false;
}

/* The largest ln share that a row gives the splat. */
static double best_share(const looking *k, size_t column) {
    const herd *h = k->h;
    double best = -INFINITY;
    for (size_t q = 0; q < h->layer->batch * h->layer->heads; ++q)
        for (size_t t = 0; t < h->layer->rows && herd_serves(h, k->head, q); ++t) {
            double share = (double)h->log_weight[(q * h->people.capacity + column) * h->layer->rows + t] -
                           h->lse[q * h->layer->rows + t];
            best = share > best ? share : best;
        }
    return best;
}

static double reach_of(const splat_form *form, const double *splat, const float *x) {
    double sum = 0;
    for (size_t d = 0; d < form->dim; ++d) {
        double along = 0;
        if (form->covariance != CLSPLAT_FULL)
            along = ((double)x[d] - splat[d]) / exp(0.5 * splat[form->dim + (form->size == 1 ? 0 : d)]);
        for (size_t e = d; form->covariance == CLSPLAT_FULL && e < form->dim; ++e)
            along += splat[form->dim + e * form->dim + d] * ((double)x[e] - splat[e]);
        sum += along * along;
    }
    return -0.5 * sum / exp(splat[form->dim + form->size + 1]);
}

/* The best φ of the sampled keys and, where no key is near, of the rows' queries. */
static double best_reach(const looking *k, size_t column) {
    const herd *h = k->h;
    const layer *l = h->layer;
    double best = -INFINITY, limit = far_per_dimension * (double)l->dim;
    for (size_t q = 0; q < l->batch * l->heads; ++q) {
        const float *cover = h->cover + (herd_writer(h, q) * h->people.capacity + column) * h->tokens;
        for (size_t t = 0; t < h->tokens && herd_serves(h, k->head, q); ++t)
            best = fmax(best, (double)cover[t]);
    }
    for (size_t q = 0; q < l->batch * l->heads && best < limit; ++q)
        for (size_t t = 0; t < l->rows && herd_serves(h, k->head, q); ++t)
            best = fmax(best, reach_of(&h->people.form, population_splat(&h->people, k->head, column),
                                       l->q + (q * l->queries + l->first_row + t * l->step) * l->dim));
    return best;
}

/* Whether the Bhattacharyya distance is below a twin's: most pairs are told apart by a few dimensions. */
static bool are_twins(const splat_form *form, const double *a, const double *b) {
    double sum = 0;
    for (size_t i = 0; i < form->dim + form->size && sum < twins_below; ++i) {
        double apart = a[i] - b[i], width = 1;
        if (i < form->dim)
            width = form->covariance == CLSPLAT_FULL ? 1 / fabs(a[form->dim + i * (form->dim + 1)])
                                                     : sqrt(splat_variance(form, a, i));
        else if (form->covariance == CLSPLAT_FULL)
            width = fabs(a[form->dim + (i - form->dim) / form->dim * (form->dim + 1)]);
        bool counts = i < form->dim || form->covariance != CLSPLAT_FULL ||
                      (i - form->dim) % form->dim <= (i - form->dim) / form->dim;
        sum += counts ? 0.125 * apart * apart / (width * width) : 0;
    }
    double temperature = a[form->dim + form->size + 1] - b[form->dim + form->size + 1];
    return sum + 0.125 * temperature * temperature < twins_below;
}

static size_t twin_of(const looking *k, size_t column) {
    const population *p = &k->h->people;
    for (size_t c = 0; c < column; ++c)
        if (p->level[c] == p->level[column] &&
            are_twins(&p->form, population_splat(p, k->head, c), population_splat(p, k->head, column)))
            return c;
    return SIZE_MAX;
}

static clsplat_status find_splat(const looking *k, size_t column, double middle) {
    clsplat_status status = CLSPLAT_OK;
    const population *p = &k->h->people;
    double width = health_log_width(&p->form, population_splat(p, k->head, column)) - middle;
    if (was_not_finite(k, column)) /* what stands there now is not its own */
        return CLSPLAT_OK;
    if (fabs(width) > far_from_middle)
        TRY(note(k, width < 0 ? CLSPLAT_FAILURE_COLLAPSED : CLSPLAT_FAILURE_EXPLODING, column, width));
    double share = best_share(k, column), reach = best_reach(k, column);
    if (share < dead_below)
        TRY(note(k, CLSPLAT_FAILURE_DEAD, column, share));
    if (reach < far_per_dimension * (double)p->form.dim)
        TRY(note(k, CLSPLAT_FAILURE_FAR_AWAY, column, reach));
    size_t twin = twin_of(k, column);
    if (twin != SIZE_MAX && !was_not_finite(k, twin))
        TRY(note(k, CLSPLAT_FAILURE_DUPLICATE, column, (double)twin));
fail:
    return status;
}

static clsplat_status find_level(const looking *k) {
    clsplat_status status = CLSPLAT_OK;
    const population *p = &k->h->people;
    for (size_t l = 0; l < p->levels && p->levels > 1; ++l) {
        double others = 0;
        size_t there = 0;
        for (size_t c = 0; c < p->count; ++c) {
            others += (size_t)p->level[c] != l ? k->look->use[c] : 0;
            there += (size_t)p->level[c] != l;
        }
        if (there && others < all_but)
            TRY(health_add(k->h->layer->device->lib, k->health,
                           (clsplat_finding){CLSPLAT_FAILURE_ONE_LEVEL, k->head, l, SIZE_MAX, 1 - others}));
    }
fail:
    return status;
}

clsplat_status health_find(const herd *h, clsplat_health *health) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t head = 0; head < h->people.heads; ++head) {
        herd_look look = {0};
        double middle;
        looking k = {h, &look, health, head};
        TRY(health_middle_width(h->layer->device->lib, &h->people, head, &middle));
        TRY(herd_look_at(h, head, &look));
        for (size_t c = 0; c < h->people.count && status == CLSPLAT_OK; ++c)
            status = find_splat(&k, c, middle);
        status = status == CLSPLAT_OK ? find_level(&k) : status;
        herd_look_free(&look);
        TRY(status);
    }
fail:
    return status;
}
