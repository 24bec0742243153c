#include "op/families.h"
#include "op/kernel.h"

static clsplat_status plain_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_distance_args *a = args;
    size_t batch = a->a.shape[0], heads = a->a.shape[1], rows = a->a.shape[2], columns = a->a.shape[3];
    kernel_options o;
    launch l;
    options_begin(&o, q->device);
    options_tensor(&o, "A", &a->a);
    options_tensor(&o, "B", &a->b);
    options_elements(&o, 2 * (double)(batch * heads) * (double)rows);
    TRY(options_launch(&o, q->device, "distance.cl", "row_distance", &l));
    launch_uint(&l, "rows", (uint32_t)rows);
    launch_uint(&l, "columns", (uint32_t)columns);
    launch_tensor(&l, &o, "a", &a->a);
    launch_tensor(&l, &o, "b", &a->b);
    launch_mem(&l, "out", a->squares);
    double bytes = tensor_bytes(&a->a) + tensor_bytes(&a->b);
    TRY(launch_run(&l, q, grid_of(rows, heads, batch, o.group),
                   (work){.flops = 4 * (double)(batch * heads * rows) * (double)columns, .bytes = bytes}));
fail:
    return status;
}

static const op_variant variants[] = {
    {"plain", "relative error of a sum below 1e-5 in float32", op_fits_all, plain_run, "distance.cl",
     &tune_nothing},
};
const op_family op_distance_family = {"distance", variants, sizeof variants / sizeof *variants, NULL};

clsplat_status op_distance(queue *q, const op_distance_args *args) {
    return op_dispatch(q, &op_distance_family, args);
}
