/* The two operations of the backward pass that go over queries: read_backward and collect. */
#include "op/families.h"
#include "op/local_rows.h"
#include "op/splat/backward_kernel.h"

size_t op_stats_columns(const op_splats *splats, clsplat_mixing mixing) {
    return mixing == CLSPLAT_PER_LEVEL ? OP_STATS * splats->levels : OP_STATS;
}

void launch_mixture(launch *l, const op_splats *splats, clsplat_mixing mixing) {
    launch_uint(l, "levels", (uint32_t)splats->levels);
    launch_uint(l, "per_level", mixing == CLSPLAT_PER_LEVEL);
    launch_uint(l, "splats", (uint32_t)splats->count);
    launch_splat_heads(l, splats);
    launch_mem(l, "log_weight", splats->log_weight);
    launch_mem(l, "level_begin", splats->level_begin);
    launch_mem(l, "level_log_weight", splats->level_log_weight);
}

double log_density_count(const op_splats *splats, const op_tensor *rows) {
    return (double)(rows->shape[0] * rows->shape[1]) * (double)rows->shape[2] * (double)splats->count;
}

void backward_shape(const op_splats *splats, const op_tensor *rows, bool causal, tune_shape *shape) {
    *shape = (tune_shape){.heads = rows->shape[0] * rows->shape[1],
                          .rows = rows->shape[2],
                          .sources = splats->count,
                          .dim = splats->dim,
                          .value_dim = rows->shape[3]};
    shape_words(shape, rows->dtype, causal ? "causal" : splats_form(splats));
}

static void read_options(kernel_options *o, const op_read_backward_args *a) {
    double heads = (double)(a->dout.shape[0] * a->dout.shape[1]), splats = (double)a->splats->count;
    options_number(o, "DV", a->dout.shape[3]);
    options_number(o, "CAUSAL", a->causal);
    options_number(o, "BIAS", a->key_bias.mem != NULL);
    options_tensor(o, "DOUT", &a->dout);
    options_tensor(o, "STATS", &a->stats);
    options_elements(o, log_density_count(a->splats, &a->dout));
    options_elements(o, heads * (double)a->state.segments * splats * (double)a->dout.shape[3]);
    if (a->causal) {
        options_number(o, "CHUNK", a->chunk);
        options_tensor(o, "V", &a->v);
        options_elements(o, heads * (double)a->v.shape[2] * splats);
        if (a->key_bias.mem)
            options_tensor(o, "BIAS", &a->key_bias);
    }
}

static clsplat_status read_run(queue *q, const op_read_backward_args *a, kernel_options *o,
                               const char *source, const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    size_t queries = a->dout.shape[2], heads = a->dout.shape[1];
    double log_densities = log_density_count(a->splats, &a->dout), value_dim = (double)a->dout.shape[3];
    double near = a->causal ? log_densities * (double)a->chunk / 2 : 0;
    launch l;
    read_options(o, a);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "queries", (uint32_t)queries);
    launch_uint(&l, "segments", (uint32_t)a->state.segments);
    launch_uint(&l, "group", (uint32_t)(heads / a->kv_heads));
    launch_mixture(&l, a->splats, a->mixing);
    launch_mem(&l, "state_lse", a->state.lse);
    launch_mem(&l, "state_value", a->state.value);
    launch_tensor(&l, o, "dout", &a->dout);
    launch_tensor(&l, o, "stats", &a->stats);
    launch_mem(&l, "query_log_density", a->query_log_density);
    launch_mem(&l, "weights", a->weights);
    if (a->causal) {
        launch_int(&l, "diagonal", a->diagonal);
        launch_uint(&l, "keys", (uint32_t)a->v.shape[2]);
        launch_mem(&l, "key_log_density", a->key_log_density);
        launch_tensor(&l, o, "v", &a->v);
        if (a->key_bias.mem)
            launch_tensor(&l, o, "bias", &a->key_bias);
    }
    TRY(launch_run(&l, q, grid_of(items, heads, a->dout.shape[0], o->group),
                   (work){.flops = 4 * log_densities * value_dim + 4 * near,
                          .bytes = 8 * log_densities + tensor_bytes(&a->dout)}));
fail:
    return status;
}

static clsplat_status collect_run(queue *q, const op_collect_args *a, kernel_options *o, const char *source,
                                  const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = a->dout.shape[1], rows = a->dout.shape[0] * heads;
    double log_densities = log_density_count(a->splats, &a->dout), value_dim = (double)a->dout.shape[3];
    double states = (double)(rows * a->state.segments * a->splats->count) * (value_dim + 1);
    launch l;
    options_number(o, "DV", a->dout.shape[3]);
    options_tensor(o, "DOUT", &a->dout);
    options_tensor(o, "STATS", &a->stats);
    options_elements(o, log_densities);
    options_elements(o, states);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "queries", (uint32_t)a->dout.shape[2]);
    launch_uint(&l, "heads", (uint32_t)heads);
    launch_uint(&l, "segment", (uint32_t)a->segment);
    launch_int(&l, "diagonal", a->diagonal);
    launch_mixture(&l, a->splats, a->mixing);
    launch_mem(&l, "query_log_density", a->query_log_density);
    launch_tensor(&l, o, "dout", &a->dout);
    launch_tensor(&l, o, "stats", &a->stats);
    launch_mem(&l, "state_lse", a->state.lse);
    launch_mem(&l, "state_value", a->state.value);
    TRY(launch_run(&l, q, grid_of(items, a->state.segments, rows, o->group),
                   (work){.flops = 2 * log_densities * (value_dim + 1),
                          .bytes = 4 * log_densities + tensor_bytes(&a->dout) + 4 * states}));
fail:
    return status;
}

static clsplat_status read_plain_run(queue *q, const void *args) {
    kernel_options o;
    options_plain(&o, q);
    return read_run(q, args, &o, "read_backward.cl", "gaussian_read_backward",
                    ((const op_read_backward_args *)args)->dout.shape[2]);
}

static clsplat_status collect_plain_run(queue *q, const void *args) {
    kernel_options o;
    options_plain(&o, q);
    return collect_run(q, args, &o, "collect.cl", "gaussian_collect",
                       ((const op_collect_args *)args)->splats->count);
}

const tune_space backward_wide_space = {2, {{"RT", {4, 2, 8}}, {"LANES", {4, 2}}}, NULL};

void options_backward_wide(kernel_options *o, const queue *q, size_t tile) {
    *o = (kernel_options){.group = 1};
    options_number(o, "TILE", tile);
    options_tuned(o, q, &backward_wide_space);
}

bool splats_fill_vectors(const clsplat_limits *limits, const op_splats *splats, size_t value_dim) {
    return limits_are_wide(limits) && splats->count % 16 == 0 && value_dim % 16 == 0 && value_dim <= 256;
}

bool backward_tokens_are_wide(const clsplat_limits *limits, const op_splats *splats) {
    return splats_fill_vectors(limits, splats, splats->dim) && splats_are_centred(splats);
}

static bool read_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_read_backward_args *a = args;
    return splats_fill_vectors(limits, a->splats, a->dout.shape[3]) && !a->causal &&
           a->mixing == CLSPLAT_JOINT;
}

static clsplat_status read_wide_run(queue *q, const void *args) {
    const op_read_backward_args *a = args;
    kernel_options o;
    options_backward_wide(&o, q, BACKWARD_TILE);
    return read_run(q, a, &o, "read_backward_wide.cl", "read_backward_wide",
                    tiles_of(a->dout.shape[2], BACKWARD_TILE));
}

bool causal_fills_vectors(const clsplat_limits *limits, const op_splats *splats, size_t value_dim,
                          clsplat_mixing mixing) {
    return splats_fill_vectors(limits, splats, value_dim) && splats->count <= 1024 && mixing == CLSPLAT_JOINT;
}

static bool causal_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_read_backward_args *a = args;
    return a->causal && causal_fills_vectors(limits, a->splats, a->dout.shape[3], a->mixing);
}

/* From the first query's chunk to the last one's. */
static size_t chunks_read(const op_read_backward_args *a) {
    int64_t chunk = (int64_t)a->chunk, first = a->diagonal, last = first + (int64_t)a->dout.shape[2] - 1;
    int64_t before = first < 0 ? (chunk - 1 - first) / chunk * chunk : 0; /* makes both positive */
    return (size_t)((last + before) / chunk - (first + before) / chunk + 1);
}

static clsplat_status causal_wide_run(queue *q, const void *args) {
    const op_read_backward_args *a = args;
    kernel_options o = {.group = 1};
    options_tuned(&o, q, &backward_wide_space);
    options_number(&o, "SPLATS", a->splats->count);
    return read_run(q, a, &o, "read_backward_causal_wide.cl", "read_backward_causal_wide",
                    a->dout.shape[2] > 0 ? chunks_read(a) : 0);
}

static bool collect_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_collect_args *a = args;
    return splats_fill_vectors(limits, a->splats, a->dout.shape[3]);
}

static clsplat_status collect_wide_run(queue *q, const void *args) {
    const op_collect_args *a = args;
    kernel_options o;
    options_backward_wide(&o, q, BACKWARD_TILE);
    return collect_run(q, a, &o, "collect_wide.cl", "collect_wide",
                       tiles_of(a->splats->count, BACKWARD_TILE));
}

enum { SUMS = 4 }; /* floats of an item of a row in read_backward_local.cl */

static rows_tile read_tile(const clsplat_limits *limits, const op_read_backward_args *a) {
    size_t columns = rows_pitch(a->dout.shape[3]);
    return rows_tile_for(limits,
                         (rows_shape){.row = columns + SUMS * OP_LOCAL_ACROSS, .source = columns + 1});
}

static bool read_local_fits(const clsplat_limits *limits, const void *args) {
    const op_read_backward_args *a = args;
    return !a->causal && a->mixing == CLSPLAT_JOINT && a->dout.shape[3] <= 128 &&
           read_tile(limits, a).high > 0;
}

static clsplat_status read_local_run(queue *q, const void *args) {
    const op_read_backward_args *a = args;
    rows_tile tile = read_tile(&q->device->info.limits, a);
    kernel_options o;
    options_rows(&o, q->device, tile);
    return read_run(q, a, &o, "read_backward_local.cl", "read_backward_local",
                    rows_groups(tile, a->dout.shape[2]) * o.group);
}

/* A splat's items meet in its row: two of them. */
static rows_tile collect_tile(const clsplat_limits *limits, const op_collect_args *a) {
    return rows_tile_for(limits,
                         (rows_shape){.row = 2, .source = rows_pitch(a->dout.shape[3]), .weights = true});
}

static bool collect_local_fits(const clsplat_limits *limits, const void *args) {
    const op_collect_args *a = args;
    return a->dout.shape[3] <= 128 && collect_tile(limits, a).high > 0;
}

static clsplat_status collect_local_run(queue *q, const void *args) {
    const op_collect_args *a = args;
    rows_tile tile = collect_tile(&q->device->info.limits, a);
    kernel_options o;
    options_rows(&o, q->device, tile);
    return collect_run(q, a, &o, "collect_local.cl", "collect_local",
                       rows_groups(tile, a->splats->count) * o.group);
}

static void read_shape(const void *args, tune_shape *shape) {
    const op_read_backward_args *a = args;
    backward_shape(a->splats, &a->dout, a->causal, shape);
}

static void collect_shape(const void *args, tune_shape *shape) {
    const op_collect_args *a = args;
    backward_shape(a->splats, &a->dout, false, shape);
    shape->heads *= a->state.segments;
    shape->rows = a->splats->count;
    shape->sources = a->segment;
}

static const op_variant read_variants[] = {
    {"plain", "relative error of a weight below 1e-5 in float32, and an ulp of the largest lse", op_fits_all,
     read_plain_run, "read_backward.cl", &plain_space},
    {"wide", "the same", read_wide_fits, read_wide_run, "read_backward_wide.cl", &backward_wide_space},
    {"causal-wide", "the same", causal_wide_fits, causal_wide_run, "read_backward_causal_wide.cl",
     &backward_wide_space},
    {"local", "the same", read_local_fits, read_local_run, "read_backward_local.cl", &tune_nothing},
};
const op_family op_read_backward_family = {"read_backward", read_variants,
                                           sizeof read_variants / sizeof *read_variants, read_shape};

static const op_variant collect_variants[] = {
    {"plain", "relative error of a value below 1e-5 in float32", op_fits_all, collect_plain_run, "collect.cl",
     &plain_space},
    {"wide", "the same", collect_wide_fits, collect_wide_run, "collect_wide.cl", &backward_wide_space},
    {"local", "the same", collect_local_fits, collect_local_run, "collect_local.cl", &tune_nothing},
};
const op_family op_collect_family = {"collect", collect_variants,
                                     sizeof collect_variants / sizeof *collect_variants, collect_shape};

clsplat_status op_read_backward(queue *q, const op_read_backward_args *args) {
    return op_dispatch(q, &op_read_backward_family, args);
}

clsplat_status op_collect(queue *q, const op_collect_args *args) {
    return op_dispatch(q, &op_collect_family, args);
}
