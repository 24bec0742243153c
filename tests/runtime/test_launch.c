/* Launches: what a grid is, what is refused, how long kernels took. */
#include <stdio.h>
#include <string.h>

#include "runtime/launch_check.h"
#include "runtime/profile.h"
#include "runtime/steps.h"

START_TEST(a_grid_is_whole_groups) {
    grid g = grid_of(65, 3, 2, 64);
    ck_assert_uint_eq(g.size[0], 128);
    ck_assert_uint_eq(g.size[1], 3);
    ck_assert_uint_eq(g.size[2], 2);
    ck_assert_uint_eq(g.group[0], 64);
    ck_assert_uint_eq(g.group[1], 1);
    ck_assert_uint_eq(g.group[2], 1);
    ck_assert_uint_eq(grid_of(64, 1, 1, 64).size[0], 64);
}
END_TEST

START_TEST(bad_launches_are_told) {
    steps s;
    cl_kernel kernel = NULL;
    steps_begin(&s);
    queue q = steps_call(&s);
    suite_ok(s.lib, program_kernel_text(s.device, steps_source, "scale", "", &kernel));
    launch l = launch_of(kernel, "scale");
    launch_mem(&l, "x", s.mem);
    launch_float(&l, "factor", 2);
    launch_uint(&l, "n", STEPS_COUNT);
    launch_uint(&l, "n", STEPS_COUNT); /* one too many */
    ck_assert_int_eq(launch_run(&l, &q, grid_of(STEPS_COUNT, 1, 1, STEPS_GROUP), (work){0}), CLSPLAT_OPENCL);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "kernel scale, argument 3: clSetKernelArg: "));
    suite_ok(s.lib, program_kernel_text(s.device, steps_source, "fours", "", &kernel));
    l = launch_of(kernel, "fours");
    launch_mem(&l, "x", s.mem);
    ck_assert_int_eq(launch_run(&l, &q, grid_of(16, 1, 1, 2), (work){0}), CLSPLAT_UNSUPPORTED);
    ck_assert_ptr_nonnull(
        strstr(clsplat_last_error(s.lib), "clEnqueueNDRangeKernel of fours: CL_INVALID_WORK_GROUP_SIZE"));
    steps_expect(&s, 1);
    steps_end(&s);
}
END_TEST

#ifndef NDEBUG
/* A launch that tells other things than the kernel takes, of which OpenCL itself says nothing. */
START_TEST(arguments_are_compared) {
    steps s;
    cl_kernel kernel = NULL;
    char type[16];
    steps_begin(&s);
    suite_ok(s.lib, program_kernel_text(s.device, steps_source, "scale", "", &kernel));
    launch l = launch_of(kernel, "scale");
    launch_mem(&l, "x", s.mem);
    launch_float(&l, "factor", 2);
    ck_assert_int_eq(launch_check(&l, s.device), CLSPLAT_OPENCL);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "scale takes 3 arguments, and is told 2"));
    launch_uint(&l, "n", STEPS_COUNT);
    suite_ok(s.lib, launch_check(&l, s.device));
    bool told = clGetKernelArgInfo(kernel, 1, CL_KERNEL_ARG_TYPE_NAME, sizeof type, type, NULL) == CL_SUCCESS;
    l = launch_of(kernel, "scale");
    launch_mem(&l, "x", s.mem);
    launch_uint(&l, "factor", 2);
    launch_uint(&l, "n", STEPS_COUNT);
    ck_assert_int_eq(launch_check(&l, s.device), told ? CLSPLAT_OPENCL : CLSPLAT_OK);
    if (told)
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "kernel scale, argument 1: a float stands"));
    l = launch_of(kernel, "scale");
    launch_mem(&l, "x", s.mem);
    launch_float(&l, "fact", 2);
    launch_uint(&l, "n", STEPS_COUNT);
    ck_assert_int_eq(launch_check(&l, s.device), told ? CLSPLAT_OPENCL : CLSPLAT_OK);
    if (told)
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib),
                                     "argument 1: it is called factor there, and the host tells fact"));
    queue q = steps_call(&s); /* and a first launch is looked at */
    l.next = 2;
    ck_assert_int_eq(launch_run(&l, &q, grid_of(STEPS_COUNT, 1, 1, STEPS_GROUP), (work){0}), CLSPLAT_OPENCL);
    steps_expect(&s, 1);
    steps_end(&s);
}
END_TEST
#endif

START_TEST(groups_keep_to_the_limits) {
    steps s;
    steps_begin(&s);
    queue q = steps_call(&s);
    clsplat_limits limits = s.device->info.limits;
    limits.max_work_group = STEPS_GROUP - 1;
    clsplat_device_set_limits(s.device, limits);
    ck_assert_int_eq(steps_scale(&s, &q, 2), CLSPLAT_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "kernel scale wants work-groups of 8 x 1 x 1"));
    limits.max_work_group = STEPS_GROUP;
    limits.max_work_item_sizes[0] = STEPS_GROUP / 2;
    clsplat_device_set_limits(s.device, limits);
    ck_assert_int_eq(steps_scale(&s, &q, 2), CLSPLAT_UNSUPPORTED);
    limits.max_work_item_sizes[0] = STEPS_GROUP;
    clsplat_device_set_limits(s.device, limits);
    suite_ok(s.lib, steps_scale(&s, &q, 2));
    steps_expect(&s, 2);
    steps_end(&s);
}
END_TEST

START_TEST(an_empty_grid_is_nothing) {
    steps s;
    cl_kernel kernel = NULL;
    steps_begin(&s);
    queue q = steps_call(&s);
    suite_ok(s.lib, program_kernel_text(s.device, steps_source, "fours", "", &kernel));
    launch l = launch_of(kernel, "fours");
    launch_mem(&l, "x", s.mem);
    suite_ok(s.lib, launch_run(&l, &q, grid_of(0, 1, 1, 4), (work){0}));
    suite_ok(s.lib, launch_run(&l, &q, grid_of(4, 0, 1, 4), (work){0}));
    steps_expect(&s, 1);
    steps_end(&s);
}
END_TEST

static const clsplat_profile_row *row_of(const clsplat_profile_row *rows, size_t count, const char *kernel) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].kernel, kernel) == 0)
            return &rows[i];
    ck_abort_msg("no row for %s", kernel);
}

START_TEST(times_add_up_by_kernel) {
    steps s;
    clsplat_profile_row *rows = NULL;
    size_t count = 1;
    if (!steps_begin_guest(&s, _i))
        return;
    queue q = steps_call(&s);
    suite_ok(s.lib, steps_scale(&s, &q, 1)); /* not watched */
    clsplat_profile_set(s.device, true);
    suite_ok(s.lib, clsplat_profile_read(s.device, &rows, &count));
    ck_assert_uint_eq(count, 0);
    for (int i = 0; i < 3; i++)
        suite_ok(s.lib, steps_scale(&s, &q, 2));
    suite_ok(s.lib, steps_shift(&s, &q, 1));
    suite_ok(s.lib, clsplat_profile_read(s.device, &rows, &count));
    ck_assert_uint_eq(count, 2);
    const clsplat_profile_row *scale = row_of(rows, count, "scale"), *shift = row_of(rows, count, "shift");
    ck_assert_uint_eq(scale->launches, 3);
    ck_assert_uint_eq(shift->launches, 1);
    ck_assert_double_eq(scale->flops, 3.0 * STEPS_COUNT);
    ck_assert_double_eq(scale->bytes, 24.0 * STEPS_COUNT);
    ck_assert_double_eq(shift->flops, 2.0 * STEPS_COUNT);
    for (size_t i = 0; i < count; i++) {
        ck_assert_double_gt(rows[i].seconds, 0);
        ck_assert_double_lt(rows[i].seconds, 10);
        ck_assert_int_eq(rows[i].wall_clock, profile_needs_wall_clock(s.device));
    }
    ck_assert(profile_needs_wall_clock(s.device) || steps_kind_profiles(_i));
    clsplat_profile_free(&rows);
    ck_assert_ptr_null(rows);
    clsplat_profile_set(s.device, false);
    suite_ok(s.lib, steps_scale(&s, &q, 1));
    suite_ok(s.lib, clsplat_profile_read(s.device, &rows, &count));
    ck_assert_uint_eq(count, 0);
    steps_expect(&s, 9);
    steps_end(&s);
}
END_TEST

/* Where event times are useless and no quirk says so, the wall clock is taken all the same. */
START_TEST(useless_times_are_found_out) {
    steps s;
    clsplat_profile_row *rows = NULL;
    size_t count = 0;
    steps_begin(&s);
    profile_release(s.device);
    s.device->quirks = 0;
    suite_ok(s.lib, profile_create(s.device));
    clsplat_profile_set(s.device, true);
    queue q = steps_call(&s);
    suite_ok(s.lib, steps_scale(&s, &q, 2));
    suite_ok(s.lib, clsplat_profile_read(s.device, &rows, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_double_gt(rows[0].seconds, 0);
    clsplat_profile_free(&rows);
    steps_end(&s);
}
END_TEST

/* More launches than are kept waiting to be read, and more kernels than the first table has room for. */
START_TEST(a_long_profile_keeps_every_launch) {
    enum { LAUNCHES = 5000, NAMES = 40 };
    steps s;
    clsplat_profile_row *rows = NULL;
    size_t count = 0;
    cl_kernel kernel = NULL;
    steps_begin(&s);
    queue q = steps_call(&s);
    suite_ok(s.lib, program_kernel_text(s.device, steps_source, "fours", "", &kernel));
    clsplat_profile_set(s.device, true);
    for (int i = 0; i < LAUNCHES; i++) {
        char name[16];
        snprintf(name, sizeof name, "kernel %d", i % NAMES);
        launch l = launch_of(kernel, name);
        launch_mem(&l, "x", s.mem);
        suite_ok(s.lib, launch_run(&l, &q, grid_of(4, 1, 1, 4), (work){.flops = 1}));
    }
    suite_ok(s.lib, clsplat_profile_read(s.device, &rows, &count));
    ck_assert_uint_eq(count, NAMES);
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(rows[i].launches, LAUNCHES / NAMES);
        ck_assert_double_gt(rows[i].seconds, 0);
    }
    clsplat_profile_free(&rows);
    steps_end(&s);
}
END_TEST

static void add_launch(TCase *part) {
    tcase_add_test(part, a_grid_is_whole_groups);
    tcase_add_test(part, bad_launches_are_told);
#ifndef NDEBUG
    tcase_add_test(part, arguments_are_compared);
#endif
    tcase_add_test(part, groups_keep_to_the_limits);
    tcase_add_test(part, an_empty_grid_is_nothing);
}

static void add_profile(TCase *part) {
    tcase_add_loop_test(part, times_add_up_by_kernel, 0, STEPS_KINDS);
    tcase_add_test(part, useless_times_are_found_out);
    tcase_add_test(part, a_long_profile_keeps_every_launch);
}

int main(void) {
    static const suite_part parts[] = {{"launch", add_launch}, {"profile", add_profile}};
    return suite_run("launch", parts, sizeof parts / sizeof *parts);
}
