/* Adaptation: what it measures, against float64; what it decides, against whole attention; what it promises.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/layers.h"
#include "adapt/rounds.h"
#include "attention/problem.h"
#include "attention/sets.h"

static clsplat_adapt some(const layer_data *d) {
    clsplat_adapt how = clsplat_adapt_defaults();
    how.causal = d->is.causal;
    how.cycles = 2;
    how.trades = 3;
    return how;
}

static clsplat_status adapt_to(clsplat_device *device, const layer_data *d, clsplat_adapt how,
                               clsplat_splats *set, clsplat_splats **adapted, clsplat_adapt_result *result) {
    return clsplat_splats_adapt(device, how, d->tensors, set, adapted, result);
}

/* Splat s's log-weight and value at a row of a query head, from its definition. */
static double state_of(const layer *l, const layer_data *d, const clsplat_splats_parameters *p, size_t head,
                       size_t row, size_t s, double *value) {
    size_t b = head / l->heads, hq = head % l->heads, kv = b * l->kv_heads + hq / (l->heads / l->kv_heads);
    size_t set = p->shape.heads > 1 ? hq : 0;
    naive_keys keys = {layer_visible(l, row),
                       l->dim,
                       l->value_dim,
                       d->naive.k + kv * l->keys * l->dim,
                       d->naive.v + kv * l->keys * l->value_dim,
                       d->naive.key_bias ? d->naive.key_bias + kv * l->keys : NULL};
    const double *q = d->naive.q + (head * l->queries + l->first_row + row * l->step) * l->dim;
    return (double)p->log_amplitude[set * p->shape.count + s] + naive_log_density(p, set, s, q) +
           naive_write(p, set, s, &keys, value);
}

START_TEST(rows_states_and_targets_are_right) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i / 3], 3);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    layer l;
    layer_states states = {0};
    double value[16];
    suite_ok(stage.lib,
             layer_open(stage.device, &d.tensors, d.is.causal, NAN, (size_t[]){4, 13, 500}[_i % 3], &l));
    suite_ok(stage.lib, layer_measure(&l, set, true, &states));
    for (size_t i = 0; i < l.batch * l.heads * l.rows; i++) {
        size_t head = i / l.rows, row = i % l.rows, b = head / l.heads, hq = head % l.heads;
        size_t query = head * l.queries + l.first_row + row * l.step;
        size_t writer = b * states.state_heads + hq / (l.heads / states.state_heads);
        for (size_t c = 0; c < l.value_dim; c++)
            ck_assert_double_eq_tol((double)l.target[i * l.value_dim + c],
                                    d.naive.out[query * l.value_dim + c], 1e-5);
        for (size_t s = 0; s < p.shape.count; s++) {
            double expected = state_of(&l, &d, &p, head, row, s, value);
            ck_assert_double_eq_tol((double)states.log_weight[i * p.shape.count + s], expected,
                                    1e-4 * (1 + fabs(expected)));
            for (size_t c = 0; c < l.value_dim; c++)
                ck_assert_double_eq_tol(
                    (double)states.value[((writer * l.rows + row) * p.shape.count + s) * l.value_dim + c],
                    value[c], 1e-4);
        }
    }
    layer_states_free(&states);
    layer_close(&l);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

/* What rounds keep up by what changes alone is what the whole set gives. */
START_TEST(decisions_are_judged_rightly) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 5);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_adapt how = some(&d);
    size_t most[] = {12, 12, 12}, least[] = {1, 1, 1}, grown;
    bool shrunk;
    layer l;
    herd h;
    how.most = most, how.least = least;
    suite_ok(stage.lib, layer_open(stage.device, &d.tensors, how.causal, NAN, 20, &l));
    suite_ok(stage.lib, herd_open(&l, &how, set, &h));
    suite_ok(stage.lib, herd_measure(&h));
    suite_ok(stage.lib, round_grow(&h, 0, 3, true, &grown));
    ck_assert_uint_ge(grown, 1);
    suite_ok(stage.lib, round_shrink(&h, 0, true, &shrunk));
    ck_assert(shrunk);
    suite_ok(stage.lib, round_trade(&h, 0));
    size_t rows = l.batch * l.heads * l.rows;
    double error = herd_layer_error(&h), *lse = malloc(rows * sizeof *lse);
    float *weights = malloc(rows * h.people.capacity * sizeof *weights);
    memcpy(lse, h.lse, rows * sizeof *lse);
    memcpy(weights, h.log_weight, rows * h.people.capacity * sizeof *weights);
    suite_ok(stage.lib, herd_measure(&h));
    ck_assert_double_eq_tol(herd_layer_error(&h), error, 1e-4 * error + 1e-6);
    for (size_t i = 0; i < rows; i++)
        ck_assert_double_eq_tol(h.lse[i], lse[i], 1e-3);
    for (size_t i = 0; i < rows * h.people.count; i++) {
        size_t at =
            i / (h.people.count * l.rows) * h.people.capacity * l.rows + i % (h.people.count * l.rows);
        ck_assert_float_eq_tol(h.log_weight[at], weights[at], 1e-3f * (1 + fabsf(weights[at])));
    }
    free(weights);
    free(lse);
    herd_close(&h);
    layer_close(&l);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

typedef struct told {
    size_t count[CLSPLAT_DECISIONS], heads, events;
    long splats[8][3]; /* by head and level */
    const size_t *least, *most;
    double worst; /* rise of an error by a decision that was kept */
} told;

static void listen(void *user, const clsplat_adapt_event *e) {
    told *t = user;
    t->events++;
    t->count[e->decision]++;
    if (!e->kept || e->decision == CLSPLAT_ADJUST)
        return;
    ck_assert_uint_lt(e->head, t->heads);
    t->splats[e->head][e->level] += (e->decision == CLSPLAT_MITOSIS || e->decision == CLSPLAT_BIRTH) ? 1
                                    : (e->decision == CLSPLAT_DEATH || e->decision == CLSPLAT_MERGE) ? -1
                                                                                                     : 0;
    ck_assert_int_ge(t->splats[e->head][e->level] + 1, (long)t->least[e->level]); /* a trade is two lines */
    ck_assert_int_le(t->splats[e->head][e->level], (long)t->most[e->level]);
    ck_assert(e->from[0] || e->decision == CLSPLAT_BIRTH);
    ck_assert(e->to[0] || e->decision == CLSPLAT_DEATH);
    t->worst = fmax(t->worst, e->error_after - e->error_before);
}

/* Grows and trades and adjusts; limits hold, the error that is told is the one there is, and it falls. */
START_TEST(adapted_splats_are_better) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 7);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d),
                   *same = layer_splats(stage.lib, stage.device, &d);
    clsplat_splats *adapted, *again, *other;
    clsplat_adapt how = some(&d);
    clsplat_adapt_result result, second;
    size_t most[] = {d.is.splats + 3, d.is.splats, d.is.splats + 1}, least[] = {2, 1, 2};
    told t = {.least = least, .most = most, .heads = clsplat_splats_get(set).shape.heads};
    for (size_t i = 0; i < 24; i++)
        t.splats[i / 3][i % 3] = (long)d.is.splats;
    how.most = most, how.least = least;
    how.steps = 4;
    how.listener = listen, how.listener_user = &t;
    suite_ok(stage.lib, adapt_to(stage.device, &d, how, set, &adapted, &result));
    sets_same(set, same);
    clsplat_splats_parameters p = clsplat_splats_get(adapted);
    for (size_t l = 0; l < d.is.levels; l++) {
        long count = 0;
        for (size_t s = 0; s < p.shape.count; s++)
            count += p.level[s] == (int32_t)l;
        for (size_t h = 0; h < t.heads; h++)
            ck_assert_int_eq(t.splats[h][l], count);
        ck_assert_str_eq(p.level_names[l], clsplat_splats_get(set).level_names[l]);
    }
    ck_assert_double_le(t.worst, 1e-3 * result.error_before);
    ck_assert_double_eq_tol(layer_error(stage.device, &d, set, 1), result.error_before, 1e-4);
    ck_assert_double_eq_tol(layer_error(stage.device, &d, adapted, 1), result.error_after, 1e-4);
    ck_assert_double_lt(result.error_after, 0.95 * result.error_before);
    how.listener = NULL;
    suite_ok(stage.lib, adapt_to(stage.device, &d, how, set, &again, &second));
    sets_same(adapted, again);
    how.seed = 99;
    suite_ok(stage.lib, adapt_to(stage.device, &d, how, set, &other, NULL));
    clsplat_splats *all[] = {set, same, adapted, again, other};
    for (size_t i = 0; i < 5; i++)
        clsplat_splats_destroy(&all[i]);
    layer_free(&d);
}
END_TEST

/* A splat split in place: outputs are what they were. */
START_TEST(a_split_in_place_changes_nothing) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 9);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d), *split = NULL;
    population p;
    suite_ok(stage.lib, population_open(set, clsplat_splats_get(set).shape.count + 1, &p));
    double before = layer_error(stage.device, &d, set, 1), zero[16] = {0}, room[16];
    size_t column = population_append(&p, (size_t)p.level[1]);
    for (size_t h = 0; h < p.heads; h++) {
        double parent[200];
        memcpy(parent, population_splat(&p, h, 1), p.form.numbers * sizeof *parent);
        ck_assert(moments_split(&p.form, parent, zero, room, population_splat(&p, h, 1),
                                population_splat(&p, h, column)));
    }
    suite_ok(stage.lib, population_set(&p, stage.lib, set, &split));
    ck_assert_double_eq_tol(layer_error(stage.device, &d, split, 1), before, 2e-6);
    population_close(&p);
    clsplat_splats_destroy(&split);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

/* Splats that no row uses die once they have starved for long enough, down to the least that is allowed. */
START_TEST(who_starves_dies) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[0], 11);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d), *adapted;
    clsplat_splats_parameters p = clsplat_splats_get(set);
    clsplat_adapt how = some(&d);
    clsplat_adapt_result result;
    size_t least = 3;
    for (size_t h = 0; h < p.shape.heads; h++)
        for (size_t s = 1; s < p.shape.count; s++)
            p.log_amplitude[h * p.shape.count + s] = -200;
    suite_ok(stage.lib, clsplat_splats_changed(set));
    how.trades = 0;
    how.least = &least;
    how.least_gain = 0.9; /* nobody is born instead */
    for (unsigned cycles = 1; cycles <= 2; cycles++) {
        how.cycles = cycles;
        suite_ok(stage.lib, adapt_to(stage.device, &d, how, set, &adapted, &result));
        ck_assert_uint_eq(clsplat_splats_get(adapted).shape.count, cycles < 2 ? 5 : 3); /* patience 2 */
        ck_assert_double_eq_tol(result.error_after, result.error_before, 1e-5);
        clsplat_splats_destroy(&adapted);
    }
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

/* Mass, Σ a μ and Σ a (variance + μ²) of a level, over the dimensions. */
static void level_moments(const clsplat_splats_parameters *p, size_t head, int32_t level, double sums[3]) {
    size_t dim = p->shape.dim, size = p->shape.covariance == CLSPLAT_ISOTROPIC ? 1 : dim;
    sums[0] = sums[1] = sums[2] = 0;
    for (size_t s = 0; s < p->shape.count; s++) {
        size_t at = head * p->shape.count + s;
        double a = exp((double)p->log_amplitude[at]);
        if (p->level[s] != level)
            continue;
        sums[0] += a;
        for (size_t d = 0; d < dim; d++) {
            double mean = (double)p->mean[at * dim + d];
            double var =
                exp((double)p->log_var[at * size + (size == 1 ? 0 : d)] + (double)p->log_temperature[at]);
            sums[1] += a * mean * (double)(d + 1);
            sums[2] += a * (var + mean * mean);
        }
    }
}

/* Coarse levels have the moments of the fine ones; flows go as far as they are told. */
START_TEST(levels_come_from_each_other) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 17);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d),
                   *same = layer_splats(stage.lib, stage.device, &d);
    suite_ok(stage.lib, clsplat_splats_flow(stage.lib, set, 0, 0));
    sets_same(set, same);
    suite_ok(stage.lib, clsplat_splats_coarsen(stage.lib, set, 3));
    suite_ok(stage.lib, clsplat_splats_coarsen(stage.lib, same, 3));
    sets_same(set, same);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    for (size_t head = 0; p.log_var && head < p.shape.heads; head++)
        for (int32_t l = 1; l < (int32_t)p.shape.levels; l++) {
            double fine[3], coarse[3];
            level_moments(&p, head, 0, fine);
            level_moments(&p, head, l, coarse);
            for (int i = 0; i < 3; i++)
                ck_assert_double_eq_tol(coarse[i], fine[i], 1e-4 * (1 + fabs(fine[i])));
        }
    suite_ok(stage.lib, clsplat_splats_flow(stage.lib, set, 1, 0)); /* every child is where its parent is */
    p = clsplat_splats_get(set);
    for (size_t i = 0; p.shape.levels > 1 && i < p.shape.heads * p.shape.count; i++) {
        size_t head = i / p.shape.count, s = i % p.shape.count, dim = p.shape.dim;
        bool found = p.level[s] + 1 == (int32_t)p.shape.levels;
        for (size_t o = 0; o < p.shape.count && !found; o++)
            found =
                p.level[o] == p.level[s] + 1 &&
                memcmp(p.mean + i * dim, p.mean + (head * p.shape.count + o) * dim, dim * sizeof(float)) == 0;
        ck_assert_msg(found, "splat %zu of head %zu is nobody's child", s, head);
    }
    ck_assert_int_eq(clsplat_splats_flow(stage.lib, set, 0, 1.5), CLSPLAT_INVALID);
    clsplat_splats_destroy(&same);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

/* What is told beforehand, beside what then happens. */
START_TEST(forecasts_are_near) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 19);
    clsplat_init init = clsplat_init_defaults();
    clsplat_adapt how = some(&d);
    clsplat_adapt_result result;
    clsplat_forecast forecast;
    clsplat_splats *set, *same;
    char name[] = "all", *names[] = {name};
    size_t counts[] = {5};
    double weights[] = {1};
    clsplat_hierarchy one = {1, names, counts, weights};
    init.hierarchy = &one;
    how.cycles = 0;
    suite_ok(stage.lib, clsplat_splats_forecast(stage.device, init, d.is.causal, d.tensors, &forecast));
    suite_ok(stage.lib, clsplat_splats_init(stage.device, init, d.tensors.q, d.tensors.k, &set));
    suite_ok(stage.lib, adapt_to(stage.device, &d, how, set, &same, &result));
    ck_assert_uint_eq(forecast.splats, 5);
    ck_assert_double_gt(forecast.seconds, 0);
    ck_assert_uint_gt(forecast.bytes, 0);
    ck_assert_double_eq_tol(forecast.error, result.error_before,
                            0.3 * result.error_before); /* of few tokens */
    clsplat_splats_destroy(&same);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

static bool stop(void *user, double done) {
    unsigned *left = user;
    ck_assert(done >= 0 && done <= 1);
    return --*left > 0;
}

START_TEST(what_is_refused) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[1], 13);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d), *adapted = set;
    size_t none[] = {0, 1}, less[] = {1, 1}, more[] = {3, 3};
    clsplat_adapt good = some(&d), how = good;
    unsigned left = 3;
    how.least = none;
    ck_assert_int_eq(adapt_to(stage.device, &d, how, set, &adapted, NULL), CLSPLAT_INVALID);
    ck_assert_ptr_null(adapted);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(stage.lib), "level 'Token' shall have at least 0"));
    how.least = more, how.most = less;
    ck_assert_int_eq(adapt_to(stage.device, &d, how, set, &adapted, NULL), CLSPLAT_INVALID);
    how = good, how.sample = 0;
    ck_assert_int_eq(adapt_to(stage.device, &d, how, set, &adapted, NULL), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(stage.lib), "sample is 0"));
    how = good, how.rate = -1;
    ck_assert_int_eq(adapt_to(stage.device, &d, how, set, &adapted, NULL), CLSPLAT_INVALID);
    how = good, how.progress = stop, how.progress_user = &left;
    ck_assert_int_eq(adapt_to(stage.device, &d, how, set, &adapted, NULL), CLSPLAT_CANCELLED);
    ck_assert_ptr_null(adapted);
    d.k[5] = NAN;
    ck_assert_int_eq(adapt_to(stage.device, &d, good, set, &adapted, NULL), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(stage.lib), "k holds nan at [0, 0, 0, 5]"));
    d.tensors.v.shape[2]--;
    ck_assert_int_eq(adapt_to(stage.device, &d, good, set, &adapted, NULL), CLSPLAT_SHAPE);
    layer_data wrong = layer_make(&layer_cases[0], 13);
    ck_assert_int_eq(adapt_to(stage.device, &wrong, good, set, &adapted, NULL), CLSPLAT_SHAPE);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(stage.lib), "of 4 heads and 6 dimensions"));
    clsplat_splats_destroy(&set);
    layer_free(&wrong);
    layer_free(&d);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, rows_states_and_targets_are_right, 0, 3 * LAYER_CASES);
    tcase_add_loop_test(part, decisions_are_judged_rightly, 0, LAYER_CASES);
    tcase_add_loop_test(part, adapted_splats_are_better, 0, LAYER_CASES);
    tcase_add_loop_test(part, a_split_in_place_changes_nothing, 0, LAYER_CASES);
    tcase_add_test(part, who_starves_dies);
    tcase_add_loop_test(part, levels_come_from_each_other, 0, LAYER_CASES);
    tcase_add_loop_test(part, forecasts_are_near, 0, LAYER_CASES);
    tcase_add_test(part, what_is_refused);
}

int main(void) {
    static const suite_part parts[] = {{"adapt", add_all}};
    return suite_run("adapt", parts, sizeof parts / sizeof *parts);
}
