/* Attention through Gaussian splats against its definition. */
#include "attention/problem.h"
#include "runtime/device.h"

#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16
#define ISOTROPIC CLSPLAT_ISOTROPIC
#define DIAGONAL CLSPLAT_DIAGONAL
#define FULL CLSPLAT_FULL
#define PER_LEVEL CLSPLAT_PER_LEVEL
#define NORMAL SUITE_NORMAL
#define LONG SUITE_LONG

/* Head dimensions, row counts and splat counts around the sizes of vectors and tiles. */
// clang-format off
static const problem_spec shapes[] = {
    {.queries = 1, .keys = 1, .dim = 1, .value_dim = 1, .splats = 1, .covariance = DIAGONAL},
    {.queries = 33, .keys = 65, .dim = 1, .value_dim = 1, .splats = 3, .covariance = ISOTROPIC,
     .causal = true, .tier = NORMAL},
    {.queries = 2, .keys = 31, .dim = 2, .value_dim = 3, .splats = 5, .covariance = DIAGONAL,
     .tier = NORMAL},
    {.queries = 63, .keys = 32, .dim = 3, .value_dim = 2, .splats = 17, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 100, .keys = 100, .dim = 5, .value_dim = 7, .splats = 33, .covariance = FULL,
     .causal = true, .tier = NORMAL},
    {.queries = 31, .keys = 257, .dim = 7, .value_dim = 16, .splats = 9, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 129, .keys = 63, .dim = 16, .value_dim = 5, .splats = 16, .covariance = ISOTROPIC,
     .causal = true, .tier = NORMAL},
    {.queries = 64, .keys = 128, .dim = 31, .value_dim = 33, .splats = 65, .covariance = DIAGONAL,
     .tier = NORMAL},
    {.queries = 257, .keys = 255, .dim = 33, .value_dim = 31, .splats = 7, .covariance = FULL,
     .causal = true, .tier = NORMAL},
    {.queries = 40, .keys = 41, .dim = 48, .value_dim = 64, .splats = 31, .covariance = ISOTROPIC,
     .causal = true, .tier = NORMAL},
    {.queries = 130, .keys = 130, .dim = 64, .value_dim = 64, .splats = 64, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 130, .keys = 130, .dim = 64, .value_dim = 64, .splats = 20, .covariance = FULL,
     .tier = NORMAL},
    {.queries = 200, .keys = 200, .dim = 64, .value_dim = 64, .splats = 30, .covariance = DIAGONAL,
     .data = DATA_NARROW, .tier = NORMAL},
    {.queries = 200, .keys = 200, .dim = 64, .value_dim = 64, .splats = 30, .covariance = DIAGONAL,
     .data = DATA_FAR, .tier = NORMAL},
    {.queries = 70, .keys = 90, .dim = 100, .value_dim = 100, .splats = 32, .covariance = DIAGONAL,
     .tier = NORMAL},
    {.queries = 90, .keys = 70, .dim = 128, .value_dim = 128, .splats = 12, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 33, .keys = 34, .dim = 256, .value_dim = 256, .splats = 18, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 17, .keys = 18, .dim = 256, .value_dim = 128, .splats = 9, .covariance = FULL,
     .tier = LONG},
    {.queries = 17, .keys = 19, .dim = 1, .value_dim = 256, .splats = 9, .covariance = ISOTROPIC,
     .tier = LONG},
    {.queries = 9, .keys = 12, .dim = 1024, .value_dim = 1000, .splats = 5, .covariance = DIAGONAL,
     .tier = LONG},
    {.queries = 65, .keys = 100, .dim = 8, .value_dim = 8, .splats = 300, .levels = 4,
     .covariance = DIAGONAL, .causal = true, .tier = NORMAL},
    {.queries = 65, .keys = 100, .dim = 8, .value_dim = 8, .splats = 300, .levels = 4,
     .covariance = ISOTROPIC, .mixing = PER_LEVEL, .tier = NORMAL},
    {.queries = 3, .keys = 3000, .dim = 8, .value_dim = 8, .splats = 10, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 3000, .keys = 3, .dim = 8, .value_dim = 8, .splats = 10, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
    {.queries = 1000, .keys = 1000, .dim = 8, .value_dim = 8, .splats = 10, .covariance = DIAGONAL,
     .causal = true, .tier = NORMAL},
};
// clang-format on

/* Heads, biases, levels, layouts and hard numbers, each with all
 * covariances and two head dimensions. */
// clang-format off
static const problem_spec kinds[] = {
    {.batch = 3, .heads = 6, .kv_heads = 2, .queries = 33, .keys = 65, .causal = true,
     .bias = BIAS_RANDOM, .splats = 12, .levels = 3},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 33, .causal = true, .bias = BIAS_FRONT,
     .splats = 12, .levels = 3, .mixing = PER_LEVEL},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 100, .bias = BIAS_ALL, .splats = 9,
     .levels = 2, .shared = true},
    {.heads = 3, .queries = 32, .keys = 70, .bias = BIAS_HOLES, .causal = true, .layout = LAYOUT_TOKENS,
     .splats = 40, .levels = 4, .mixing = PER_LEVEL, .shared = true},
    {.batch = 2, .heads = 6, .kv_heads = 3, .queries = 50, .keys = 70, .bias = BIAS_HOLES, .splats = 7,
     .shared = true, .causal = true},
    {.queries = 1, .keys = 1, .bias = BIAS_ALL, .splats = 4},
    {.queries = 1, .keys = 1, .causal = true, .splats = 4, .levels = 2, .mixing = PER_LEVEL},
    {.queries = 1, .keys = 257, .causal = true, .splats = 1},
    {.queries = 257, .keys = 1, .causal = true, .splats = 1, .levels = 3, .mixing = PER_LEVEL},
    {.queries = 100, .keys = 100, .data = DATA_FAR, .splats = 12, .levels = 2, .causal = true},
    {.queries = 60, .keys = 100, .data = DATA_FAR, .splats = 12, .levels = 2, .mixing = PER_LEVEL,
     .bias = BIAS_HOLES},
    {.queries = 100, .keys = 100, .data = DATA_DOMINANT, .bias = BIAS_RANDOM, .causal = true,
     .splats = 12, .levels = 2, .mixing = PER_LEVEL},
    {.queries = 50, .keys = 100, .data = DATA_DOMINANT, .bias = BIAS_HOLES, .splats = 12},
    {.queries = 40, .keys = 100, .data = DATA_IDENTICAL, .causal = true, .splats = 12},
    {.heads = 2, .queries = 60, .keys = 80, .data = DATA_NARROW, .splats = 10, .levels = 2},
    {.heads = 2, .queries = 100, .keys = 100, .data = DATA_NARROW, .splats = 10, .shared = true,
     .causal = true},
    {.heads = 2, .queries = 60, .keys = 80, .data = DATA_EXTREME, .splats = 10, .levels = 4},
    {.heads = 2, .queries = 60, .keys = 80, .data = DATA_EXTREME, .splats = 10, .levels = 4,
     .mixing = PER_LEVEL, .bias = BIAS_RANDOM},
    {.heads = 2, .queries = 80, .keys = 60, .data = DATA_EXTREME, .splats = 10, .levels = 4,
     .causal = true, .shared = true},
    {.heads = 2, .queries = 80, .keys = 80, .data = DATA_EXTREME, .splats = 10, .levels = 4,
     .causal = true, .mixing = PER_LEVEL},
};
// clang-format on

/* Storage types, each tensor its own. */
// clang-format off
static const problem_spec types[] = {
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = BF16, .k = BF16, .v = BF16,
     .bias = BIAS_HOLES, .key_bias = BF16, .splats = 12, .covariance = DIAGONAL},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = F16, .v = F16, .out = F16,
     .lse = F16, .bias = BIAS_RANDOM, .key_bias = F16, .causal = true, .splats = 12,
     .covariance = DIAGONAL},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = BF16, .out = BF16, .lse = BF16,
     .bias = BIAS_FRONT, .splats = 12, .covariance = FULL, .causal = true, .tier = NORMAL},
    {.queries = 65, .keys = 33, .dim = 16, .value_dim = 16, .k = F16, .v = BF16, .out = F16, .lse = BF16,
     .bias = BIAS_HOLES, .key_bias = BF16, .splats = 12, .covariance = ISOTROPIC, .causal = true,
     .tier = NORMAL},
    {.heads = 2, .queries = 65, .keys = 65, .dim = 15, .value_dim = 3, .q = BF16, .v = F16, .lse = F16,
     .splats = 12, .levels = 2, .covariance = DIAGONAL, .mixing = PER_LEVEL, .layout = LAYOUT_TOKENS,
     .tier = NORMAL},
};
// clang-format on

/* Shapes that rows on matrix units take. */
// clang-format off
static const problem_spec halves[] = {
    {.heads = 2, .queries = 70, .keys = 300, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16, .splats = 130},
    {.heads = 4, .kv_heads = 2, .queries = 300, .keys = 200, .dim = 64, .value_dim = 64, .q = F16, .k = F16, .v = F16,
     .splats = 65, .levels = 3, .shared = true, .bias = BIAS_HOLES, .tier = NORMAL},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 33, .keys = 65, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16,
     .v = BF16, .out = BF16, .splats = 40, .levels = 2, .bias = BIAS_ALL, .tier = NORMAL},
    {.queries = 200, .keys = 200, .dim = 64, .value_dim = 64, .q = F16, .k = F16, .v = F16, .splats = 30, .data = DATA_FAR,
     .tier = NORMAL},
    {.queries = 200, .keys = 1000, .dim = 16, .value_dim = 48, .q = BF16, .k = BF16, .v = BF16, .splats = 64, .tier = NORMAL},
    {.queries = 60, .keys = 80, .dim = 128, .value_dim = 128, .q = F16, .k = F16, .v = F16, .splats = 20,
     .bias = BIAS_RANDOM, .layout = LAYOUT_TOKENS, .tier = NORMAL},
    {.queries = 130, .keys = 130, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16, .v = BF16, .splats = 40, .causal = true,
     .tier = NORMAL},
};
// clang-format on

static const clsplat_covariance forms[] = {ISOTROPIC, DIAGONAL, FULL};
/* Head dimensions of 8 and of 16, which wide variants take, too. */
enum { COVARIANCES = sizeof forms / sizeof *forms, FORMS = 2 * COVARIANCES };

static problem_spec in_form(problem_spec spec, int form) {
    spec.covariance = forms[form % COVARIANCES];
    spec.dim = spec.value_dim = form < COVARIANCES ? 8 : 16;
    return spec;
}

START_TEST(shape) {
    problem_solve_here(&shapes[_i], 100 + (uint64_t)_i);
}
END_TEST

START_TEST(kind) {
    for (int form = 0; form < FORMS; form++) {
        problem_spec spec = in_form(kinds[_i], form);
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
    problem_spec spec = halves[_i];
    spec.covariance = ISOTROPIC;
    problem_solve_by_matrix_rows(&spec, 350 + (uint64_t)_i);
}
END_TEST

/* Parameters written in place count from clsplat_splats_changed on. */
START_TEST(changed_splats_are_used) {
    const problem_spec base = {.queries = 20, .keys = 30, .splats = 6};
    problem_spec spec = in_form(base, 1);
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &spec, 5);
    problem_solve(&p, s.device);
    clsplat_splats_parameters splats = clsplat_splats_get(p.splats);
    splats.log_amplitude[2] += 3;
    splats.mean[0] = -1;
    suite_ok(s.lib, clsplat_splats_changed(p.splats));
    problem_solve(&p, s.device);
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
    tcase_add_test(part, changed_splats_are_used);
}

int main(void) {
    static const suite_part parts[] = {{"shapes", add_shapes}, {"kinds", add_kinds}};
    return suite_run("gaussian", parts, sizeof parts / sizeof *parts);
}
