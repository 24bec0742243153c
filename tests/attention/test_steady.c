/* What a call costs after the first one of its shape: no allocation, no build, no waiting. */
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"

// clang-format off
static const problem_spec specs[] = {
    {.heads = 2, .queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .causal = true},
    {.heads = 2, .queries = 1, .keys = 2000, .dim = 16, .value_dim = 16},
    {.heads = 2, .queries = 33, .keys = 65, .dim = 16, .value_dim = 16, .splats = 12, .levels = 2},
    {.heads = 2, .queries = 65, .keys = 65, .dim = 16, .value_dim = 16, .splats = 12, .causal = true},
    {.heads = 2, .queries = 65, .keys = 65, .dim = 8, .value_dim = 8, .splats = 12, .levels = 2,
     .causal = true, .covariance = CLSPLAT_FULL, .mixing = CLSPLAT_PER_LEVEL},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs, CALLS = 8 };

static void count_message(void *user, clsplat_log_level level, const char *message) {
    (void)level, (void)message;
    ++*(unsigned *)user;
}

/* A problem whose tensors are in buffers, on a queue of the test's own. */
typedef struct steady {
    unsigned messages; /* of the library, which tells of everything it builds */
    clsplat *lib;
    cl_context context;
    cl_command_queue queue;
    clsplat_device *device;
    problem p;
    clsplat_attention_tensors views;
    cl_mem buffers[PROBLEM_TENSORS];
} steady;

static void open_device(steady *s, cl_command_queue_properties properties) {
    clsplat_options options = clsplat_options_defaults();
    clsplat_device *own = NULL;
    cl_device_id id = NULL;
    cl_int code = CL_SUCCESS;
    options.log = count_message;
    options.user = &s->messages;
    ck_assert_int_eq(clsplat_create(options, &s->lib), CLSPLAT_OK);
    own = suite_device(s->lib);
    clGetContextInfo(clsplat_device_context(own), CL_CONTEXT_DEVICES, sizeof id, &id, NULL);
    clsplat_device_close(&own);
    s->context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    s->queue = clCreateCommandQueue(s->context, id, properties, &code);
    if (code == CL_INVALID_QUEUE_PROPERTIES) {
        suite_skipped("an out-of-order queue", "the device has none");
        s->queue = clCreateCommandQueue(s->context, id, 0, &code);
    }
    ck_assert_int_eq(code, CL_SUCCESS);
    suite_ok(s->lib, clsplat_device_adopt(s->lib, s->context, s->queue, &s->device));
}

static void upload(steady *s) {
    s->views = problem_views(&s->p);
    clsplat_tensor *const views[] = {&s->views.q,        &s->views.k,   &s->views.v,
                                     &s->views.key_bias, &s->views.out, &s->views.lse};
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        const problem_tensor *t = &s->p.tensors[i];
        cl_int code = CL_SUCCESS;
        if (!t->bytes)
            continue;
        s->buffers[i] = clCreateBuffer(s->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, problem_bytes(t),
                                       t->bytes, &code);
        ck_assert_int_eq(code, CL_SUCCESS);
        views[i]->offset =
            (size_t)((char *)views[i]->host - (char *)t->bytes) / clsplat_dtype_size(views[i]->dtype);
        views[i]->host = NULL;
        views[i]->buffer = s->buffers[i];
    }
}

static void close_all(steady *s) {
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        if (s->buffers[i])
            clReleaseMemObject(s->buffers[i]);
    clsplat_device_close(&s->device);
    problem_free(&s->p);
    clReleaseCommandQueue(s->queue);
    clReleaseContext(s->context);
    clsplat_destroy(&s->lib);
}

/* Everything that OpenCL has made in the context holds a reference to it; some drivers let go of events a
 * little late. */
static cl_uint references(const steady *s) {
    cl_uint count = 0;
    ck_assert_int_eq(clGetContextInfo(s->context, CL_CONTEXT_REFERENCE_COUNT, sizeof count, &count, NULL),
                     CL_SUCCESS);
    return count;
}

static void *read_out(const steady *s) {
    size_t bytes = problem_bytes(&s->p.tensors[PROBLEM_OUT]);
    void *out = malloc(bytes);
    ck_assert_int_eq(
        clEnqueueReadBuffer(s->queue, s->buffers[PROBLEM_OUT], CL_TRUE, 0, bytes, out, 0, NULL, NULL),
        CL_SUCCESS);
    return out;
}

/* Calls made while an event of the caller's holds them all back; they return, and change nothing. */
static void burst(steady *s) {
    cl_int code = CL_SUCCESS, state = CL_COMPLETE;
    cl_event start = clCreateUserEvent(s->context, &code), done[CALLS];
    ck_assert_int_eq(code, CL_SUCCESS);
    for (int i = 0; i < CALLS; i++)
        suite_ok(s->lib, clsplat_attend_enqueue(s->device, s->p.attention, s->views, 1, &start, &done[i]));
    for (int i = 0; i < CALLS; i++) {
        clGetEventInfo(done[i], CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
        ck_assert_int_gt(state, CL_COMPLETE);
    }
    ck_assert_int_eq(clSetUserEventStatus(start, CL_COMPLETE), CL_SUCCESS);
    ck_assert_int_eq(clWaitForEvents(1, &done[CALLS - 1]), CL_SUCCESS);
    for (int i = 0; i < CALLS; i++)
        clReleaseEvent(done[i]);
    clReleaseEvent(start);
}

START_TEST(later_calls_only_enqueue) {
    steady s = {0};
    open_device(&s, _i % 2 ? CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE : 0);
    s.p = problem_create(s.lib, &specs[_i / 2], 40);
    upload(&s);
    suite_ok(s.lib, clsplat_attend_enqueue(s.device, s.p.attention, s.views, 0, NULL, NULL));
    suite_ok(s.lib, clsplat_device_finish(s.device));
    void *first = read_out(&s);
    clsplat_memory memory = clsplat_device_memory(s.device);
    cl_uint held = references(&s);
    unsigned messages = s.messages;
    ck_assert_uint_gt(messages, 0);
    burst(&s);
    suite_ok(s.lib, clsplat_device_finish(s.device));
    ck_assert_uint_eq(clsplat_device_memory(s.device).peak, memory.peak);
    ck_assert_uint_eq(clsplat_device_memory(s.device).now, memory.now);
    ck_assert_uint_eq(s.messages, messages);
    void *last = read_out(&s);
    ck_assert_uint_lt(references(&s), held + CALLS);
    ck_assert_mem_eq(first, last, problem_bytes(&s.p.tensors[PROBLEM_OUT]));
    free(first);
    free(last);
    close_all(&s);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, later_calls_only_enqueue, 0, 2 * SPECS);
}

int main(void) {
    static const suite_part parts[] = {{"steady", add_all}};
    return suite_run("steady", parts, sizeof parts / sizeof *parts);
}
