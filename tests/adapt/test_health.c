/* Every failure is provoked, found by its name and mended; healthy sets are left alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/layers.h"
#include "attention/problem.h"
#include "base/random.h"
#include "clsplat/health.h"

static clsplat_measure measure_of(const layer_data *d) {
    clsplat_measure how = clsplat_measure_defaults();
    how.causal = d->is.causal;
    return how;
}

static size_t last_of_head(const clsplat_splats_parameters *p, size_t head) {
    return head * p->shape.count + p->shape.count - 1;
}

static float *covariance_of(const clsplat_splats_parameters *p, size_t at) {
    size_t size = p->shape.covariance == CLSPLAT_FULL       ? p->shape.dim * p->shape.dim
                  : p->shape.covariance == CLSPLAT_DIAGONAL ? p->shape.dim
                                                            : 1;
    return (p->log_var ? p->log_var : p->precision_chol) + at * size;
}

static void scale_width(const clsplat_splats_parameters *p, size_t at, float log_factor) {
    size_t dim = p->shape.dim, full = p->shape.covariance == CLSPLAT_FULL;
    size_t size = full ? dim * dim : p->shape.covariance == CLSPLAT_DIAGONAL ? dim : 1;
    for (size_t i = 0; i < size; i++)
        covariance_of(p, at)[i] =
            full ? covariance_of(p, at)[i] * expf(-log_factor) : covariance_of(p, at)[i] + 2 * log_factor;
}

/* Harms one splat of head 0, the last one, or a level. */
static void provoke(const clsplat_splats_parameters *p, clsplat_failure failure) {
    size_t at = last_of_head(p, 0), dim = p->shape.dim, other = at;
    while (other-- > 0)
        if (p->level[other] == p->level[at])
            break;
    switch (failure) {
    case CLSPLAT_FAILURE_NOT_FINITE:
        p->mean[at * dim + dim / 2] = NAN;
        break;
    case CLSPLAT_FAILURE_COLLAPSED:
        scale_width(p, at, -5);
        break;
    case CLSPLAT_FAILURE_EXPLODING:
        scale_width(p, at, 6);
        break;
    case CLSPLAT_FAILURE_DEAD:
        p->log_amplitude[at] = -300;
        break;
    case CLSPLAT_FAILURE_DUPLICATE:
        memcpy(p->mean + at * dim, p->mean + other * dim, dim * sizeof *p->mean);
        memcpy(covariance_of(p, at), covariance_of(p, other),
               (size_t)(covariance_of(p, 1) - covariance_of(p, 0)) * sizeof *p->mean);
        break;
    case CLSPLAT_FAILURE_FAR_AWAY:
        for (size_t d = 0; d < dim; d++)
            p->mean[at * dim + d] += 1000;
        break;
    case CLSPLAT_FAILURE_ONE_LEVEL:
        p->level_log_weight[0] = 60;
        break;
    default:
        break;
    }
}

START_TEST(failures_are_found_and_mended) {
    problem_stage stage = problem_on_stage();
    const layer_case *c = &layer_cases[_i / CLSPLAT_FAILURE_OSCILLATING];
    clsplat_failure failure = (clsplat_failure)(_i % CLSPLAT_FAILURE_OSCILLATING);
    layer_data d = layer_make(c, 31);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    clsplat_health sick, well;
    bool can = failure != CLSPLAT_FAILURE_ONE_LEVEL || p.shape.levels > 1;
    suite_ok(stage.lib, clsplat_splats_examine(stage.device, measure_of(&d), d.tensors, set, NULL, 0, &well));
    ck_assert_uint_eq(well.findings, 0);
    ck_assert_double_eq(well.score, 1);
    clsplat_health_free(&well);
    provoke(&p, failure);
    suite_ok(stage.lib, clsplat_splats_examine(stage.device, measure_of(&d), d.tensors, set, NULL, 0, &sick));
    if (can) {
        ck_assert_msg(sick.count[failure] >= 1, "%s: not found", clsplat_failure_name(failure));
        ck_assert_double_lt(sick.score, 1);
        suite_ok(stage.lib, clsplat_splats_repair(stage.device, measure_of(&d), d.tensors, set, &well));
        ck_assert_msg(well.findings == 0 && well.score == 1, "%s: %zu left, the first %s, of splat %zu, %g",
                      clsplat_failure_name(failure), well.findings,
                      well.findings ? clsplat_failure_name(well.finding[0].failure) : "",
                      well.findings ? well.finding[0].splat : 0, well.findings ? well.finding[0].value : 0);
        suite_ok(stage.lib, clsplat_splats_changed(set));
        clsplat_health_free(&well);
    }
    clsplat_health_free(&sick);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

START_TEST(oscillation_is_found) {
    static const double turning[] = {0.5, 0.4, 0.48, 0.41, 0.5, 0.42, 0.5},
                        falling[] = {0.5, 0.4, 0.35, 0.36, 0.3, 0.29, 0.28};
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[0], 31);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_health health;
    suite_ok(stage.lib,
             clsplat_splats_examine(stage.device, measure_of(&d), d.tensors, set, turning, 7, &health));
    ck_assert_uint_eq(health.count[CLSPLAT_FAILURE_OSCILLATING], 1);
    ck_assert_double_eq(health.score, 0.75);
    clsplat_health_free(&health);
    for (size_t n = 0; n <= 7; n++) {
        suite_ok(stage.lib,
                 clsplat_splats_examine(stage.device, measure_of(&d), d.tensors, set, falling, n, &health));
        ck_assert_uint_eq(health.findings, 0);
        clsplat_health_free(&health);
    }
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

/* 100 sets by every way of making them. */
START_TEST(healthy_sets_are_left_alone) {
    problem_stage stage = problem_on_stage();
    for (size_t n = 0; n < 100; n++) {
        layer_data d = layer_make(&layer_cases[n % LAYER_CASES], 100 + n / LAYER_CASES);
        static char token[] = "Token", phrase[] = "Phrase";
        char *names[] = {token, phrase};
        size_t counts[] = {6, 3};
        double weights[] = {0.7, 0.3};
        clsplat_hierarchy levels = {1 + n % 2, names, counts, weights};
        clsplat_init init = clsplat_init_defaults();
        clsplat_splats *set = NULL;
        clsplat_health health;
        init.hierarchy = &levels;
        init.seed = n;
        init.method = n % 3 ? CLSPLAT_INIT_KMEANS : CLSPLAT_INIT_RANDOM;
        init.covariance = (clsplat_covariance)(n / 3 % 3);
        init.match = n % 5 < 3 ? CLSPLAT_MATCH_TOKENS : CLSPLAT_MATCH_SOFTMAX;
        init.shared = d.is.shared;
        suite_ok(stage.lib, clsplat_splats_init(stage.device, init, d.tensors.q, d.tensors.k, &set));
        suite_ok(stage.lib,
                 clsplat_splats_examine(stage.device, measure_of(&d), d.tensors, set, NULL, 0, &health));
        ck_assert_msg(health.findings == 0, "set %zu: %s, splat %zu, %g", n,
                      health.findings ? clsplat_failure_name(health.finding[0].failure) : "",
                      health.findings ? health.finding[0].splat : 0,
                      health.findings ? health.finding[0].value : 0);
        clsplat_health_free(&health);
        clsplat_splats_destroy(&set);
        layer_free(&d);
    }
}
END_TEST

START_TEST(all_lost_is_refused) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[0], 31);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    clsplat_health health;
    for (size_t s = 0; s < p.shape.count; s++)
        p.log_amplitude[s] = NAN;
    ck_assert_int_eq(clsplat_splats_repair(stage.device, measure_of(&d), d.tensors, set, &health),
                     CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(stage.lib), "no splat of head 0 is finite"));
    ck_assert_ptr_null(health.finding);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, failures_are_found_and_mended, 0, LAYER_CASES * CLSPLAT_FAILURE_OSCILLATING);
    tcase_add_test(part, oscillation_is_found);
    tcase_add_test(part, healthy_sets_are_left_alone);
    tcase_add_test(part, all_lost_is_refused);
}

int main(void) {
    static const suite_part parts[] = {{"health", add_all}};
    return suite_run("health", parts, sizeof parts / sizeof *parts);
}
