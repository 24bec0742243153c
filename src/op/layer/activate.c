#include "op/families.h"
#include "op/kernel.h"

/* Groups of W columns: a row's work-items. */
static size_t pieces(const kernel_options *o, size_t columns) {
    return (columns + o->vector - 1) / o->vector;
}

static clsplat_status activate_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_activate_args *a = args;
    size_t columns = a->out.shape[3], heads = a->out.shape[1];
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    options_optional(&o, "BIAS", &a->bias);
    options_tensor(&o, "OUT", &a->out);
    options_number(&o, "ACTIVATION", a->activation);
    options_number(&o, "GATED", a->gated);
    options_even(&o, q->device, columns, (const op_tensor *[]){&a->x, &a->bias, &a->out}, 3);
    TRY(options_launch(&o, q->device, "activate.cl", "activate_rows", &l));
    launch_uint(&l, "columns", (uint32_t)columns);
    launch_uint(&l, "heads", (uint32_t)heads);
    launch_float(&l, "cap", a->cap);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "bias", &a->bias);
    launch_tensor(&l, &o, "out", &a->out);
    grid g = grid_of(pieces(&o, columns), a->out.shape[2], a->out.shape[0] * heads, o.group);
    double numbers = tensor_bytes(&a->out) / (double)clsplat_dtype_size(a->out.dtype);
    TRY(launch_run(&l, q, g,
                   (work){.flops = 4 * numbers, .bytes = tensor_bytes(&a->x) + tensor_bytes(&a->out)}));
fail:
    return status;
}

static clsplat_status embed_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_embed_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "TABLE", &a->table);
    options_tensor(&o, "OUT", &a->out);
    TRY(options_launch(&o, q->device, "activate.cl", "embed_rows", &l));
    launch_uint(&l, "columns", (uint32_t)a->out.shape[3]);
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_uint(&l, "table_row", (uint32_t)a->table_row);
    launch_uint(&l, "rows", (uint32_t)a->table.shape[2]);
    launch_float(&l, "scale", a->scale != 0 ? a->scale : 1);
    launch_mem(&l, "ids", a->ids);
    launch_tensor(&l, &o, "table", &a->table);
    launch_tensor(&l, &o, "out", &a->out);
    TRY(launch_run(&l, q, grid_of(pieces(&o, a->out.shape[3]), a->out.shape[2], 1, o.group),
                   (work){.bytes = 2 * tensor_bytes(&a->out)}));
fail:
    return status;
}

static const op_variant activate_variants[] = {
    {"plain", "absolute error of a few ulp of the largest term", op_fits_all, activate_run, "activate.cl",
     &plain_space},
};
const op_family op_activate_family = {"activate", activate_variants,
                                      sizeof activate_variants / sizeof *activate_variants, NULL};

static const op_variant embed_variants[] = {
    {"plain", "exact", op_fits_all, embed_run, "activate.cl", &plain_space},
};
const op_family op_embed_family = {"embed", embed_variants, sizeof embed_variants / sizeof *embed_variants,
                                   NULL};

clsplat_status op_activate(queue *q, const op_activate_args *args) {
    return op_dispatch(q, &op_activate_family, args);
}

clsplat_status op_embed(queue *q, const op_embed_args *args) {
    return op_dispatch(q, &op_embed_family, args);
}
