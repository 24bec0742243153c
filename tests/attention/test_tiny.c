/* Every kernel once, on shapes small enough for a simulator that finds races and reads of uninitialised
 * memory.
 *
 * Oclgrind 21.10 takes for uninitialised what was written to a part of a buffer, and what lies in a buffer
 * whose place another one had before. So the tensors lie in buffers made with their contents,
 * $CLSPLAT_TEST_ROW picks one row for a process of its own, and of initialisation, which writes means one by
 * one, only the races can be looked for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/gradient.h"
#include "attention/problem.h"

// clang-format off
static const problem_spec specs[] = {
    {.heads = 2, .kv_heads = 1, .queries = 5, .keys = 7, .dim = 3, .value_dim = 2, .causal = true, .bias = BIAS_HOLES},
    {.queries = 7, .keys = 5, .dim = 3, .value_dim = 2, .causal = true, .layout = LAYOUT_TOKENS},
    {.queries = 3, .keys = 4, .dim = 3, .value_dim = 2, .q = CLSPLAT_F16, .k = CLSPLAT_BF16, .v = CLSPLAT_F16,
     .out = CLSPLAT_BF16, .lse = CLSPLAT_F16},
    {.heads = 2, .kv_heads = 1, .queries = 5, .keys = 7, .dim = 3, .value_dim = 2, .splats = 4, .levels = 3,
     .bias = BIAS_HOLES},
    {.heads = 2, .kv_heads = 1, .queries = 5, .keys = 7, .dim = 3, .value_dim = 2, .splats = 4, .levels = 3,
     .causal = true, .shared = true},
    {.queries = 5, .keys = 40, .dim = 3, .value_dim = 2, .splats = 3, .levels = 2, .causal = true,
     .mixing = CLSPLAT_PER_LEVEL, .bias = BIAS_FRONT},
    {.queries = 40, .keys = 36, .dim = 3, .value_dim = 2, .splats = 2, .causal = true, .mixing = CLSPLAT_PER_LEVEL,
     .q = CLSPLAT_BF16, .k = CLSPLAT_F16, .v = CLSPLAT_BF16, .out = CLSPLAT_F16},
};
// clang-format on
/* What matrix units take: CLSPLAT_TEST_GPU=80, or 90 for the layout of Hopper's tiles; without splats also
 * others' units. */
// clang-format off
static const problem_spec halves[] = {
    {.queries = 17, .keys = 70, .dim = 64, .value_dim = 64, .q = CLSPLAT_BF16, .k = CLSPLAT_BF16, .v = CLSPLAT_BF16,
     .causal = true},
    {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 70, .dim = 16, .value_dim = 32, .q = CLSPLAT_F16, .k = CLSPLAT_F16,
     .v = CLSPLAT_F16, .bias = BIAS_HOLES, .out = CLSPLAT_F16},
    {.queries = 17, .keys = 70, .dim = 64, .value_dim = 64, .q = CLSPLAT_BF16, .k = CLSPLAT_BF16, .v = CLSPLAT_BF16,
     .splats = 20, .covariance = CLSPLAT_ISOTROPIC, .out = CLSPLAT_BF16},
    {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 70, .dim = 32, .value_dim = 16, .q = CLSPLAT_F16, .k = CLSPLAT_F16,
     .v = CLSPLAT_F16, .splats = 70, .levels = 2, .covariance = CLSPLAT_ISOTROPIC, .bias = BIAS_HOLES, .shared = true,
     .data = DATA_FAR},
};
// clang-format on
enum { HALVES = sizeof halves / sizeof *halves };
/* Gradients: in tiles of local memory (any GPU), then on matrix units. */
// clang-format off
static const problem_spec gradients[] = {
    {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 37, .dim = 5, .value_dim = 36, .causal = true, .bias = BIAS_HOLES,
     .layout = LAYOUT_TOKENS},
    {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 17, .dim = 5, .value_dim = 6, .splats = 6, .levels = 2,
     .covariance = CLSPLAT_DIAGONAL},
    {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 37, .dim = 5, .value_dim = 36, .splats = 18, .shared = true,
     .covariance = CLSPLAT_ISOTROPIC, .bias = BIAS_HOLES},
    {.heads = 2, .kv_heads = 1, .queries = 35, .keys = 70, .dim = 16, .value_dim = 16, .q = CLSPLAT_BF16, .k = CLSPLAT_BF16,
     .v = CLSPLAT_BF16, .out = CLSPLAT_BF16, .causal = true, .bias = BIAS_HOLES},
    {.heads = 2, .kv_heads = 1, .queries = 90, .keys = 150, .dim = 64, .value_dim = 64, .q = CLSPLAT_BF16, .k = CLSPLAT_BF16,
     .v = CLSPLAT_BF16, .out = CLSPLAT_BF16, .causal = true, .variant = "wgmma"},
    {.queries = 70, .keys = 70, .dim = 64, .value_dim = 64, .q = CLSPLAT_F16, .k = CLSPLAT_F16,
     .v = CLSPLAT_F16, .out = CLSPLAT_F16, .bias = BIAS_HOLES, .variant = "wgmma"},
};
/* Near and far, in tiles of local memory. */
static const problem_spec trees[] = {
    {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 70, .dim = 4, .value_dim = 8, .causal = true, .bias = BIAS_HOLES,
     .near_far = true, .chunk = 32},
    {.queries = 5, .keys = 70, .dim = 6, .value_dim = 4, .q = CLSPLAT_F16, .k = CLSPLAT_F16, .v = CLSPLAT_F16,
     .out = CLSPLAT_F16, .near_far = true, .chunk = 32},
};
// clang-format on
enum { TREES = sizeof trees / sizeof *trees };
enum { GRADIENTS = sizeof gradients / sizeof *gradients };
enum { SPECS = sizeof specs / sizeof *specs, FORMS = 3 };

static void solve(const problem_spec *spec, uint64_t seed) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, spec, seed);
    suite_ok(s.lib, problem_attend_buffers(&p, s.device));
    problem_expect(&p);
    problem_check(&p);
    problem_free(&p);
}

START_TEST(attention) {
    problem_spec spec = specs[_i % SPECS];
    spec.covariance = (clsplat_covariance)(_i / SPECS);
    solve(&spec, (uint64_t)_i);
}
END_TEST

START_TEST(half) {
    problem_spec spec = halves[_i];
    if (clsplat_device_describe(problem_on_stage().device)->limits.matrix_units && !spec.splats)
        spec.variant = "units"; /* and no other takes its place */
    solve(&spec, 50 + (uint64_t)_i);
}
END_TEST

START_TEST(near_far) {
    solve(&trees[_i], 80 + (uint64_t)_i);
    gradient_solve(&trees[_i], 80 + (uint64_t)_i);
}
END_TEST

START_TEST(backward) {
    gradient_solve(&gradients[_i], 60 + (uint64_t)_i);
}
END_TEST

START_TEST(initialisation) {
    static const clsplat_init_method methods[] = {CLSPLAT_INIT_RANDOM, CLSPLAT_INIT_KMEANS,
                                                  CLSPLAT_INIT_TOKEN_AWARE};
    problem_stage s = problem_on_stage();
    problem_spec spec = {.queries = 6, .keys = 7, .dim = 3, .value_dim = 2};
    problem p = problem_create(s.lib, &spec, 9);
    size_t counts[] = {3, 1};
    char fine[] = "Token", coarse[] = "Phrase", *names[] = {fine, coarse};
    double weights[] = {0.7, 0.3};
    clsplat_hierarchy hierarchy = {.levels = 2, .names = names, .counts = counts, .weights = weights};
    clsplat_init init = clsplat_init_defaults();
    init.method = methods[_i / FORMS];
    init.covariance = (clsplat_covariance)(_i % FORMS);
    init.hierarchy = &hierarchy;
    init.lloyd_steps = 2;
    clsplat_attention_tensors t = problem_views(&p);
    suite_ok(s.lib, clsplat_splats_init(s.device, init, t.q, t.k, &p.splats));
    clsplat_splats_parameters splats = clsplat_splats_get(p.splats);
    ck_assert_uint_eq(splats.shape.heads, 1);
    ck_assert_uint_eq(splats.shape.count, 4);
    for (size_t i = 0; i < 4 * 3; i++)
        ck_assert(isfinite(splats.mean[i]));
    problem_free(&p);
}
END_TEST

static void add_rows(TCase *part, const TTest *test, int first, int count) {
    const char *row = getenv("CLSPLAT_TEST_ROW");
    for (int i = 0; i < count; i++)
        if (!row || atoi(row) == first + i)
            tcase_add_loop_test(part, test, i, i + 1);
}

enum { INITIALISATIONS = 3 * FORMS, FIRST_HALF = FORMS * SPECS + INITIALISATIONS };
enum { FIRST_GRADIENT = FIRST_HALF + HALVES, FIRST_TREE = FIRST_GRADIENT + GRADIENTS };

/* The rows for tests/run.sh, a line each: number, the GPU to look like (- for none), and what Oclgrind can
 * judge of it: `all`, `races` alone, or `optimised`, races in kernels that have been through the optimiser,
 * without which it does not know what clang leaves where it inlines `mma`. A row for tiles of local memory
 * comes again on a GPU without such units. */
static void print_rows(void) {
    static const char *const others[] = {"wmma", "mfma", "dpas8", "dpas16"};
    for (int row = 0; row < FORMS * SPECS; row++)
        printf("%d - all\n", row);
    for (int row = FORMS * SPECS; row < FIRST_HALF; row++)
        printf("%d - races\n", row);
    for (int i = 0; i < HALVES; i++)
        printf("%d %d optimised\n", FIRST_HALF + i, i % 2 ? 80 : 90);
    for (int i = 0; i < HALVES; i++)
        for (size_t unit = 0; unit < sizeof others / sizeof *others && !halves[i].splats; unit++)
            printf("%d %s optimised\n", FIRST_HALF + i, others[unit]);
    for (int row = 0; row < FORMS * SPECS; row++)
        if (specs[row % SPECS].shared && row / SPECS != CLSPLAT_FULL)
            printf("%d 0 all\n", row);
    for (int i = 0; i < HALVES; i++)
        if (halves[i].splats)
            printf("%d 0 all\n", FIRST_HALF + i);
    for (int i = 0; i < GRADIENTS; i++) {
        int gpu = gradients[i].variant ? 90 : 80;
        printf("%d %d %s\n", FIRST_GRADIENT + i, gradients[i].q ? gpu : 0,
               gradients[i].q ? "optimised" : "races");
    }
    for (int i = 0; i < TREES; i++)
        printf("%d 0 optimised\n", FIRST_TREE + i);
}

static void add_all(TCase *part) {
    problem_add_stage(part);
    add_rows(part, attention, 0, FORMS * SPECS);
    add_rows(part, initialisation, FORMS * SPECS, INITIALISATIONS);
    add_rows(part, half, FIRST_HALF, HALVES);
    add_rows(part, backward, FIRST_GRADIENT, GRADIENTS);
    add_rows(part, near_far, FIRST_TREE, TREES);
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--rows") == 0) {
        print_rows();
        return 0;
    }
    static const suite_part parts[] = {{"tiny", add_all}};
    return suite_run("tiny", parts, sizeof parts / sizeof *parts);
}
