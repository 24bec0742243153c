#include "op/peak.h"

#include <math.h>

#include "base/clock.h"
#include "op/kernel.h"
#include "runtime/buffer.h"

/* A launch long enough to time; four times that is short enough for a device that draws the screen. */
static const double TIMED_SECONDS = 0.05;
enum { CHAINS = 12, SPAN = 512, REPEATS = 7 };

/* One launch of either kernel, and the clock around it. */
typedef struct probe {
    clsplat_device *device;
    const char *kernel;
    cl_mem from, to; /* from: of the copy alone */
    size_t groups;
    uint32_t rounds; /* of multiply-adds; SPAN for the copy */
} probe;

/* Work-groups of one where vectors are wide, as for cl/shared/wide.clh. */
static size_t group_size(const clsplat_device *device) {
    const clsplat_limits *limits = &device->info.limits;
    return limits_are_wide(limits) ? 1 : limits->max_work_group < 256 ? limits->max_work_group : 256;
}

static size_t vector_width(const clsplat_device *device) {
    uint32_t width = device->info.limits.vector_width_float;
    return width >= 16 ? 16 : width >= 8 ? 8 : 4;
}

/* What a round of a work-item does, in flops or in bytes. */
static double round_work(const probe *p) {
    size_t floats = p->groups * group_size(p->device) * vector_width(p->device);
    return 2.0 * (double)floats * (p->from ? sizeof(float) : CHAINS);
}

static clsplat_status run(const probe *p, double *seconds) {
    clsplat_status status = CLSPLAT_OK;
    size_t group = group_size(p->device);
    kernel_options o = {.group = (uint32_t)group};
    launch l;
    queue q;
    options_number(&o, "WG", group);
    options_number(&o, "W", vector_width(p->device));
    options_number(&o, "CHAINS", CHAINS);
    TRY(options_launch(&o, p->device, "peak.cl", p->kernel, &l));
    if (p->from) {
        launch_uint(&l, "span", p->rounds);
        launch_mem(&l, "from", p->from);
        launch_mem(&l, "to", p->to);
    } else {
        launch_uint(&l, "rounds", p->rounds);
        launch_float(&l, "factor", 0.999f);
        launch_float(&l, "term", 0.1f);
        launch_mem(&l, "out", p->to);
    }
    TRY(clsplat_device_finish(p->device));
    queue_begin(p->device, 0, NULL, &q);
    double start = clock_seconds();
    TRY(launch_run(&l, &q, grid_of(p->groups * group, 1, 1, group), (work){0}));
    TRY(clsplat_device_finish(p->device));
    *seconds = clock_seconds() - start;
fail:
    return status;
}

/* Per second, at best. */
static clsplat_status best_of(const probe *p, double *rate) {
    clsplat_status status = CLSPLAT_OK;
    double seconds, best = INFINITY;
    for (int i = 0; i < REPEATS; ++i) {
        TRY(run(p, &seconds));
        best = fmin(best, seconds);
    }
    *rate = round_work(p) * p->rounds / best;
fail:
    return status;
}

static clsplat_status measure_flops(clsplat_device *device, double *rate) {
    clsplat_status status = CLSPLAT_OK;
    probe p = {.device = device,
               .kernel = "peak_multiply_add",
               .groups = device->info.limits.compute_units * (size_t)16,
               .rounds = 1000};
    double seconds = 0;
    size_t bytes = p.groups * group_size(device) * sizeof(float);
    TRY(buffer_create(device, bytes, &p.to));
    TRY(run(&p, &seconds)); /* builds it */
    TRY(run(&p, &seconds));
    while (seconds < TIMED_SECONDS && p.rounds < UINT32_MAX / 4) {
        p.rounds *= 4;
        TRY(run(&p, &seconds));
    }
    TRY(best_of(&p, rate));
fail:
    buffer_release(device, bytes, &p.to);
    return status;
}

/* Two buffers that no cache holds, as far as the device has the memory. */
static clsplat_status measure_bytes(clsplat_device *device, double *rate) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_limits *limits = &device->info.limits;
    uint64_t most = (uint64_t)256 << 20, part = limits->global_memory / 8;
    most = most < part ? most : part;
    most = most < limits->max_allocation ? most : limits->max_allocation;
    size_t per_group = group_size(device) * vector_width(device) * sizeof(float) * SPAN;
    probe p = {.device = device, .kernel = "peak_copy", .groups = (size_t)most / per_group, .rounds = SPAN};
    size_t bytes = p.groups * per_group;
    queue q;
    TRY(buffer_create(device, bytes, &p.from));
    TRY(buffer_create(device, bytes, &p.to));
    queue_begin(device, 0, NULL, &q);
    TRY(queue_fill(&q, p.from, 0, bytes, 1.0f));
    TRY(best_of(&p, rate));
fail:
    buffer_release(device, bytes, &p.to);
    buffer_release(device, bytes, &p.from);
    return status;
}

clsplat_status op_peak_measure(clsplat_device *device, op_peak *peak) {
    clsplat_status status = CLSPLAT_OK;
    TRY(measure_flops(device, &peak->flops));
    TRY(measure_bytes(device, &peak->bytes));
fail:
    return status;
}
