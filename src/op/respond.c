#include "op/families.h"
#include "op/kernel.h"

static clsplat_status plain_run(queue *q, const void *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_respond_args *a = p;
    size_t rows = a->x.shape[2], heads = a->x.shape[0] * a->heads;
    double responses = (double)(heads * rows) * (double)a->splats->count;
    kernel_options o;
    launch l;

    options_begin(&o, q->device);
    options_splats(&o, a->splats);
    options_tensor(&o, "X", &a->x);
    options_elements(&o, responses);
    TRY(options_launch(&o, q->device, "respond.cl", "respond_rows", &l));

    launch_uint(&l, (uint32_t)a->heads);
    launch_uint(&l, (uint32_t)(a->heads / a->x.shape[1]));
    launch_splats(&l, a->splats);
    launch_tensor(&l, &o, &a->x);
    launch_mem(&l, a->response);
    TRY(launch_run(
        &l, q, grid_of(a->splats->count, rows, heads, o.group),
        (work){.flops = responses * splat_flops(a->splats), .bytes = tensor_bytes(&a->x) + 4 * responses}));
fail:
    return status;
}

static const op_variant variants[] = {
    {"plain", "relative error of φ of a few ulp", op_fits_all, plain_run},
};
const op_family op_respond_family = {"respond", variants, sizeof variants / sizeof *variants};

clsplat_status op_respond(queue *q, const op_respond_args *args) {
    return op_dispatch(q, &op_respond_family, args);
}
