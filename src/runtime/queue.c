#include "runtime/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void queue_begin(clsplat_device *device, cl_uint wait_count, const cl_event *wait_list, queue *q) {
    *q = (queue){.device = device, .wait_count = wait_count, .wait_list = wait_list};
}

/* The command that the next one must follow; NULL if it is done. One that failed (its caller's event did)
 * must not make all later calls fail, too. */
static cl_event unfinished_tail(const clsplat_device *device) {
    cl_int state = CL_COMPLETE;
    if (device->tail && clGetEventInfo(device->tail, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state,
                                       NULL) != CL_SUCCESS)
        return NULL;
    return state > CL_COMPLETE ? device->tail : NULL;
}

clsplat_status queue_waits_take(queue *q, queue_waits *waits) {
    cl_uint callers = q->begun ? 0 : q->wait_count;
    cl_event tail = q->device->in_order ? NULL : unfinished_tail(q->device);
    *waits = (queue_waits){.count = callers, .list = callers ? q->wait_list : NULL};
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
    return CLSPLAT_OK;
}

clsplat_status queue_pushed(queue *q, queue_waits *waits, const char *call, cl_int code, cl_event event) {
    free(waits->storage);
    *waits = (queue_waits){0};
    if (code != CL_SUCCESS)
        return cl_failed(q->device->lib, call, code);
    if (q->device->tail)
        clReleaseEvent(q->device->tail);
    q->device->tail = event;
    q->begun = true;
    return CLSPLAT_OK;
}

static clsplat_status push_marker(queue *q) {
    clsplat_status status = CLSPLAT_OK;
    queue_waits waits = {0};
    cl_event event = NULL;
    TRY(queue_waits_take(q, &waits));
    cl_int code = clEnqueueMarkerWithWaitList(q->device->queue, waits.count, waits.list, &event);
    TRY(queue_pushed(q, &waits, "clEnqueueMarkerWithWaitList", code, event));
fail:
    return status;
}

/* Each command of a call follows the one before, so the last one's event speaks for all. */
clsplat_status queue_end(queue *q, cl_event *event) {
    clsplat_status status = CLSPLAT_OK;
    if (!event)
        return CLSPLAT_OK;
    *event = NULL;
    if (!q->begun)
        TRY(push_marker(q));
    TRY_CL(q->device->lib, clFlush(q->device->queue));
    TRY_CL(q->device->lib, clRetainEvent(q->device->tail));
    *event = q->device->tail;
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

clsplat_status queue_upload(queue *q, queue_copy copy) {
    return copy_rows(q, copy, COPY_UP);
}

clsplat_status queue_download(queue *q, queue_copy copy) {
    return copy_rows(q, copy, COPY_DOWN);
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
