#include "op/families.h"
#include "op/kernel.h"

static work norm_work(const op_norm_args *a) {
    double numbers = tensor_bytes(&a->x) / (double)clsplat_dtype_size(a->x.dtype);
    return (work){.flops = 4 * numbers,
                  .bytes = tensor_bytes(&a->x) * (a->add.mem ? 2 : 1) + tensor_bytes(&a->add) +
                           tensor_bytes(&a->weight) + tensor_bytes(&a->out)};
}

/* `rows`: a kernel whose work-items look after themselves takes it. */
static clsplat_status run(queue *q, const op_norm_args *a, kernel_options *o, const char *source,
                          const char *kernel, grid g, bool rows) {
    clsplat_status status = CLSPLAT_OK;
    launch l;
    options_tensor(o, "X", &a->x);
    options_optional(o, "ADD", &a->add);
    options_optional(o, "BIAS", &a->bias);
    options_optional(o, "WEIGHT", &a->weight);
    options_optional(o, "SHIFT", &a->shift);
    options_tensor(o, "OUT", &a->out);
    options_number(o, "CENTRED", a->centred);
    options_number(o, "REPLACE", a->replace);
    TRY(options_launch(o, q->device, source, kernel, &l));
    if (rows)
        launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->x.shape[3]);
    launch_float(&l, "epsilon", a->epsilon);
    launch_float(&l, "offset", a->offset);
    launch_tensor(&l, o, "x", &a->x);
    launch_tensor(&l, o, "add", &a->add);
    launch_tensor(&l, o, "bias", &a->bias);
    launch_tensor(&l, o, "weight", &a->weight);
    launch_tensor(&l, o, "shift", &a->shift);
    launch_tensor(&l, o, "out", &a->out);
    TRY(launch_run(&l, q, g, norm_work(a)));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    const op_norm_args *a = args;
    kernel_options o;
    options_plain(&o, q);
    return run(q, a, &o, "norm.cl", "norm_rows",
               grid_of(a->x.shape[2], a->x.shape[1], a->x.shape[0], o.group), true);
}

static bool group_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_have_groups(limits, GROUP_ITEMS, sizeof(cl_float) * GROUP_ITEMS);
}

static clsplat_status group_run(queue *q, const void *args) {
    const op_norm_args *a = args;
    kernel_options o;
    options_group_of(&o, q->device, GROUP_ITEMS);
    size_t share = options_share(&o, a->x.shape[2], a->x.shape[3]);
    return run(q, a, &o, "norm_group.cl", "norm_group",
               grid_of(a->x.shape[2] * share, a->x.shape[1], a->x.shape[0], o.group), false);
}

static const op_variant variants[] = {
    {"plain", "relative error of a few ulp", op_fits_all, plain_run, "norm.cl", &plain_space},
    {"group", "relative error of a few ulp", group_fits, group_run, "norm_group.cl", &tune_nothing},
};
const op_family op_norm_family = {"norm", variants, sizeof variants / sizeof *variants, NULL};

clsplat_status op_norm(queue *q, const op_norm_args *args) {
    return op_dispatch(q, &op_norm_family, args);
}
