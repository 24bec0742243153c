#include "attention/gaussian.h"

#include <stdlib.h>

#include "runtime/buffer.h"

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t gaussian_state_heads(const gaussian_call *c) {
    return c->splats->heads > 1 ? c->q.shape[1] : c->k.shape[1];
}

/* Bytes one workspace may have: enough to keep a large device busy, a small share of its memory. */
static size_t workspace_budget(const clsplat_limits *limits) {
    uint64_t budget = limits->global_memory / 64;
    if (budget < 64 << 20)
        budget = 64 << 20;
    return (size_t)(budget < limits->max_allocation ? budget : limits->max_allocation);
}

size_t gaussian_units(const clsplat_limits *limits, double bytes) {
    double units = (double)workspace_budget(limits) / bytes;
    return units < 1 ? 1 : units > 1e9 ? (size_t)1e9 : (size_t)units;
}

/* Key heads (over the batch) whose carries, and whose log-densities of one chunk, fit a workspace each. */
static size_t kv_heads_in_budget(const clsplat_limits *limits, const gaussian_call *c) {
    double group = (double)(c->q.shape[1] / c->k.shape[1]), writers = c->splats->heads > 1 ? group : 1;
    double carry = writers * (double)(c->v.shape[3] + 2), log_densities = group * GAUSSIAN_CHUNK;
    return gaussian_units(limits,
                          4 * (double)c->splats->count * (carry > log_densities ? carry : log_densities));
}

bool gaussian_heads_fit(const clsplat_limits *limits, const gaussian_call *call, size_t batch,
                        size_t kv_heads) {
    return batch * kv_heads <= kv_heads_in_budget(limits, call);
}

clsplat_status gaussian_take_state(clsplat_device *device, const gaussian_call *c, bool parts,
                                   size_t segments, op_state *state) {
    clsplat_status status = CLSPLAT_OK;
    size_t states = c->k.shape[0] * gaussian_state_heads(c) * segments * c->splats->count;
    state->segments = segments;
    TRY(workspace_take(device, parts ? WORKSPACE_PART_LSE : WORKSPACE_STATE_LSE, 4 * states, &state->lse));
    TRY(workspace_take(device, parts ? WORKSPACE_PART_VALUE : WORKSPACE_STATE_VALUE,
                       4 * states * c->v.shape[3], &state->value));
fail:
    return status;
}

clsplat_status gaussian_scan(queue *q, const gaussian_call *c, bool begin, bool exclusive, op_state part) {
    clsplat_status status = CLSPLAT_OK;
    size_t rows = c->k.shape[0] * gaussian_state_heads(c);
    op_scan_args args = {.splats = c->splats,
                         .rows = rows,
                         .value_dim = c->v.shape[3],
                         .begin = begin,
                         .exclusive = exclusive,
                         .part = part};
    TRY(workspace_take(q->device, WORKSPACE_CARRY, 4 * rows * c->splats->count * (c->v.shape[3] + 2),
                       &args.carry));
    TRY(gaussian_take_state(q->device, c, false, 1, &args.result));
    TRY(op_scan(q, &args));
fail:
    return status;
}

/* Few enough for the workspace and for long sums. */
size_t gaussian_segments(const clsplat_limits *limits, const gaussian_call *c) {
    size_t rows = c->k.shape[0] * gaussian_state_heads(c) * c->splats->count;
    /* Matrix units work on 64 rows or more at once, and about 192 fill a compute unit; elsewhere a row is a
     * work-item's. */
    bool matrices = limits->nvidia_capability >= 80 && c->k.dtype != CLSPLAT_F32;
    size_t wanted = matrices ? limits->compute_units * (size_t)192 / rows
                             : limits->compute_units * (size_t)2048 / rows + 1;
    size_t most = (c->k.shape[2] + 63) / 64;
    wanted = wanted > 0 ? wanted : 1;
    size_t fitting = gaussian_units(limits, 4 * (double)rows * (double)c->v.shape[3]);
    return smaller(smaller(wanted, 64), smaller(most, fitting));
}

clsplat_status gaussian_accumulate(queue *q, const gaussian_call *call, bool begin) {
    clsplat_status status = CLSPLAT_OK;
    size_t segments = gaussian_segments(&q->device->info.limits, call), keys = call->k.shape[2];
    op_write_args args = {.splats = call->splats,
                          .heads = gaussian_state_heads(call),
                          .segment = (keys + segments - 1) / segments,
                          .k = call->k,
                          .v = call->v,
                          .key_bias = call->key_bias};
    TRY(gaussian_take_state(q->device, call, true, (keys + args.segment - 1) / args.segment, &args.state));
    TRY(op_write(q, &args));
    TRY(gaussian_scan(q, call, begin, false, args.state));
fail:
    return status;
}

clsplat_status gaussian_query(queue *q, const gaussian_call *call) {
    clsplat_status status = CLSPLAT_OK;
    op_read_args args = {.splats = call->splats,
                         .kv_heads = call->k.shape[1],
                         .mixing = call->mixing,
                         .q = call->q,
                         .out = call->out,
                         .lse = call->lse};
    TRY(gaussian_take_state(q->device, call, false, 1, &args.state));
    TRY(op_read(q, &args));
fail:
    return status;
}

/* Keys that are written, scanned and read together: chunks enough to occupy the device, as far as the
 * workspaces allow. */
static size_t panel_keys(const clsplat_limits *limits, const gaussian_call *c) {
    double splats = (double)c->splats->count, writers = (double)(c->k.shape[0] * gaussian_state_heads(c));
    size_t queries = c->q.shape[0] * c->q.shape[1], wanted = limits->compute_units * (size_t)64 / queries;
    size_t by_state = gaussian_units(limits, 4 * splats * writers * (double)c->v.shape[3]);
    size_t by_log_density = gaussian_units(limits, 4 * splats * (double)queries * GAUSSIAN_CHUNK);
    wanted = wanted < 8 ? 8 : smaller(wanted, 128);
    return GAUSSIAN_CHUNK * smaller(wanted, smaller(by_state, by_log_density));
}

clsplat_status gaussian_log_density(queue *q, const op_splats *splats, workspace_slot slot, size_t heads,
                                    op_tensor x, cl_mem *log_density) {
    clsplat_status status = CLSPLAT_OK;
    op_log_density_args args = {.splats = splats, .heads = heads, .x = x};
    TRY(workspace_take(q->device, slot, 4 * x.shape[0] * heads * x.shape[2] * splats->count, log_density));
    args.log_density = *log_density;
    TRY(op_log_density(q, &args));
fail:
    return status;
}

/* The queries [begin, end) of c, whose last keys lie in the panel c->k, a part of them at a time. */
static clsplat_status read_panel(queue *q, const gaussian_call *c, op_state before, size_t begin, size_t end,
                                 size_t step) {
    clsplat_status status = CLSPLAT_OK;
    op_read_args args = {.splats = c->splats,
                         .kv_heads = c->k.shape[1],
                         .mixing = c->mixing,
                         .state = before,
                         .causal = true,
                         .chunk = GAUSSIAN_CHUNK,
                         .v = c->v,
                         .key_bias = c->key_bias};
    if (begin >= end)
        return CLSPLAT_OK;
    TRY(gaussian_log_density(q, c->splats, WORKSPACE_KEY_LOG_DENSITY, gaussian_state_heads(c), c->k,
                             &args.key_log_density));
    for (size_t i = begin; i < end; i += step) {
        size_t count = smaller(step, end - i);
        args.q = op_slice(c->q, 2, i, count);
        args.out = op_slice(c->out, 2, i, count);
        args.lse = op_slice(c->lse, 2, i, count);
        args.diagonal = c->diagonal + (int32_t)i;
        TRY(gaussian_log_density(q, c->splats, WORKSPACE_QUERY_LOG_DENSITY, c->q.shape[1], args.q,
                                 &args.query_log_density));
        TRY(op_read(q, &args));
    }
fail:
    return status;
}

clsplat_status gaussian_causal(queue *q, const gaussian_call *call, bool begin) {
    clsplat_status status = CLSPLAT_OK;
    size_t keys = call->k.shape[2], panel = panel_keys(&q->device->info.limits, call), read = 0;
    for (size_t first = 0; first < keys; first += panel) {
        size_t count = smaller(panel, keys - first);
        gaussian_call part = *call;
        part.k = op_slice(call->k, 2, first, count);
        part.v = op_slice(call->v, 2, first, count);
        part.key_bias = op_slice(call->key_bias, 2, first, count);
        part.diagonal = call->diagonal - (int32_t)first;
        op_write_args write = {.splats = call->splats,
                               .heads = gaussian_state_heads(call),
                               .segment = GAUSSIAN_CHUNK,
                               .k = part.k,
                               .v = part.v,
                               .key_bias = part.key_bias};
        TRY(gaussian_take_state(q->device, call, true, (count + GAUSSIAN_CHUNK - 1) / GAUSSIAN_CHUNK,
                                &write.state));
        TRY(op_write(q, &write));
        TRY(gaussian_scan(q, call, begin && first == 0, true, write.state));

        /* Queries up to the one that sees the panel's last key; those that see none come with the first
         * panel. */
        int64_t end = (int64_t)(first + count) - call->diagonal;
        end = end < 0 ? 0 : end > (int64_t)call->q.shape[2] ? (int64_t)call->q.shape[2] : end;
        TRY(read_panel(q, &part, write.state, read, (size_t)end, panel));
        read = (size_t)end > read ? (size_t)end : read;
    }
fail:
    return status;
}

static gaussian_call cut_heads(const gaussian_call *call, const op_splats *splats, head_block block) {
    size_t group = call->q.shape[1] / call->k.shape[1];
    gaussian_call part = *call;
    part.splats = splats;
    op_tensor *const by_query[] = {&part.q, &part.out, &part.lse};
    op_tensor *const by_key[] = {&part.k, &part.v, &part.key_bias};
    for (size_t t = 0; t < 3; ++t) {
        *by_query[t] = op_slice(op_slice(*by_query[t], 0, block.batch_begin, block.batch), 1,
                                block.kv_begin * group, block.kv_heads * group);
        *by_key[t] = op_slice(op_slice(*by_key[t], 0, block.batch_begin, block.batch), 1, block.kv_begin,
                              block.kv_heads);
    }
    return part;
}

clsplat_status gaussian_enqueue(queue *q, const gaussian_call *call) {
    clsplat_status status = CLSPLAT_OK;
    size_t batch = call->q.shape[0], kv_heads = call->k.shape[1];
    size_t most = kv_heads_in_budget(&q->device->info.limits, call);
    size_t kv_step = smaller(most, kv_heads), batch_step = smaller(most / kv_step, batch);
    for (size_t b = 0; b < batch; b += batch_step) {
        for (size_t h = 0; h < kv_heads; h += kv_step) {
            head_block block = {b, smaller(batch_step, batch - b), h, smaller(kv_step, kv_heads - h)};
            op_splats splats = *call->splats;
            splats.first_head += h * (call->q.shape[1] / kv_heads);
            gaussian_call part = cut_heads(call, &splats, block);
            if (call->diagonal != OP_SEES_ALL) {
                TRY(gaussian_causal(q, &part, true));
                continue;
            }
            TRY(gaussian_accumulate(q, &part, true));
            TRY(gaussian_query(q, &part));
        }
    }
fail:
    return status;
}
