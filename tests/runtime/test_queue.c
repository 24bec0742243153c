/* Commands in their order on either kind of queue, and copies with pitches. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "runtime/quirks.h"
#include "runtime/steps.h"

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
        ck_assert_int_eq(clGetEventInfo(event, CL_EVENT_REFERENCE_COUNT, sizeof count, &count, NULL),
                         CL_SUCCESS);
        nanosleep(&moment, NULL);
    }
    return count == 1;
}

/* 2(…2(2(1) + 1) + 1…) + 1: any swap of two commands shows. */
START_TEST(commands_keep_their_order) {
    steps s;
    if (!steps_begin_guest(&s, _i))
        return;
    float expected = 1;
    for (int call = 0; call < 5; call++) {
        queue q = steps_call(&s);
        for (int step = 0; step < 2; step++) {
            suite_ok(s.lib, steps_scale(&s, &q, 2));
            suite_ok(s.lib, steps_shift(&s, &q, step + 1));
            expected = 2 * expected + (float)(step + 1);
        }
        suite_ok(s.lib, queue_end(&q, NULL));
    }
    steps_expect(&s, expected);
    steps_end(&s);
}
END_TEST

START_TEST(a_call_waits_for_its_list_and_tells_by_its_event) {
    steps s;
    cl_int code = CL_SUCCESS;
    cl_event done = NULL;
    if (!steps_begin_guest(&s, _i))
        return;
    cl_event gates[] = {clCreateUserEvent(s.device->context, &code),
                        clCreateUserEvent(s.device->context, &code)};
    queue q;
    queue_begin(s.device, 2, gates, &q);
    suite_ok(s.lib, steps_scale(&s, &q, 5));
    suite_ok(s.lib, steps_shift(&s, &q, 1));
    suite_ok(s.lib, queue_end(&q, &done));
    clSetUserEventStatus(gates[0], CL_COMPLETE);
    ck_assert_int_gt(state_of(done), CL_COMPLETE);
    clSetUserEventStatus(gates[1], CL_COMPLETE);
    ck_assert_int_eq(clWaitForEvents(1, &done), CL_SUCCESS);
    suite_ok(s.lib, clsplat_device_finish(s.device));
    steps_expect(&s, 6);
    clReleaseEvent(done);
    clReleaseEvent(gates[0]);
    clReleaseEvent(gates[1]);
    steps_end(&s);
}
END_TEST

START_TEST(a_call_without_commands_has_an_event) {
    steps s;
    cl_int code = CL_SUCCESS;
    cl_event done = NULL;
    if (!steps_begin_guest(&s, _i))
        return;
    cl_event gate = clCreateUserEvent(s.device->context, &code);
    queue q;
    queue_begin(s.device, 1, &gate, &q);
    suite_ok(s.lib, queue_end(&q, &done));
    ck_assert_int_gt(state_of(done), CL_COMPLETE);
    clSetUserEventStatus(gate, CL_COMPLETE);
    ck_assert_int_eq(clWaitForEvents(1, &done), CL_SUCCESS);
    clReleaseEvent(done);
    clReleaseEvent(gate);
    steps_end(&s);
}
END_TEST

START_TEST(no_event_is_left_behind) {
    steps s;
    cl_event done = NULL;
    if (!steps_begin_guest(&s, _i))
        return;
    queue q = steps_call(&s);
    suite_ok(s.lib, steps_scale(&s, &q, 5));
    suite_ok(s.lib, queue_end(&q, &done));
    steps_refill(&s); /* PoCL keeps a queue's last event */
    suite_ok(s.lib, clsplat_device_finish(s.device));
    ck_assert(is_callers_alone(done));
    clReleaseEvent(done);
    steps_end(&s);
}
END_TEST

/* The caller's own later commands may wait for something that only the caller will do. */
START_TEST(finishing_waits_for_the_librarys_commands_only) {
    steps s;
    cl_int code = CL_SUCCESS;
    if (!steps_begin_guest(&s, _i))
        return;
    cl_event gate = clCreateUserEvent(s.device->context, &code);
    queue q = steps_call(&s);
    suite_ok(s.lib, steps_scale(&s, &q, 3));
    ck_assert_int_eq(clEnqueueMarkerWithWaitList(s.device->queue, 1, &gate, NULL), CL_SUCCESS);
    suite_ok(s.lib, clsplat_device_finish(s.device));
    ck_assert_uint_eq(s.device->trail.count, 0);
    clSetUserEventStatus(gate, CL_COMPLETE);
    steps_expect(&s, 3);
    clReleaseEvent(gate);
    steps_end(&s);
}
END_TEST

/* NVIDIA's queues fail every command after one that failed, which no library can mend. */
static bool queue_survives(cl_command_queue commands) {
    cl_event marker = NULL;
    ck_assert_int_eq(clEnqueueMarkerWithWaitList(commands, 0, NULL, &marker), CL_SUCCESS);
    cl_int code = clWaitForEvents(1, &marker);
    clReleaseEvent(marker);
    return code == CL_SUCCESS;
}

/* A caller's event that failed takes its call with it, not the later ones. */
START_TEST(a_failed_wait_is_forgotten) {
    steps s;
    cl_int code = CL_SUCCESS;
    if (!steps_begin_guest(&s, _i))
        return;
    cl_event gate = clCreateUserEvent(s.device->context, &code);
    queue q;
    suite_ok(s.lib, clsplat_device_finish(s.device));
    queue_begin(s.device, 1, &gate, &q);
    suite_ok(s.lib, steps_scale(&s, &q, 3));
    clSetUserEventStatus(gate, -42);
    clsplat_device_finish(s.device);
    if (!queue_survives(s.device->queue)) {
        suite_skipped("a call after a failed one", "the driver's queue fails whatever follows");
        clReleaseEvent(gate);
        steps_end(&s);
        return;
    }
    q = steps_call(&s);
    steps_refill(&s);
    suite_ok(s.lib, steps_scale(&s, &q, 3));
    suite_ok(s.lib, clsplat_device_finish(s.device));
    steps_expect(&s, 3);
    clReleaseEvent(gate);
    steps_end(&s);
}
END_TEST

/* As steps_begin_guest, for what puts commands behind failed ones. */
static bool begin_failing(steps *s, int kind) {
    if (!steps_begin_guest(s, kind))
        return false;
    if (!steps_kind_reorders(kind) || !(s->device->quirks & QUIRK_FAILURES_COMPLETE))
        return true;
    suite_skipped("a command behind a failed one, out of order",
                  "Intel's CPU runtime 2026.2 crashes: OclEvent::AddDependentOnMulti");
    steps_end(s);
    return false;
}

/* What the later command reads was never written: the download says so, once, and then all is as before. */
START_TEST(a_failed_command_is_told_of_by_the_next_result) {
    steps s;
    cl_int code = CL_SUCCESS;
    if (!begin_failing(&s, _i))
        return;
    cl_event gate = clCreateUserEvent(s.device->context, &code);
    queue q;
    suite_ok(s.lib, clsplat_device_finish(s.device));
    queue_begin(s.device, 1, &gate, &q);
    suite_ok(s.lib, steps_scale(&s, &q, 3));
    suite_ok(s.lib, queue_end(&q, NULL));
    clSetUserEventStatus(gate, -42);
    q = steps_call(&s);
    ck_assert_int_ne(queue_download(&q, steps_all(&s)), CLSPLAT_OK);
    ck_assert_msg(strstr(clsplat_last_error(s.lib), "scale failed while it ran") != NULL, "%s",
                  clsplat_last_error(s.lib));
    ck_assert_uint_eq(s.device->trail.failures, 1);
    if (queue_survives(s.device->queue))
        steps_expect(&s, 1);
    clReleaseEvent(gate);
    steps_end(&s);
}
END_TEST

/* What comes down in two steps is what was there at the first. */
START_TEST(a_download_in_two_steps) {
    steps s;
    cl_event here = NULL;
    if (!steps_begin_guest(&s, _i))
        return;
    queue q = steps_call(&s);
    suite_ok(s.lib, steps_scale(&s, &q, 3));
    suite_ok(s.lib, queue_download_begin(&q, steps_all(&s), &here));
    suite_ok(s.lib, steps_shift(&s, &q, 1));
    suite_ok(s.lib, queue_download_end(&q, &here));
    ck_assert_ptr_null(here);
    for (int i = 0; i < STEPS_COUNT; i++)
        ck_assert_float_eq(s.x[i], 3);
    suite_ok(s.lib, queue_download_end(&q, &here));
    steps_expect(&s, 4);
    steps_end(&s);
}
END_TEST

/* And the second tells of failures. */
START_TEST(a_download_in_two_steps_that_fails) {
    steps s;
    cl_int code = CL_SUCCESS;
    cl_event here = NULL;
    if (!begin_failing(&s, _i))
        return;
    cl_event gate = clCreateUserEvent(s.device->context, &code);
    queue q;
    queue_begin(s.device, 1, &gate, &q);
    suite_ok(s.lib, steps_scale(&s, &q, 3));
    clSetUserEventStatus(gate, -42);
    clsplat_status status = queue_download_begin(&q, steps_all(&s), &here);
    if (status == CLSPLAT_OK) {
        status = queue_download_end(&q, &here);
        ck_assert_msg(strstr(clsplat_last_error(s.lib), "failed while it ran") != NULL, "%s",
                      clsplat_last_error(s.lib));
    }
    ck_assert_int_ne(status, CLSPLAT_OK);
    clReleaseEvent(gate);
    steps_end(&s);
}
END_TEST

/* The guest has the event before anybody can know how the commands end. */
START_TEST(an_event_carries_the_failure_of_any_command) {
    steps s;
    cl_int code = CL_SUCCESS;
    cl_event done = NULL;
    if (!begin_failing(&s, _i))
        return;
    cl_event gate = clCreateUserEvent(s.device->context, &code);
    queue q;
    suite_ok(s.lib, clsplat_device_finish(s.device));
    queue_begin(s.device, 1, &gate, &q);
    for (int i = 0; i < 5; i++)
        suite_ok(s.lib, steps_scale(&s, &q, 3));
    suite_ok(s.lib, queue_end(&q, &done));
    clSetUserEventStatus(gate, -42);
    ck_assert_int_ne(clWaitForEvents(1, &done), CL_SUCCESS);
    if (!(s.device->quirks & QUIRK_FAILURES_COMPLETE))
        ck_assert_int_lt(state_of(done), CL_COMPLETE);
    clReleaseEvent(done);
    clReleaseEvent(gate);
    steps_end(&s);
}
END_TEST

static const struct pitches {
    size_t mem_offset, mem_pitch, host_pitch, row, rows; /* floats */
} copies[] = {{0, 7, 7, 7, 9},  {5, 7, 7, 7, 9},  {3, 16, 16, 5, 8}, {3, 16, 7, 7, 8}, {2, 6, 11, 6, 10},
              {1, 40, 3, 1, 1}, {0, 0, 0, 12, 1}, {4, 9, 0, 9, 6},   {0, 8, 2, 5, 7},  {0, 4, 4, 4, 0}};
enum { COPIES = sizeof copies / sizeof *copies };

START_TEST(rows_are_copied_with_their_pitches) {
    const struct pitches *c = &copies[_i];
    steps s;
    float host[STEPS_COUNT], back[STEPS_COUNT];
    steps_begin(&s);
    for (int i = 0; i < STEPS_COUNT; i++)
        host[i] = (float)(100 + i);
    queue_copy copy = {.mem = s.mem,
                       .mem_offset = c->mem_offset * sizeof(float),
                       .mem_pitch = c->mem_pitch * sizeof(float),
                       .host = host,
                       .host_pitch = c->host_pitch * sizeof(float),
                       .row = c->row * sizeof(float),
                       .rows = c->rows};
    queue q = steps_call(&s);
    suite_ok(s.lib, queue_upload(&q, copy));
    suite_ok(s.lib, queue_download(&q, steps_all(&s)));
    float expected[STEPS_COUNT];
    for (int i = 0; i < STEPS_COUNT; i++)
        expected[i] = 1;
    for (size_t r = 0; r < c->rows; r++)
        for (size_t i = 0; i < c->row; i++)
            expected[c->mem_offset + r * c->mem_pitch + i] = host[r * c->host_pitch + i];
    for (int i = 0; i < STEPS_COUNT; i++)
        ck_assert_msg(s.x[i] == expected[i], "element %d is %g, not %g", i, (double)s.x[i],
                      (double)expected[i]);
    for (int i = 0; i < STEPS_COUNT; i++)
        back[i] = -1;
    copy.host = back;
    suite_ok(s.lib, queue_download(&q, copy));
    for (size_t r = 0, at = 0; r < c->rows && c->host_pitch >= c->row; r++, at += c->host_pitch) {
        ck_assert_mem_eq(back + at, host + at, c->row * sizeof(float));
        if (c->host_pitch > c->row)
            ck_assert_float_eq(back[at + c->row], -1);
    }
    steps_end(&s);
}
END_TEST

START_TEST(filling_keeps_to_its_range) {
    steps s;
    steps_begin(&s);
    queue q = steps_call(&s);
    suite_ok(s.lib, queue_fill(&q, s.mem, 10 * sizeof(float), 5 * sizeof(float), -INFINITY));
    suite_ok(s.lib, queue_fill(&q, s.mem, 0, 0, 7));
    suite_ok(s.lib, queue_download(&q, steps_all(&s)));
    for (int i = 0; i < STEPS_COUNT; i++)
        ck_assert(s.x[i] == (i >= 10 && i < 15 ? -INFINITY : 1.0f));
    steps_end(&s);
}
END_TEST

static void add_order(TCase *part) {
    tcase_add_loop_test(part, commands_keep_their_order, 0, STEPS_KINDS);
    tcase_add_loop_test(part, a_call_waits_for_its_list_and_tells_by_its_event, 0, STEPS_KINDS);
    tcase_add_loop_test(part, no_event_is_left_behind, 0, STEPS_KINDS);
    tcase_add_loop_test(part, a_call_without_commands_has_an_event, 0, STEPS_KINDS);
    tcase_add_loop_test(part, finishing_waits_for_the_librarys_commands_only, 0, STEPS_KINDS);
    tcase_add_loop_test(part, a_failed_wait_is_forgotten, 0, STEPS_KINDS);
    tcase_add_loop_test(part, a_failed_command_is_told_of_by_the_next_result, 0, STEPS_KINDS);
    tcase_add_loop_test(part, a_download_in_two_steps, 0, STEPS_KINDS);
    tcase_add_loop_test(part, a_download_in_two_steps_that_fails, 0, STEPS_KINDS);
    tcase_add_loop_test(part, an_event_carries_the_failure_of_any_command, 0, STEPS_KINDS);
}

static void add_copy(TCase *part) {
    tcase_add_loop_test(part, rows_are_copied_with_their_pitches, 0, COPIES);
    tcase_add_test(part, filling_keeps_to_its_range);
}

int main(void) {
    static const suite_part parts[] = {{"order", add_order}, {"copy", add_copy}};
    return suite_run("queue", parts, sizeof parts / sizeof *parts);
}
