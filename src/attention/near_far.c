#include "attention/near_far.h"

#include <math.h>

#include "op/backward.h"
#include "runtime/buffer.h"
#include "runtime/quirks.h"

clsplat_status near_far_plant(queue *q, const attend_call *call, op_tensor k, op_tensor v, op_tensor key_bias,
                              op_forest *forest) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes[FOREST_BUFFERS];
    *forest = forest_shape(&k, &v, k.shape[2], call->attention.chunk, call->attention.sparse_topk);
    forest_sizes(forest, bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        TRY(workspace_take(q->device, (workspace_slot)(WORKSPACE_FOREST + i), bytes[i],
                           forest_buffer(forest, i)));
    TRY(forest_clear(q, forest));
    op_gather_args gather = {.forest = forest, .k = k, .v = v, .key_bias = key_bias};
    TRY(op_gather(q, &gather));
fail:
    return status;
}

/* The forest of so many key heads of so many batches. */
static op_forest forest_for(const attend_call *call, size_t batch, size_t kv_heads) {
    const size_t *k = call->tensors.k.shape, *v = call->tensors.v.shape;
    op_tensor keys = {.shape = {batch, kv_heads, k[2], k[3]}},
              values = {.shape = {batch, kv_heads, v[2], v[3]}};
    return forest_shape(&keys, &values, k[2], call->attention.chunk, call->attention.sparse_topk);
}

bool near_far_fits(const clsplat_limits *limits, const attend_call *call) {
    const size_t *k = call->tensors.k.shape;
    size_t bytes[FOREST_BUFFERS];
    double total = 0;
    op_forest forest = forest_for(call, k[0], k[1]);
    forest_sizes(&forest, bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i) {
        if (bytes[i] > limits->max_allocation)
            return false;
        total += (double)bytes[i];
    }
    return total <= (double)limits->global_memory / 2;
}

bool near_far_backward_fits(const clsplat_limits *limits, const attend_call *call, size_t batch,
                            size_t kv_heads, double *total) {
    const size_t *q = call->tensors.q.shape, *k = call->tensors.k.shape;
    size_t bytes[FOREST_BUFFERS];
    double largest, all;
    op_forest forest = forest_for(call, batch, kv_heads);
    forest_sizes(&forest, bytes);
    op_near_far_backward_bytes(limits, &forest, batch * kv_heads * (q[1] / k[1]) * q[2], &largest, &all);
    for (int i = 0; i < FOREST_BUFFERS; ++i) {
        largest = fmax(largest, (double)bytes[i]);
        all += (double)bytes[i];
    }
    *total += all;
    return largest <= (double)limits->max_allocation;
}

op_near_far_args near_far_args(const attend_call *call, const op_forest *forest) {
    return (op_near_far_args){.forest = forest,
                              .scale = call->attention.scale,
                              .diagonal = call->diagonal,
                              .keys = call->tensors.k.shape[2],
                              .tolerance = call->attention.tolerance,
                              .sparse_topk = call->attention.sparse_topk};
}

static clsplat_status check_chunk(clsplat *lib, size_t sparse_topk, size_t chunk) {
    if (sparse_topk && sparse_topk < CLSPLAT_CHUNK_LEAST)
        return log_error(lib, CLSPLAT_INVALID,
                         "sparse_topk is %zu; it must be at least %d, the smallest chunk, or 0 for no limit",
                         sparse_topk, CLSPLAT_CHUNK_LEAST);
    if (!chunk)
        return CLSPLAT_OK;
    if (chunk < CLSPLAT_CHUNK_LEAST || chunk > CLSPLAT_CHUNK_MOST || (chunk & (chunk - 1)))
        return log_error(
            lib, CLSPLAT_INVALID,
            "chunk is %zu; it must be a power of two from %d to %d, or 0 for the library's choice", chunk,
            CLSPLAT_CHUNK_LEAST, CLSPLAT_CHUNK_MOST);
    if (sparse_topk && chunk > sparse_topk)
        return log_error(lib, CLSPLAT_INVALID,
                         "chunk is %zu and sparse_topk %zu, but a row's own chunk is exact and counts; make "
                         "chunk at most sparse_topk",
                         chunk, sparse_topk);
    return CLSPLAT_OK;
}

clsplat_status near_far_choose(const clsplat_device *device, float tolerance, size_t sparse_topk, size_t keys,
                               size_t *chunk) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = device->lib;
    if (isnan(tolerance) || tolerance < 0)
        return log_error(lib, CLSPLAT_INVALID, "tolerance is %g; it must be 0 or more, and may be infinite",
                         (double)tolerance);
    TRY(check_chunk(lib, sparse_topk, *chunk));
    if (!*chunk)
        *chunk = forest_chunk(&device->info.limits, keys, sparse_topk);
fail:
    return status;
}

/* A walk's loops are longer than what such a device ends silently, already with 128 keys. */
clsplat_status near_far_check_device(const clsplat_device *device) {
    if (device->quirks & QUIRK_LOOP_LIMIT)
        return log_error(device->lib, CLSPLAT_UNSUPPORTED,
                         "near and far gives wrong results on %s, which ends long loops early; use exact "
                         "attention, or another device: on a CPU, PoCL",
                         device->info.name);
    return CLSPLAT_OK;
}

clsplat_status near_far_check(const clsplat_device *device, attend_call *call) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention *a = &call->attention;
    TRY(near_far_check_device(device));
    TRY(near_far_choose(device, a->tolerance, a->sparse_topk, call->tensors.k.shape[2], &a->chunk));
    if (a->sparse_topk > UINT32_MAX)
        a->sparse_topk = 0;
fail:
    return status;
}
