/* Gradients of attention against their definition. */
#include <stdlib.h>
#include <string.h>

#include "attention/gradient.h"
#include "runtime/device.h"

#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16
#define ISOTROPIC CLSPLAT_ISOTROPIC
#define DIAGONAL CLSPLAT_DIAGONAL
#define FULL CLSPLAT_FULL
#define PER_LEVEL CLSPLAT_PER_LEVEL
#define NORMAL SUITE_NORMAL
#define LONG SUITE_LONG

/* Exact attention: sizes around those of vectors and tiles, heads, biases, layouts, types, hard numbers. */
// clang-format off
static const problem_spec softmax[] = {
    {.queries = 1, .keys = 1, .dim = 1, .value_dim = 1},
    {.queries = 33, .keys = 65, .dim = 3, .value_dim = 5, .tier = NORMAL},
    {.batch = 2, .heads = 6, .kv_heads = 2, .queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .causal = true,
     .bias = BIAS_RANDOM},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 33, .dim = 16, .value_dim = 32, .causal = true,
     .bias = BIAS_FRONT},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 100, .dim = 16, .value_dim = 16, .bias = BIAS_ALL},
    {.heads = 3, .queries = 32, .keys = 70, .dim = 8, .value_dim = 8, .bias = BIAS_HOLES, .causal = true,
     .layout = LAYOUT_TOKENS, .tier = NORMAL},
    {.heads = 2, .queries = 200, .keys = 200, .dim = 64, .value_dim = 64, .causal = true},
    {.heads = 2, .kv_heads = 1, .queries = 130, .keys = 300, .dim = 64, .value_dim = 64, .bias = BIAS_HOLES,
     .layout = LAYOUT_TOKENS},
    {.queries = 257, .keys = 1, .dim = 16, .value_dim = 16, .causal = true},
    {.queries = 1, .keys = 257, .dim = 16, .value_dim = 16, .causal = true},
    {.queries = 1000, .keys = 1000, .dim = 16, .value_dim = 16, .causal = true, .tier = NORMAL},
    {.queries = 65, .keys = 130, .dim = 16, .value_dim = 16, .data = DATA_LOUD, .scale = 0.5F, .causal = true,
     .tier = NORMAL},
    {.queries = 100, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_DOMINANT, .bias = BIAS_RANDOM,
     .causal = true, .tier = NORMAL},
    {.queries = 40, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_IDENTICAL, .scale = -0.7F},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = BF16, .k = BF16, .v = BF16, .out = BF16, .lse = BF16,
     .bias = BIAS_HOLES, .key_bias = BF16, .tier = NORMAL},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = F16, .v = BF16, .bias = BIAS_RANDOM,
     .key_bias = F16, .causal = true},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 300, .keys = 333, .dim = 64, .value_dim = 64, .q = BF16, .k = BF16,
     .v = BF16, .out = BF16, .causal = true, .layout = LAYOUT_TOKENS},
    {.heads = 2, .queries = 190, .keys = 260, .dim = 64, .value_dim = 64, .q = F16, .k = F16, .v = F16, .out = F16,
     .bias = BIAS_HOLES, .tier = NORMAL},
    {.queries = 40, .keys = 41, .dim = 128, .value_dim = 128, .causal = true, .tier = NORMAL},
    {.queries = 9, .keys = 12, .dim = 1024, .value_dim = 1000, .causal = true, .tier = LONG},
};
// clang-format on

/* Gaussian attention. */
// clang-format off
static const problem_spec gaussian[] = {
    {.queries = 1, .keys = 1, .dim = 1, .value_dim = 1, .splats = 1},
    {.batch = 2, .heads = 6, .kv_heads = 2, .queries = 33, .keys = 65, .dim = 8, .value_dim = 8, .causal = true,
     .bias = BIAS_RANDOM, .splats = 12, .levels = 3},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 33, .dim = 16, .value_dim = 16, .causal = true,
     .bias = BIAS_FRONT, .splats = 12, .levels = 3, .mixing = PER_LEVEL},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 100, .dim = 16, .value_dim = 16, .bias = BIAS_ALL,
     .splats = 9, .levels = 2, .shared = true},
    {.heads = 3, .queries = 32, .keys = 70, .dim = 8, .value_dim = 5, .bias = BIAS_HOLES, .causal = true,
     .layout = LAYOUT_TOKENS, .splats = 20, .levels = 4, .mixing = PER_LEVEL, .shared = true},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 50, .keys = 70, .dim = 16, .value_dim = 16, .bias = BIAS_HOLES,
     .splats = 7, .shared = true, .causal = true, .tier = NORMAL},
    {.queries = 100, .keys = 100, .dim = 7, .value_dim = 3, .splats = 10, .levels = 4, .mixing = PER_LEVEL,
     .tier = NORMAL},
    {.queries = 1, .keys = 257, .dim = 8, .value_dim = 8, .causal = true, .splats = 1},
    {.queries = 257, .keys = 1, .dim = 8, .value_dim = 8, .causal = true, .splats = 3, .levels = 3,
     .mixing = PER_LEVEL},
    {.queries = 100, .keys = 100, .dim = 8, .value_dim = 8, .data = DATA_FAR, .splats = 12, .levels = 2, .causal = true},
    {.queries = 60, .keys = 100, .dim = 8, .value_dim = 8, .data = DATA_DOMINANT, .bias = BIAS_HOLES, .splats = 16},
    {.queries = 40, .keys = 100, .dim = 8, .value_dim = 8, .data = DATA_IDENTICAL, .causal = true, .splats = 12,
     .tier = NORMAL},
    {.heads = 2, .queries = 60, .keys = 80, .dim = 16, .value_dim = 16, .data = DATA_NARROW, .splats = 10, .levels = 2},
    {.heads = 2, .queries = 60, .keys = 80, .dim = 8, .value_dim = 8, .data = DATA_EXTREME, .splats = 10, .levels = 4,
     .mixing = PER_LEVEL, .bias = BIAS_RANDOM},
    {.heads = 2, .queries = 80, .keys = 60, .dim = 8, .value_dim = 8, .data = DATA_EXTREME, .splats = 10, .levels = 4,
     .causal = true, .shared = true},
    {.heads = 2, .kv_heads = 1, .queries = 70, .keys = 90, .dim = 16, .value_dim = 16, .q = BF16, .k = F16, .v = BF16,
     .bias = BIAS_HOLES, .key_bias = BF16, .splats = 12, .causal = true, .tier = NORMAL},
    {.heads = 2, .queries = 200, .keys = 200, .dim = 100, .value_dim = 32, .splats = 40, .tier = NORMAL},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 70, .keys = 150, .dim = 64, .value_dim = 32, .bias = BIAS_HOLES,
     .splats = 80, .levels = 3},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 150, .keys = 70, .dim = 16, .value_dim = 64, .bias = BIAS_RANDOM,
     .splats = 16, .levels = 2, .shared = true, .layout = LAYOUT_TOKENS},
    {.heads = 2, .queries = 60, .keys = 200, .dim = 16, .value_dim = 16, .data = DATA_NARROW, .splats = 32},
    {.heads = 2, .queries = 60, .keys = 80, .dim = 16, .value_dim = 16, .data = DATA_NARROW, .splats = 48, .shared = true,
     .levels = 3, .mixing = PER_LEVEL},
    {.queries = 300, .keys = 280, .dim = 16, .value_dim = 16, .data = DATA_FAR, .splats = 32, .causal = true},
    {.queries = 60, .keys = 80, .dim = 16, .value_dim = 16, .data = DATA_EXTREME, .splats = 32, .tier = NORMAL},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = BF16, .v = BF16, .bias = BIAS_FRONT, .out = BF16,
     .lse = BF16, .splats = 16},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 70, .keys = 150, .dim = 16, .value_dim = 32, .bias = BIAS_HOLES,
     .splats = 80, .levels = 3, .causal = true},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 150, .keys = 70, .dim = 16, .value_dim = 16, .bias = BIAS_RANDOM,
     .splats = 16, .levels = 2, .shared = true, .causal = true, .layout = LAYOUT_TOKENS},
    {.queries = 80, .keys = 90, .dim = 16, .value_dim = 16, .bias = BIAS_ALL, .splats = 16, .causal = true},
    {.heads = 2, .queries = 80, .keys = 60, .dim = 16, .value_dim = 16, .data = DATA_EXTREME, .splats = 16, .causal = true},
    {.queries = 100, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_DOMINANT, .bias = BIAS_RANDOM, .splats = 16,
     .causal = true},
};
// clang-format on
static const char *const matrix_rows[] = {"mma", "wgmma"};
static const clsplat_covariance forms[] = {ISOTROPIC, DIAGONAL, FULL};

/* Near and far at tolerance 0, where it is exact: heads, biases, layouts, types. Above, and every row in
 * float32: op/test_near_far_backward.c. Cases of the same columns, chunks, types, groups, with or without
 * bias and causal alike share their programs, which take most of the time. */
// clang-format off
static const problem_spec far[] = {
    {.queries = 1, .keys = 1, .dim = 16, .value_dim = 16, .bias = BIAS_RANDOM, .chunk = 16},
    {.heads = 2, .kv_heads = 1, .queries = 40, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_IDENTICAL, .scale = -0.7F,
     .bias = BIAS_RANDOM, .chunk = 16},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 100, .dim = 16, .value_dim = 16, .bias = BIAS_ALL,
     .chunk = 16},
    {.batch = 2, .heads = 6, .kv_heads = 2, .queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .causal = true,
     .bias = BIAS_RANDOM, .chunk = 16},
    {.heads = 2, .kv_heads = 1, .queries = 65, .keys = 130, .dim = 16, .value_dim = 16, .data = DATA_LOUD, .scale = 0.5F,
     .bias = BIAS_HOLES, .causal = true, .chunk = 16},
    {.heads = 2, .kv_heads = 1, .queries = 100, .keys = 100, .dim = 16, .value_dim = 16, .data = DATA_DOMINANT,
     .bias = BIAS_RANDOM, .causal = true, .chunk = 16},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 33, .dim = 16, .value_dim = 32, .causal = true,
     .bias = BIAS_FRONT, .chunk = 16},
    {.heads = 3, .queries = 32, .keys = 170, .dim = 3, .value_dim = 1, .bias = BIAS_HOLES, .causal = true,
     .layout = LAYOUT_TOKENS, .chunk = 32},
    {.queries = 33, .keys = 165, .dim = 16, .value_dim = 16, .q = BF16, .k = BF16, .v = BF16, .out = BF16, .lse = BF16,
     .chunk = 32},
    {.queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = F16, .k = F16, .v = BF16, .bias = BIAS_RANDOM,
     .key_bias = F16, .causal = true, .chunk = 16},
};
// clang-format on

/* By the row that the device chooses, by those of matrix units, and by the plain one. */
START_TEST(exact) {
    problem_spec spec = softmax[_i];
    gradient_solve(&spec, 100 + (uint64_t)_i);
    if (clsplat_device_describe(problem_on_stage().device)->limits.nvidia_capability && spec.q)
        for (size_t row = 0; row < sizeof matrix_rows / sizeof *matrix_rows; row++) {
            spec.variant = matrix_rows[row];
            gradient_solve(&spec, 100 + (uint64_t)_i);
        }
    spec.variant = "plain";
    gradient_solve(&spec, 100 + (uint64_t)_i);
}
END_TEST

START_TEST(near_and_far) {
    problem_spec spec = far[_i];
    spec.near_far = true;
    gradient_solve(&spec, 300 + (uint64_t)_i);
    spec.variant = "plain";
    if (spec.q || suite_tier_wanted() == LONG)
        gradient_solve(&spec, 300 + (uint64_t)_i);
}
END_TEST

/* Every case with one covariance, of those in turn; --long with all. */
START_TEST(through_splats) {
    enum { FORMS = sizeof forms / sizeof *forms };
    for (int form = 0; form < FORMS; form++) {
        problem_spec spec = gaussian[_i];
        spec.covariance = forms[form];
        if (suite_tier_wanted() == LONG || form == _i % FORMS)
            gradient_solve(&spec, 200 + (uint64_t)_i);
    }
}
END_TEST

/* Several blocks of heads, panels and segments: memory that is short, as the device would tell. */
START_TEST(cut_into_blocks) {
    problem_stage s = problem_on_stage();
    clsplat_limits whole = clsplat_device_describe(s.device)->limits, limits = whole;
    problem_spec spec = {.batch = 2,
                         .heads = 4,
                         .kv_heads = 2,
                         .queries = 90,
                         .keys = 100,
                         .dim = 8,
                         .value_dim = 8,
                         .bias = BIAS_HOLES,
                         .splats = 40,
                         .levels = 2,
                         .covariance = DIAGONAL,
                         .causal = _i % 2,
                         .mixing = _i / 2 ? PER_LEVEL : CLSPLAT_JOINT};
    limits.max_allocation = 40 << 10;
    clsplat_device_set_limits(s.device, limits);
    gradient_solve(&spec, 7);
    clsplat_device_set_limits(s.device, whole);
}
END_TEST

/* The same bits every time, on a second handle too, and whatever the results held before. */
START_TEST(same_bits) {
    problem_stage s = problem_on_stage();
    problem_spec spec = {.batch = 2,
                         .heads = 4,
                         .kv_heads = 2,
                         .queries = 90,
                         .keys = 100,
                         .dim = 16,
                         .value_dim = 16,
                         .bias = BIAS_HOLES,
                         .splats = _i / 2 == 1 ? 12 : 0,
                         .levels = 2,
                         .covariance = DIAGONAL,
                         .causal = _i % 2,
                         .shared = true,
                         .near_far = _i / 2 == 2,
                         .tolerance = 0.1F,
                         .chunk = 16};
    problem p = problem_create(s.lib, &spec, 9);
    gradient g = gradient_create(&p, 10);
    suite_ok(s.lib, gradient_attend(&g, s.device));
    size_t count, again;
    unsigned char *first = gradient_bytes(&g, &count);
    for (int run = 0; run < 2; run++) {
        clsplat_device *device = run ? suite_device(s.lib) : s.device;
        if (run)
            clsplat_device_set_limits(device, clsplat_device_describe(s.device)->limits);
        suite_ok(s.lib, gradient_attend(&g, device));
        unsigned char *second = gradient_bytes(&g, &again);
        ck_assert_uint_eq(count, again);
        ck_assert_msg(memcmp(first, second, count) == 0, "run %d has other bits", run);
        free(second);
        if (run)
            clsplat_device_close(&device);
    }
    free(first);
    gradient_free(&g);
    problem_free(&p);
}
END_TEST

/* Changes the tokens from number j on in q, k, v and dout; queries are the last of the tokens. */
static void change_later(gradient *g, size_t j) {
    const problem_spec *s = &g->p->spec;
    problem_tensor *const all[] = {&g->p->tensors[PROBLEM_Q], &g->p->tensors[PROBLEM_K],
                                   &g->p->tensors[PROBLEM_V], &g->dout};
    for (int i = 0; i < 4; i++) {
        const size_t *n = all[i]->view.shape;
        size_t begin = n[2] == s->keys ? j : j + n[2] - s->keys;
        for (size_t h = 0; h < n[0] * n[1]; h++)
            for (size_t row = begin; row < n[2]; row++)
                for (size_t d = 0; d < n[3]; d++)
                    problem_set(all[i], h / n[1], h % n[1], row, d, d % 2 ? -1.5 : 0.25 * (double)(row % 7));
    }
}

/* dq of earlier rows keeps its bits, whatever comes later; and what a row gives leaves later keys alone. */
START_TEST(later_tokens) {
    static const size_t places[] = {1, 40, 64, 99};
    problem_stage s = problem_on_stage();
    problem_spec spec = {.heads = 2,
                         .kv_heads = 1,
                         .queries = 90,
                         .keys = 100,
                         .dim = 16,
                         .value_dim = 16,
                         .bias = BIAS_RANDOM,
                         .causal = true,
                         .near_far = true,
                         .tolerance = 0.2F,
                         .chunk = 16};
    size_t j = places[_i], first = j + spec.queries > spec.keys ? j + spec.queries - spec.keys : 0;
    problem p = problem_create(s.lib, &spec, 19);
    gradient g = gradient_create(&p, 20);
    suite_ok(s.lib, gradient_attend(&g, s.device));
    size_t bytes = problem_bytes(&g.results[GRADIENT_DQ]);
    unsigned char *before = memcpy(malloc(bytes), g.results[GRADIENT_DQ].bytes, bytes);
    change_later(&g, j);
    suite_ok(s.lib, gradient_attend(&g, s.device));
    const problem_tensor *dq = &g.results[GRADIENT_DQ];
    for (size_t h = 0; h < spec.heads; h++)
        for (size_t row = 0; row < first; row++) {
            size_t at = problem_place(dq, 0, h, row, 0) * sizeof(float);
            ck_assert_msg(memcmp(before + at, (char *)dq->bytes + at, spec.dim * sizeof(float)) == 0,
                          "later tokens changed dq of row %zu of head %zu", row, h);
        }
    free(before);
    /* Rows before token j give nothing to it and later ones, so their dout does not matter there. */
    const problem_tensor *dk = &g.results[GRADIENT_DK];
    bytes = problem_bytes(dk);
    before = memcpy(malloc(bytes), dk->bytes, bytes);
    for (size_t h = 0; h < spec.heads; h++)
        for (size_t row = 0; row < first; row++)
            for (size_t d = 0; d < spec.value_dim; d++)
                problem_set(&g.dout, 0, h, row, d, 3);
    suite_ok(s.lib, gradient_attend(&g, s.device));
    for (size_t key = j; key < spec.keys; key++) {
        size_t at = problem_place(dk, 0, 0, key, 0) * sizeof(float);
        ck_assert_msg(memcmp(before + at, (char *)dk->bytes + at, spec.dim * sizeof(float)) == 0,
                      "earlier rows changed dk of key %zu", key);
    }
    free(before);
    gradient_free(&g);
    problem_free(&p);
}
END_TEST

START_TEST(refusals) {
    problem_stage s = problem_on_stage();
    problem_spec spec = {.queries = 4, .keys = 4, .dim = 8, .value_dim = 8};
    problem p = problem_create(s.lib, &spec, 1);
    gradient g = gradient_create(&p, 2);
    clsplat_attention_tensors views = problem_views(&p);
    clsplat_attention_gradients results = {
        .dout = g.dout.view, .dq = g.results[0].view, .dk = g.results[1].view, .dv = g.results[2].view};
    suite_ok(s.lib, clsplat_attend(s.device, p.attention, views));
    suite_ok(s.lib, clsplat_attend_backward(s.device, p.attention, views, results));
    views.lse = (clsplat_tensor){0};
    ck_assert_int_eq(clsplat_attend_backward(s.device, p.attention, views, results), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "lse"));
    views = problem_views(&p);
    results.dk.shape[2] = 3;
    ck_assert_int_eq(clsplat_attend_backward(s.device, p.attention, views, results), CLSPLAT_SHAPE);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "dk"));
    results.dk = g.results[1].view;
    results.dout = (clsplat_tensor){0};
    ck_assert_int_ne(clsplat_attend_backward(s.device, p.attention, views, results), CLSPLAT_OK);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "dout"));
    gradient_free(&g);
    problem_free(&p);
}
END_TEST

/* Where groups have local memory, all pairs through isotropic or diagonal splats are weighed in tiles. */
START_TEST(tiles_ran) {
    static const char *const kernels[] = {"read_backward_local", "collect_local", "write_backward_local",
                                          "token_gradient_local", "splat_moments_local"};
    problem_stage s = problem_on_stage();
    clsplat_limits limits = clsplat_device_describe(s.device)->limits;
    problem_spec spec = {
        .queries = 300, .keys = 70, .dim = 16, .value_dim = 16, .splats = 70, .covariance = DIAGONAL};
    clsplat_profile_row *ran;
    size_t count;
    if (limits.local_memory < 32 << 10 || limits.max_work_group < 128)
        return;
    clsplat_profile_set(s.device, true);
    gradient_solve(&spec, 21);
    clsplat_profile_set(s.device, false);
    suite_ok(s.lib, clsplat_profile_read(s.device, &ran, &count));
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
        size_t i = 0;
        while (i < count && strcmp(ran[i].kernel, kernels[k]) != 0)
            i++;
        ck_assert_msg(i < count, "%s did not run", kernels[k]);
    }
    clsplat_profile_free(&ran);
}
END_TEST

static void add_softmax(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, exact, softmax, sizeof softmax / sizeof *softmax);
}

static void add_gaussian(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, through_splats, gaussian, sizeof gaussian / sizeof *gaussian);
}

static void add_tiles(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, tiles_ran);
}

static void add_far(TCase *part) {
    problem_add_stage(part);
    problem_add_cases(part, near_and_far, far, sizeof far / sizeof *far);
}

static void add_properties(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, cut_into_blocks, 0, 4);
    tcase_add_loop_test(part, same_bits, 0, 6);
    tcase_add_loop_test(part, later_tokens, 0, 4);
    tcase_add_test(part, refusals);
}

int main(void) {
    static const suite_part parts[] = {{"softmax", add_softmax},
                                       {"gaussian", add_gaussian},
                                       {"tiles", add_tiles},
                                       {"near_far", add_far},
                                       {"properties", add_properties}};
    return suite_run("backward", parts, sizeof parts / sizeof *parts);
}
