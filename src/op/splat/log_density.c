#include "op/families.h"
#include "op/kernel.h"
#include "op/splat/local.h"

static clsplat_status run(queue *q, const op_log_density_args *a, kernel_options *o, const char *source,
                          const char *kernel, grid g) {
    clsplat_status status = CLSPLAT_OK;
    size_t rows = a->x.shape[2], heads = a->x.shape[0] * a->heads;
    double log_densities = (double)(heads * rows) * (double)a->splats->count;
    launch l;

    options_splats(o, a->splats);
    options_tensor(o, "X", &a->x);
    options_elements(o, log_densities);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "rows", (uint32_t)rows);
    launch_uint(&l, "heads", (uint32_t)a->heads);
    launch_uint(&l, "x_group", (uint32_t)(a->heads / a->x.shape[1]));
    launch_splats(&l, a->splats);
    launch_tensor(&l, o, "x", &a->x);
    launch_mem(&l, "log_density", a->log_density);
    TRY(launch_run(&l, q, g,
                   (work){.flops = log_densities * splat_flops(a->splats),
                          .bytes = tensor_bytes(&a->x) + 4 * log_densities}));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    const op_log_density_args *a = args;
    kernel_options o;
    options_plain(&o, q);
    return run(q, a, &o, "log_density.cl", "log_density_rows",
               grid_of(a->splats->count, a->x.shape[2], a->x.shape[0] * a->heads, o.group));
}

static bool wide_fits(const clsplat_limits *limits, const void *args) {
    const op_log_density_args *a = args;
    return limits_are_wide(limits) && splats_are_centred(a->splats);
}

static clsplat_status wide_run(queue *q, const void *args) {
    const op_log_density_args *a = args;
    kernel_options o;
    size_t rows = a->x.shape[2], tile = options_wide(&o, q, rows);
    return run(q, a, &o, "log_density_wide.cl", "log_density_wide",
               grid_of((rows + tile - 1) / tile, 1, a->x.shape[0] * a->heads, 1));
}

static bool local_row_fits(const clsplat_limits *limits, const void *args) {
    const op_log_density_args *a = args;
    return local_fits(limits, a->splats, local_shape_of(a->splats, 0, false));
}

static clsplat_status local_run(queue *q, const void *args) {
    enum { SPLATS = OP_LOCAL_EACH * OP_LOCAL_ACROSS }; /* of a group */
    const op_log_density_args *a = args;
    kernel_options o;
    size_t rows = options_local(&o, q, local_shape_of(a->splats, 0, false));
    return run(q, a, &o, "log_density_local.cl", "log_density_local",
               grid_of((a->x.shape[2] + rows - 1) / rows * o.group, (a->splats->count + SPLATS - 1) / SPLATS,
                       a->x.shape[0] * a->heads, o.group));
}

static void log_density_shape(const void *args, tune_shape *shape) {
    const op_log_density_args *a = args;
    *shape = (tune_shape){.heads = a->x.shape[0] * a->heads,
                          .rows = a->x.shape[2],
                          .sources = a->splats->count,
                          .dim = a->x.shape[3]};
    shape_words(shape, a->x.dtype, splats_form(a->splats));
}

static const op_variant variants[] = {
    {"plain", "relative error of φ of a few ulp", op_fits_all, plain_run, "log_density.cl", &plain_space},
    {"wide", "the same, for means within SPREAD_LIMIT widths of their centre", wide_fits, wide_run,
     "log_density_wide.cl", &wide_space},
    {"local", "the same", local_row_fits, local_run, "log_density_local.cl", &local_space},
};
const op_family op_log_density_family = {"log_density", variants, sizeof variants / sizeof *variants,
                                         log_density_shape};

clsplat_status op_log_density(queue *q, const op_log_density_args *args) {
    return op_dispatch(q, &op_log_density_family, args);
}
