/* Exact attention against its reference, and what holds for it bit for bit. */
#include <math.h>
#include <string.h>

#include "attention/properties.h"
#include "runtime/device.h"

#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16

/* Head dimensions around the sizes of vectors and tiles; rows ragged around theirs. */
// clang-format off
static const problem_spec shapes[] = {
    {.tier = SUITE_SMALL, .queries = 1, .keys = 1, .dim = 1, .value_dim = 1},
    {.queries = 33, .keys = 65, .dim = 1, .value_dim = 1, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 2, .keys = 31, .dim = 2, .value_dim = 3, .tier = SUITE_NORMAL},
    {.queries = 63, .keys = 32, .dim = 3, .value_dim = 2, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 100, .keys = 100, .dim = 5, .value_dim = 7, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 31, .keys = 257, .dim = 7, .value_dim = 16, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 65, .keys = 65, .dim = 8, .value_dim = 8, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 129, .keys = 63, .dim = 16, .value_dim = 5, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 64, .keys = 128, .dim = 31, .value_dim = 33, .tier = SUITE_NORMAL},
    {.queries = 257, .keys = 255, .dim = 33, .value_dim = 31, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 40, .keys = 41, .dim = 48, .value_dim = 64, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 300, .keys = 300, .dim = 64, .value_dim = 64, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 70, .keys = 90, .dim = 100, .value_dim = 100, .tier = SUITE_NORMAL},
    {.queries = 90, .keys = 70, .dim = 128, .value_dim = 128, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 33, .keys = 34, .dim = 256, .value_dim = 256, .tier = SUITE_NORMAL},
    {.queries = 17, .keys = 19, .dim = 128, .value_dim = 256, .causal = true, .tier = SUITE_LONG},
    {.queries = 17, .keys = 19, .dim = 1, .value_dim = 256, .tier = SUITE_LONG},
    {.queries = 17, .keys = 19, .dim = 256, .value_dim = 1, .tier = SUITE_LONG},
    {.queries = 9, .keys = 12, .dim = 1024, .value_dim = 1000, .causal = true, .tier = SUITE_LONG},
    {.queries = 3, .keys = 3000, .dim = 64, .value_dim = 64, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 2000, .keys = 3, .dim = 64, .value_dim = 64, .causal = true, .tier = SUITE_NORMAL},
};
// clang-format on

/* Heads, batches, biases, layouts and hard numbers; each with all head dimensions in `widths`. */
// clang-format off
static const problem_spec kinds[] = {
    {.batch = 3, .heads = 6, .kv_heads = 2, .queries = 33, .keys = 65, .causal = true,
     .bias = BIAS_RANDOM},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 33, .causal = true,
     .bias = BIAS_FRONT},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 100, .bias = BIAS_ALL},
    {.heads = 3, .queries = 32, .keys = 70, .bias = BIAS_HOLES, .causal = true, .layout = LAYOUT_TOKENS},
    {.queries = 1, .keys = 1, .bias = BIAS_ALL},
    {.queries = 1, .keys = 257, .causal = true},
    {.queries = 257, .keys = 1, .causal = true},
    {.heads = 2, .queries = 65, .keys = 65, .scale = 0},
    {.heads = 2, .queries = 65, .keys = 65, .scale = -0.7F, .causal = true},
    {.queries = 65, .keys = 130, .data = DATA_LOUD, .scale = 0.5F},
    {.queries = 65, .keys = 130, .data = DATA_LOUD, .scale = 0.5F, .causal = true},
    {.queries = 100, .keys = 100, .data = DATA_DOMINANT, .bias = BIAS_RANDOM, .causal = true},
    {.queries = 50, .keys = 100, .data = DATA_DOMINANT, .bias = BIAS_HOLES},
    {.queries = 40, .keys = 100, .data = DATA_IDENTICAL, .causal = true},
    {.heads = 4, .kv_heads = 2, .queries = 64, .keys = 64, .bias = BIAS_HOLES, .causal = true,
     .layout = LAYOUT_TOKENS, .tier = SUITE_NORMAL},
    {.batch = 2, .heads = 3, .kv_heads = 1, .queries = 77, .keys = 200, .bias = BIAS_ALL,
     .tier = SUITE_NORMAL},
    {.queries = 130, .keys = 130, .data = DATA_LOUD, .scale = 0.5F, .causal = true, .tier = SUITE_NORMAL},
    {.heads = 2, .queries = 65, .keys = 130, .causal = true, .window = 1},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 100, .keys = 77, .causal = true, .window = 30,
     .bias = BIAS_HOLES},
    {.queries = 40, .keys = 50, .causal = true, .window = 500},
};
// clang-format on

/* Storage types, each tensor its own; `bias` takes part so that its type does. */
// clang-format off
static const problem_spec types[] = {
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = F16, .v = F16,
     .bias = BIAS_RANDOM, .key_bias = F16, .causal = true},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = BF16, .k = BF16, .v = BF16,
     .bias = BIAS_HOLES, .key_bias = BF16, .out = BF16, .lse = BF16},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = BF16, .bias = BIAS_FRONT,
     .out = F16, .lse = F16, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 65, .keys = 33, .dim = 16, .value_dim = 16, .k = F16, .v = BF16, .bias = BIAS_HOLES,
     .key_bias = F16, .out = F16, .lse = BF16, .causal = true, .tier = SUITE_NORMAL},
    {.queries = 65, .keys = 33, .dim = 15, .value_dim = 3, .q = BF16, .v = F16, .bias = BIAS_RANDOM,
     .key_bias = BF16, .out = BF16, .lse = F16, .layout = LAYOUT_TOKENS, .tier = SUITE_NORMAL},
    {.heads = 2, .queries = 100, .keys = 100, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16,
     .causal = true, .tier = SUITE_NORMAL},
};
// clang-format on

/* Shapes that rows on matrix units take: 16-bit types of one kind, tiles that are ragged at either end. */
// clang-format off
static const problem_spec halves[] = {
    {.heads = 2, .queries = 300, .keys = 300, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16, .causal = true},
    {.heads = 2, .queries = 70, .keys = 513, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16, .out = BF16},
    {.heads = 4, .kv_heads = 2, .queries = 100, .keys = 130, .dim = 64, .value_dim = 64, .q = F16, .k = F16, .v = F16,
     .bias = BIAS_HOLES, .causal = true, .tier = SUITE_NORMAL},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 64, .keys = 64, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16,
     .v = BF16, .bias = BIAS_ALL, .tier = SUITE_NORMAL},
    {.queries = 200, .keys = 90, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16, .bias = BIAS_FRONT,
     .causal = true, .tier = SUITE_NORMAL},
    {.queries = 130, .keys = 130, .dim = 64, .value_dim = 64, .q = F16, .k = F16, .v = F16, .data = DATA_DOMINANT,
     .bias = BIAS_RANDOM, .tier = SUITE_NORMAL},
    {.queries = 65, .keys = 130, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16, .data = DATA_LOUD, .scale = 0.5F,
     .causal = true, .tier = SUITE_NORMAL},
    {.queries = 40, .keys = 70, .dim = 32, .value_dim = 48, .q = BF16, .k = BF16, .v = BF16, .tier = SUITE_NORMAL},
    {.queries = 40, .keys = 200, .dim = 128, .value_dim = 128, .q = F16, .k = F16, .v = F16, .causal = true,
     .tier = SUITE_NORMAL},
};
// clang-format on
static const char *const matrix_rows[] = {"mma", "wgmma"};

/* Head dimensions that only the plain variant takes, and that wider ones take, too. */
static const size_t widths[] = {8, 16};
enum { WIDTHS = sizeof widths / sizeof *widths };

static problem_spec as_wide(problem_spec spec, int width) {
    spec.dim = spec.value_dim = widths[width];
    return spec;
}

START_TEST(shape) {
    problem_solve_here(&shapes[_i], 100 + (uint64_t)_i);
}
END_TEST

START_TEST(kind) {
    for (int width = 0; width < WIDTHS; width++) {
        problem_spec spec = as_wide(kinds[_i], width);
        problem_solve_here(&spec, 200 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(type) {
    problem_solve_here(&types[_i], 300 + (uint64_t)_i);
}
END_TEST

/* By each of those rows, where the device has it. */
START_TEST(half) {
    problem_solve_by_matrix_rows(&halves[_i], 350 + (uint64_t)_i);
}
END_TEST

START_TEST(random_shape) {
    problem_spec spec = properties_random((uint64_t)_i);
    problem_solve_here(&spec, (uint64_t)_i);
}
END_TEST

// clang-format off
static const problem_spec causal[] = {
    {.heads = 2, .queries = 70, .keys = 70, .bias = BIAS_RANDOM},
    {.heads = 2, .kv_heads = 1, .queries = 40, .keys = 100, .bias = BIAS_RANDOM},
    {.queries = 100, .keys = 40, .bias = BIAS_HOLES},
    {.queries = 300, .keys = 300, .bias = BIAS_RANDOM, .tier = SUITE_NORMAL},
    {.queries = 33, .keys = 65, .q = F16, .k = F16, .v = F16, .bias = BIAS_RANDOM, .key_bias = F16},
};
// clang-format on

START_TEST(later_keys_leave_earlier_rows) {
    for (int width = 0; width < WIDTHS; width++) {
        problem_spec spec = as_wide(causal[_i], width);
        properties_causal(&spec, 400 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(later_keys_leave_earlier_halves) {
    problem_spec spec = halves[_i];
    for (size_t row = 0; row < sizeof matrix_rows / sizeof *matrix_rows; row++) {
        spec.variant = matrix_rows[row];
        properties_causal(&spec, 450 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(same_bits) {
    for (int width = 0; width < WIDTHS; width++) {
        problem_spec spec = as_wide(causal[_i], width);
        properties_repeatable(&spec, 500 + (uint64_t)_i);
    }
}
END_TEST

START_TEST(padding_does_not_matter) {
    problem_spec spec = {
        .heads = 2, .queries = 40, .keys = 100, .dim = 8, .value_dim = 8, .bias = BIAS_HOLES};
    properties_padding(&spec, 1);
    spec.causal = true;
    properties_padding(&spec, 2);
}
END_TEST

START_TEST(nan_stays_in_its_row) {
    const problem_spec base = {.heads = 2, .queries = 40, .keys = 50, .causal = _i / WIDTHS};
    problem_spec spec = as_wide(base, _i % WIDTHS);
    properties_nan_query(&spec, 3);
}
END_TEST

START_TEST(without_lse) {
    problem_stage s = problem_on_stage();
    problem_spec spec = {.queries = 40, .keys = 50, .dim = 8, .value_dim = 8};
    problem p = problem_create(s.lib, &spec, 4);
    problem_solve(&p, s.device);
    clsplat_attention_tensors views = problem_views(&p);
    views.lse = (clsplat_tensor){0};
    memset(p.tensors[PROBLEM_OUT].bytes, 0xFF, problem_bytes(&p.tensors[PROBLEM_OUT]));
    suite_ok(s.lib, clsplat_attend(s.device, p.attention, views));
    problem_check(&p);
    problem_free(&p);
}
END_TEST

static void add_shapes(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, shape, shapes, sizeof shapes / sizeof *shapes);
}

static void add_kinds(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, kind, kinds, sizeof kinds / sizeof *kinds);
    problem_add_cases(part, type, types, sizeof types / sizeof *types);
    problem_add_cases(part, half, halves, sizeof halves / sizeof *halves);
    tcase_add_test(part, without_lse);
}

static void add_random(TCase *part) {
    static const int seeds[] = {[SUITE_SMALL] = 4, [SUITE_NORMAL] = 40, [SUITE_LONG] = 400};
    problem_add_stage(part);
    tcase_add_loop_test(part, random_shape, 0, seeds[suite_tier_wanted()]);
}

static void add_properties(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, later_keys_leave_earlier_rows, causal, sizeof causal / sizeof *causal);
    problem_add_cases(part, later_keys_leave_earlier_halves, halves, 1);
    problem_add_cases(part, same_bits, causal, sizeof causal / sizeof *causal);
    tcase_add_loop_test(part, padding_does_not_matter, 0, 2 * WIDTHS);
    tcase_add_loop_test(part, nan_stays_in_its_row, 0, 2 * WIDTHS);
}

int main(void) {
    static const suite_part parts[] = {
        {"shapes", add_shapes}, {"kinds", add_kinds}, {"random", add_random}, {"properties", add_properties}};
    return suite_run("softmax", parts, sizeof parts / sizeof *parts);
}
