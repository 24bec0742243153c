#include "runtime/launch.h"

#include <stdio.h>

#include "base/clock.h"
#include "runtime/launch_check.h"
#include "runtime/profile.h"
#include "runtime/program.h"
#include "runtime/trail.h"

grid grid_of(size_t x, size_t y, size_t z, size_t group_x) {
    size_t whole = (x + group_x - 1) / group_x * group_x;
    return (grid){.size = {whole, y, z}, .group = {group_x, 1, 1}};
}

launch launch_of(cl_kernel kernel, const char *name) {
    return (launch){.kernel = kernel, .name = name};
}

/* After a failure `next` stays at the argument that failed. */
static void tell(launch *l, launch_argument told, const void *bytes) {
    if (l->code != CL_SUCCESS)
        return;
    l->code = clSetKernelArg(l->kernel, l->next, told.bytes, bytes);
    if (l->code != CL_SUCCESS)
        return;
    if (l->next < LAUNCH_ARGUMENTS)
        l->told[l->next] = told;
    ++l->next;
}

void launch_bytes(launch *l, const char *name, const void *bytes, size_t count) {
    tell(l, (launch_argument){LAUNCH_BYTES, count, name, ""}, bytes);
}

void launch_layout(launch *l, const char *name, const void *bytes, size_t count) {
    tell(l, (launch_argument){LAUNCH_BYTES, count, name, LAUNCH_LAYOUT}, bytes);
}

void launch_mem(launch *l, const char *name, cl_mem mem) {
    tell(l, (launch_argument){LAUNCH_MEM, sizeof mem, name, ""}, &mem);
}

void launch_int(launch *l, const char *name, int32_t value) {
    tell(l, (launch_argument){LAUNCH_NUMBER, sizeof value, name, ""}, &value);
}

void launch_uint(launch *l, const char *name, uint32_t value) {
    tell(l, (launch_argument){LAUNCH_NUMBER, sizeof value, name, ""}, &value);
}

void launch_float(launch *l, const char *name, float value) {
    tell(l, (launch_argument){LAUNCH_FLOAT, sizeof value, name, ""}, &value);
}

/* What the compiled kernel's registers and local memory leave; UINT32_MAX if the driver does not say. */
static size_t items_of_kernel(const launch *l, const clsplat_device *device) {
    size_t most = 0;
    cl_int code =
        clGetKernelWorkGroupInfo(l->kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL);
    return code == CL_SUCCESS && most > 0 ? most : UINT32_MAX;
}

static clsplat_status check_launch(const launch *l, const queue *q, const grid *g) {
    const clsplat_device *device = q->device;
    const clsplat_limits *limits = &device->info.limits;
    if (l->code != CL_SUCCESS)
        return log_error(device->lib, CLSPLAT_OPENCL, "kernel %s, argument %u: clSetKernelArg: %s (%d)",
                         l->name, l->next, cl_error_name(l->code), (int)l->code);
    size_t items = g->group[0] * g->group[1] * g->group[2];
    bool fits = items <= limits->max_work_group;
    for (int d = 0; d < 3; ++d)
        fits = fits && g->group[d] <= limits->max_work_item_sizes[d];
    if (!fits)
        return log_error(
            device->lib, CLSPLAT_UNSUPPORTED,
            "kernel %s wants work-groups of %zu x %zu x %zu; %s allows %u work-items, at most %u x %u x %u",
            l->name, g->group[0], g->group[1], g->group[2], device->info.name, limits->max_work_group,
            limits->max_work_item_sizes[0], limits->max_work_item_sizes[1], limits->max_work_item_sizes[2]);
    if (q->strict && items > items_of_kernel(l, device))
        return log_error(
            device->lib, CLSPLAT_UNSUPPORTED,
            "kernel %s wants work-groups of %zu work-items; as it is compiled for %s it allows %zu", l->name,
            items, device->info.name, items_of_kernel(l, device));
#ifndef NDEBUG
    bool *launched = program_launched(device, l->kernel);
    if (!launched || !*launched) {
        clsplat_status status = launch_check(l, device);
        if (status != CLSPLAT_OK)
            return status;
    }
    if (launched)
        *launched = true;
#endif
    return CLSPLAT_OK;
}

static clsplat_status enqueue(const launch *l, queue *q, const grid *g) {
    clsplat_status status = CLSPLAT_OK;
    queue_waits waits = {0};
    cl_event event = NULL;
    char call[96];
    TRY(queue_waits_take(q, &waits));
    cl_int code = clEnqueueNDRangeKernel(q->device->queue, l->kernel, 3, NULL, g->size, g->group, waits.count,
                                         waits.list, &event);
    if (code != CL_SUCCESS)
        snprintf(call, sizeof call, LAUNCH_CALL " of %s", l->name);
    TRY(queue_pushed(q, &waits, code == CL_SUCCESS ? l->name : call, code, event));
fail:
    return status;
}

/* Nothing else may run between the two looks at the clock: what the kernel would wait for is waited for
 * before, the kernel itself after. */
static clsplat_status run_by_wall_clock(const launch *l, queue *q, const grid *g, work w) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = q->device->lib;
    if (!q->begun && q->wait_count)
        TRY_CL(lib, clWaitForEvents(q->wait_count, q->wait_list));
    TRY_CL(lib, clFinish(q->device->queue));
    double start = clock_seconds();
    TRY(enqueue(l, q, g));
    TRY(clsplat_device_finish(q->device));
    TRY(profile_add(q->device, l->name, w, NULL, clock_seconds() - start));
fail:
    return status;
}

clsplat_status launch_run(launch *l, queue *q, grid g, work w) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = q->device;
    TRY(check_launch(l, q, &g));
    if (g.size[0] == 0 || g.size[1] == 0 || g.size[2] == 0)
        return CLSPLAT_OK;
    if (profile_is_on(device) && profile_needs_wall_clock(device))
        return run_by_wall_clock(l, q, &g, w);
    TRY(enqueue(l, q, &g));
    if (profile_is_on(device))
        TRY(profile_add(device, l->name, w, trail_last(device), 0));
fail:
    return status;
}
