/* Small devices, large problems: cutting changes nothing, and memory does not grow with the length. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/random.h"
#include "compare.h"
#include "runtime/device.h"
#include "runtime/quirks.h"

typedef struct small_device {
    uint64_t global_memory, max_allocation;
    uint32_t max_work_group;
} small_device;

static const small_device devices[] = {
    {64 << 20, 16 << 20, 32},
    {1 << 20, 128 << 10, 64},
    {256 << 10, 16 << 10, 32},
};
enum { DEVICES = sizeof devices / sizeof *devices };

// clang-format off
static const problem_spec specs[] = {
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 100, .keys = 257, .dim = 8, .value_dim = 8, .bias = BIAS_HOLES},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 257, .keys = 100, .dim = 8, .value_dim = 8, .causal = true,
     .layout = LAYOUT_TOKENS, .bias = BIAS_FRONT},
    {.heads = 2, .queries = 1000, .keys = 1100, .dim = 8, .value_dim = 8, .causal = true},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 200, .keys = 257, .dim = 8, .value_dim = 8, .bias = BIAS_HOLES,
     .splats = 12, .levels = 3, .covariance = CLSPLAT_DIAGONAL},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 257, .keys = 200, .dim = 8, .value_dim = 8, .causal = true,
     .layout = LAYOUT_TOKENS, .bias = BIAS_FRONT, .splats = 12, .levels = 3, .covariance = CLSPLAT_DIAGONAL,
     .mixing = CLSPLAT_PER_LEVEL},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 200, .keys = 257, .dim = 8, .value_dim = 8, .bias = BIAS_HOLES,
     .near_far = true, .chunk = 16},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 257, .keys = 300, .dim = 8, .value_dim = 8, .causal = true,
     .layout = LAYOUT_TOKENS, .bias = BIAS_HOLES, .window = 70},
    {.heads = 2, .queries = 300, .keys = 257, .dim = 8, .value_dim = 8, .causal = true, .near_far = true, .chunk = 32},
    {.heads = 2, .queries = 700, .keys = 800, .dim = 8, .value_dim = 8, .causal = true, .splats = 7, .shared = true,
     .covariance = CLSPLAT_FULL},
    {.queries = 1500, .keys = 700, .dim = 8, .value_dim = 8, .causal = true, .splats = 7,
     .covariance = CLSPLAT_ISOTROPIC, .q = CLSPLAT_BF16, .k = CLSPLAT_BF16, .v = CLSPLAT_BF16, .out = CLSPLAT_BF16},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs };

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* Leaves the device of the stage less of everything. Returns: what it really has, to be given back. */
static clsplat_limits shrink(clsplat_device *device, small_device small) {
    clsplat_limits real = clsplat_device_describe(device)->limits, limits = real;
    limits.global_memory = smaller(small.global_memory, real.global_memory);
    limits.max_allocation = smaller(small.max_allocation, real.max_allocation);
    limits.max_work_group = (uint32_t)smaller(small.max_work_group, real.max_work_group);
    for (int d = 0; d < 3; d++)
        limits.max_work_item_sizes[d] = (uint32_t)smaller(limits.max_work_group, real.max_work_item_sizes[d]);
    clsplat_device_set_limits(device, limits);
    return real;
}

/* The result is right, unless the device ends long loops early: trees are refused there. */
static void check(problem *p, clsplat_device *device, clsplat_status status) {
    if (p->spec.near_far && device->quirks & QUIRK_LOOP_LIMIT) {
        ck_assert_int_eq(status, CLSPLAT_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(p->lib), "near and far gives wrong results on "));
        return;
    }
    suite_ok(p->lib, status);
    problem_expect(p);
    problem_check(p);
}

START_TEST(a_small_device_cuts_host_tensors) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i / DEVICES], 10 + (uint64_t)_i);
    clsplat_limits real = shrink(s.device, devices[_i % DEVICES]);
    clsplat_status status = problem_attend(&p, s.device);
    clsplat_device_set_limits(s.device, real);
    check(&p, s.device, status);
    problem_free(&p);
}
END_TEST

/* Buffers are the caller's and stay whole; the workspaces are cut. */
START_TEST(a_small_device_cuts_workspaces) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i / DEVICES], 60 + (uint64_t)_i);
    clsplat_limits real = shrink(s.device, devices[_i % DEVICES]);
    clsplat_status status = problem_attend_buffers(&p, s.device);
    clsplat_device_set_limits(s.device, real);
    check(&p, s.device, status);
    problem_free(&p);
}
END_TEST

START_TEST(trees_are_refused_where_loops_end_early) {
    problem_stage s = problem_on_stage();
    problem_spec spec = specs[6];
    unsigned real = s.device->quirks;
    problem p = problem_create(s.lib, &spec, 9);
    s.device->quirks |= QUIRK_LOOP_LIMIT;
    clsplat_status status = problem_attend(&p, s.device);
    check(&p, s.device, status);
    s.device->quirks = real;
    problem_free(&p);
}
END_TEST

/* What the library itself takes at most for one attention of `rows` tokens in buffers. */
static uint64_t peak(const problem_spec *spec, size_t rows) {
    clsplat *lib = suite_library();
    clsplat_device *device = suite_device(lib);
    problem_spec s = *spec;
    s.queries = s.keys = rows;
    problem p = problem_create(lib, &s, 1);
    suite_ok(lib, problem_attend_buffers(&p, device));
    uint64_t bytes = clsplat_device_memory(device).peak;
    problem_free(&p);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    return bytes;
}

// clang-format off
static const problem_spec methods[] = {
    {.dim = 8, .value_dim = 8},
    {.dim = 8, .value_dim = 8, .causal = true},
    {.dim = 8, .value_dim = 8, .splats = 12, .covariance = CLSPLAT_DIAGONAL},
    {.dim = 8, .value_dim = 8, .splats = 12, .covariance = CLSPLAT_DIAGONAL, .causal = true},
    {.dim = 8, .value_dim = 8, .splats = 12, .covariance = CLSPLAT_FULL, .causal = true, .levels = 2,
     .mixing = CLSPLAT_PER_LEVEL},
};
// clang-format on
enum { METHODS = sizeof methods / sizeof *methods };

/* Both lengths lie above the one at which the workspaces of splats reach their cap. */
START_TEST(memory_does_not_grow_with_the_length) {
    const problem_spec *spec = &methods[_i];
    size_t rows = spec->splats ? 32768 : 2048;
    uint64_t short_peak = peak(spec, rows), long_peak = peak(spec, 4 * rows);
    ck_assert_msg(long_peak <= short_peak + short_peak / 8, "%zu rows take %llu bytes, %zu rows %llu", rows,
                  (unsigned long long)short_peak, 4 * rows, (unsigned long long)long_peak);
}
END_TEST

/* A long problem, a few rows of which are checked against the reference over all the keys they see: for the
 * last rows of a causal attention that is what carries over the longest past. */
static void check_row(const problem *p, size_t row) {
    size_t visible = p->spec.causal ? row + 1 + p->spec.keys - p->spec.queries : p->spec.keys;
    naive_shape shape = {1, 1, 1, 1, visible, p->spec.dim, p->spec.value_dim};
    size_t dim = shape.dim, value_dim = shape.value_dim;
    double *k = malloc(visible * dim * sizeof *k), *v = malloc(visible * value_dim * sizeof *v);
    double *q = malloc(dim * sizeof *q), *out = malloc(2 * value_dim * sizeof *out), lse = 0;
    for (size_t d = 0; d < dim; d++)
        q[d] = problem_get(&p->tensors[PROBLEM_Q], 0, 0, row, d);
    for (size_t j = 0; j < visible; j++) {
        for (size_t d = 0; d < dim; d++)
            k[j * dim + d] = problem_get(&p->tensors[PROBLEM_K], 0, 0, j, d);
        for (size_t d = 0; d < value_dim; d++)
            v[j * value_dim + d] = problem_get(&p->tensors[PROBLEM_V], 0, 0, j, d);
    }
    naive_tensors t = {.shape = shape, .q = q, .k = k, .v = v, .out = out, .lse = &lse};
    if (p->splats) {
        clsplat_splats_parameters splats = clsplat_splats_get(p->splats);
        naive_gaussian(&t, &splats, p->spec.mixing);
    } else {
        naive_softmax(&t, 1 / sqrt((double)dim));
    }
    for (size_t d = 0; d < value_dim; d++)
        out[value_dim + d] = problem_get(&p->tensors[PROBLEM_OUT], 0, 0, row, d);
    double got = problem_get(&p->tensors[PROBLEM_LSE], 0, 0, row, 0);
    double error = compare_norm(out + value_dim, out, value_dim), lse_error = compare_lse(&got, &lse, 1);
    free(k);
    free(v);
    free(q);
    free(out);
    ck_assert_msg(error < 1e-4 && lse_error < 2e-5, "row %zu: out is off by %.1e, lse by %.1e", row, error,
                  lse_error);
}

START_TEST(a_long_problem) {
    problem_stage s = problem_on_stage();
    problem_spec spec = methods[_i];
    bool very_long = suite_tier_wanted() == SUITE_LONG && spec.splats;
    spec.keys = very_long ? 300001 : spec.splats ? 20011 : 5003;
    spec.queries = spec.keys - 5;
    problem p = problem_create(s.lib, &spec, 2);
    suite_ok(s.lib, problem_attend(&p, s.device));
    const size_t rows[] = {0, 1, 31, 32, 63, 1000, spec.queries / 2, spec.queries - 33, spec.queries - 1};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_row(&p, rows[i]);
    problem_free(&p);
}
END_TEST

typedef struct reports {
    int count;
    double last;
    bool go_on;
} reports;

static bool report(void *user, double done) {
    reports *r = user;
    ck_assert_msg(done >= r->last && done <= 1, "progress went from %g to %g", r->last, done);
    r->last = done;
    r->count++;
    return r->go_on;
}

START_TEST(progress_is_told_and_may_stop) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i], 3);
    clsplat_limits real = shrink(s.device, devices[DEVICES - 1]);
    reports told = {.go_on = true}, stopped = {.go_on = false};
    p.attention.progress = report;
    p.attention.progress_user = &told;
    clsplat_status finished = problem_attend(&p, s.device);
    p.attention.progress_user = &stopped;
    clsplat_status cancelled = problem_attend(&p, s.device);
    clsplat_device_set_limits(s.device, real);
    suite_ok(s.lib, finished);
    ck_assert_int_gt(told.count, 0);
    ck_assert_int_eq(cancelled, CLSPLAT_CANCELLED);
    ck_assert_int_eq(stopped.count, 1);
    problem_free(&p);
}
END_TEST

static void add_cuts(TCase *part) {
    bool small = suite_tier_wanted() == SUITE_SMALL;
    problem_add_stage(part);
    tcase_add_test(part, trees_are_refused_where_loops_end_early);
    tcase_add_loop_test(part, a_small_device_cuts_host_tensors, 0, small ? DEVICES : SPECS * DEVICES);
    tcase_add_loop_test(part, a_small_device_cuts_workspaces, 0, small ? DEVICES : SPECS * DEVICES);
    tcase_add_loop_test(part, progress_is_told_and_may_stop, 0, small ? 1 : SPECS);
}

static void add_lengths(TCase *part) {
    bool small = suite_tier_wanted() == SUITE_SMALL;
    problem_add_stage(part);
    tcase_add_loop_test(part, memory_does_not_grow_with_the_length, 0, small ? 1 : METHODS);
    tcase_add_loop_test(part, a_long_problem, 0, small ? 1 : METHODS);
}

int main(void) {
    static const suite_part parts[] = {{"cuts", add_cuts}, {"lengths", add_lengths}};
    return suite_run("limits", parts, sizeof parts / sizeof *parts);
}
