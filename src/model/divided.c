#include "model/divided.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/model.h"

/* A part is a small share of what a process holds, so that none holds much more than another. */
enum { SHARES = 16, LEAST_PART = 64 };

clsplat_status divided_open(clsplat_device *device, const divided_team *team, const attention_shape *shape,
                            size_t rows, divided **result) {
    clsplat_status status = CLSPLAT_OK;
    divided *d = *result = calloc(1, sizeof *d);
    if (!d)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for a session");
    size_t share = (shape->capacity + team->count - 1) / team->count, part = share / SHARES;
    d->team = *team;
    d->device = device;
    d->part = part < LEAST_PART ? LEAST_PART : part;
    d->part = d->part < rows ? d->part : rows;
    d->room =
        share + 2 * d->part < shape->capacity + d->part ? share + 2 * d->part : shape->capacity + d->part;
    d->counts = calloc(team->count, sizeof *d->counts);
    d->holders = calloc(shape->capacity, sizeof *d->holders);
    d->host = malloc(d->part * shape->heads * (shape->head_dim + 1) * sizeof *d->host);
    d->lses = malloc(2 * d->part * shape->heads * sizeof *d->lses);
    d->top = d->lses ? d->lses + d->part * shape->heads : NULL;
    if (!d->counts || !d->holders || !d->host || !d->lses)
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for a session of %zu tokens", shape->capacity));
    if (team->count > UINT16_MAX)
        TRY(log_error(device->lib, CLSPLAT_UNSUPPORTED, "%zu processes are more than can share a session",
                      team->count));
    TRY(tensor_create(device, CLSPLAT_F32, 1, d->part, shape->heads * shape->head_dim, &d->out));
    TRY(tensor_create(device, CLSPLAT_F32, 1, d->part, shape->heads, &d->lse));
fail:
    return status;
}

void divided_close(divided **handle) {
    divided *d = *handle;
    if (!d)
        return;
    tensor_release(d->device, &d->out);
    tensor_release(d->device, &d->lse);
    free(d->counts);
    free(d->holders);
    free(d->host);
    free(d->lses);
    free(d);
    *handle = NULL;
}

clsplat_status divided_agree(divided *d, clsplat_status status) {
    if (status != CLSPLAT_OK && d->told) {
        d->told = false;
        return status;
    }
    return d->team.agree(d->team.user, status);
}

clsplat_status divided_sum(divided *d, double *count) {
    clsplat_status status = CLSPLAT_OK;
    float halves[2] = {(float)*count, (float)(*count - (double)(float)*count)};
    status = d->team.agree(d->team.user, CLSPLAT_OK); /* who failed before is telling it */
    d->told = status != CLSPLAT_OK;
    TRY(status);
    TRY(d->team.sum(d->team.user, halves, 2));
    *count = (double)halves[0] + (double)halves[1];
fail:
    return status;
}

clsplat_status divided_token(divided *d, int32_t *token) {
    clsplat_status status = CLSPLAT_OK;
    float half[2] = {0, 0}; /* a float holds 24 bits */
    if (d->team.own == 0) {
        half[0] = (float)(*token >> 16);
        half[1] = (float)(*token & 0xffff);
    }
    TRY(d->team.sum(d->team.user, half, 2));
    *token = ((int32_t)half[0] << 16) + (int32_t)half[1];
fail:
    return status;
}

void divided_begin(divided *d) {
    d->held = d->counts[d->team.own];
    d->holder = 0;
    for (size_t i = 1; i < d->team.count; ++i)
        if (d->counts[i] < d->counts[d->holder])
            d->holder = i;
}

void divided_end(divided *d, size_t count) {
    for (size_t i = 0; i < count; ++i)
        d->holders[d->length++] = (uint16_t)d->holder;
    d->counts[d->holder] += count;
}

void divided_rewind(divided *d, size_t length) {
    if (length == 0)
        d->counted = 0;
    while (d->length > length)
        --d->counts[d->holders[--d->length]];
}

/* A view of d->out and d->lse as the results of a step, row after row: [1,H,n,D] and [1,H,n,1]. */
static op_tensor by_head(op_tensor rows, const op_tensor *like, size_t columns) {
    rows.shape[1] = like->shape[1];
    rows.shape[2] = like->shape[2];
    rows.shape[3] = columns;
    rows.stride[1] = columns;
    return rows;
}

/* What the keys here say of the queries: those before the part, which all see, and the part's own. */
static clsplat_status attend_here(queue *q, divided *d, size_t first, const attention_step *step) {
    clsplat_status status = CLSPLAT_OK;
    size_t rows = step->q.shape[1] * step->q.shape[2], dim = step->out.shape[3], past = 0;
    bool mine = d->holder == d->team.own;
    size_t keys = mine ? step->k.shape[2] : d->held;
    attention_step here = *step;
    here.out = by_head(d->out, &step->out, dim);
    here.lse = by_head(d->lse, &step->out, 1);
    if (d->form->attend_past)
        TRY(d->form->attend_past(q, d->state, d->parameters, &here, d->held, &past));
    op_softmax_args args = {.q = step->q,
                            .k = op_slice(step->k, 2, past, keys - past),
                            .v = op_slice(step->v, 2, past, keys - past),
                            .out = here.out,
                            .lse = here.lse,
                            .scale = step->scale,
                            .cap = step->cap,
                            .diagonal = mine ? (int32_t)(d->held - past + step->first - first) : OP_SEES_ALL,
                            .accumulate = past > 0};
    if (keys > past)
        TRY(op_softmax(q, &args));
    d->counted += (double)rows * ((double)(keys - past) - (mine ? (double)(step->q.shape[2] - 1) / 2 : 0));
    if (keys > 0) {
        TRY(queue_download(
            q, (queue_copy){.mem = d->out.mem, .host = d->host, .row = 4 * rows * dim, .rows = 1}));
        TRY(queue_download(q, (queue_copy){.mem = d->lse.mem, .host = d->lses, .row = 4 * rows, .rows = 1}));
        return CLSPLAT_OK;
    }
    memset(d->host, 0, rows * dim * sizeof *d->host);
    for (size_t i = 0; i < rows; ++i)
        d->lses[i] = -INFINITY;
fail:
    return status;
}

/* d->host and d->lses of all processes become one state. A query sees its own token somewhere. */
static clsplat_status merge(divided *d, size_t rows, size_t dim) {
    clsplat_status status = CLSPLAT_OK;
    float *masses = d->host + rows * dim;
    memcpy(d->top, d->lses, rows * sizeof *d->top);
    TRY(d->team.most(d->team.user, d->top, rows));
    for (size_t i = 0; i < rows; ++i) {
        masses[i] = d->lses[i] > -INFINITY ? expf(d->lses[i] - d->top[i]) : 0.0f;
        for (size_t n = 0; n < dim; ++n)
            d->host[i * dim + n] *= masses[i];
    }
    TRY(d->team.sum(d->team.user, d->host, rows * (dim + 1)));
    for (size_t i = 0; i < rows; ++i) {
        for (size_t n = 0; n < dim; ++n)
            d->host[i * dim + n] /= masses[i];
        d->lses[i] = d->top[i] + logf(masses[i]);
    }
fail:
    return status;
}

/* In place: the type of the layers' rows is no wider. */
static void narrow(float *numbers, size_t count, clsplat_dtype type) {
    for (size_t i = 0; i < count && type != CLSPLAT_F32; ++i) {
        uint16_t bits = type == CLSPLAT_F16 ? half_to_f16(numbers[i]) : half_to_bf16(numbers[i]);
        memcpy((char *)numbers + i * sizeof bits, &bits, sizeof bits);
    }
}

/* Into the step's results, of which out has its heads side by side and lse one below the other. */
static clsplat_status put(queue *q, divided *d, const attention_step *step) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = step->q.shape[1], queries = step->q.shape[2], width = heads * step->out.shape[3],
           size = clsplat_dtype_size(step->out.dtype);
    narrow(d->host, queries * width, step->out.dtype);
    TRY(queue_upload(q, (queue_copy){.mem = step->out.mem,
                                     .mem_offset = step->out.offset * size,
                                     .mem_pitch = step->out.stride[2] * size,
                                     .host = d->host,
                                     .host_pitch = width * size,
                                     .row = width * size,
                                     .rows = queries}));
    for (size_t h = 0; h < heads; ++h) {
        for (size_t i = 0; i < queries; ++i)
            d->top[i] = d->lses[i * heads + h];
        TRY(queue_upload(q, (queue_copy){.mem = step->lse.mem,
                                         .mem_offset = 4 * (step->lse.offset + h * step->lse.stride[1]),
                                         .host = d->top,
                                         .row = 4 * queries,
                                         .rows = 1}));
    }
fail:
    return status;
}

clsplat_status divided_attend(queue *q, divided *d, size_t first, const attention_step *step) {
    clsplat_status status = CLSPLAT_OK;
    size_t rows = step->q.shape[1] * step->q.shape[2];
    status = d->team.agree(d->team.user, attend_here(q, d, first, step));
    d->told = status != CLSPLAT_OK;
    TRY(status);
    TRY(merge(d, rows, step->out.shape[3]));
    TRY(put(q, d, step));
fail:
    return status;
}
