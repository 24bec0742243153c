#include "op/families.h"
#include "op/kernel.h"

/* `columns`: a work-group a splat, instead of a work-item. */
static clsplat_status run(queue *q, const op_scan_args *a, bool columns) {
    clsplat_status status = CLSPLAT_OK;
    size_t splats = a->splats->count;
    double states = (double)(a->rows * a->part.segments * splats);
    kernel_options o;
    launch l;

    options_begin(&o, q->device);
    options_number(&o, "DV", a->value_dim);
    options_number(&o, "EXCLUSIVE", a->exclusive);
    options_elements(&o, states * (double)a->value_dim);
    TRY(columns ? options_launch(&o, q->device, "scan_columns.cl", "scan_columns", &l)
                : options_launch(&o, q->device, "scan.cl", "scan_segments", &l));

    launch_uint(&l, "segments", (uint32_t)a->part.segments);
    launch_uint(&l, "splats", (uint32_t)splats);
    launch_uint(&l, "begin", a->begin);
    launch_mem(&l, "part_lse", a->part.lse);
    launch_mem(&l, "part_value", a->part.value);
    launch_mem(&l, "carry", a->carry);
    launch_mem(&l, "result_lse", a->result.lse);
    launch_mem(&l, "result_value", a->result.value);
    double moved = 4 * states * (double)(a->value_dim + 1);
    TRY(launch_run(
        &l, q, grid_of(columns ? splats * o.group : splats, 1, a->rows, o.group),
        (work){.flops = 2 * states * (double)a->value_dim, .bytes = a->exclusive ? 2 * moved : moved}));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    return run(q, args, false);
}

/* GPUs, where a work-item has few columns. */
static bool columns_fits(const clsplat_limits *limits, const void *args) {
    const op_scan_args *a = args;
    return limits->local_memory > 0 && limits->max_work_group >= 64 && a->value_dim <= 1024;
}

static clsplat_status columns_run(queue *q, const void *args) {
    return run(q, args, true);
}

static const op_variant variants[] = {
    {"plain", "segments merged one after the other, in their order", op_fits_all, plain_run, "scan.cl",
     &tune_nothing},
    {"columns", "the same", columns_fits, columns_run, "scan_columns.cl", &tune_nothing},
};
const op_family op_scan_family = {"scan", variants, sizeof variants / sizeof *variants, NULL};

clsplat_status op_scan(queue *q, const op_scan_args *args) {
    return op_dispatch(q, &op_scan_family, args);
}
