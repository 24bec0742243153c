#include "runtime/trail.h"

#include <stdlib.h>

#include "runtime/quirks.h"
#include "runtime/trace.h"

enum { FIRST_CAPACITY = 256 };

/* Positive: it has not ended. Negative: it failed, or nobody can tell. */
static cl_int state_of(const clsplat_device *device, cl_event event) {
    cl_int state = CL_QUEUED;
    cl_int code = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    if (code == CL_SUCCESS && state == CL_COMPLETE && device->quirks & QUIRK_FAILURES_COMPLETE)
        code = clWaitForEvents(1, &event);
    return code == CL_SUCCESS ? state : code;
}

/* Lets go of the commands that have ended, and remembers the first that failed. */
static void sweep(clsplat_device *device) {
    trail *t = &device->trail;
    size_t kept = 0;
    for (size_t i = 0; i < t->count; ++i) {
        cl_int state = state_of(device, t->events[i]);
        if (state > CL_COMPLETE) {
            t->events[kept] = t->events[i];
            t->names[kept++] = t->names[i];
            continue;
        }
        if (state < CL_COMPLETE && t->code == CL_SUCCESS) {
            t->code = state;
            t->failed = t->names[i];
        }
        clReleaseEvent(t->events[i]);
    }
    t->count = kept;
}

clsplat_status trail_reserve(clsplat_device *device) {
    trail *t = &device->trail;
    if (t->count < t->capacity)
        return CLSPLAT_OK;
    sweep(device);
    if (t->capacity && t->count <= t->capacity / 2)
        return CLSPLAT_OK;
    size_t capacity = t->capacity ? 2 * t->capacity : FIRST_CAPACITY;
    cl_event *events = realloc(t->events, capacity * sizeof *events);
    if (events)
        t->events = events;
    const char **names = events ? realloc(t->names, capacity * sizeof *names) : NULL;
    if (!names)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for a list of %zu events", capacity);
    t->names = names;
    t->capacity = capacity;
    return CLSPLAT_OK;
}

void trail_add(clsplat_device *device, cl_event event, const char *name) {
    trail *t = &device->trail;
    t->events[t->count] = event;
    t->names[t->count++] = name;
    if (trace_is_on(device->lib))
        trace_command(device, name, event);
}

cl_event trail_last(const clsplat_device *device) {
    return device->trail.events[device->trail.count - 1];
}

cl_event trail_unfinished(const clsplat_device *device) {
    cl_event last = device->trail.count ? trail_last(device) : NULL;
    return last && state_of(device, last) > CL_COMPLETE ? last : NULL;
}

static clsplat_status tell(clsplat_device *device) {
    trail *t = &device->trail;
    cl_int code = t->code;
    if (code == CL_SUCCESS)
        return CLSPLAT_OK;
    t->code = CL_SUCCESS;
    ++t->failures;
    bool memory = code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY;
    return log_error(
        device->lib, memory ? CLSPLAT_MEMORY : CLSPLAT_OPENCL,
        "%s failed while it ran on %s: %s (%d); nothing of what it and the commands after it wrote is to "
        "be used",
        t->failed, device->info.name, cl_error_name(code), (int)code);
}

clsplat_status trail_look(clsplat_device *device) {
    sweep(device);
    return tell(device);
}

clsplat_status trail_finish(clsplat_device *device) {
    trail *t = &device->trail;
    sweep(device); /* behind a call that blocked nothing is left to wait for */
    cl_int code = t->count ? clWaitForEvents((cl_uint)t->count, t->events) : CL_SUCCESS;
    for (size_t i = 0; code != CL_SUCCESS && i < t->count; ++i) /* it need not have waited for the others */
        clWaitForEvents(1, &t->events[i]);
    sweep(device);
    if (t->code == CL_SUCCESS && code != CL_SUCCESS)
        return cl_failed(device->lib, "clWaitForEvents", code);
    return tell(device);
}

void trail_release(clsplat_device *device) {
    trail *t = &device->trail;
    for (size_t i = 0; i < t->count; ++i)
        clReleaseEvent(t->events[i]);
    t->count = 0;
}
