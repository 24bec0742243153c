#include "runtime/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trail.h"

void queue_begin(clsplat_device *device, cl_uint wait_count, const cl_event *wait_list, queue *q) {
    *q = (queue){.device = device, .wait_count = wait_count, .wait_list = wait_list};
}

clsplat_status queue_waits_take(queue *q, queue_waits *waits) {
    clsplat_status status = CLSPLAT_OK;
    cl_uint callers = q->begun ? 0 : q->wait_count;
    /* A command that has failed already must not make all later calls fail, too: the trail tells of it. */
    cl_event tail = q->device->in_order ? NULL : trail_unfinished(q->device);
    *waits = (queue_waits){.count = callers, .list = callers ? q->wait_list : NULL};
    TRY(trail_reserve(q->device));
    if (!tail)
        return CLSPLAT_OK;
    waits->storage = malloc((callers + 1) * sizeof *waits->storage);
    if (!waits->storage)
        return log_error(q->device->lib, CLSPLAT_MEMORY, "no memory for a list of %u events", callers + 1);
    for (cl_uint i = 0; i < callers; ++i)
        waits->storage[i] = q->wait_list[i];
    waits->storage[callers] = tail;
    waits->list = waits->storage;
    waits->count = callers + 1;
fail:
    return status;
}

clsplat_status queue_pushed(queue *q, queue_waits *waits, const char *name, cl_int code, cl_event event) {
    free(waits->storage);
    *waits = (queue_waits){0};
    if (code != CL_SUCCESS)
        return cl_failed(q->device->lib, name, code);
    trail_add(q->device, event, name);
    q->begun = true;
    return CLSPLAT_OK;
}

/* A command that ends with those it waits for, and fails if one of them does. */
static clsplat_status push_marker(queue *q, const queue_waits *waits) {
    cl_event event = NULL;
    cl_int code = clEnqueueMarkerWithWaitList(q->device->queue, waits->count, waits->list, &event);
    return queue_pushed(q, &(queue_waits){0}, "clEnqueueMarkerWithWaitList", code, event);
}

static clsplat_status push_event(queue *q) {
    clsplat_status status = CLSPLAT_OK;
    const trail *t = &q->device->trail;
    queue_waits waits = {0};
    TRY(queue_waits_take(q, &waits));
    if (!q->begun)
        TRY(push_marker(q, &waits));
    else if (q->device->in_order ? t->count != 1 : t->count == 0)
        TRY(push_marker(q, &(queue_waits){.count = (cl_uint)t->count, .list = t->count ? t->events : NULL}));
fail:
    free(waits.storage);
    return status;
}

/* The event speaks for all commands that have not ended. Those of an out-of-order queue wait for each other,
 * so the last one's does; of an in-order queue only a marker that waits for every one of them takes over how
 * they ended. */
clsplat_status queue_end(queue *q, cl_event *event) {
    clsplat_status status = CLSPLAT_OK;
    if (!event)
        return CLSPLAT_OK;
    *event = NULL;
    TRY(trail_look(q->device));
    TRY(push_event(q));
    TRY_CL(q->device->lib, clFlush(q->device->queue));
    TRY_CL(q->device->lib, clRetainEvent(trail_last(q->device)));
    *event = trail_last(q->device);
fail:
    return status;
}

clsplat_status queue_flush(queue *q) {
    clsplat_status status = CLSPLAT_OK;
    TRY_CL(q->device->lib, clFlush(q->device->queue));
fail:
    return status;
}

typedef enum copy_direction { COPY_UP, COPY_DOWN } copy_direction;

/* One command. Rows that overlap, as of a row that stands for many, are not for OpenCL: see copy_rows. */
static clsplat_status copy_once(queue *q, const queue_copy *c, copy_direction direction) {
    clsplat_status status = CLSPLAT_OK;
    cl_command_queue to = q->device->queue;
    bool dense = c->rows == 1 || (c->mem_pitch == c->row && c->host_pitch == c->row);
    size_t bytes = c->row * c->rows, mem_origin[3] = {c->mem_offset, 0, 0}, host_origin[3] = {0};
    size_t region[3] = {c->row, c->rows, 1};
    queue_waits waits = {0};
    cl_event event = NULL;
    cl_int code = CL_SUCCESS;
    TRY(queue_waits_take(q, &waits));
    if (dense && direction == COPY_UP)
        code = clEnqueueWriteBuffer(to, c->mem, CL_TRUE, c->mem_offset, bytes, c->host, waits.count,
                                    waits.list, &event);
    else if (dense)
        code = clEnqueueReadBuffer(to, c->mem, CL_TRUE, c->mem_offset, bytes, c->host, waits.count,
                                   waits.list, &event);
    else if (direction == COPY_UP)
        code = clEnqueueWriteBufferRect(to, c->mem, CL_TRUE, mem_origin, host_origin, region, c->mem_pitch, 0,
                                        c->host_pitch, 0, c->host, waits.count, waits.list, &event);
    else
        code = clEnqueueReadBufferRect(to, c->mem, CL_TRUE, mem_origin, host_origin, region, c->mem_pitch, 0,
                                       c->host_pitch, 0, c->host, waits.count, waits.list, &event);
    TRY(queue_pushed(q, &waits, direction == COPY_UP ? "writing to a buffer" : "reading from a buffer", code,
                     event));
fail:
    return status;
}

static clsplat_status copy_rows(queue *q, queue_copy c, copy_direction direction) {
    clsplat_status status = CLSPLAT_OK;
    if (c.rows == 0 || c.row == 0)
        return CLSPLAT_OK;
    if (c.rows == 1 || (c.mem_pitch >= c.row && c.host_pitch >= c.row))
        return copy_once(q, &c, direction);
    queue_copy one = c;
    one.rows = 1;
    for (size_t i = 0; i < c.rows; ++i) {
        one.mem_offset = c.mem_offset + i * c.mem_pitch;
        one.host = (char *)c.host + i * c.host_pitch;
        TRY(copy_once(q, &one, direction));
    }
fail:
    return status;
}

/* Kernels take numbers of rows from what is brought up: one that never arrived must not send them anywhere.
 */
clsplat_status queue_upload(queue *q, queue_copy copy) {
    clsplat_status status = CLSPLAT_OK;
    TRY(copy_rows(q, copy, COPY_UP));
    TRY(trail_look(q->device));
fail:
    return status;
}

/* NVIDIA's queues fail the copy, too: the command that failed first is the one to name. */
clsplat_status queue_download(queue *q, queue_copy copy) {
    clsplat_status copied = copy_rows(q, copy, COPY_DOWN), before = trail_finish(q->device);
    return before != CLSPLAT_OK ? before : copied;
}

clsplat_status queue_download_begin(queue *q, queue_copy copy, cl_event *here) {
    clsplat_status status = CLSPLAT_OK;
    queue_waits waits = {0};
    cl_event event = NULL;
    assert(copy.rows == 1);
    *here = NULL;
    TRY(queue_waits_take(q, &waits));
    cl_int code = clEnqueueReadBuffer(q->device->queue, copy.mem, CL_FALSE, copy.mem_offset, copy.row,
                                      copy.host, waits.count, waits.list, &event);
    TRY(queue_pushed(q, &waits, "reading from a buffer", code, event));
    TRY_CL(q->device->lib, clRetainEvent(event));
    *here = event;
fail:
    return status;
}

clsplat_status queue_download_end(queue *q, cl_event *here) {
    clsplat_status status = CLSPLAT_OK;
    cl_event event = *here;
    *here = NULL;
    if (!event)
        return CLSPLAT_OK;
    cl_int code = clWaitForEvents(1, &event);
    status = trail_look(q->device); /* the command that failed first is the one to name */
    if (status == CLSPLAT_OK && code != CL_SUCCESS)
        status = cl_failed(q->device->lib, "clWaitForEvents", code);
    clReleaseEvent(event);
    return status;
}

clsplat_status queue_fill(queue *q, cl_mem mem, size_t offset, size_t bytes, float value) {
    clsplat_status status = CLSPLAT_OK;
    queue_waits waits = {0};
    cl_event event = NULL;
    assert(bytes % sizeof value == 0);
    if (bytes == 0)
        return CLSPLAT_OK;
    TRY(queue_waits_take(q, &waits));
    cl_int code = clEnqueueFillBuffer(q->device->queue, mem, &value, sizeof value, offset, bytes, waits.count,
                                      waits.list, &event);
    TRY(queue_pushed(q, &waits, "clEnqueueFillBuffer", code, event));
fail:
    return status;
}
