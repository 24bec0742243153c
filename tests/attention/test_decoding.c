/* Few queries over many keys: the keys are split over work-items and their states merged. */
#include <string.h>

#include "attention/properties.h"
#include "op/kernel.h"

#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16

// clang-format off
static const problem_spec cases[] = {
    {.queries = 1, .keys = 1024, .dim = 16, .value_dim = 16},
    {.heads = 4, .queries = 1, .keys = 3001, .dim = 64, .value_dim = 64, .causal = true},
    {.batch = 2, .heads = 6, .kv_heads = 2, .queries = 1, .keys = 2047, .dim = 32, .value_dim = 48,
     .bias = BIAS_HOLES, .layout = LAYOUT_TOKENS},
    {.heads = 8, .kv_heads = 2, .queries = 7, .keys = 1999, .dim = 16, .value_dim = 32, .causal = true,
     .bias = BIAS_RANDOM},
    {.batch = 2, .heads = 2, .queries = 3, .keys = 1100, .dim = 16, .value_dim = 16, .bias = BIAS_ALL},
    {.heads = 2, .kv_heads = 1, .queries = 16, .keys = 1500, .dim = 16, .value_dim = 16, .bias = BIAS_FRONT,
     .causal = true},
    {.queries = 2, .keys = 2000, .dim = 16, .value_dim = 16, .data = DATA_DOMINANT, .bias = BIAS_RANDOM},
    {.queries = 5, .keys = 2000, .dim = 16, .value_dim = 16, .data = DATA_LOUD, .scale = 0.5F, .causal = true},
    {.heads = 4, .kv_heads = 1, .queries = 1, .keys = 2100, .dim = 16, .value_dim = 16, .q = F16, .k = F16,
     .v = F16, .bias = BIAS_RANDOM, .key_bias = F16, .out = F16, .lse = F16},
    {.queries = 4, .keys = 1234, .dim = 16, .value_dim = 16, .q = BF16, .k = BF16, .v = BF16,
     .bias = BIAS_HOLES, .key_bias = BF16, .out = BF16, .lse = BF16, .layout = LAYOUT_TOKENS, .causal = true},
    {.heads = 4, .queries = 1, .keys = 65536, .dim = 64, .value_dim = 64, .tier = SUITE_NORMAL},
    {.heads = 2, .queries = 1, .keys = 300000, .dim = 16, .value_dim = 16, .tier = SUITE_LONG},
};
// clang-format on
enum { CASES = sizeof cases / sizeof *cases };

static bool has_kernel(const clsplat_profile_row *rows, size_t count, const char *kernel) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].kernel, kernel) == 0)
            return true;
    return false;
}

/* With the device's own compute units and with so many that every range is short. Where ranges fit all
 * cases, it is them that ran. */
START_TEST(right_in_any_cut) {
    problem_stage s = problem_on_stage();
    clsplat_limits limits = clsplat_device_describe(s.device)->limits, many = limits;
    problem p = problem_create(s.lib, &cases[_i], 700 + (uint64_t)_i);
    clsplat_profile_row *rows = NULL;
    size_t count = 0;
    clsplat_profile_set(s.device, true);
    problem_solve(&p, s.device);
    many.compute_units = 64;
    clsplat_device_set_limits(s.device, many);
    problem_solve(&p, s.device);
    clsplat_device_set_limits(s.device, limits);
    suite_ok(s.lib, clsplat_profile_read(s.device, &rows, &count));
    clsplat_profile_set(s.device, false);
    ck_assert(!limits_are_wide(&limits) || has_kernel(rows, count, "softmax_merge"));
    clsplat_profile_free(&rows);
    problem_free(&p);
}
END_TEST

/* Blocks of keys that meet in out and lse. */
START_TEST(right_in_blocks) {
    problem_stage s = problem_on_stage();
    clsplat_limits limits = clsplat_device_describe(s.device)->limits, small = limits;
    problem_spec spec = {.heads = 2,
                         .queries = 1 + 2 * (size_t)_i,
                         .keys = 9000,
                         .dim = 16,
                         .value_dim = 16,
                         .bias = BIAS_RANDOM,
                         .causal = _i};
    problem p = problem_create(s.lib, &spec, 800);
    small.max_allocation = 160 << 10;
    clsplat_device_set_limits(s.device, small);
    problem_solve(&p, s.device);
    clsplat_device_set_limits(s.device, limits);
    problem_free(&p);
}
END_TEST

static const problem_spec decoding = {
    .heads = 2, .kv_heads = 1, .queries = 6, .keys = 1300, .dim = 16, .value_dim = 16, .bias = BIAS_RANDOM};

START_TEST(later_keys_leave_earlier_rows) {
    properties_causal(&decoding, 900);
}
END_TEST

START_TEST(same_bits) {
    properties_repeatable(&decoding, 901);
}
END_TEST

START_TEST(padding_does_not_matter) {
    problem_spec spec = decoding;
    spec.bias = BIAS_HOLES;
    spec.causal = _i;
    properties_padding(&spec, 902);
}
END_TEST

START_TEST(nan_stays_in_its_row) {
    properties_nan_query(&decoding, 903);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, right_in_any_cut, cases, CASES);
    tcase_add_loop_test(part, right_in_blocks, 0, 2);
    tcase_add_test(part, later_keys_leave_earlier_rows);
    tcase_add_test(part, same_bits);
    tcase_add_loop_test(part, padding_does_not_matter, 0, 2);
    tcase_add_test(part, nan_stays_in_its_row);
}

int main(void) {
    static const suite_part parts[] = {{"decoding", add_all}};
    return suite_run("decoding", parts, sizeof parts / sizeof *parts);
}
