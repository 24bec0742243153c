/* The operations of the backward pass that go over keys, and over tokens of either kind. */
#include "op/families.h"
#include "op/local_rows.h"
#include "op/splat/backward_kernel.h"

static void write_options(kernel_options *o, const op_write_backward_args *a) {
    double heads = (double)(a->v.shape[0] * a->heads), splats = (double)a->splats->count;
    options_number(o, "DV", a->v.shape[3]);
    options_number(o, "CAUSAL", a->causal);
    options_number(o, "BIAS", a->key_bias.mem != NULL);
    options_tensor(o, "V", &a->v);
    options_tensor(o, "DV", &a->dv);
    if (a->key_bias.mem)
        options_tensor(o, "BIAS", &a->key_bias);
    options_optional(o, "DBIAS", &a->dkey_bias);
    options_elements(o, heads * (double)a->v.shape[2] * splats);
    options_elements(o, heads * (double)a->state.segments * splats * (double)(a->v.shape[3] + 1));
    if (a->causal) {
        options_number(o, "CHUNK", a->chunk);
        options_elements(o, log_density_count(a->splats, &a->dout));
    }
    options_tensor(o, "DOUT", a->causal ? &a->dout : &a->v); /* not causal: nothing reads it */
}

static clsplat_status write_run(queue *q, const op_write_backward_args *a, kernel_options *o,
                                const char *source, const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    size_t batch = a->v.shape[0], kv_heads = a->v.shape[1], keys = a->v.shape[2];
    double value_dim = (double)a->v.shape[3];
    double log_densities = (double)(batch * a->heads) * (double)keys * (double)a->splats->count;
    double near = a->causal ? log_densities * (double)a->chunk / 2 : 0;
    launch l;
    write_options(o, a);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "keys", (uint32_t)keys);
    launch_uint(&l, "segments", (uint32_t)a->state.segments);
    launch_uint(&l, "group", (uint32_t)(a->heads / kv_heads));
    launch_mixture(&l, a->splats, a->mixing);
    launch_mem(&l, "state_lse", a->state.lse);
    launch_mem(&l, "state_value", a->state.value);
    launch_mem(&l, "key_log_density", a->key_log_density);
    launch_tensor(&l, o, "v", &a->v);
    launch_tensor(&l, o, "dv", &a->dv);
    launch_mem(&l, "weights", a->weights);
    if (a->key_bias.mem)
        launch_tensor(&l, o, "bias", &a->key_bias);
    if (a->dkey_bias.mem)
        launch_tensor(&l, o, "dbias", &a->dkey_bias);
    if (a->causal) {
        launch_int(&l, "diagonal", a->diagonal);
        launch_uint(&l, "queries", (uint32_t)a->dout.shape[2]);
        launch_mem(&l, "query_log_density", a->query_log_density);
        launch_tensor(&l, o, "dout", &a->dout);
        launch_tensor(&l, o, "stats", &a->stats);
    }
    TRY(launch_run(&l, q, grid_of(items, kv_heads, batch, o->group),
                   (work){.flops = 4 * log_densities * value_dim + 4 * near,
                          .bytes = 8 * log_densities + 2 * tensor_bytes(&a->v)}));
fail:
    return status;
}

static void write_shape(const void *args, tune_shape *shape) {
    const op_write_backward_args *a = args;
    backward_shape(a->splats, &a->v, a->causal, shape);
}

static clsplat_status pull_run(queue *q, const op_token_gradient_args *a, kernel_options *o,
                               const char *source, const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    double weights = (double)(a->x.shape[0] * a->heads) * (double)a->x.shape[2] * (double)a->splats->count;
    launch l;
    options_splats(o, a->splats);
    options_tensor(o, "X", &a->x);
    options_tensor(o, "DX", &a->dx);
    options_elements(o, weights);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "sources", (uint32_t)(a->heads / a->x.shape[1]));
    launch_splats(&l, a->splats);
    launch_tensor(&l, o, "x", &a->x);
    launch_mem(&l, "weights", a->weights);
    launch_tensor(&l, o, "dx", &a->dx);
    TRY(launch_run(
        &l, q, grid_of(items, a->x.shape[1], a->x.shape[0], o->group),
        (work){.flops = weights * splat_flops(a->splats), .bytes = 4 * weights + 2 * tensor_bytes(&a->x)}));
fail:
    return status;
}

static clsplat_status lifts_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_level_gradients_args *a = args;
    kernel_options o;
    launch l;
    options_begin(&o, q->device);
    options_number(&o, "DV", 1);
    options_tensor(&o, "X", &a->stats);
    options_tensor(&o, "STATS", &a->stats);
    TRY(options_launch(&o, q->device, "splat_moments.cl", "level_gradients", &l));
    launch_uint(&l, "rows", (uint32_t)a->stats.shape[2]);
    launch_uint(&l, "levels", (uint32_t)a->levels);
    launch_tensor(&l, &o, "stats", &a->stats);
    launch_mem(&l, "level_gradients", a->level_gradients);
    double numbers = tensor_bytes(&a->stats) / 4;
    TRY(launch_run(&l, q, grid_of(a->levels, a->stats.shape[1], a->stats.shape[0], o.group),
                   (work){.flops = numbers / OP_STATS, .bytes = 4 * numbers}));
fail:
    return status;
}

static clsplat_status write_plain_run(queue *q, const void *args) {
    const op_write_backward_args *a = args;
    kernel_options o;
    options_plain(&o, q);
    return write_run(q, a, &o, "write_backward.cl", "gaussian_write_backward", a->v.shape[2]);
}

static clsplat_status pull_plain_run(queue *q, const void *args) {
    const op_token_gradient_args *a = args;
    kernel_options o;
    options_plain(&o, q);
    return pull_run(q, a, &o, "token_gradient.cl", "token_gradient", a->x.shape[2]);
}

static bool write_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_write_backward_args *a = args;
    return splats_fill_vectors(limits, a->splats, a->v.shape[3]) && !a->causal;
}

static clsplat_status write_wide_run(queue *q, const void *args) {
    const op_write_backward_args *a = args;
    kernel_options o;
    options_backward_wide(&o, q, BACKWARD_TILE);
    return write_run(q, a, &o, "write_backward_wide.cl", "write_backward_wide",
                     tiles_of(a->v.shape[2], BACKWARD_TILE));
}

static bool causal_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_write_backward_args *a = args;
    return a->causal && causal_fills_vectors(limits, a->splats, a->v.shape[3], a->mixing);
}

static clsplat_status causal_wide_run(queue *q, const void *args) {
    const op_write_backward_args *a = args;
    kernel_options o = {.group = 1};
    options_tuned(&o, q, &backward_wide_space);
    options_number(&o, "SPLATS", a->splats->count);
    return write_run(q, a, &o, "write_backward_causal_wide.cl", "write_backward_causal_wide",
                     tiles_of(a->v.shape[2], a->chunk));
}

static rows_tile write_tile(const clsplat_limits *limits, const op_write_backward_args *a) {
    size_t columns = rows_pitch(a->v.shape[3]);
    return rows_tile_for(limits, (rows_shape){.row = columns, .source = columns + 2, .weights = true});
}

static bool write_local_fits(const clsplat_limits *limits, const void *args) {
    const op_write_backward_args *a = args;
    return !a->causal && a->v.shape[3] <= 128 && write_tile(limits, a).high > 0;
}

static clsplat_status write_local_run(queue *q, const void *args) {
    const op_write_backward_args *a = args;
    rows_tile tile = write_tile(&q->device->info.limits, a);
    kernel_options o;
    options_rows(&o, q->device, tile);
    return write_run(q, a, &o, "write_backward_local.cl", "write_backward_local",
                     rows_groups(tile, a->v.shape[2]) * o.group);
}

static bool pull_wide_fits(const clsplat_limits *limits, const void *args) {
    return backward_tokens_are_wide(limits, ((const op_token_gradient_args *)args)->splats);
}

static clsplat_status pull_wide_run(queue *q, const void *args) {
    const op_token_gradient_args *a = args;
    kernel_options o;
    options_backward_wide(&o, q, BACKWARD_TILE);
    return pull_run(q, a, &o, "token_gradient_wide.cl", "token_gradient_wide",
                    tiles_of(a->x.shape[2], BACKWARD_TILE));
}

static rows_tile pull_tile(const clsplat_limits *limits, const op_splats *splats) {
    size_t tiles = splats->covariance == CLSPLAT_DIAGONAL ? 2 : 1;
    return rows_tile_for(limits, (rows_shape){.source = tiles * rows_pitch(splats->dim), .weights = true});
}

/* Strips of columns, each of a group: diagonal splats have two sums a column, and those of 128 columns
 * spilled 70 registers on Intel's smallest and 76 on gfx900. */
static size_t pull_strips(const clsplat_limits *limits, const op_splats *splats) {
    enum { MOST = 64 };
    bool few = limits->nvidia_capability == 0 && splats->covariance == CLSPLAT_DIAGONAL;
    return few && splats->dim > MOST && splats->dim % 2 == 0 ? 2 : 1;
}

static bool pull_local_fits(const clsplat_limits *limits, const void *args) {
    const op_splats *splats = ((const op_token_gradient_args *)args)->splats;
    return splats_are_close(splats) && splats->dim <= 128 && pull_tile(limits, splats).high > 0;
}

static clsplat_status pull_local_run(queue *q, const void *args) {
    const op_token_gradient_args *a = args;
    rows_tile tile = pull_tile(&q->device->info.limits, a->splats);
    kernel_options o;
    size_t strips = pull_strips(&q->device->info.limits, a->splats);
    options_rows(&o, q->device, tile);
    options_number(&o, "COLUMNS", a->splats->dim / strips);
    return pull_run(q, a, &o, "token_gradient_local.cl", "token_gradient_local",
                    rows_groups(tile, a->x.shape[2]) * strips * o.group);
}

static void pull_shape(const void *args, tune_shape *shape) {
    const op_token_gradient_args *a = args;
    backward_shape(a->splats, &a->x, false, shape);
}

static const op_variant write_variants[] = {
    {"plain", "relative error of dv and of a weight below 1e-5 in float32, and an ulp of the largest lse",
     op_fits_all, write_plain_run, "write_backward.cl", &plain_space},
    {"wide", "the same", write_wide_fits, write_wide_run, "write_backward_wide.cl", &backward_wide_space},
    {"causal-wide", "the same", causal_wide_fits, causal_wide_run, "write_backward_causal_wide.cl",
     &backward_wide_space},
    {"local", "the same", write_local_fits, write_local_run, "write_backward_local.cl", &tune_nothing},
};
const op_family op_write_backward_family = {"write_backward", write_variants,
                                            sizeof write_variants / sizeof *write_variants, write_shape};

static const op_variant pull_variants[] = {
    {"plain", "sums in float32, difference first", op_fits_all, pull_plain_run, "token_gradient.cl",
     &plain_space},
    {"wide", "the same, for means within SPREAD_LIMIT widths of their centre", pull_wide_fits, pull_wide_run,
     "token_gradient_wide.cl", &backward_wide_space},
    {"local", "the same", pull_local_fits, pull_local_run, "token_gradient_local.cl", &tune_nothing},
};
const op_family op_token_gradient_family = {"token_gradient", pull_variants,
                                            sizeof pull_variants / sizeof *pull_variants, pull_shape};

static const op_variant level_gradients_variants[] = {
    {"plain", "sums in float32", op_fits_all, lifts_run, "splat_moments.cl", &tune_nothing},
};
const op_family op_level_gradients_family = {
    "level_gradients", level_gradients_variants,
    sizeof level_gradients_variants / sizeof *level_gradients_variants, NULL};

clsplat_status op_write_backward(queue *q, const op_write_backward_args *args) {
    return op_dispatch(q, &op_write_backward_family, args);
}

clsplat_status op_token_gradient(queue *q, const op_token_gradient_args *args) {
    return op_dispatch(q, &op_token_gradient_family, args);
}

clsplat_status op_level_gradients(queue *q, const op_level_gradients_args *args) {
    return op_dispatch(q, &op_level_gradients_family, args);
}
