#include "op/families.h"
#include "op/kernel.h"
#include "op/splat/splat_layer.h"

static const char source[] = "token_shift.cl";

static clsplat_status shift_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_shift_args *a = args;
    size_t rows = a->x.shape[2], columns = a->x.shape[3];
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "OUT", &a->out);
    TRY(options_launch(&o, q->device, source, "token_shift", &l));
    launch_uint(&l, "columns", (uint32_t)columns);
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_uint(&l, "length", (uint32_t)a->length);
    launch_tensor(&l, &o, "x", &a->x);
    launch_mem(&l, "mix", a->mix);
    launch_tensor(&l, &o, "out", &a->out);
    TRY(launch_run(&l, q, grid_of(columns, rows, 1, o.group),
                   (work){.flops = 3 * (double)(rows * columns),
                          .bytes = 2 * tensor_bytes(&a->x) + tensor_bytes(&a->out)}));
fail:
    return status;
}

static clsplat_status shift_backward_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_shift_backward_args *a = args;
    size_t rows = a->x.shape[2], columns = a->x.shape[3], run = (rows + a->runs - 1) / a->runs;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DOUT", &a->dout);
    options_tensor(&o, "DX", &a->dx);
    TRY(options_launch(&o, q->device, source, "token_shift_backward", &l));
    launch_uint(&l, "rows", (uint32_t)rows);
    launch_uint(&l, "columns", (uint32_t)columns);
    launch_uint(&l, "run", (uint32_t)run);
    launch_uint(&l, "length", (uint32_t)a->length);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "mix", a->mix);
    launch_tensor(&l, &o, "dx", &a->dx);
    launch_mem(&l, "parts", a->parts);
    TRY(launch_run(&l, q, grid_of(columns, a->runs, 1, o.group),
                   (work){.flops = 7 * (double)(rows * columns), .bytes = 3 * tensor_bytes(&a->x)}));
fail:
    return status;
}

static const char guarantee[] = "absolute error of a few ulp of the largest term";
static const op_variant shift_rows[] = {{"plain", guarantee, op_fits_all, shift_run, source, &plain_space}},
                        shift_backward_rows[] = {
                            {"plain", guarantee, op_fits_all, shift_backward_run, source, &plain_space}};

const op_family op_token_shift_family = {"token_shift", shift_rows, 1, NULL},
                op_token_shift_backward_family = {"token_shift_backward", shift_backward_rows, 1, NULL};

clsplat_status op_token_shift(queue *q, const op_token_shift_args *args) {
    return op_dispatch(q, &op_token_shift_family, args);
}

clsplat_status op_token_shift_backward(queue *q, const op_token_shift_backward_args *args) {
    return op_dispatch(q, &op_token_shift_backward_family, args);
}
