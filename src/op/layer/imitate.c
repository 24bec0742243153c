#include "op/layer/imitate.h"

#include "op/families.h"
#include "op/kernel.h"

static const char plain_source[] = "imitate.cl", group_source[] = "imitate_group.cl";

/* A kernel of plain_source, whose work-items look after themselves, or one of group_source. */
static clsplat_status run(queue *q, const op_imitate_args *a, const char *source, const char *kernel) {
    clsplat_status status = CLSPLAT_OK;
    bool plain = source == plain_source;
    size_t rows = a->x.shape[2];
    kernel_options o;
    launch l;
    if (plain)
        options_plain(&o, q);
    else
        options_group_of(&o, q->device, GROUP_ITEMS);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "GOAL", &a->goal);
    TRY(options_launch(&o, q->device, source, kernel, &l));
    if (plain)
        launch_uint(&l, "rows", (uint32_t)rows);
    launch_uint(&l, "count", (uint32_t)a->x.shape[3]);
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_float(&l, "scale", a->scale);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "goal", &a->goal);
    launch_mem(&l, "error", a->error);
    TRY(launch_run(&l, q, grid_of(plain ? rows : rows * o.group, 1, 1, o.group),
                   (work){.flops = 8 * (double)(rows * a->x.shape[3]),
                          .bytes = 3 * tensor_bytes(&a->x) + 2 * tensor_bytes(&a->goal)}));
fail:
    return status;
}

static clsplat_status error_rows_run(queue *q, const void *args) {
    return run(q, args, plain_source, "relative_error_rows");
}

static clsplat_status error_group_run(queue *q, const void *args) {
    return run(q, args, group_source, "relative_error_group");
}

static clsplat_status divergence_rows_run(queue *q, const void *args) {
    return run(q, args, plain_source, "divergence_rows");
}

static clsplat_status divergence_group_run(queue *q, const void *args) {
    return run(q, args, group_source, "divergence_group");
}

static bool group_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_have_groups(limits, GROUP_ITEMS, sizeof(cl_float) * GROUP_ITEMS);
}

static const op_variant error_rows[] = {
    {"plain", "relative error of a few ulp", op_fits_all, error_rows_run, plain_source, &plain_space},
    {"group", "the same", group_fits, error_group_run, group_source, &tune_nothing},
};
static const op_variant divergence_variants[] = {
    {"plain", "absolute error of about 1e-6, and of x of a few ulp of scale", op_fits_all,
     divergence_rows_run, plain_source, &plain_space},
    {"group", "the same", group_fits, divergence_group_run, group_source, &tune_nothing},
};
const op_family op_relative_error_family = {"relative_error", error_rows, 2, NULL},
                op_divergence_family = {"divergence", divergence_variants, 2, NULL};

clsplat_status op_relative_error(queue *q, const op_imitate_args *args) {
    return op_dispatch(q, &op_relative_error_family, args);
}

clsplat_status op_divergence(queue *q, const op_imitate_args *args) {
    return op_dispatch(q, &op_divergence_family, args);
}
