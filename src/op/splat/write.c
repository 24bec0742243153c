#include "op/families.h"
#include "op/kernel.h"
#include "op/splat/local.h"

static work write_work(const op_write_args *a) {
    double splats = (double)a->splats->count, rows = (double)(a->k.shape[0] * a->heads);
    double value_dim = (double)a->v.shape[3];
    return (work){
        .flops = rows * splats * (double)a->k.shape[2] * (splat_flops(a->splats) + 2 * value_dim),
        .bytes = tensor_bytes(&a->k) + tensor_bytes(&a->v) + tensor_bytes(&a->key_bias) +
                 4 * rows * (double)a->state.segments * splats * (value_dim + 1),
    };
}

static clsplat_status run(queue *q, const op_write_args *a, kernel_options *o, const char *source,
                          const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    const op_splats *splats = a->splats;
    size_t rows = a->k.shape[0] * a->heads;
    launch l;

    options_splats(o, splats);
    options_number(o, "DV", a->v.shape[3]);
    options_number(o, "BIAS", a->key_bias.mem != NULL);
    options_tensor(o, "K", &a->k);
    options_tensor(o, "V", &a->v);
    if (a->key_bias.mem)
        options_tensor(o, "BIAS", &a->key_bias);
    options_elements(o, (double)(rows * a->state.segments * splats->count) * (double)a->v.shape[3]);
    TRY(options_launch(o, q->device, source, kernel, &l));

    launch_uint(&l, "keys", (uint32_t)a->k.shape[2]);
    launch_uint(&l, "segment", (uint32_t)a->segment);
    launch_uint(&l, "heads", (uint32_t)a->heads);
    launch_uint(&l, "group", (uint32_t)(a->heads / a->k.shape[1]));
    launch_splats(&l, splats);
    launch_tensor(&l, o, "k", &a->k);
    launch_tensor(&l, o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, o, "bias", &a->key_bias);
    launch_mem(&l, "state_lse", a->state.lse);
    launch_mem(&l, "state_value", a->state.value);
    TRY(launch_run(&l, q, grid_of(items, a->state.segments, rows, o->group), write_work(a)));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    kernel_options o;
    options_plain(&o, q);
    return run(q, args, &o, "write.cl", "gaussian_write", ((const op_write_args *)args)->splats->count);
}

static bool wide_fits(const clsplat_limits *limits, const void *args) {
    const op_write_args *a = args;
    return limits_are_wide(limits) && splats_are_centred(a->splats) && a->v.shape[3] % 16 == 0;
}

static clsplat_status wide_run(queue *q, const void *args) {
    const op_write_args *a = args;
    kernel_options o;
    size_t tile = options_wide(&o, q, a->splats->count);
    return run(q, a, &o, "write_wide.cl", "write_wide", (a->splats->count + tile - 1) / tile);
}

static bool local_row_fits(const clsplat_limits *limits, const void *args) {
    const op_write_args *a = args;
    return local_fits(limits, a->splats, local_shape_of(a->splats, a->v.shape[3], true));
}

static clsplat_status local_run(queue *q, const void *args) {
    const op_write_args *a = args;
    kernel_options o;
    size_t rows = options_local(&o, q, local_shape_of(a->splats, a->v.shape[3], true));
    return run(q, a, &o, "write_local.cl", "write_local", (a->splats->count + rows - 1) / rows * o.group);
}

static bool mma_fits(const clsplat_limits *limits, const void *args) {
    const op_write_args *a = args;
    return limits_have_mma(limits) && tensor_suits_mma(&a->k) && tensor_suits_mma(&a->v) &&
           a->k.dtype == a->v.dtype && splats_suit_mma(a->splats, a->k.dtype) && a->v.shape[3] <= 128 &&
           a->v.shape[3] % 16 == 0;
}

/* Groups of 4 warps, of 16 rows each or of 32 as mma_tile.clh has it. */
static clsplat_status mma_run_with(queue *q, const op_write_args *a, size_t blocks, bool wgmma) {
    enum { GROUP = 128 };
    kernel_options o = {.group = GROUP};
    size_t rows = GROUP / 32 * 16 * blocks;
    options_number(&o, "WG", GROUP);
    options_number(&o, "BLOCKS", blocks);
    options_number(&o, "WGMMA", wgmma);
    options_number(&o, "ORIGIN", splats_are_near(a->splats));
    return run(q, a, &o, "write_mma.cl", "write_mma", (a->splats->count + rows - 1) / rows * GROUP);
}

static clsplat_status mma_run(queue *q, const void *args) {
    const op_write_args *a = args;
    return mma_run_with(q, a, a->k.shape[3] + a->v.shape[3] > 128 ? 1 : 2, false);
}

static bool wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_write_args *a = args;
    return limits_have_wgmma(limits) && mma_fits(limits, args) && a->k.shape[3] == 64 && a->v.shape[3] == 64;
}

static clsplat_status wgmma_run(queue *q, const void *args) {
    return mma_run_with(q, args, 1, true);
}

/* A segment is a problem of its own. */
static void write_shape(const void *args, tune_shape *shape) {
    const op_write_args *a = args;
    *shape = (tune_shape){.heads = a->k.shape[0] * a->heads * a->state.segments,
                          .rows = a->splats->count,
                          .sources = a->segment,
                          .dim = a->k.shape[3],
                          .value_dim = a->v.shape[3]};
    shape_words(shape, a->k.dtype, splats_form(a->splats));
}

static const op_variant variants[] = {
    {"plain", "relative error of a value below 1e-5 in float32", op_fits_all, plain_run, "write.cl",
     &plain_space},
    {"wide", "the same, for means within SPREAD_LIMIT widths of their centre", wide_fits, wide_run,
     "write_wide.cl", &wide_space},
    {"local", "the same", local_row_fits, local_run, "write_local.cl", &local_space},
    {"mma", "relative error of a value below 1e-2: means and weights are rounded to the inputs' type",
     mma_fits, mma_run, "write_mma.cl", &tune_nothing},
    {"wgmma", "the same", wgmma_fits, wgmma_run, "write_mma.cl", &tune_nothing},
};
const op_family op_write_family = {"write", variants, sizeof variants / sizeof *variants, write_shape};

clsplat_status op_write(queue *q, const op_write_args *args) {
    return op_dispatch(q, &op_write_family, args);
}
