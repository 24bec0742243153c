#include "op/layer/layer_backward.h"

#include "op/families.h"
#include "op/kernel.h"
#include "op/layer/layer_backward_group.h"

static const char source[] = "layer_backward.cl", norm_source[] = "norm_backward.cl",
                  activate_source[] = "activate_backward.cl";

double layer_numbers(const op_tensor *t) {
    return tensor_bytes(t) / (double)clsplat_dtype_size(t->dtype);
}

void norm_backward_options(kernel_options *o, const op_norm_backward_args *a) {
    options_number(o, "CENTRED", a->centred);
    options_number(o, "ADD", a->add);
    options_tensor(o, "X", &a->x);
    options_tensor(o, "WEIGHT", &a->weight);
    options_tensor(o, "DOUT", &a->dout);
    options_tensor(o, "DX", &a->dx);
    options_optional(o, "AGAIN", &a->dx_again);
    options_optional(o, "OUT", &a->out);
    options_optional(o, "SHIFT", &a->shift);
}

void norm_backward_arguments(launch *l, const kernel_options *o, const op_norm_backward_args *a) {
    launch_uint(l, "columns", (uint32_t)a->x.shape[3]);
    launch_float(l, "epsilon", a->epsilon);
    launch_float(l, "offset", a->offset);
    launch_tensor(l, o, "x", &a->x);
    launch_tensor(l, o, "weight", &a->weight);
    launch_tensor(l, o, "dout", &a->dout);
    launch_tensor(l, o, "dx", &a->dx);
    launch_tensor(l, o, "again", &a->dx_again);
    launch_tensor(l, o, "out", &a->out);
    launch_tensor(l, o, "shift", &a->shift);
    launch_mem(l, "stats", a->stats);
}

void cross_entropy_arguments(launch *l, const kernel_options *o, const op_cross_entropy_args *a) {
    launch_uint(l, "count", (uint32_t)a->logits.shape[3]);
    launch_uint(l, "first", (uint32_t)a->first);
    launch_float(l, "scale", a->scale);
    launch_tensor(l, o, "logits", &a->logits);
    launch_mem(l, "targets", a->targets);
    launch_mem(l, "log_likelihood", a->log_likelihood);
}

clsplat_status turn_back_begin(queue *q, kernel_options *o, const char *its_source, const char *kernel,
                               const op_turn_back_args *a, launch *l) {
    clsplat_status status = CLSPLAT_OK;
    options_tensor(o, "DOUT", &a->dout);
    options_tensor(o, "DX", &a->dx);
    TRY(options_launch(o, q->device, its_source, kernel, l));
    launch_uint(l, "rows", (uint32_t)a->dout.shape[2]);
    launch_uint(l, "half_dim", (uint32_t)(a->dout.shape[3] / 2));
    launch_uint(l, "heads", (uint32_t)a->dout.shape[1]);
    launch_mem(l, "turn", a->turn);
    launch_tensor(l, o, "dout", &a->dout);
    launch_tensor(l, o, "dx", &a->dx);
fail:
    return status;
}

/* One work-item for each of `items` in all heads' rows, or columns; bytes of what is read and written. */
static clsplat_status finish(queue *q, launch *l, const op_tensor *over, size_t items, uint32_t group) {
    double numbers = layer_numbers(over);
    return launch_run(l, q, grid_of(items, over->shape[1], over->shape[0], group),
                      (work){.flops = 4 * numbers, .bytes = 3 * tensor_bytes(over)});
}

/* The same for columns of everything, in one. */
static clsplat_status finish_columns(queue *q, launch *l, const op_tensor *over, uint32_t group) {
    return launch_run(l, q, grid_of(over->shape[3], 1, 1, group),
                      (work){.flops = layer_numbers(over), .bytes = tensor_bytes(over)});
}

static clsplat_status norm_by_rows(queue *q, const op_norm_backward_args *a) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    norm_backward_options(&o, a);
    TRY(options_launch(&o, q->device, norm_source, "norm_backward_rows", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    norm_backward_arguments(&l, &o, a);
    TRY(finish(q, &l, &a->x, a->x.shape[2], o.group));
fail:
    return status;
}

static clsplat_status norm_by_columns(queue *q, const op_norm_backward_args *a) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DOUT", &a->dout);
    TRY(options_launch(&o, q->device, norm_source, "norm_backward_columns", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->x.shape[3]);
    launch_uint(&l, "heads", (uint32_t)a->x.shape[1]);
    launch_uint(&l, "batch", (uint32_t)a->x.shape[0]);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "stats", a->stats);
    launch_mem(&l, "dweight", a->dweight);
    launch_uint(&l, "has_shift", a->dshift != NULL);
    launch_mem(&l, "dshift", a->dshift);
    TRY(finish_columns(q, &l, &a->x, o.group));
fail:
    return status;
}

static clsplat_status norm_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_norm_backward_args *a = args;
    TRY(norm_by_rows(q, a));
    if (a->dweight)
        TRY(norm_by_columns(q, a));
fail:
    return status;
}

static clsplat_status activate_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_activate_backward_args *a = args;
    size_t columns = a->dout.shape[3], heads = a->dout.shape[1];
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_number(&o, "ACTIVATION", a->activation);
    options_number(&o, "GATED", a->gated);
    options_tensor(&o, "X", &a->x);
    options_optional(&o, "BIAS", &a->bias);
    options_tensor(&o, "DOUT", &a->dout);
    options_tensor(&o, "DX", &a->dx);
    options_optional(&o, "OUT", &a->out);
    size_t some = options_even(&o, q->device, columns,
                               (const op_tensor *[]){&a->x, &a->bias, &a->dout, &a->dx, &a->out}, 5);
    size_t each = q->device->info.limits.cpu || some > 1 ? 1 : 4;
    options_number(&o, "EACH", each);
    TRY(options_launch(&o, q->device, activate_source, "activate_backward_rows", &l));
    launch_uint(&l, "columns", (uint32_t)columns);
    launch_uint(&l, "heads", (uint32_t)heads);
    launch_float(&l, "cap", a->cap);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "bias", &a->bias);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_tensor(&l, &o, "dx", &a->dx);
    launch_tensor(&l, &o, "out", &a->out);
    TRY(launch_run(&l, q,
                   grid_of((columns + each * some - 1) / (each * some), a->dout.shape[2],
                           a->dout.shape[0] * heads, o.group),
                   (work){.flops = 8 * layer_numbers(&a->dout), .bytes = 2 * tensor_bytes(&a->x)}));
fail:
    return status;
}

static clsplat_status embed_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_embed_backward_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "DOUT", &a->dout);
    options_elements(&o, (double)a->vocabulary * (double)a->dout.shape[3]);
    TRY(options_launch(&o, q->device, source, "embed_backward", &l));
    launch_uint(&l, "rows", (uint32_t)a->dout.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->dout.shape[3]);
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_float(&l, "scale", a->scale != 0 ? a->scale : 1);
    launch_mem(&l, "ids", a->ids);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "dtable", a->dtable);
    TRY(finish_columns(q, &l, &a->dout, o.group));
fail:
    return status;
}

static clsplat_status entropy_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_cross_entropy_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->logits);
    TRY(options_launch(&o, q->device, source, "cross_entropy_rows", &l));
    launch_uint(&l, "rows", (uint32_t)a->logits.shape[2]);
    cross_entropy_arguments(&l, &o, a);
    TRY(finish(q, &l, &a->logits, a->logits.shape[2], o.group));
fail:
    return status;
}

static clsplat_status turn_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_turn_back_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    TRY(turn_back_begin(q, &o, source, "turn_back_rows", a, &l));
    TRY(launch_run(&l, q, grid_of(a->dout.shape[2], a->dout.shape[1], a->dout.shape[0], o.group),
                   (work){.flops = 3 * layer_numbers(&a->dout), .bytes = 2 * tensor_bytes(&a->dout)}));
fail:
    return status;
}

enum { SIDE = OP_TRANSPOSE_SIDE };

static clsplat_status transpose_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_transpose_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DX", &a->out);
    TRY(options_launch(&o, q->device, source, "transpose", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->x.shape[3]);
    launch_uint(&l, "heads", (uint32_t)a->x.shape[1]);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "out", &a->out);
    size_t across = (a->x.shape[2] + SIDE - 1) / SIDE, down = (a->x.shape[3] + SIDE - 1) / SIDE;
    TRY(launch_run(&l, q, grid_of(across, down, a->x.shape[0] * a->x.shape[1], o.group),
                   (work){.bytes = tensor_bytes(&a->x) + tensor_bytes(&a->out)}));
fail:
    return status;
}

static clsplat_status sums_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_column_sums_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    TRY(options_launch(&o, q->device, source, "column_sums", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->x.shape[3]);
    launch_uint(&l, "heads", (uint32_t)a->x.shape[1]);
    launch_uint(&l, "batch", (uint32_t)a->x.shape[0]);
    launch_tensor(&l, &o, "x", &a->x);
    launch_mem(&l, "sums", a->sums);
    TRY(finish_columns(q, &l, &a->x, o.group));
fail:
    return status;
}

/* The row for any device, and that for GPUs. */
#define ROWS(guarantee, run, source, fits, group_run)                                                        \
    {                                                                                                        \
        {"plain", guarantee, op_fits_all, run, source, &plain_space}, {                                      \
            "group", guarantee, fits, group_run, "layer_backward_group.cl", &tune_nothing                    \
        }                                                                                                    \
    }

static const op_variant norm_rows[] = ROWS("relative error of dx and of the sums of a few ulp", norm_run,
                                           norm_source, layer_group_fits, norm_backward_group_run),
                        activate_rows[] = {{"plain", "absolute error of a few ulp of the largest term",
                                            op_fits_all, activate_run, activate_source, &plain_space}},
                        embed_rows[] = ROWS("sums in the order of the tokens, or of their runs", embed_run,
                                            source, embed_backward_group_fits, embed_backward_group_run),
                        entropy_rows[] = ROWS("as score, and absolute error of a few ulp of scale",
                                              entropy_run, source, layer_group_fits, cross_entropy_group_run),
                        turn_rows[] =
                            ROWS("as rope", turn_run, source, layer_group_fits, turn_back_group_run),
                        transpose_rows[] =
                            ROWS("exact", transpose_run, source, layer_group_fits, transpose_group_run),
                        sums_rows[] = ROWS("sums in float32", sums_run, source, layer_group_fits,
                                           column_sums_group_run);

const op_family op_norm_backward_family = {"norm_backward", norm_rows, 2, NULL},
                op_activate_backward_family = {"activate_backward", activate_rows, 1, NULL},
                op_embed_backward_family = {"embed_backward", embed_rows, 2, NULL},
                op_cross_entropy_family = {"cross_entropy", entropy_rows, 2, NULL},
                op_turn_back_family = {"turn_back", turn_rows, 2, NULL},
                op_transpose_family = {"transpose", transpose_rows, 2, NULL},
                op_column_sums_family = {"column_sums", sums_rows, 2, NULL};

clsplat_status op_norm_backward(queue *q, const op_norm_backward_args *args) {
    return op_dispatch(q, &op_norm_backward_family, args);
}

clsplat_status op_activate_backward(queue *q, const op_activate_backward_args *args) {
    return op_dispatch(q, &op_activate_backward_family, args);
}

clsplat_status op_embed_backward(queue *q, const op_embed_backward_args *args) {
    return op_dispatch(q, &op_embed_backward_family, args);
}

clsplat_status op_cross_entropy(queue *q, const op_cross_entropy_args *args) {
    return op_dispatch(q, &op_cross_entropy_family, args);
}

clsplat_status op_turn_back(queue *q, const op_turn_back_args *args) {
    return op_dispatch(q, &op_turn_back_family, args);
}

clsplat_status op_transpose(queue *q, const op_transpose_args *args) {
    return op_dispatch(q, &op_transpose_family, args);
}

clsplat_status op_column_sums(queue *q, const op_column_sums_args *args) {
    return op_dispatch(q, &op_column_sums_family, args);
}
