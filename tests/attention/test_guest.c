/* The library as a guest: the caller's context, queue, buffers with offsets and strides, wait-list and event.
 */
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"

typedef struct guest {
    clsplat *lib;
    cl_context context;
    cl_command_queue queue;
    clsplat_device *device;
} guest;

/* A context and a queue of the caller's own, on the device that $CLSPLAT_DEVICE names; false if it has no
 * such queue. */
static bool guest_open(cl_command_queue_properties properties, guest *opened) {
    guest g = {.lib = suite_library()};
    clsplat_device *own = suite_device(g.lib);
    cl_device_id id = NULL;
    cl_int code = clGetContextInfo(clsplat_device_context(own), CL_CONTEXT_DEVICES, sizeof id, &id, NULL);
    ck_assert_int_eq(code, CL_SUCCESS);
    clsplat_device_close(&own);
    g.context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    g.queue = clCreateCommandQueue(g.context, id, properties, &code);
    *opened = g;
    if (code == CL_INVALID_QUEUE_PROPERTIES) {
        suite_skipped("guest", "the device has no out-of-order queue");
        clReleaseContext(g.context);
        clsplat_destroy(&g.lib);
        return false;
    }
    ck_assert_int_eq(code, CL_SUCCESS);
    suite_ok(g.lib, clsplat_device_adopt(g.lib, g.context, g.queue, &opened->device));
    return true;
}

static void guest_close(guest *g) {
    clsplat_device_close(&g->device);
    clReleaseCommandQueue(g->queue);
    clReleaseContext(g->context);
    clsplat_destroy(&g->lib);
}

static const cl_command_queue_properties queues[] = {0, CL_QUEUE_PROFILING_ENABLE,
                                                     CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE};
enum { QUEUES = sizeof queues / sizeof *queues };

// clang-format off
static const problem_spec specs[] = {
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 33, .keys = 65, .dim = 8, .value_dim = 8,
     .causal = true, .bias = BIAS_HOLES, .layout = LAYOUT_TOKENS},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 65, .keys = 65, .dim = 8, .value_dim = 8,
     .causal = true, .bias = BIAS_FRONT, .layout = LAYOUT_TOKENS, .splats = 12, .levels = 3,
     .covariance = CLSPLAT_DIAGONAL},
    {.heads = 2, .queries = 50, .keys = 300, .dim = 8, .value_dim = 8, .splats = 12, .levels = 3,
     .covariance = CLSPLAT_FULL, .mixing = CLSPLAT_PER_LEVEL},
    {.heads = 2, .queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .q = CLSPLAT_F16,
     .k = CLSPLAT_F16, .v = CLSPLAT_F16, .out = CLSPLAT_F16, .lse = CLSPLAT_F16, .layout = LAYOUT_TOKENS},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs };

START_TEST(buffers_with_offsets_and_strides) {
    guest g;
    if (!guest_open(queues[_i], &g))
        return;
    for (size_t i = 0; i < SPECS; i++) {
        problem p = problem_create(g.lib, &specs[i], 10 + i);
        suite_ok(g.lib, problem_attend_buffers(&p, g.device));
        problem_expect(&p);
        problem_check(&p);
        problem_free(&p);
    }
    guest_close(&g);
}
END_TEST

/* The problem's tensors in buffers; the caller's own commands, with events, on either side of the attention.
 */
typedef struct flight {
    clsplat_attention_tensors views;
    cl_event arrived[PROBLEM_TENSORS]; /* uploads, all waiting for `start` */
    cl_event attended;
} flight;

static clsplat_tensor *view_of(clsplat_attention_tensors *views, int which) {
    clsplat_tensor *const all[] = {&views->q,        &views->k,   &views->v,
                                   &views->key_bias, &views->out, &views->lse};
    return all[which];
}

static void upload(guest *g, problem *p, cl_event start, flight *f) {
    f->views = problem_views(p);
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        const problem_tensor *t = &p->tensors[i];
        clsplat_tensor *view = view_of(&f->views, i);
        size_t size = clsplat_dtype_size(view->dtype);
        cl_int code = CL_SUCCESS;
        view->offset = (size_t)((char *)view->host - (char *)t->bytes) / size;
        view->host = NULL;
        view->buffer = clCreateBuffer(g->context, CL_MEM_READ_WRITE, problem_bytes(t), NULL, &code);
        ck_assert_int_eq(code, CL_SUCCESS);
        code = clEnqueueWriteBuffer(g->queue, view->buffer, CL_FALSE, 0, problem_bytes(t), t->bytes, 1,
                                    &start, &f->arrived[i]);
        ck_assert_int_eq(code, CL_SUCCESS);
    }
}

/* Reads out and lse back once the attention's event has come, and lets go of everything. */
static void land(guest *g, problem *p, flight *f) {
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        const problem_tensor *t = &p->tensors[i];
        clsplat_tensor *view = view_of(&f->views, i);
        if (i == PROBLEM_OUT || i == PROBLEM_LSE)
            ck_assert_int_eq(clEnqueueReadBuffer(g->queue, view->buffer, CL_TRUE, 0, problem_bytes(t),
                                                 t->bytes, 1, &f->attended, NULL),
                             CL_SUCCESS);
        clReleaseEvent(f->arrived[i]);
    }
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        clReleaseMemObject(view_of(&f->views, i)->buffer);
    clReleaseEvent(f->attended);
}

static cl_int state_of(cl_event event) {
    cl_int state = 0;
    ck_assert_int_eq(clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL),
                     CL_SUCCESS);
    return state;
}

/* Two attentions in a row wait for uploads that have not started; nothing blocks, and each event means done.
 */
START_TEST(waits_for_the_list_and_tells_by_event) {
    guest g;
    if (!guest_open(queues[_i], &g))
        return;
    cl_int code = CL_SUCCESS;
    cl_event start = clCreateUserEvent(g.context, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    problem problems[2];
    flight flights[2];
    for (int i = 0; i < 2; i++) {
        problems[i] = problem_create(g.lib, &specs[i], 20 + (uint64_t)i);
        memset(problems[i].tensors[PROBLEM_OUT].bytes, 0xFF,
               problem_bytes(&problems[i].tensors[PROBLEM_OUT]));
        upload(&g, &problems[i], start, &flights[i]);
        suite_ok(g.lib, clsplat_attend_enqueue(g.device, problems[i].attention, flights[i].views,
                                               PROBLEM_TENSORS, flights[i].arrived, &flights[i].attended));
        ck_assert_int_gt(state_of(flights[i].attended), CL_COMPLETE);
    }
    ck_assert_int_eq(clSetUserEventStatus(start, CL_COMPLETE), CL_SUCCESS);
    for (int i = 1; i >= 0; i--) {
        land(&g, &problems[i], &flights[i]);
        problem_expect(&problems[i]);
        problem_check(&problems[i]);
        problem_free(&problems[i]);
    }
    clReleaseEvent(start);
    guest_close(&g);
}
END_TEST

START_TEST(a_foreign_queue_is_refused) {
    guest g, other;
    ck_assert(guest_open(0, &g) && guest_open(0, &other));
    clsplat_device *device = NULL;
    ck_assert_int_eq(clsplat_device_adopt(g.lib, g.context, other.queue, &device), CLSPLAT_INVALID);
    ck_assert_ptr_null(device);
    ck_assert_str_ne(clsplat_last_error(g.lib), "");
    guest_close(&other);
    guest_close(&g);
}
END_TEST

/* The caller's objects are retained, and outlive the handle. */
START_TEST(handles_are_given_back) {
    guest g;
    ck_assert(guest_open(0, &g));
    cl_uint before = 0, after = 0;
    ck_assert_ptr_eq(clsplat_device_context(g.device), g.context);
    ck_assert_ptr_eq(clsplat_device_queue(g.device), g.queue);
    clsplat_device_close(&g.device);
    ck_assert_ptr_null(g.device);
    ck_assert_int_eq(clGetCommandQueueInfo(g.queue, CL_QUEUE_REFERENCE_COUNT, sizeof before, &before, NULL),
                     CL_SUCCESS);
    suite_ok(g.lib, clsplat_device_adopt(g.lib, g.context, g.queue, &g.device));
    clsplat_device_close(&g.device);
    clGetCommandQueueInfo(g.queue, CL_QUEUE_REFERENCE_COUNT, sizeof after, &after, NULL);
    ck_assert_uint_eq(before, after);
    guest_close(&g);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, buffers_with_offsets_and_strides, 0, QUEUES);
    tcase_add_loop_test(part, waits_for_the_list_and_tells_by_event, 0, QUEUES);
    tcase_add_test(part, a_foreign_queue_is_refused);
    tcase_add_test(part, handles_are_given_back);
}

int main(void) {
    static const suite_part parts[] = {{"guest", add_all}};
    return suite_run("guest", parts, sizeof parts / sizeof *parts);
}
