#include "runtime/steps.h"

#include "runtime/buffer.h"

const embedded_source steps_source = {"steps.cl",
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
                                      "void fours(global float *x) {\n"
                                      "    if (get_global_id(0) == 0) x[0] = 4;\n"
                                      "}\n"};

queue steps_call(steps *s) {
    queue q;
    queue_begin(s->device, 0, NULL, &q);
    return q;
}

queue_copy steps_all(steps *s) {
    return (queue_copy){.mem = s->mem, .host = s->x, .row = sizeof s->x, .rows = 1};
}

void steps_refill(steps *s) {
    queue q = steps_call(s);
    suite_ok(s->lib, queue_fill(&q, s->mem, 0, sizeof s->x, 1));
}

static void fill_first(steps *s) {
    suite_ok(s->lib, buffer_create(s->device, sizeof s->x, &s->mem));
    steps_refill(s);
}

void steps_begin(steps *s) {
    *s = (steps){.lib = suite_library()};
    s->device = suite_device(s->lib);
    fill_first(s);
}

static const cl_command_queue_properties kinds[STEPS_KINDS] = {
    0, CL_QUEUE_PROFILING_ENABLE, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE,
    CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE | CL_QUEUE_PROFILING_ENABLE};

bool steps_kind_reorders(int kind) {
    return kinds[kind] & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE;
}

bool steps_kind_profiles(int kind) {
    return kinds[kind] & CL_QUEUE_PROFILING_ENABLE;
}

bool steps_begin_guest(steps *s, int kind) {
    *s = (steps){.lib = suite_library()};
    clsplat_device *own = suite_device(s->lib);
    cl_int code = CL_SUCCESS;
    cl_command_queue commands = clCreateCommandQueue(own->context, own->id, kinds[kind], &code);
    if (code == CL_SUCCESS) {
        suite_ok(s->lib, clsplat_device_adopt(s->lib, own->context, commands, &s->device));
        clReleaseCommandQueue(commands);
        fill_first(s);
    }
    clsplat_device_close(&own);
    if (s->device)
        return true;
    suite_skipped("an out-of-order queue", "the device has none");
    clsplat_destroy(&s->lib);
    return false;
}

void steps_end(steps *s) {
    buffer_release(s->device, sizeof s->x, &s->mem);
    clsplat_device_close(&s->device);
    clsplat_destroy(&s->lib);
}

clsplat_status steps_scale(steps *s, queue *q, float factor) {
    cl_kernel kernel = NULL;
    suite_ok(s->lib, program_kernel_text(s->device, steps_source, "scale", "", &kernel));
    launch l = launch_of(kernel, "scale");
    launch_mem(&l, "x", s->mem);
    launch_float(&l, "factor", factor);
    launch_uint(&l, "n", STEPS_COUNT);
    return launch_run(&l, q, grid_of(STEPS_COUNT, 1, 1, STEPS_GROUP),
                      (work){.flops = STEPS_COUNT, .bytes = 8 * STEPS_COUNT});
}

clsplat_status steps_shift(steps *s, queue *q, int by) {
    cl_kernel kernel = NULL;
    suite_ok(s->lib, program_kernel_text(s->device, steps_source, "shift", "", &kernel));
    launch l = launch_of(kernel, "shift");
    launch_mem(&l, "x", s->mem);
    launch_int(&l, "by", by);
    launch_uint(&l, "n", STEPS_COUNT);
    return launch_run(&l, q, grid_of(STEPS_COUNT, 1, 1, STEPS_GROUP),
                      (work){.flops = 2 * STEPS_COUNT, .bytes = 8 * STEPS_COUNT});
}

void steps_expect(steps *s, float value) {
    queue q = steps_call(s);
    suite_ok(s->lib, queue_download(&q, steps_all(s)));
    for (int i = 0; i < STEPS_COUNT; i++)
        ck_assert_msg(s->x[i] == value, "element %d is %g, not %g", i, (double)s->x[i], (double)value);
}
