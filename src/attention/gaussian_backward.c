/* Two passes, as forward has them, the other way round. Over the queries: what each row passes back to its
 * log-weights, and with it dq, the splats' moments and the states of dout. Over the keys: what the states
 * pass back. Tokens go through in panels, whose log-densities and weights fit the workspaces.
 *
 * Causal: the first pass meets the states before every chunk of keys in the order of the keys, the second the
 * states of the rows after every chunk in reverse; pairs within a chunk are formed one by one in both. */
#include "attention/gaussian_backward.h"

#include "runtime/buffer.h"

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t query_heads(const gaussian_gradient *g) {
    return g->dout.shape[0] * g->dout.shape[1];
}

bool gaussian_backward_fits(const clsplat_limits *limits, const gaussian_call *call, size_t batch,
                            size_t kv_heads) {
    size_t heads = batch * kv_heads * (call->q.shape[1] / call->k.shape[1]);
    double columns = (double)call->v.shape[3] + 3;
    columns = columns > GAUSSIAN_CHUNK ? columns : GAUSSIAN_CHUNK;
    return heads <= gaussian_units(limits, 4 * (double)call->splats->count * columns);
}

/* Stats of all queries, of which the operations take slices. */
static clsplat_status take_stats(clsplat_device *device, const gaussian_gradient *g, op_tensor *stats) {
    size_t columns = op_stats_columns(g->call.splats, g->call.mixing);
    size_t heads = g->dout.shape[1], rows = g->dout.shape[2];
    *stats = (op_tensor){.dtype = CLSPLAT_F32,
                         .shape = {g->dout.shape[0], heads, rows, columns},
                         .stride = {heads * rows * columns, rows * columns, columns}};
    return workspace_take(device, WORKSPACE_GRAD_STATS, 4 * query_heads(g) * rows * columns, &stats->mem);
}

static clsplat_status take_states(clsplat_device *device, const gaussian_gradient *g, bool parts,
                                  size_t segments, op_state *state) {
    clsplat_status status = CLSPLAT_OK;
    size_t states = query_heads(g) * segments * g->call.splats->count;
    state->segments = segments;
    TRY(workspace_take(device, parts ? WORKSPACE_GRAD_PART_LSE : WORKSPACE_GRAD_STATE_LSE, 4 * states,
                       &state->lse));
    TRY(workspace_take(device, parts ? WORKSPACE_GRAD_PART_VALUE : WORKSPACE_GRAD_STATE_VALUE,
                       4 * states * (g->dout.shape[3] + 1), &state->value));
fail:
    return status;
}

/* The states of some rows of dout, merged into those of the rows before. */
static clsplat_status collect(queue *q, const gaussian_gradient *g, op_collect_args args, size_t segments,
                              bool begin, op_state *result) {
    clsplat_status status = CLSPLAT_OK;
    op_scan_args scan = {.splats = g->call.splats,
                         .rows = query_heads(g),
                         .value_dim = g->dout.shape[3] + 1,
                         .begin = begin,
                         .exclusive = g->call.diagonal != OP_SEES_ALL};
    args.splats = g->call.splats;
    args.mixing = g->call.mixing;
    TRY(take_states(q->device, g, true, segments, &args.state));
    TRY(op_collect(q, &args));
    TRY(workspace_take(q->device, WORKSPACE_GRAD_CARRY,
                       4 * query_heads(g) * g->call.splats->count * (scan.value_dim + 2), &scan.carry));
    TRY(take_states(q->device, g, false, 1, &scan.result));
    scan.part = args.state;
    TRY(op_scan(q, &scan));
    *result = scan.exclusive ? scan.part : scan.result;
fail:
    return status;
}

/* From the weights of tokens to their own gradients and the splats'. */
static clsplat_status pass_on(queue *q, const gaussian_gradient *g, size_t heads, cl_mem weights, op_tensor x,
                              op_tensor dx, bool amplitude) {
    clsplat_status status = CLSPLAT_OK;
    op_token_gradient_args token = {
        .splats = g->call.splats, .heads = heads, .x = x, .dx = dx, .weights = weights};
    op_splat_moments_args moments = {.splats = g->call.splats,
                                     .heads = heads,
                                     .amplitude = amplitude,
                                     .x = x,
                                     .weights = weights,
                                     .moments = g->moments};
    TRY(op_token_gradient(q, &token));
    TRY(op_splat_moments(q, &moments));
fail:
    return status;
}

static clsplat_status take_weights(queue *q, const gaussian_gradient *g, size_t heads, size_t rows,
                                   cl_mem *weights) {
    return workspace_take(q->device, WORKSPACE_GRAD_WEIGHTS,
                          4 * g->dout.shape[0] * heads * rows * g->call.splats->count, weights);
}

/* The queries [begin, begin + count). `read` has the states, and what causal rows need beside them; the rest
 * is filled in. */
static clsplat_status rows_back(queue *q, const gaussian_gradient *g, op_read_backward_args *read,
                                op_tensor stats, size_t begin, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = g->dout.shape[1];
    op_tensor x = op_slice(g->call.q, 2, begin, count);
    read->splats = g->call.splats;
    read->kv_heads = g->call.k.shape[1];
    read->mixing = g->call.mixing;
    read->dout = op_slice(g->dout, 2, begin, count);
    read->stats = op_slice(stats, 2, begin, count);
    TRY(gaussian_log_density(q, read->splats, WORKSPACE_QUERY_LOG_DENSITY, heads, x,
                             &read->query_log_density));
    TRY(take_weights(q, g, heads, count, &read->weights));
    TRY(op_read_backward(q, read));
    TRY(pass_on(q, g, heads, read->weights, x, op_slice(g->dq, 2, begin, count), true));
fail:
    return status;
}

/* The keys [begin, begin + count), likewise. */
static clsplat_status keys_back(queue *q, const gaussian_gradient *g, op_write_backward_args write,
                                size_t begin, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = gaussian_state_heads(&g->call);
    op_tensor x = op_slice(g->call.k, 2, begin, count);
    write.splats = g->call.splats;
    write.heads = g->dout.shape[1];
    write.mixing = g->call.mixing;
    write.v = op_slice(g->call.v, 2, begin, count);
    write.key_bias = op_slice(g->call.key_bias, 2, begin, count);
    write.dv = op_slice(g->dv, 2, begin, count);
    write.dkey_bias = op_slice(g->dkey_bias, 2, begin, count);
    TRY(gaussian_log_density(q, write.splats, WORKSPACE_KEY_LOG_DENSITY, heads, x, &write.key_log_density));
    TRY(take_weights(q, g, heads, count, &write.weights));
    TRY(op_write_backward(q, &write));
    TRY(pass_on(q, g, heads, write.weights, x, op_slice(g->dk, 2, begin, count), false));
fail:
    return status;
}

/* Tokens of a panel: as many as there is room for the log-densities of. On a CPU fewer, so that what one
 * operation leaves is in the cache for the next. */
static size_t panel_rows(const clsplat_limits *limits, const gaussian_gradient *g) {
    enum { CACHED = 4 << 20, LEAST = 256 };
    double row = 4 * (double)(query_heads(g) * g->call.splats->count);
    size_t fitting = gaussian_units(limits, row), cached = (size_t)(CACHED / row);
    return limits->cpu ? smaller(fitting, cached > LEAST ? cached : LEAST) : fitting;
}

static clsplat_status everything(queue *q, const gaussian_gradient *g, op_tensor stats) {
    clsplat_status status = CLSPLAT_OK;
    enum { SEGMENT = 256 };
    const clsplat_limits *limits = &q->device->info.limits;
    size_t step = panel_rows(limits, g), queries = g->dout.shape[2], keys = g->call.k.shape[2];
    double states = 4.0 * (double)(query_heads(g) * g->call.splats->count) * (double)(g->dout.shape[3] + 1);
    op_read_backward_args read = {0};
    op_write_backward_args write = {0};
    TRY(gaussian_accumulate(q, &g->call, true));
    TRY(gaussian_take_state(q->device, &g->call, false, 1, &read.state));
    for (size_t i = 0; i < queries; i += step) {
        size_t count = smaller(step, queries - i);
        size_t segments = smaller((count + SEGMENT - 1) / SEGMENT, gaussian_units(limits, states));
        segments = smaller(segments, 64);
        TRY(rows_back(q, g, &read, stats, i, count));
        op_collect_args rows = {.dout = read.dout,
                                .stats = read.stats,
                                .query_log_density = read.query_log_density,
                                .segment = (count + segments - 1) / segments};
        TRY(collect(q, g, rows, segments, i == 0, &write.state));
    }
    for (size_t j = 0; j < keys; j += step)
        TRY(keys_back(q, g, write, j, smaller(step, keys - j)));
fail:
    return status;
}

/* Keys of a causal panel, and the queries whose last key is one of them. */
typedef struct panel {
    size_t first, count, begin, end;
    int32_t diagonal; /* of query 0 and the panel's first key */
} panel;

static panel panel_at(const gaussian_gradient *g, size_t first, size_t step) {
    int64_t diagonal = g->call.diagonal, queries = (int64_t)g->dout.shape[2];
    size_t count = smaller(step, g->call.k.shape[2] - first);
    int64_t begin = (int64_t)first - diagonal, end = begin + (int64_t)count;
    begin = begin < 0 ? 0 : begin > queries ? queries : begin;
    end = end < begin ? begin : end > queries ? queries : end;
    return (panel){first, count, (size_t)begin, (size_t)end, (int32_t)(diagonal - (int64_t)first)};
}

/* The same in whole chunks, whose states must fit, too. */
static size_t causal_step(const clsplat_limits *limits, const gaussian_gradient *g) {
    double states = 4 * (double)(query_heads(g) * g->call.splats->count);
    size_t by_state = gaussian_units(limits, states * (double)(g->dout.shape[3] + 1));
    size_t chunks = panel_rows(limits, g) / GAUSSIAN_CHUNK;
    return GAUSSIAN_CHUNK * smaller(smaller(128, chunks > 0 ? chunks : 1), by_state);
}

/* The states before each chunk of a panel of keys, then its rows; the first panel has those that see no key,
 * too. */
static clsplat_status causal_rows(queue *q, const gaussian_gradient *g, op_tensor stats, panel p,
                                  size_t step) {
    clsplat_status status = CLSPLAT_OK;
    size_t begin = p.first == 0 ? 0 : p.begin;
    op_write_args write = {.splats = g->call.splats,
                           .heads = gaussian_state_heads(&g->call),
                           .segment = GAUSSIAN_CHUNK,
                           .k = op_slice(g->call.k, 2, p.first, p.count),
                           .v = op_slice(g->call.v, 2, p.first, p.count),
                           .key_bias = op_slice(g->call.key_bias, 2, p.first, p.count)};
    TRY(gaussian_take_state(q->device, &g->call, true, (p.count + GAUSSIAN_CHUNK - 1) / GAUSSIAN_CHUNK,
                            &write.state));
    TRY(op_write(q, &write));
    TRY(gaussian_scan(q, &g->call, p.first == 0, true, write.state));
    op_read_backward_args read = {.state = write.state,
                                  .causal = true,
                                  .chunk = GAUSSIAN_CHUNK,
                                  .v = write.v,
                                  .key_bias = write.key_bias};
    TRY(gaussian_log_density(q, g->call.splats, WORKSPACE_KEY_LOG_DENSITY, write.heads, write.k,
                             &read.key_log_density));
    for (size_t i = begin; i < p.end; i += step) {
        read.diagonal = p.diagonal + (int32_t)i;
        TRY(rows_back(q, g, &read, stats, i, smaller(step, p.end - i)));
    }
fail:
    return status;
}

static clsplat_status causal_keys(queue *q, const gaussian_gradient *g, op_tensor stats, panel p) {
    clsplat_status status = CLSPLAT_OK;
    size_t rows = p.end - p.begin, last = p.first + p.count;
    op_write_backward_args write = {.causal = true,
                                    .diagonal = p.diagonal + (int32_t)p.begin,
                                    .chunk = GAUSSIAN_CHUNK,
                                    .dout = op_slice(g->dout, 2, p.begin, rows),
                                    .stats = op_slice(stats, 2, p.begin, rows)};
    TRY(gaussian_log_density(q, g->call.splats, WORKSPACE_QUERY_LOG_DENSITY, g->dout.shape[1],
                             op_slice(g->call.q, 2, p.begin, rows), &write.query_log_density));
    op_collect_args collected = {.dout = write.dout,
                                 .stats = write.stats,
                                 .query_log_density = write.query_log_density,
                                 .segment = GAUSSIAN_CHUNK,
                                 .diagonal = write.diagonal};
    TRY(collect(q, g, collected, (p.count + GAUSSIAN_CHUNK - 1) / GAUSSIAN_CHUNK, last == g->call.k.shape[2],
                &write.state));
    TRY(keys_back(q, g, write, p.first, p.count));
fail:
    return status;
}

static clsplat_status causal(queue *q, const gaussian_gradient *g, op_tensor stats) {
    clsplat_status status = CLSPLAT_OK;
    size_t keys = g->call.k.shape[2], step = causal_step(&q->device->info.limits, g);
    size_t panels = (keys + step - 1) / step;
    for (size_t p = 0; p < panels; ++p)
        TRY(causal_rows(q, g, stats, panel_at(g, p * step, step), step));
    for (size_t p = panels; p-- > 0;)
        TRY(causal_keys(q, g, stats, panel_at(g, p * step, step)));
fail:
    return status;
}

clsplat_status gaussian_backward(queue *q, const gaussian_gradient *g) {
    clsplat_status status = CLSPLAT_OK;
    op_tensor stats;
    TRY(take_stats(q->device, g, &stats));
    TRY(g->call.diagonal == OP_SEES_ALL ? everything(q, g, stats) : causal(q, g, stats));
    if (g->call.mixing == CLSPLAT_PER_LEVEL) {
        op_level_gradients_args level_gradients = {
            .levels = g->call.splats->levels, .stats = stats, .level_gradients = g->level_gradients};
        TRY(op_level_gradients(q, &level_gradients));
    }
fail:
    return status;
}
