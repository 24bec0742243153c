#include "runtime/profile.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/quirks.h"

/* A launch whose event time is still to be read. */
typedef struct pending {
    cl_event event;
    size_t row;
} pending;

struct profile {
    bool on, wall_clock;
    clsplat_profile_row *rows;
    size_t row_count, row_capacity;
    pending *pending;
    size_t pending_count, pending_capacity;
};

enum { FIRST_PENDING = 4096, FIRST_ROWS = 16 };

clsplat_status profile_create(clsplat_device *device) {
    device->profile = calloc(1, sizeof *device->profile);
    if (!device->profile)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for a profile");
    device->profile->wall_clock = !device->queue_profiles || (device->quirks & QUIRK_WALL_CLOCK);
    return CLSPLAT_OK;
}

static void clear(struct profile *p) {
    for (size_t i = 0; i < p->pending_count; ++i)
        clReleaseEvent(p->pending[i].event);
    p->pending_count = 0;
    p->row_count = 0;
}

void profile_release(clsplat_device *device) {
    struct profile *p = device->profile;
    if (!p)
        return;
    clear(p);
    free(p->pending);
    free(p->rows);
    free(p);
    device->profile = NULL;
}

bool profile_is_on(const clsplat_device *device) {
    return device->profile->on;
}

bool profile_needs_wall_clock(const clsplat_device *device) {
    return device->profile->wall_clock;
}

/* 0 if the event has no times, or useless ones. */
static double event_seconds(cl_event event) {
    cl_ulong start = 0, end = 0;
    if (clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) !=
            CL_SUCCESS ||
        clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) != CL_SUCCESS)
        return 0;
    return end > start ? 1e-9 * (double)(end - start) : 0;
}

/* Whether event times tell anything here, tried on a queue and buffer of its own so that the caller's
 * commands are neither waited for nor in the way. */
static bool event_times_work(const clsplat_device *device) {
    enum { BYTES = 1 << 20 };
    const cl_uint zero = 0;
    double seconds = 0;
    cl_event event = NULL;
    cl_int code = CL_SUCCESS;
    cl_command_queue commands =
        clCreateCommandQueue(device->context, device->id, CL_QUEUE_PROFILING_ENABLE, &code);
    cl_mem mem =
        code == CL_SUCCESS ? clCreateBuffer(device->context, CL_MEM_READ_WRITE, BYTES, NULL, &code) : NULL;
    if (code == CL_SUCCESS &&
        clEnqueueFillBuffer(commands, mem, &zero, sizeof zero, 0, BYTES, 0, NULL, &event) == CL_SUCCESS &&
        clWaitForEvents(1, &event) == CL_SUCCESS)
        seconds = event_seconds(event);
    if (event)
        clReleaseEvent(event);
    if (mem)
        clReleaseMemObject(mem);
    if (commands)
        clReleaseCommandQueue(commands);
    return seconds > 0;
}

void clsplat_profile_set(clsplat_device *device, bool on) {
    struct profile *p = device->profile;
    if (on && !p->on) {
        clear(p);
        p->wall_clock = p->wall_clock || !event_times_work(device);
    }
    p->on = on;
}

/* Moves a finished launch's time to its row. */
static void fold(struct profile *p, const pending *launched) {
    p->rows[launched->row].seconds += event_seconds(launched->event);
    clReleaseEvent(launched->event);
}

static bool is_finished(cl_event event) {
    cl_int state = CL_QUEUED;
    return clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL) !=
               CL_SUCCESS ||
           state <= CL_COMPLETE;
}

static void fold_finished(struct profile *p) {
    size_t kept = 0;
    for (size_t i = 0; i < p->pending_count; ++i) {
        if (is_finished(p->pending[i].event))
            fold(p, &p->pending[i]);
        else
            p->pending[kept++] = p->pending[i];
    }
    p->pending_count = kept;
}

/* Room for one more; finished launches make it first, so that the list stays short however long a program
 * is watched. */
static bool make_room(struct profile *p) {
    if (p->pending_count < p->pending_capacity)
        return true;
    fold_finished(p);
    if (p->pending_capacity && p->pending_count <= p->pending_capacity / 2)
        return true;
    size_t capacity = p->pending_capacity ? 2 * p->pending_capacity : FIRST_PENDING;
    pending *grown = realloc(p->pending, capacity * sizeof *grown);
    if (!grown)
        return false;
    p->pending = grown;
    p->pending_capacity = capacity;
    return true;
}

/* The kernel's row, new if it has none yet; NULL without memory. */
static clsplat_profile_row *row_of(struct profile *p, const char *kernel) {
    for (size_t i = 0; i < p->row_count; ++i)
        if (strncmp(p->rows[i].kernel, kernel, sizeof p->rows[i].kernel - 1) == 0)
            return &p->rows[i];
    if (p->row_count == p->row_capacity) {
        size_t capacity = p->row_capacity ? 2 * p->row_capacity : FIRST_ROWS;
        clsplat_profile_row *grown = realloc(p->rows, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        p->rows = grown;
        p->row_capacity = capacity;
    }
    clsplat_profile_row *row = &p->rows[p->row_count++];
    *row = (clsplat_profile_row){.wall_clock = p->wall_clock};
    snprintf(row->kernel, sizeof row->kernel, "%s", kernel);
    return row;
}

clsplat_status profile_add(clsplat_device *device, const char *kernel, work w, cl_event event,
                           double seconds) {
    clsplat_status status = CLSPLAT_OK;
    struct profile *p = device->profile;
    clsplat_profile_row *row = row_of(p, kernel);
    if (!row || (event && !make_room(p)))
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory to profile kernel %s", kernel);
    if (event)
        TRY_CL(device->lib, clRetainEvent(event));
    ++row->launches;
    row->seconds += seconds;
    row->flops += w.flops;
    row->bytes += w.bytes;
    if (event)
        p->pending[p->pending_count++] = (pending){.event = event, .row = (size_t)(row - p->rows)};
fail:
    return status;
}

clsplat_status clsplat_profile_read(clsplat_device *device, clsplat_profile_row **rows, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    struct profile *p = device->profile;
    *rows = NULL;
    *count = 0;
    TRY(clsplat_device_finish(device));
    fold_finished(p);
    *rows = p->rows;
    *count = p->row_count;
    p->rows = NULL;
    p->row_capacity = 0;
fail:
    clear(p);
    return status;
}

void clsplat_profile_free(clsplat_profile_row **rows) {
    if (rows) {
        free(*rows);
        *rows = NULL;
    }
}
