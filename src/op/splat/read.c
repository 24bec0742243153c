#include "op/splat/read.h"

#include "op/families.h"
#include "op/splat/local.h"

work read_work(const op_read_args *a) {
    double splats = (double)a->splats->count, value_dim = (double)a->out.shape[3];
    double queries = (double)(a->q.shape[0] * a->q.shape[1]) * (double)a->q.shape[2];
    double flops = queries * splats * 2 * value_dim, bytes = tensor_bytes(&a->out) + tensor_bytes(&a->lse);
    if (a->causal) {
        double pairs = queries * (double)(a->chunk + 1) / 2; /* on average */
        flops += pairs * (2 * splats + 2 * value_dim);
        bytes += 4 * queries * splats + tensor_bytes(&a->v) + tensor_bytes(&a->key_bias);
    } else {
        flops += queries * splats * splat_flops(a->splats);
        bytes += tensor_bytes(&a->q);
    }
    return (work){.flops = flops, .bytes = bytes};
}

static void options_read(kernel_options *o, const op_read_args *a) {
    options_splats(o, a->splats);
    options_number(o, "DV", a->out.shape[3]);
    options_number(o, "CAUSAL", a->causal);
    options_tensor(o, "Q", &a->q);
    options_tensor(o, "OUT", &a->out);
    options_tensor(o, "LSE", &a->lse);
    if (a->causal) {
        double log_densities =
            (double)(a->q.shape[0] * a->q.shape[1] * a->q.shape[2]) * (double)a->splats->count;
        options_number(o, "CHUNK", a->chunk);
        options_number(o, "BIAS", a->key_bias.mem != NULL);
        options_tensor(o, "V", &a->v);
        options_elements(o, log_densities);
        if (a->key_bias.mem)
            options_tensor(o, "BIAS", &a->key_bias);
    }
}

static clsplat_status run(queue *q, const op_read_args *a, kernel_options *o, const char *source,
                          const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    const op_splats *splats = a->splats;
    size_t batch = a->q.shape[0], heads = a->q.shape[1], queries = a->q.shape[2];
    launch l;

    options_read(o, a);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "queries", (uint32_t)queries);
    launch_uint(&l, "segments", (uint32_t)a->state.segments);
    launch_uint(&l, "group", (uint32_t)(heads / a->kv_heads));
    launch_uint(&l, "levels", (uint32_t)splats->levels);
    launch_uint(&l, "per_level", a->mixing == CLSPLAT_PER_LEVEL);
    launch_splats(&l, splats);
    launch_mem(&l, "log_weight", splats->log_weight);
    launch_mem(&l, "level_begin", splats->level_begin);
    launch_mem(&l, "level_log_weight", splats->level_log_weight);
    launch_mem(&l, "state_lse", a->state.lse);
    launch_mem(&l, "state_value", a->state.value);
    launch_tensor(&l, o, "q", &a->q);
    launch_tensor(&l, o, "out", &a->out);
    launch_tensor(&l, o, "lse", &a->lse);
    if (a->causal) {
        launch_int(&l, "diagonal", a->diagonal);
        launch_uint(&l, "keys", (uint32_t)a->v.shape[2]);
        launch_mem(&l, "query_log_density", a->query_log_density);
        launch_mem(&l, "key_log_density", a->key_log_density);
        launch_tensor(&l, o, "v", &a->v);
        if (a->key_bias.mem)
            launch_tensor(&l, o, "bias", &a->key_bias);
    }
    TRY(launch_run(&l, q, grid_of(items, heads, batch, o->group), read_work(a)));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    kernel_options o;
    options_plain(&o, q);
    return run(q, args, &o, "read.cl", "gaussian_read", ((const op_read_args *)args)->q.shape[2]);
}

static bool wide_fits(const clsplat_limits *limits, const void *args) {
    const op_read_args *a = args;
    return limits_are_wide(limits) && splats_are_centred(a->splats) && !a->causal &&
           a->mixing == CLSPLAT_JOINT && a->out.shape[3] % 16 == 0;
}

static clsplat_status wide_run(queue *q, const void *args) {
    const op_read_args *a = args;
    kernel_options o;
    size_t tile = options_wide(&o, q, a->q.shape[2]);
    return run(q, a, &o, "read_wide.cl", "read_wide", (a->q.shape[2] + tile - 1) / tile);
}

/* TILE is the chunk, which RT must divide and a block of keys must hold. */
static const tune_space causal_space = {2, {{"RT", {4, 2, 8}}, {"LANES", {4, 2, 3, 6, 8}}}, NULL};

static bool causal_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_read_args *a = args;
    return limits_are_wide(limits) && a->causal && a->mixing == CLSPLAT_JOINT && a->splats->count % 16 == 0 &&
           a->splats->count <= 4096 && a->out.shape[3] % 16 == 0;
}

/* From the first query's to the last one's. */
static size_t chunks_read(const op_read_args *a) {
    int64_t chunk = (int64_t)a->chunk, first = a->diagonal, last = first + (int64_t)a->q.shape[2] - 1;
    int64_t before = first < 0 ? (chunk - 1 - first) / chunk * chunk : 0; /* makes both positive */
    return (size_t)((last + before) / chunk - (first + before) / chunk + 1);
}

static clsplat_status causal_wide_run(queue *q, const void *args) {
    const op_read_args *a = args;
    kernel_options o = {.group = 1};
    options_tuned(&o, q, &causal_space);
    options_number(&o, "SPLATS", a->splats->count);
    return run(q, a, &o, "read_causal_wide.cl", "read_causal_wide", chunks_read(a));
}

static bool local_row_fits(const clsplat_limits *limits, const void *args) {
    const op_read_args *a = args;
    return !a->causal && a->mixing == CLSPLAT_JOINT &&
           local_fits(limits, a->splats, local_shape_of(a->splats, a->out.shape[3], false));
}

static clsplat_status local_run(queue *q, const void *args) {
    const op_read_args *a = args;
    kernel_options o;
    size_t rows = options_local(&o, q, local_shape_of(a->splats, a->out.shape[3], false));
    return run(q, a, &o, "read_local.cl", "read_local", (a->q.shape[2] + rows - 1) / rows * o.group);
}

/* Its tile is the chunk: queries, weights and values of 32 splats, two numbers more for each, and a flag. */
static bool causal_local_fits(const clsplat_limits *limits, const void *args) {
    enum { TILE = 32 };
    const op_read_args *a = args;
    size_t value_dim = a->out.shape[3], pitch = (value_dim + TILE - 1) / TILE * TILE;
    size_t bytes = sizeof(cl_float) * (TILE * (TILE + TILE + pitch + 2) + 1);
    return a->causal && a->mixing == CLSPLAT_JOINT && a->chunk == TILE && value_dim <= 128 &&
           limits_have_groups(limits, LOCAL_GROUP, bytes);
}

static clsplat_status causal_local_run(queue *q, const void *args) {
    kernel_options o = {.group = LOCAL_GROUP};
    options_eager(&o, q->device);
    options_narrow(&o, q->device);
    return run(q, args, &o, "read_causal_local.cl", "read_causal_local", chunks_read(args) * LOCAL_GROUP);
}

static void read_shape(const void *args, tune_shape *shape) {
    const op_read_args *a = args;
    *shape = (tune_shape){.heads = a->q.shape[0] * a->q.shape[1],
                          .rows = a->q.shape[2],
                          .sources = a->splats->count,
                          .dim = a->q.shape[3],
                          .value_dim = a->out.shape[3]};
    shape_words(shape, a->q.dtype, a->causal ? "causal" : splats_form(a->splats));
}

static const op_variant variants[] = {
    {"plain", "relative error of out below 1e-5 in float32", op_fits_all, plain_run, "read.cl", &plain_space},
    {"wide", "the same, for means within SPREAD_LIMIT widths of their centre", wide_fits, wide_run,
     "read_wide.cl", &wide_space},
    {"causal-wide", "relative error of out below 1e-5 in float32", causal_wide_fits, causal_wide_run,
     "read_causal_wide.cl", &causal_space},
    {"local", "the same as wide", local_row_fits, local_run, "read_local.cl", &local_space},
    {"causal-local", "relative error of out below 1e-5 in float32", causal_local_fits, causal_local_run,
     "read_causal_local.cl", &tune_nothing},
    {"mma", "relative error of out below 1e-2: means, values and weights are rounded to q's type",
     read_mma_fits, read_mma_run, "read_mma.cl", &tune_nothing},
    {"wgmma", "the same", read_wgmma_fits, read_wgmma_run, "read_mma.cl", &tune_nothing},
};
const op_family op_read_family = {"read", variants, sizeof variants / sizeof *variants, read_shape};

clsplat_status op_read(queue *q, const op_read_args *args) {
    return op_dispatch(q, &op_read_family, args);
}
