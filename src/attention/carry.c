#include "attention/carry.h"

#include "runtime/buffer.h"

/* A state's numbers: its top, its mass and its sum. */
static size_t numbers_of(const attend_call *call) {
    return call->tensors.v.shape[3] + 2;
}

/* The heads of the box in one batch entry, on the device and in call->carry. */
static clsplat_status copy(queue *q, const gaussian_call *block, const attend_call *call, stage_box box,
                           bool up) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = gaussian_state_heads(block), group = heads / block->k.shape[1];
    size_t all = call->tensors.k.shape[1] * group, row = 4 * call->splats->count * numbers_of(call);
    cl_mem mem = NULL;
    TRY(workspace_take(q->device, WORKSPACE_CARRY, box.count[0] * heads * row, &mem));
    for (size_t b = 0; b < box.count[0]; ++b) {
        size_t first = (box.begin[0] + b) * all + box.begin[1] * group;
        queue_copy rows = {.mem = mem,
                           .mem_offset = b * heads * row,
                           .mem_pitch = row,
                           .host = (char *)call->carry + first * row,
                           .host_pitch = row,
                           .row = row,
                           .rows = heads};
        TRY(up ? queue_upload(q, rows) : queue_download(q, rows));
    }
fail:
    return status;
}

clsplat_status carry_down(queue *q, const gaussian_call *block, const attend_call *call, stage_box by_key) {
    return copy(q, block, call, by_key, false);
}

/* The scan of no segments makes of the carry what is read. */
clsplat_status carry_up(queue *q, gaussian_call *block, const attend_call *call, stage_box by_key) {
    clsplat_status status = CLSPLAT_OK;
    op_state none;
    block->q.shape[1] = by_key.count[1] * (call->tensors.q.shape[1] / call->tensors.k.shape[1]);
    block->k.shape[0] = by_key.count[0];
    block->k.shape[1] = by_key.count[1];
    block->v.shape[3] = call->tensors.v.shape[3];
    TRY(copy(q, block, call, by_key, true));
    TRY(gaussian_take_state(q->device, block, true, 1, &none));
    none.segments = 0;
    TRY(gaussian_scan(q, block, false, false, none));
fail:
    return status;
}
