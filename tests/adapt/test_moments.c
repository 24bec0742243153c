/* Mitosis and merge keep mass, mean and second moment: 10,000 of them, stored as float32 as a set has them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/moments.h"
#include "base/random.h"
#include "suite.h"

enum { MOST_DIM = 12, MOST_NUMBERS = MOST_DIM + MOST_DIM * MOST_DIM + 2, DECISIONS = 10000 };

typedef struct sums {
    double mass, mean[MOST_DIM], second[MOST_DIM * MOST_DIM]; /* Σ a, Σ a μ, Σ a (τΣ + μμᵀ) */
} sums;

static splat_form form_for(clsplat_covariance covariance, size_t dim) {
    return splat_form_of(&(clsplat_splats_shape){covariance, 1, 1, dim, 1});
}

static void stored(const splat_form *form, double *splat) {
    for (size_t i = 0; i < form->numbers; i++)
        splat[i] = (double)(float)splat[i];
}

static void random_splat(random_state *r, const splat_form *form, double *splat) {
    size_t dim = form->dim;
    memset(splat, 0, form->numbers * sizeof *splat);
    for (size_t d = 0; d < dim; d++)
        splat[d] = 3 * random_normal(r);
    for (size_t i = 0; i < form->size; i++) {
        size_t row = i / dim, column = i % dim;
        double *to = splat_covariance(form, splat) + i;
        if (form->covariance != CLSPLAT_FULL)
            *to = random_normal(r);
        else if (row >= column)
            *to = row == column ? exp(0.4 * random_normal(r)) : 0.2 * random_normal(r);
    }
    *splat_log_amplitude(form, splat) = 4 * random_normal(r);
    *splat_log_temperature(form, splat) = 0.5 * random_normal(r);
    stored(form, splat);
}

static void add(const splat_form *form, double *splat, double by, sums *to) {
    double room[MOST_DIM * MOST_DIM], covariance[MOST_DIM * MOST_DIM];
    double mass = exp(*splat_log_amplitude(form, splat) - by);
    moments_covariance(form, splat, room, covariance);
    to->mass += mass;
    for (size_t d = 0; d < form->dim; d++) {
        to->mean[d] += mass * splat[d];
        for (size_t e = 0; e < form->dim; e++)
            to->second[d * form->dim + e] += mass * (covariance[d * form->dim + e] + splat[d] * splat[e]);
    }
}

static void ck_near(double a, double b, double scale, const char *what) {
    ck_assert_msg(fabs(a - b) <= 1e-5 * scale, "%s: %.9g and %.9g, scale %g", what, a, b, scale);
}

/* Isotropic and diagonal splats have the trace, or the diagonal, of a second moment. */
static void ck_same(const splat_form *form, const sums *a, const sums *b) {
    size_t dim = form->dim;
    double scale = 0, trace[2] = {0};
    for (size_t d = 0; d < dim; d++) {
        scale += a->second[d * (dim + 1)];
        trace[0] += a->second[d * (dim + 1)];
        trace[1] += b->second[d * (dim + 1)];
    }
    ck_near(a->mass, b->mass, a->mass, "mass");
    ck_near(trace[0], trace[1], scale, "trace");
    for (size_t d = 0; d < dim; d++) {
        ck_near(a->mean[d], b->mean[d], sqrt(scale * a->mass), "mean");
        for (size_t e = 0; e < dim && form->covariance != CLSPLAT_ISOTROPIC; e++)
            if (form->covariance == CLSPLAT_FULL || d == e)
                ck_near(a->second[d * dim + e], b->second[d * dim + e], scale, "second moment");
    }
}

START_TEST(decisions_conserve) {
    random_state r = random_seed((uint64_t)_i);
    double splats[3][MOST_NUMBERS], delta[MOST_DIM], room[3 * MOST_DIM * MOST_DIM];
    size_t splits = 0;
    for (size_t n = 0; n < DECISIONS; n++) {
        splat_form form = form_for((clsplat_covariance)_i, 1 + random_below(&r, MOST_DIM));
        sums before = {0}, after = {0};
        random_splat(&r, &form, splats[0]);
        double by = *splat_log_amplitude(&form, splats[0]);
        if (n % 2) {
            for (size_t d = 0; d < form.dim; d++)
                delta[d] = 0.3 * random_normal(&r);
            add(&form, splats[0], by, &before);
            if (!moments_split(&form, splats[0], delta, room, splats[1], splats[2]))
                continue;
            splits++;
            stored(&form, splats[1]);
            stored(&form, splats[2]);
            add(&form, splats[1], by, &after);
            add(&form, splats[2], by, &after);
        } else {
            random_splat(&r, &form, splats[1]);
            by = fmax(by, *splat_log_amplitude(&form, splats[1]));
            add(&form, splats[0], by, &before);
            add(&form, splats[1], by, &before);
            ck_assert(moments_merge(&form, splats[0], splats[1], room, splats[2]));
            stored(&form, splats[2]);
            add(&form, splats[2], by, &after);
        }
        ck_same(&form, &before, &after);
    }
    ck_assert_uint_gt(splits, DECISIONS / 10);
}
END_TEST

/* What was split is whole again when its children merge. */
START_TEST(a_merge_undoes_a_split) {
    random_state r = random_seed(77);
    double parent[MOST_NUMBERS], a[MOST_NUMBERS], b[MOST_NUMBERS], again[MOST_NUMBERS],
        delta[MOST_DIM] = {0.2, -0.1}, room[3 * MOST_DIM * MOST_DIM];
    splat_form form = form_for((clsplat_covariance)_i, 5);
    random_splat(&r, &form, parent);
    ck_assert(moments_split(&form, parent, delta, room, a, b));
    ck_assert(moments_merge(&form, a, b, room, again));
    for (size_t i = 0; i < form.numbers; i++)
        ck_assert_double_eq_tol(again[i], parent[i], 1e-12 * (1 + fabs(parent[i])));
    delta[0] = 1e3;
    ck_assert(!moments_split(&form, parent, delta, room, a, b));
}
END_TEST

/* A closed form: two Gaussians of one dimension; twins are at 0. */
START_TEST(distance_is_bhattacharyya) {
    double ma = 0, mb = 2, va = 1, vb = 3;
    ck_assert_double_eq_tol(moments_distance(1, &ma, &va, &mb, &vb), 0.25 + 0.5 * log(2 / sqrt(3)), 1e-12);
    ck_assert_double_eq_tol(moments_distance(1, &ma, &va, &ma, &va), 0, 1e-15);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, decisions_conserve, 0, 3);
    tcase_add_loop_test(part, a_merge_undoes_a_split, 0, 3);
    tcase_add_test(part, distance_is_bhattacharyya);
}

int main(void) {
    static const suite_part parts[] = {{"moments", add_all}};
    return suite_run("moments", parts, sizeof parts / sizeof *parts);
}
