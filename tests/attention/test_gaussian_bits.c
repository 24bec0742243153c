/* Attention through Gaussian splats on random shapes, and what holds for it bit for bit. */
#include "attention/properties.h"
#include "base/random.h"

#define BF16 CLSPLAT_BF16
#define PER_LEVEL CLSPLAT_PER_LEVEL
#define NORMAL SUITE_NORMAL
#define LONG SUITE_LONG

static const clsplat_covariance forms[] = {CLSPLAT_ISOTROPIC, CLSPLAT_DIAGONAL, CLSPLAT_FULL};
/* Head dimensions of 8 and of 16, which wide variants take, too. */
enum { COVARIANCES = sizeof forms / sizeof *forms, FORMS = 2 * COVARIANCES };

static problem_spec in_form(problem_spec spec, int form) {
    spec.covariance = forms[form % COVARIANCES];
    spec.dim = spec.value_dim = form < COVARIANCES ? 8 : 16;
    return spec;
}

START_TEST(random_shape) {
    static const size_t counts[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100};
    problem_spec spec = properties_random((uint64_t)_i);
    random_state r = random_stream((uint64_t)_i, 8);
    spec.splats = counts[random_below(&r, sizeof counts / sizeof *counts)];
    spec.levels = 1 + random_below(&r, 4);
    spec.shared = random_below(&r, 2);
    spec.covariance = spec.dim > 8 ? CLSPLAT_DIAGONAL : forms[random_below(&r, COVARIANCES)];
    spec.mixing = (clsplat_mixing)random_below(&r, 2);
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &spec, (uint64_t)_i);
    problem_solve(&p, s.device);
    problem_free(&p);
}
END_TEST

// clang-format off
static const problem_spec properties[] = {
    {.heads = 2, .queries = 70, .keys = 70, .bias = BIAS_RANDOM, .splats = 12, .levels = 2},
    {.heads = 2, .kv_heads = 1, .queries = 40, .keys = 100, .bias = BIAS_RANDOM, .splats = 12,
     .levels = 3, .mixing = PER_LEVEL},
    {.queries = 100, .keys = 40, .bias = BIAS_HOLES, .splats = 12},
    {.queries = 300, .keys = 300, .bias = BIAS_RANDOM, .splats = 5, .levels = 2, .mixing = PER_LEVEL,
     .shared = true, .tier = NORMAL},
    {.queries = 130, .keys = 200, .bias = BIAS_RANDOM, .q = BF16, .k = BF16, .v = BF16, .key_bias = BF16,
     .splats = 12, .tier = NORMAL},
};
// clang-format on

START_TEST(later_keys_leave_earlier_rows) {
    for (int form = 0; form < FORMS; form++) {
        problem_spec spec = in_form(properties[_i], form);
        properties_causal(&spec, 400 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(same_bits) {
    for (int form = 0; form < FORMS; form++) {
        problem_spec spec = in_form(properties[_i], form);
        properties_repeatable(&spec, 500 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(padding_does_not_matter) {
    const problem_spec base = {
        .heads = 2, .queries = 40, .keys = 100, .bias = BIAS_HOLES, .splats = 6, .causal = _i / FORMS};
    problem_spec spec = in_form(base, _i % FORMS);
    properties_padding(&spec, 1);
}
END_TEST

START_TEST(nan_stays_in_its_row) {
    const problem_spec base = {.heads = 2, .queries = 40, .keys = 50, .causal = _i / FORMS, .splats = 6};
    problem_spec spec = in_form(base, _i % FORMS);
    properties_nan_query(&spec, 3);
}
END_TEST

static void add_random(TCase *part) {
    static const int seeds[] = {[SUITE_SMALL] = 4, [NORMAL] = 60, [LONG] = 600};
    problem_add_stage(part);
    tcase_add_loop_test(part, random_shape, 0, seeds[suite_tier_wanted()]);
}

static void add_properties(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, later_keys_leave_earlier_rows, properties,
                      sizeof properties / sizeof *properties);
    problem_add_cases(part, same_bits, properties, sizeof properties / sizeof *properties);
    tcase_add_loop_test(part, padding_does_not_matter, 0, 2 * FORMS);
    tcase_add_loop_test(part, nan_stays_in_its_row, 0, 2 * FORMS);
}

int main(void) {
    static const suite_part parts[] = {{"random", add_random}, {"properties", add_properties}};
    return suite_run("gaussian bits", parts, sizeof parts / sizeof *parts);
}
