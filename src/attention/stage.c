#include "attention/stage.h"

#include <stdlib.h>

#include "base/half.h"
#include "runtime/buffer.h"

/* A dense block for the box in the slot. */
static clsplat_status take_block(clsplat_device *device, workspace_slot slot, clsplat_dtype dtype,
                                 size_t columns, stage_box box, op_tensor *staged) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = box.count[1], rows = box.count[2];
    *staged = (op_tensor){.dtype = dtype,
                          .shape = {box.count[0], heads, rows, columns},
                          .stride = {heads * rows * columns, rows * columns, columns}};
    size_t bytes = box.count[0] * staged->stride[0] * clsplat_dtype_size(dtype);
    TRY(workspace_take(device, slot, bytes, &staged->mem));
fail:
    return status;
}

/* The host address of the row where head h of batch entry b of the box begins. */
static char *host_row(const clsplat_tensor *host, stage_box box, size_t b, size_t h) {
    size_t element = host->offset + (box.begin[0] + b) * host->stride[0] +
                     (box.begin[1] + h) * host->stride[1] + box.begin[2] * host->stride[2];
    return (char *)host->host + element * clsplat_dtype_size(host->dtype);
}

static queue_copy rows_of(const op_tensor *staged, size_t b, size_t h) {
    size_t element = clsplat_dtype_size(staged->dtype);
    return (queue_copy){.mem = staged->mem,
                        .mem_offset = (b * staged->stride[0] + h * staged->stride[1]) * element,
                        .mem_pitch = staged->stride[2] * element,
                        .row = staged->shape[3] * element,
                        .rows = staged->shape[2]};
}

clsplat_status stage_in(queue *q, workspace_slot slot, const clsplat_tensor *host, stage_box box,
                        op_tensor *staged) {
    clsplat_status status = CLSPLAT_OK;
    *staged = (op_tensor){0};
    if (!host->host)
        return CLSPLAT_OK;
    TRY(take_block(q->device, slot, host->dtype, host->shape[3], box, staged));
    for (size_t b = 0; b < box.count[0]; ++b) {
        for (size_t h = 0; h < box.count[1]; ++h) {
            queue_copy copy = rows_of(staged, b, h);
            copy.host = host_row(host, box, b, h);
            copy.host_pitch = host->stride[2] * clsplat_dtype_size(host->dtype);
            TRY(queue_upload(q, copy));
        }
    }
fail:
    return status;
}

clsplat_status stage_result(clsplat_device *device, workspace_slot slot, const clsplat_tensor *host,
                            stage_box box, op_tensor *staged) {
    return take_block(device, slot, host->dtype == CLSPLAT_I32 ? CLSPLAT_I32 : CLSPLAT_F32, host->shape[3],
                      box, staged);
}

/* Element d of a row of the tensor. */
static void set_element(const clsplat_tensor *host, char *row, size_t d, float value) {
    if (host->dtype == CLSPLAT_F32)
        ((float *)row)[d] = value;
    else
        ((uint16_t *)row)[d] = host->dtype == CLSPLAT_F16 ? half_to_f16(value) : half_to_bf16(value);
}

static void convert_rows(const clsplat_tensor *host, const float *rows, size_t count, char *to) {
    size_t pitch = host->stride[2] * clsplat_dtype_size(host->dtype);
    for (size_t i = 0; i < count; ++i, to += pitch)
        for (size_t d = 0; d < host->shape[3]; ++d)
            set_element(host, to, d, *rows++);
}

void stage_fill(const clsplat_tensor *host, stage_box box, float value) {
    if (!host->host)
        return;
    size_t pitch = host->stride[2] * clsplat_dtype_size(host->dtype);
    for (size_t b = 0; b < box.count[0]; ++b)
        for (size_t h = 0; h < box.count[1]; ++h)
            for (size_t i = 0; i < box.count[2]; ++i)
                for (size_t d = 0; d < host->shape[3]; ++d)
                    set_element(host, host_row(host, box, b, h) + i * pitch, d, value);
}

clsplat_status stage_out(queue *q, const op_tensor *staged, const clsplat_tensor *host, stage_box box) {
    clsplat_status status = CLSPLAT_OK;
    float *rows = NULL;
    if (!host->host)
        return CLSPLAT_OK;
    bool direct = clsplat_dtype_size(host->dtype) == sizeof(float);
    if (!direct && !(rows = malloc(staged->stride[1] * sizeof *rows)))
        return log_error(q->device->lib, CLSPLAT_MEMORY, "no memory for %zu rows of a result",
                         staged->shape[2]);
    for (size_t b = 0; b < box.count[0]; ++b) {
        for (size_t h = 0; h < box.count[1]; ++h) {
            queue_copy copy = rows_of(staged, b, h);
            copy.host = direct ? host_row(host, box, b, h) : (char *)rows;
            copy.host_pitch = (direct ? host->stride[2] : staged->stride[2]) * sizeof(float);
            TRY(queue_download(q, copy));
            if (!direct)
                convert_rows(host, rows, staged->shape[2], host_row(host, box, b, h));
        }
    }
fail:
    free(rows);
    return status;
}
