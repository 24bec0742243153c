/* Near and far through the library's door: exact at tolerance 0 and honest above it, whatever the shapes and
 * types; and what holds bit for bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/far_data.h"
#include "attention/properties.h"
#include "base/random.h"
#include "compare.h"
#include "op/tree/forest.h"
#include "runtime/device.h"

#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16

/* Trees of the same columns, types and chunks share their programs, which take most of the time. */
// clang-format off
static const problem_spec exact[] = {
    {.queries = 1, .keys = 1, .dim = 1, .value_dim = 1, .chunk = 16},
    {.queries = 33, .keys = 65, .dim = 1, .value_dim = 1, .causal = true, .chunk = 16},
    {.queries = 63, .keys = 32, .dim = 5, .value_dim = 7, .causal = true, .chunk = 16},
    {.queries = 100, .keys = 700, .dim = 5, .value_dim = 7, .causal = true},
    {.queries = 31, .keys = 257, .dim = 7, .value_dim = 16, .causal = true, .chunk = 64},
    {.queries = 129, .keys = 63, .dim = 16, .value_dim = 32, .bias = BIAS_HOLES, .causal = true, .chunk = 16},
    {.queries = 300, .keys = 300, .dim = 64, .value_dim = 64, .causal = true, .chunk = 128},
    {.queries = 70, .keys = 90, .dim = 100, .value_dim = 100, .chunk = 16, .tier = SUITE_NORMAL},
    {.queries = 90, .keys = 300, .dim = 256, .value_dim = 256, .causal = true, .chunk = 32, .tier = SUITE_NORMAL},
    {.batch = 3, .heads = 6, .kv_heads = 2, .queries = 33, .keys = 165, .dim = 16, .value_dim = 16, .causal = true,
     .bias = BIAS_RANDOM, .chunk = 32},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 33, .dim = 8, .value_dim = 8, .causal = true,
     .bias = BIAS_FRONT, .chunk = 16},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 100, .dim = 16, .value_dim = 16, .bias = BIAS_ALL,
     .chunk = 16},
    {.heads = 3, .queries = 32, .keys = 170, .dim = 16, .value_dim = 16, .bias = BIAS_HOLES, .causal = true, .chunk = 32,
     .layout = LAYOUT_TOKENS},
    {.queries = 65, .keys = 130, .dim = 16, .value_dim = 16, .data = DATA_LOUD, .scale = 0.5F, .chunk = 16},
    {.queries = 65, .keys = 130, .dim = 8, .value_dim = 8, .data = DATA_LOUD, .scale = 0.5F, .causal = true, .chunk = 16},
    {.queries = 65, .keys = 130, .dim = 16, .value_dim = 16, .data = DATA_LOUD, .scale = 0.5F, .causal = true, .chunk = 16},
    {.queries = 100, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_DOMINANT, .bias = BIAS_RANDOM, .causal = true,
     .chunk = 16},
    {.queries = 50, .keys = 100, .dim = 8, .value_dim = 8, .data = DATA_DOMINANT, .bias = BIAS_HOLES, .chunk = 16},
    {.queries = 40, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_IDENTICAL, .causal = true, .chunk = 16},
    {.heads = 2, .queries = 65, .keys = 65, .dim = 16, .value_dim = 16, .scale = -0.7F, .causal = true, .chunk = 16},
    {.heads = 8, .kv_heads = 2, .queries = 3, .keys = 1999, .dim = 16, .value_dim = 32, .causal = true,
     .bias = BIAS_RANDOM, .chunk = 16},
    {.batch = 2, .heads = 2, .queries = 1, .keys = 1100, .dim = 16, .value_dim = 16, .bias = BIAS_ALL, .chunk = 16},
    {.queries = 33, .keys = 165, .dim = 16, .value_dim = 16, .q = F16, .k = F16, .v = F16, .bias = BIAS_RANDOM,
     .key_bias = F16, .causal = true, .chunk = 32},
    {.queries = 33, .keys = 165, .dim = 16, .value_dim = 16, .q = BF16, .k = BF16, .v = BF16, .bias = BIAS_HOLES,
     .key_bias = BF16, .out = BF16, .lse = BF16, .chunk = 32},
    {.queries = 33, .keys = 165, .dim = 15, .value_dim = 3, .q = F16, .k = BF16, .bias = BIAS_FRONT, .out = F16,
     .lse = F16, .causal = true, .chunk = 16, .layout = LAYOUT_TOKENS},
    /* What the row for matrix units takes, where there are any. */
    {.heads = 4, .kv_heads = 2, .queries = 300, .keys = 900, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16,
     .causal = true, .chunk = 256},
    {.batch = 2, .heads = 2, .queries = 150, .keys = 700, .dim = 16, .value_dim = 48, .q = F16, .k = F16, .v = F16,
     .bias = BIAS_HOLES, .key_bias = F16, .out = F16, .chunk = 256, .layout = LAYOUT_TOKENS},
};
/* Elsewhere these take the rows of the ones above. */
static const problem_spec exact_on_units[] = {
    {.heads = 8, .kv_heads = 1, .queries = 17, .keys = 600, .dim = 128, .value_dim = 128, .q = BF16, .k = BF16, .v = BF16,
     .bias = BIAS_FRONT, .out = BF16, .causal = true, .chunk = 256},
    {.queries = 600, .keys = 333, .dim = 32, .value_dim = 16, .q = F16, .k = F16, .v = F16, .bias = BIAS_RANDOM, .causal = true,
     .chunk = 256},
};
// clang-format on
enum { ON_UNITS = sizeof exact_on_units / sizeof *exact_on_units };

static void solve(problem_spec spec, uint64_t seed) {
    problem_stage s = problem_on_stage();
    spec.near_far = true;
    problem p = problem_create(s.lib, &spec, seed);
    problem_solve(&p, s.device);
    suite_ok(s.lib, problem_attend_buffers(&p, s.device));
    problem_check(&p);
    p.attention.variant = "mma"; /* not the one for Hopper */
    suite_ok(s.lib, problem_attend_buffers(&p, s.device));
    problem_check(&p);
    problem_free(&p);
}

START_TEST(tolerance_0_is_softmax) {
    solve(exact[_i], 100 + (uint64_t)_i);
}
END_TEST

START_TEST(tolerance_0_is_softmax_on_units) {
    const clsplat_limits *limits = &problem_on_stage().device->info.limits;
    if (limits->nvidia_capability || limits->matrix_units != CLSPLAT_UNITS_NONE ||
        suite_tier_wanted() == SUITE_LONG)
        solve(exact_on_units[_i], 127 + (uint64_t)_i);
}
END_TEST

START_TEST(random_shape) {
    problem_stage s = problem_on_stage();
    problem_spec spec = properties_random((uint64_t)_i);
    spec.near_far = true;
    spec.chunk = _i % 2 || suite_tier_wanted() < SUITE_LONG ? 16 : 32;
    problem p = problem_create(s.lib, &spec, (uint64_t)_i);
    problem_solve(&p, s.device);
    problem_free(&p);
}
END_TEST

// clang-format off
static const problem_spec loose[] = {
    {.heads = 2, .kv_heads = 1, .queries = 400, .keys = 700, .chunk = 256, .tolerance = 0.05F},
    {.heads = 2, .queries = 170, .keys = 170, .bias = BIAS_RANDOM, .chunk = 32, .tolerance = 0.1F},
    {.heads = 2, .kv_heads = 1, .queries = 40, .keys = 200, .bias = BIAS_RANDOM, .chunk = 16, .tolerance = 0.05F},
    {.queries = 200, .keys = 140, .bias = BIAS_HOLES, .chunk = 16, .tolerance = 0.2F},
    {.queries = 300, .keys = 300, .bias = BIAS_RANDOM, .chunk = 64, .tolerance = 0, .tier = SUITE_NORMAL},
    {.queries = 33, .keys = 165, .q = F16, .k = F16, .v = F16, .bias = BIAS_RANDOM, .key_bias = F16, .chunk = 16,
     .tolerance = 0.1F},
    {.heads = 2, .queries = 300, .keys = 700, .q = F16, .k = F16, .v = F16, .bias = BIAS_RANDOM, .chunk = 256, .tolerance = 0.2F},
    {.heads = 2, .queries = 170, .keys = 170, .bias = BIAS_RANDOM, .chunk = 32, .tolerance = 0.01F, .sparse_topk = 50},
    {.heads = 4, .kv_heads = 2, .queries = 500, .keys = 1400, .q = BF16, .k = BF16, .v = BF16, .chunk = 256, .tolerance = 0.05F},
};
// clang-format on

/* Head dimensions that only the plain variant takes, that wider ones take, too, and that all take. */
enum { WIDTHS = 3 };
static problem_spec as_wide(problem_spec spec, int width) {
    static const size_t dims[WIDTHS] = {8, 16, 64};
    spec.dim = spec.value_dim = dims[width];
    spec.near_far = true;
    return spec;
}

/* Every case with one of the first two in turn, the long tier with both; bfloat16 with the third, too. */
static bool takes_width(int spec, int width) {
    return width == 2 ? loose[spec].q == BF16 : width == spec % 2 || suite_tier_wanted() == SUITE_LONG;
}

START_TEST(later_keys_leave_earlier_rows) {
    for (int width = 0; width < WIDTHS; width++) {
        problem_spec spec = as_wide(loose[_i], width);
        if (!takes_width(_i, width))
            continue;
        properties_causal(&spec, 400 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(same_bits) {
    for (int width = 0; width < WIDTHS; width++) {
        problem_spec spec = as_wide(loose[_i], width);
        if (!takes_width(_i, width))
            continue;
        properties_repeatable(&spec, 500 + (uint64_t)_i);
        spec.causal = true;
        properties_repeatable(&spec, 500 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(padding_does_not_matter) {
    problem_spec spec = {
        .heads = 2, .queries = 40, .keys = 100, .bias = BIAS_HOLES, .chunk = 16, .tolerance = 0.1F};
    spec = as_wide(spec, _i % 2);
    spec.causal = _i / 2;
    properties_padding(&spec, 1);
}
END_TEST

START_TEST(nan_stays_in_its_row) {
    problem_spec spec = {.heads = 2, .queries = 40, .keys = 150, .chunk = 16, .tolerance = 0.1F};
    spec = as_wide(spec, _i % 2);
    spec.causal = _i / 2;
    properties_nan_query(&spec, 3);
}
END_TEST

/* Keys in clusters with values of their own, as text has them, and queries near some of them. */
static void cluster(problem *p, size_t clusters) {
    const problem_spec *s = &p->spec;
    for (int which = PROBLEM_Q; which <= PROBLEM_V; which++) {
        problem_tensor *t = &p->tensors[which];
        for (size_t h = 0; h < t->view.shape[1]; h++)
            for (size_t row = 0; row < t->view.shape[2]; row++) {
                random_state r = random_stream(7, row), own = random_stream((uint64_t)which + 20, row);
                size_t at = random_below(&r, clusters);
                for (size_t d = 0; d < t->view.shape[3]; d++) {
                    random_state centre = random_stream(which == PROBLEM_V ? 9 : 8, at * s->dim + d);
                    problem_set(t, 0, h, row, d, 0.8 * random_normal(&centre) + 0.7 * random_normal(&own));
                }
            }
    }
}

/* The mean of the rows' true errors, and of what they expected; keys that were exact. */
typedef struct verdict {
    double error, estimate, keys;
    int32_t most;
} verdict;

static verdict judge(problem *p, clsplat_device *device) {
    const problem_spec *s = &p->spec;
    size_t rows = s->heads * s->queries;
    int32_t *keys = malloc(rows * sizeof *keys);
    float *estimates = malloc(rows * sizeof *estimates);
    clsplat_attention_tensors views = problem_views(p);
    verdict v = {0};
    views.exact_keys = clsplat_tensor_host(CLSPLAT_I32, 1, s->heads, s->queries, 1, keys);
    views.error_estimate = clsplat_tensor_host(CLSPLAT_F32, 1, s->heads, s->queries, 1, estimates);
    suite_ok(p->lib, clsplat_attend(device, p->attention, views));
    problem_expect(p);
    for (size_t row = 0; row < rows; row++) {
        double out[64];
        for (size_t d = 0; d < s->value_dim; d++)
            out[d] = problem_get(&p->tensors[PROBLEM_OUT], 0, row / s->queries, row % s->queries, d);
        v.error += compare_norm(out, p->reference.out + row * s->value_dim, s->value_dim) / (double)rows;
        v.estimate += (double)estimates[row] / (double)rows;
        v.keys += keys[row] / (double)rows;
        v.most = keys[row] > v.most ? keys[row] : v.most;
    }
    free(keys);
    free(estimates);
    return v;
}

/* Numbers below CLUSTERED: two widths, with and without a causal order, in chunks of both lengths; from there
 * on a third width. */
enum { CLUSTERED = 8, CLUSTERED_ALL = 12 };

static problem clustered(int i) {
    static const size_t dims[] = {24, 32, 48};
    problem_spec spec = {
        .heads = 2, .kv_heads = 1, .queries = 300, .keys = 1024, .chunk = i % 2 ? 64 : 256, .near_far = true};
    spec.dim = spec.value_dim = dims[i < CLUSTERED ? i / 2 % 2 : 2];
    spec.causal = i < CLUSTERED ? i % 8 / 4 == i / 2 % 2 : i % 4 < 2;
    problem p = problem_create(problem_on_stage().lib, &spec, 60 + (uint64_t)i);
    cluster(&p, 40);
    return p;
}

START_TEST(errors_are_honest) {
    static const float tolerances[] = {0.1F, 0.03F, 0.01F};
    problem p = clustered(_i);
    verdict before = {.keys = 0};
    for (size_t t = 0; t < sizeof tolerances / sizeof *tolerances; t++) {
        p.attention.tolerance = tolerances[t];
        verdict v = judge(&p, problem_on_stage().device);
        ck_assert_msg(v.error < (double)tolerances[t], "tolerance %g: the error is %g", (double)tolerances[t],
                      v.error);
        /* Beside what float32 rounds, where nearly everything is open. */
        ck_assert_msg(v.error < 3 * v.estimate + 1e-5 && v.estimate < 10 * v.error + 1e-6,
                      "tolerance %g: error %g, estimate %g", (double)tolerances[t], v.error, v.estimate);
        ck_assert_msg(v.keys > before.keys, "tolerance %g opens no more than the one before",
                      (double)tolerances[t]);
        before = v;
    }
    problem_free(&p);
}
END_TEST

START_TEST(an_infinite_tolerance_opens_nothing) {
    problem p = clustered(_i);
    p.attention.tolerance = INFINITY;
    verdict v = judge(&p, problem_on_stage().device);
    double chunk = (double)p.spec.chunk, own = 0;
    for (size_t i = 724; i < 1024; i++)
        own += p.spec.causal ? (double)(i % p.spec.chunk + 1) / 300 : 0;
    double apart = 4 + (double)(p.spec.keys / 32); /* what stands apart is exact all the same */
    ck_assert_msg(v.keys >= own && v.keys <= own + apart && v.most <= chunk + apart,
                  "%g keys are exact, expected %g and up to %g", v.keys, own, apart);
    ck_assert_msg(v.estimate > 0 && isfinite(v.error), "error %g, estimate %g", v.error, v.estimate);
    problem_free(&p);
}
END_TEST

/* What the README says of where it does not pay: the counts of a row say it, too. */
START_TEST(counts_say_where_it_does_not_pay) {
    static const struct {
        size_t keys;
        float tolerance;
        double least; /* share of the keys */
    } cases[] = {{128, 0.05F, 0.5}, {1024, 0.002F, 0.6}};
    problem_spec spec = {.heads = 2,
                         .kv_heads = 1,
                         .queries = 64,
                         .keys = cases[_i].keys,
                         .dim = 32,
                         .value_dim = 32,
                         .causal = true,
                         .near_far = true,
                         .chunk = 64};
    problem p = problem_create(problem_on_stage().lib, &spec, 77);
    far_fill(&p, FAR_TEXT, 77);
    p.attention.tolerance = cases[_i].tolerance;
    verdict v = judge(&p, problem_on_stage().device);
    double share = v.keys / ((double)spec.keys - 31.5);
    ck_assert_msg(v.error < (double)cases[_i].tolerance, "the error is %g", v.error);
    ck_assert_msg(share >= cases[_i].least, "%g of the keys are exact", share);
    problem_free(&p);
}
END_TEST

/* As a share of keys and values in F32, for heads of 64, in the type that trees have at usual tolerances:
 * those for long sequences, and those for short ones. */
START_TEST(trees_take_their_share_of_a_cache) {
    static const struct {
        size_t chunk;
        double share;
    } cases[] = {{256, 0.6}, {32, 1.1}};
    op_tensor like = {.dtype = CLSPLAT_F16, .shape = {1, 2, 65536, 64}};
    op_forest forest = forest_shape(&like, &like, 65536, cases[_i].chunk, 0);
    size_t bytes[FOREST_BUFFERS], all = 0;
    forest_sizes(&forest, bytes);
    for (int i = 0; i < FOREST_BUFFERS; i++)
        all += bytes[i];
    double share = (double)all / (2.0 * 2 * 65536 * 64 * 4);
    ck_assert_msg(share > 0.9 * cases[_i].share && share < cases[_i].share, "%g of a cache", share);
}
END_TEST

START_TEST(sparse_topk_is_a_limit) {
    static const size_t limits[] = {64, 100, 257, 600};
    problem p = clustered(2 * (_i / 4) + 1);
    p.attention.sparse_topk = limits[_i % 4];
    p.attention.tolerance = 0.001F;
    verdict v = judge(&p, problem_on_stage().device);
    ck_assert_msg((size_t)v.most <= limits[_i % 4], "a row attends to %d keys, the limit is %zu", v.most,
                  limits[_i % 4]);
    ck_assert_msg(v.keys > 0.3 * (double)limits[_i % 4], "only %g of %zu keys are used", v.keys,
                  limits[_i % 4]);
    problem_free(&p);
}
END_TEST

static void add_exact(TCase *part) {
    static const int seeds[] = {[SUITE_SMALL] = 4, [SUITE_NORMAL] = 8, [SUITE_LONG] = 200};
    problem_add_stage(part);
    problem_add_cases(part, tolerance_0_is_softmax, exact, sizeof exact / sizeof *exact);
    tcase_add_loop_test(part, tolerance_0_is_softmax_on_units, 0, ON_UNITS);
    tcase_add_loop_test(part, random_shape, 0, seeds[suite_tier_wanted()]);
}

static void add_properties(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, later_keys_leave_earlier_rows, loose, sizeof loose / sizeof *loose);
    problem_add_cases(part, same_bits, loose, sizeof loose / sizeof *loose);
    tcase_add_loop_test(part, padding_does_not_matter, 0, 4);
    tcase_add_loop_test(part, nan_stays_in_its_row, 0, 4);
}

static void add_errors(TCase *part) {
    int cases = suite_tier_wanted() == SUITE_LONG ? CLUSTERED_ALL : CLUSTERED;
    problem_add_stage(part);
    tcase_add_loop_test(part, errors_are_honest, 0, cases);
    tcase_add_loop_test(part, an_infinite_tolerance_opens_nothing, 0, 4);
    tcase_add_loop_test(part, sparse_topk_is_a_limit, 0, 2 * cases);
    tcase_add_loop_test(part, counts_say_where_it_does_not_pay, 0, 2);
    tcase_add_loop_test(part, trees_take_their_share_of_a_cache, 0, 2);
}

int main(void) {
    static const suite_part parts[] = {
        {"exact", add_exact}, {"properties", add_properties}, {"errors", add_errors}};
    return suite_run("near_far", parts, sizeof parts / sizeof *parts);
}
