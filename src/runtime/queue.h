/* One call's commands in their order, in-order queue or not.
 *
 *     queue q;
 *     queue_begin(device, wait_count, wait_list, &q);
 *     TRY(launch_run(…, &q));  …
 *     TRY(queue_end(&q, event));
 *
 * The first command waits for the caller's list and for the last command of the call before, every
 * later one for the one before it. On an in-order queue those waits are left out. */
#ifndef CLSPLAT_RUNTIME_QUEUE_H
#define CLSPLAT_RUNTIME_QUEUE_H

#include "runtime/device.h"

typedef struct queue {
    clsplat_device *device;
    cl_uint wait_count;
    const cl_event *wait_list;
    bool begun;            /* the caller's list has been waited for */
    const char *variant;   /* what the operations of this call choose (op/variant.h); NULL: as tuned */
    const uint32_t *tuned; /* the parameters of the operation's row that is running (op/variant.h); NULL: its
                              defaults */
    bool strict; /* no launch beyond CL_KERNEL_WORK_GROUP_SIZE, which rusticl puts below what runs well */
} queue;

void queue_begin(clsplat_device *device, cl_uint wait_count, const cl_event *wait_list, queue *q);

/* For whoever enqueues a command: the events it must wait for, and afterwards what the call answered and
 * the command's event, which the queue takes over (runtime/trail.h); `name`, a literal, is for messages. */
typedef struct queue_waits {
    cl_uint count;
    const cl_event *list; /* NULL if count is 0, as OpenCL wants it; valid until queue_pushed */
    cl_event *storage;
} queue_waits;
clsplat_status queue_waits_take(queue *q, queue_waits *waits);
clsplat_status queue_pushed(queue *q, queue_waits *waits, const char *name, cl_int code, cl_event event);

/* The caller's event, if it wants one: completes when all commands so far are done, and fails if one of them
 * does. Returns: OPENCL or MEMORY also if one has failed by now, of this call or of one before that nobody
 * was told of; *event is then NULL. */
clsplat_status queue_end(queue *q, cl_event *event);

/* What was enqueued so far begins, if it has not. */
clsplat_status queue_flush(queue *q);

/* Copies between host memory and a buffer: `rows` rows, each `row` bytes long and `pitch` bytes after the one
 * before. Blocks: yes, both.
 * What is brought down was made by commands that did not fail, and what is brought up has arrived: the
 * handle's commands so far are looked at, and the first that failed is the answer. */
typedef struct queue_copy {
    cl_mem mem;
    size_t mem_offset, mem_pitch; /* bytes */
    void *host;
    size_t host_pitch;
    size_t row, rows;
} queue_copy;
clsplat_status queue_upload(queue *q, queue_copy copy);
clsplat_status queue_download(queue *q, queue_copy copy);
/* In two steps, of one row: the host may do something else in between, and what is enqueued meanwhile comes
 * after it. The first does not have to block; the second does, and accepts a NULL event. */
clsplat_status queue_download_begin(queue *q, queue_copy copy, cl_event *here);
clsplat_status queue_download_end(queue *q, cl_event *here);
/* Does not block; `bytes` must divide by 4. */
clsplat_status queue_fill(queue *q, cl_mem mem, size_t offset, size_t bytes, float value);

#endif
