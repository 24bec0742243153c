/* Commands in their order on either kind of queue, copies with pitches, launches and their times. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/buffer.h"
#include "runtime/launch.h"
#include "runtime/profile.h"
#include "runtime/program.h"
#include "suite.h"

static const embedded_source steps = {"steps.cl",
                                      "#line 1 \"steps.cl\"\n"
                                      "kernel void scale(global float *x, float factor, uint n) {\n"
                                      "    size_t i = get_global_id(0);\n"
                                      "    if (i < n) x[i] *= factor;\n"
                                      "}\n"
                                      "kernel void shift(global float *x, int by, uint n) {\n"
                                      "    size_t i = get_global_id(0);\n"
                                      "    if (i < n) x[i] += by;\n"
                                      "}\n"
                                      "kernel __attribute__((reqd_work_group_size(4, 1, 1)))\n"
                                      "void fours(global float *x) { x[0] = 4; }\n"};

enum { N = 1000, GROUP = 8 };

/* A device, a buffer of N floats, all 1. */
typedef struct fixture {
    clsplat *lib;
    clsplat_device *device;
    cl_mem mem;
    float x[N];
} fixture;

static queue commands(fixture *f) {
    queue q;
    queue_begin(f->device, 0, NULL, &q);
    return q;
}

static queue_copy all_of(fixture *f) {
    return (queue_copy){.mem = f->mem, .host = f->x, .row = sizeof f->x, .rows = 1};
}

static void refill(fixture *f) {
    queue q = commands(f);
    suite_ok(f->lib, queue_fill(&q, f->mem, 0, sizeof f->x, 1));
}

static void begin(fixture *f) {
    *f = (fixture){.lib = suite_library()};
    f->device = suite_device(f->lib);
    suite_ok(f->lib, buffer_create(f->device, sizeof f->x, &f->mem));
    refill(f);
}

/* The same on a queue of the caller's with these properties; false if the device has no such queue. */
static bool begin_guest(fixture *f, cl_command_queue_properties properties) {
    begin(f);
    clsplat_device *own = f->device;
    cl_int code = CL_SUCCESS;
    cl_command_queue q = clCreateCommandQueue(own->context, own->id, properties, &code);
    if (code == CL_SUCCESS) {
        suite_ok(f->lib, clsplat_device_finish(own));
        suite_ok(f->lib, clsplat_device_adopt(f->lib, own->context, q, &f->device));
        clReleaseCommandQueue(q);
        clsplat_device_close(&own);
        f->device->memory.now += sizeof f->x; /* the buffer moved here */
    }
    return code == CL_SUCCESS;
}

static void end(fixture *f) {
    buffer_release(f->device, sizeof f->x, &f->mem);
    clsplat_device_close(&f->device);
    clsplat_destroy(&f->lib);
}

static clsplat_status run_scale(fixture *f, queue *q, float factor) {
    cl_kernel kernel = NULL;
    suite_ok(f->lib, program_kernel_text(f->device, steps, "scale", "", &kernel));
    launch l = launch_of(kernel, "scale");
    launch_mem(&l, f->mem);
    launch_float(&l, factor);
    launch_uint(&l, N);
    return launch_run(&l, q, grid_of(N, 1, 1, GROUP), (work){.flops = N, .bytes = 8 * N});
}

static clsplat_status run_shift(fixture *f, queue *q, int by) {
    cl_kernel kernel = NULL;
    suite_ok(f->lib, program_kernel_text(f->device, steps, "shift", "", &kernel));
    launch l = launch_of(kernel, "shift");
    launch_mem(&l, f->mem);
    launch_int(&l, by);
    launch_uint(&l, N);
    return launch_run(&l, q, grid_of(N, 1, 1, GROUP), (work){.flops = 2 * N, .bytes = 8 * N});
}

static void expect_all(fixture *f, float value) {
    queue q = commands(f);
    suite_ok(f->lib, queue_download(&q, all_of(f)));
    for (int i = 0; i < N; i++)
        ck_assert_msg(f->x[i] == value, "element %d is %g, not %g", i, (double)f->x[i], (double)value);
}

static cl_int state_of(cl_event event) {
    cl_int state = 0;
    ck_assert_int_eq(clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL),
                     CL_SUCCESS);
    return state;
}

/* Whether the caller's is the only reference left; a driver may let go of its own a little later. */
static bool is_callers_alone(cl_event event) {
    const struct timespec moment = {.tv_nsec = 1000 * 1000};
    cl_uint count = 0;
    for (int i = 0; i < 1000 && count != 1; i++) {
        ck_assert_int_eq(clGetEventInfo(event, CL_EVENT_REFERENCE_COUNT, sizeof count, &count, NULL), CL_SUCCESS);
        nanosleep(&moment, NULL);
    }
    return count == 1;
}

static const cl_command_queue_properties kinds[] = {
    0, CL_QUEUE_PROFILING_ENABLE, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE,
    CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE | CL_QUEUE_PROFILING_ENABLE};
enum { KINDS = sizeof kinds / sizeof *kinds };

static bool begin_kind(fixture *f, int kind) {
    if (begin_guest(f, kinds[kind]))
        return true;
    suite_skipped("an out-of-order queue", "the device has none");
    end(f);
    return false;
}

/* 2(…2(2(1) + 1) + 1…) + 1: any swap of two commands shows. */
START_TEST(commands_keep_their_order) {
    fixture f;
    if (!begin_kind(&f, _i))
        return;
    float expected = 1;
    for (int call = 0; call < 5; call++) {
        queue q = commands(&f);
        for (int step = 0; step < 2; step++) {
            suite_ok(f.lib, run_scale(&f, &q, 2));
            suite_ok(f.lib, run_shift(&f, &q, step + 1));
            expected = 2 * expected + (float)(step + 1);
        }
        suite_ok(f.lib, queue_end(&q, NULL));
    }
    expect_all(&f, expected);
    end(&f);
}
END_TEST

START_TEST(a_call_waits_for_its_list_and_tells_by_its_event) {
    fixture f;
    cl_int code = CL_SUCCESS;
    cl_event done = NULL;
    if (!begin_kind(&f, _i))
        return;
    cl_event gates[] = {clCreateUserEvent(f.device->context, &code),
                        clCreateUserEvent(f.device->context, &code)};
    queue q;
    queue_begin(f.device, 2, gates, &q);
    suite_ok(f.lib, run_scale(&f, &q, 5));
    suite_ok(f.lib, run_shift(&f, &q, 1));
    suite_ok(f.lib, queue_end(&q, &done));
    clSetUserEventStatus(gates[0], CL_COMPLETE);
    ck_assert_int_gt(state_of(done), CL_COMPLETE);
    clSetUserEventStatus(gates[1], CL_COMPLETE);
    ck_assert_int_eq(clWaitForEvents(1, &done), CL_SUCCESS);
    suite_ok(f.lib, clsplat_device_finish(f.device));
    ck_assert(is_callers_alone(done));
    expect_all(&f, 6);
    clReleaseEvent(done);
    clReleaseEvent(gates[0]);
    clReleaseEvent(gates[1]);
    end(&f);
}
END_TEST

START_TEST(a_call_without_commands_has_an_event) {
    fixture f;
    cl_int code = CL_SUCCESS;
    cl_event done = NULL;
    if (!begin_kind(&f, _i))
        return;
    cl_event gate = clCreateUserEvent(f.device->context, &code);
    queue q;
    queue_begin(f.device, 1, &gate, &q);
    suite_ok(f.lib, queue_end(&q, &done));
    ck_assert_int_gt(state_of(done), CL_COMPLETE);
    clSetUserEventStatus(gate, CL_COMPLETE);
    ck_assert_int_eq(clWaitForEvents(1, &done), CL_SUCCESS);
    clReleaseEvent(done);
    clReleaseEvent(gate);
    end(&f);
}
END_TEST

/* The caller's own later commands may wait for something that only the caller will do. */
START_TEST(finishing_waits_for_the_librarys_commands_only) {
    fixture f;
    cl_int code = CL_SUCCESS;
    if (!begin_kind(&f, _i))
        return;
    cl_event gate = clCreateUserEvent(f.device->context, &code);
    queue q = commands(&f);
    suite_ok(f.lib, run_scale(&f, &q, 3));
    ck_assert_int_eq(clEnqueueMarkerWithWaitList(f.device->queue, 1, &gate, NULL), CL_SUCCESS);
    suite_ok(f.lib, clsplat_device_finish(f.device));
    ck_assert_ptr_null(f.device->tail);
    clSetUserEventStatus(gate, CL_COMPLETE);
    expect_all(&f, 3);
    clReleaseEvent(gate);
    end(&f);
}
END_TEST

/* A caller's event that failed takes its call with it, not the later ones. */
START_TEST(a_failed_wait_is_forgotten) {
    fixture f;
    cl_int code = CL_SUCCESS;
    if (!begin_kind(&f, _i))
        return;
    cl_event gate = clCreateUserEvent(f.device->context, &code);
    queue q;
    suite_ok(f.lib, clsplat_device_finish(f.device));
    queue_begin(f.device, 1, &gate, &q);
    suite_ok(f.lib, run_scale(&f, &q, 3));
    clSetUserEventStatus(gate, -42);
    clsplat_device_finish(f.device);
    q = commands(&f);
    refill(&f);
    suite_ok(f.lib, run_scale(&f, &q, 3));
    suite_ok(f.lib, clsplat_device_finish(f.device));
    expect_all(&f, 3);
    clReleaseEvent(gate);
    end(&f);
}
END_TEST

static const struct pitches {
    size_t mem_offset, mem_pitch, host_pitch, row, rows; /* floats */
} copies[] = {{0, 7, 7, 7, 9},  {5, 7, 7, 7, 9},  {3, 16, 16, 5, 8}, {3, 16, 7, 7, 8}, {2, 6, 11, 6, 10},
              {1, 40, 3, 1, 1}, {0, 0, 0, 12, 1}, {4, 9, 0, 9, 6},   {0, 8, 2, 5, 7},  {0, 4, 4, 4, 0}};
enum { COPIES = sizeof copies / sizeof *copies };

START_TEST(rows_are_copied_with_their_pitches) {
    const struct pitches *c = &copies[_i];
    fixture f;
    float host[N], back[N];
    begin(&f);
    for (int i = 0; i < N; i++)
        host[i] = (float)(100 + i);
    queue_copy copy = {.mem = f.mem,
                       .mem_offset = c->mem_offset * sizeof(float),
                       .mem_pitch = c->mem_pitch * sizeof(float),
                       .host = host,
                       .host_pitch = c->host_pitch * sizeof(float),
                       .row = c->row * sizeof(float),
                       .rows = c->rows};
    queue q = commands(&f);
    suite_ok(f.lib, queue_upload(&q, copy));
    suite_ok(f.lib, queue_download(&q, all_of(&f)));
    float expected[N];
    for (int i = 0; i < N; i++)
        expected[i] = 1;
    for (size_t r = 0; r < c->rows; r++)
        for (size_t i = 0; i < c->row; i++)
            expected[c->mem_offset + r * c->mem_pitch + i] = host[r * c->host_pitch + i];
    for (int i = 0; i < N; i++)
        ck_assert_msg(f.x[i] == expected[i], "element %d is %g, not %g", i, (double)f.x[i],
                      (double)expected[i]);
    for (int i = 0; i < N; i++)
        back[i] = -1;
    copy.host = back;
    suite_ok(f.lib, queue_download(&q, copy));
    for (size_t r = 0, at = 0; r < c->rows && c->host_pitch >= c->row; r++, at += c->host_pitch) {
        ck_assert_mem_eq(back + at, host + at, c->row * sizeof(float));
        if (c->host_pitch > c->row)
            ck_assert_float_eq(back[at + c->row], -1);
    }
    end(&f);
}
END_TEST

START_TEST(filling_keeps_to_its_range) {
    fixture f;
    begin(&f);
    queue q = commands(&f);
    suite_ok(f.lib, queue_fill(&q, f.mem, 10 * sizeof(float), 5 * sizeof(float), -INFINITY));
    suite_ok(f.lib, queue_fill(&q, f.mem, 0, 0, 7));
    suite_ok(f.lib, queue_download(&q, all_of(&f)));
    for (int i = 0; i < N; i++)
        ck_assert(f.x[i] == (i >= 10 && i < 15 ? -INFINITY : 1.0f));
    end(&f);
}
END_TEST

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
    fixture f;
    cl_kernel kernel = NULL;
    begin(&f);
    queue q = commands(&f);
    suite_ok(f.lib, program_kernel_text(f.device, steps, "scale", "", &kernel));
    launch l = launch_of(kernel, "scale");
    launch_mem(&l, f.mem);
    launch_float(&l, 2);
    launch_uint(&l, N);
    launch_uint(&l, N); /* one too many */
    ck_assert_int_eq(launch_run(&l, &q, grid_of(N, 1, 1, GROUP), (work){0}), CLSPLAT_OPENCL);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(f.lib), "kernel scale, argument 3: clSetKernelArg: "));
    suite_ok(f.lib, program_kernel_text(f.device, steps, "fours", "", &kernel));
    l = launch_of(kernel, "fours");
    launch_mem(&l, f.mem);
    ck_assert_int_eq(launch_run(&l, &q, grid_of(16, 1, 1, 2), (work){0}), CLSPLAT_OPENCL);
    ck_assert_ptr_nonnull(
        strstr(clsplat_last_error(f.lib), "clEnqueueNDRangeKernel of fours: CL_INVALID_WORK_GROUP_SIZE"));
    expect_all(&f, 1);
    end(&f);
}
END_TEST

START_TEST(groups_keep_to_the_limits) {
    fixture f;
    begin(&f);
    queue q = commands(&f);
    clsplat_limits limits = f.device->info.limits;
    limits.max_work_group = GROUP - 1;
    clsplat_device_set_limits(f.device, limits);
    ck_assert_int_eq(run_scale(&f, &q, 2), CLSPLAT_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(f.lib), "kernel scale wants work-groups of 8 x 1 x 1"));
    limits.max_work_group = GROUP;
    limits.max_work_item_sizes[0] = GROUP / 2;
    clsplat_device_set_limits(f.device, limits);
    ck_assert_int_eq(run_scale(&f, &q, 2), CLSPLAT_UNSUPPORTED);
    limits.max_work_item_sizes[0] = GROUP;
    clsplat_device_set_limits(f.device, limits);
    suite_ok(f.lib, run_scale(&f, &q, 2));
    expect_all(&f, 2);
    end(&f);
}
END_TEST

START_TEST(an_empty_grid_is_nothing) {
    fixture f;
    cl_kernel kernel = NULL;
    begin(&f);
    queue q = commands(&f);
    suite_ok(f.lib, program_kernel_text(f.device, steps, "fours", "", &kernel));
    launch l = launch_of(kernel, "fours");
    launch_mem(&l, f.mem);
    suite_ok(f.lib, launch_run(&l, &q, grid_of(0, 1, 1, 4), (work){0}));
    suite_ok(f.lib, launch_run(&l, &q, grid_of(4, 0, 1, 4), (work){0}));
    expect_all(&f, 1);
    end(&f);
}
END_TEST

static const clsplat_profile_row *row_of(const clsplat_profile_row *rows, size_t count, const char *kernel) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].kernel, kernel) == 0)
            return &rows[i];
    ck_abort_msg("no row for %s", kernel);
}

START_TEST(times_add_up_by_kernel) {
    fixture f;
    clsplat_profile_row *rows = NULL;
    size_t count = 1;
    if (!begin_kind(&f, _i))
        return;
    queue q = commands(&f);
    suite_ok(f.lib, run_scale(&f, &q, 1)); /* not watched */
    clsplat_profile_set(f.device, true);
    suite_ok(f.lib, clsplat_profile_read(f.device, &rows, &count));
    ck_assert_uint_eq(count, 0);
    for (int i = 0; i < 3; i++)
        suite_ok(f.lib, run_scale(&f, &q, 2));
    suite_ok(f.lib, run_shift(&f, &q, 1));
    suite_ok(f.lib, clsplat_profile_read(f.device, &rows, &count));
    ck_assert_uint_eq(count, 2);
    const clsplat_profile_row *scale = row_of(rows, count, "scale"), *shift = row_of(rows, count, "shift");
    ck_assert_uint_eq(scale->launches, 3);
    ck_assert_uint_eq(shift->launches, 1);
    ck_assert_double_eq(scale->flops, 3.0 * N);
    ck_assert_double_eq(scale->bytes, 24.0 * N);
    ck_assert_double_eq(shift->flops, 2.0 * N);
    for (size_t i = 0; i < count; i++) {
        ck_assert_double_gt(rows[i].seconds, 0);
        ck_assert_double_lt(rows[i].seconds, 10);
        ck_assert_int_eq(rows[i].wall_clock, profile_needs_wall_clock(f.device));
    }
    ck_assert(profile_needs_wall_clock(f.device) || (kinds[_i] & CL_QUEUE_PROFILING_ENABLE));
    clsplat_profile_free(&rows);
    ck_assert_ptr_null(rows);
    clsplat_profile_set(f.device, false);
    suite_ok(f.lib, run_scale(&f, &q, 1));
    suite_ok(f.lib, clsplat_profile_read(f.device, &rows, &count));
    ck_assert_uint_eq(count, 0);
    expect_all(&f, 9);
    end(&f);
}
END_TEST

/* More launches than are kept waiting to be read, and more kernels than the first table has room for. */
START_TEST(a_long_profile_keeps_every_launch) {
    enum { LAUNCHES = 5000, NAMES = 40 };
    fixture f;
    clsplat_profile_row *rows = NULL;
    size_t count = 0;
    cl_kernel kernel = NULL;
    begin(&f);
    queue q = commands(&f);
    suite_ok(f.lib, program_kernel_text(f.device, steps, "fours", "", &kernel));
    clsplat_profile_set(f.device, true);
    for (int i = 0; i < LAUNCHES; i++) {
        char name[16];
        snprintf(name, sizeof name, "kernel %d", i % NAMES);
        launch l = launch_of(kernel, name);
        launch_mem(&l, f.mem);
        suite_ok(f.lib, launch_run(&l, &q, grid_of(4, 1, 1, 4), (work){.flops = 1}));
    }
    suite_ok(f.lib, clsplat_profile_read(f.device, &rows, &count));
    ck_assert_uint_eq(count, NAMES);
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(rows[i].launches, LAUNCHES / NAMES);
        ck_assert_double_gt(rows[i].seconds, 0);
    }
    clsplat_profile_free(&rows);
    end(&f);
}
END_TEST

static void add_order(TCase *part) {
    tcase_add_loop_test(part, commands_keep_their_order, 0, KINDS);
    tcase_add_loop_test(part, a_call_waits_for_its_list_and_tells_by_its_event, 0, KINDS);
    tcase_add_loop_test(part, a_call_without_commands_has_an_event, 0, KINDS);
    tcase_add_loop_test(part, finishing_waits_for_the_librarys_commands_only, 0, KINDS);
    tcase_add_loop_test(part, a_failed_wait_is_forgotten, 0, KINDS);
}

static void add_copy(TCase *part) {
    tcase_add_loop_test(part, rows_are_copied_with_their_pitches, 0, COPIES);
    tcase_add_test(part, filling_keeps_to_its_range);
}

static void add_launch(TCase *part) {
    tcase_add_test(part, a_grid_is_whole_groups);
    tcase_add_test(part, bad_launches_are_told);
    tcase_add_test(part, groups_keep_to_the_limits);
    tcase_add_test(part, an_empty_grid_is_nothing);
}

static void add_profile(TCase *part) {
    tcase_add_loop_test(part, times_add_up_by_kernel, 0, KINDS);
    tcase_add_test(part, a_long_profile_keeps_every_launch);
}

int main(void) {
    static const suite_part parts[] = {
        {"order", add_order}, {"copy", add_copy}, {"launch", add_launch}, {"profile", add_profile}};
    return suite_run("queue", parts, sizeof parts / sizeof *parts);
}
