#include <assert.h>
#include <math.h>

#include "op/families.h"
#include "op/softmax/softmax.h"
#include "op/softmax/softmax_backward.h"
#include "runtime/buffer.h"

/* The forward pass over the same pairs, whose work the backward pass is measured in. */
static op_softmax_args forward_of(const op_softmax_backward_args *a) {
    return (op_softmax_args){.q = a->q,
                             .k = a->k,
                             .v = a->v,
                             .key_bias = a->key_bias,
                             .out = a->out,
                             .lse = a->lse,
                             .scale = a->scale,
                             .diagonal = a->diagonal,
                             .window = a->window};
}

work softmax_backward_work(const op_softmax_backward_args *a, double keys, double values) {
    op_softmax_args forward = forward_of(a);
    work w = softmax_work(&forward);
    double dim = (double)a->q.shape[3], value_dim = (double)a->v.shape[3];
    w.flops *= (keys * dim + values * value_dim) / (dim + value_dim);
    w.bytes += tensor_bytes(&a->dout) + tensor_bytes(&a->dq) + tensor_bytes(&a->dk) + tensor_bytes(&a->dv);
    return w;
}

void softmax_backward_options(kernel_options *o, const op_softmax_backward_args *a) {
    op_softmax_args forward = forward_of(a);
    softmax_options(o, &forward);
    options_tensor(o, "DOUT", &a->dout);
    options_tensor(o, "DQ", &a->dq);
    options_tensor(o, "DK", &a->dk);
    options_tensor(o, "DV", &a->dv);
    options_optional(o, "DBIAS", &a->dkey_bias);
    options_number(o, "JOINT", a->joint);
    options_number(o, "DLSE", a->dlse.mem != NULL);
    options_elements(o, 2.0 * (double)(a->q.shape[0] * a->q.shape[1]) * (double)a->q.shape[2]);
}

void softmax_backward_inputs(launch *l, const kernel_options *o, const op_softmax_backward_args *a) {
    launch_uint(l, "queries", (uint32_t)a->q.shape[2]);
    launch_uint(l, "keys", (uint32_t)a->k.shape[2]);
    launch_uint(l, "group", (uint32_t)(a->q.shape[1] / a->k.shape[1]));
    launch_float(l, "scale", a->scale);
    launch_int(l, "diagonal", a->diagonal);
    launch_tensor(l, o, "q", &a->q);
    launch_tensor(l, o, "k", &a->k);
    launch_tensor(l, o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(l, o, "bias", &a->key_bias);
}

void softmax_backward_results(launch *l, const kernel_options *o, const op_softmax_backward_args *a) {
    launch_tensor(l, o, "dk", &a->dk);
    launch_tensor(l, o, "dv", &a->dv);
    if (a->dkey_bias.mem)
        launch_tensor(l, o, "dbias", &a->dkey_bias);
}

static clsplat_status by_rows(queue *q, const op_softmax_backward_args *a, cl_mem stats) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    softmax_backward_options(&o, a);
    TRY(options_launch(&o, q->device, "softmax_backward.cl", "softmax_backward_rows", &l));
    softmax_backward_inputs(&l, &o, a);
    launch_tensor(&l, &o, "out", &a->out);
    launch_tensor(&l, &o, "lse", &a->lse);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_tensor(&l, &o, "dq", &a->dq);
    launch_mem(&l, "stats", stats);
    if (a->dlse.mem)
        launch_tensor(&l, &o, "dlse", &a->dlse);
    TRY(launch_run(&l, q, grid_of(a->q.shape[2], a->q.shape[1], a->q.shape[0], o.group),
                   softmax_backward_work(a, 2, 1)));
fail:
    return status;
}

static clsplat_status by_keys(queue *q, const op_softmax_backward_args *a, cl_mem stats) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    softmax_backward_options(&o, a);
    TRY(options_launch(&o, q->device, "softmax_backward.cl", "softmax_backward_keys", &l));
    softmax_backward_inputs(&l, &o, a);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "stats", stats);
    softmax_backward_results(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(a->k.shape[2], a->k.shape[1], a->k.shape[0], o.group),
                   softmax_backward_work(a, 2, 2)));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_softmax_backward_args *a = args;
    cl_mem stats;
    TRY(workspace_take(q->device, WORKSPACE_GRAD_STATS, 8 * a->q.shape[0] * a->q.shape[1] * a->q.shape[2],
                       &stats));
    TRY(by_rows(q, a, stats));
    TRY(by_keys(q, a, stats));
fail:
    return status;
}

static bool wide_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_backward_args *a = args;
    return limits_are_wide(limits) && a->q.shape[3] % 16 == 0 && a->v.shape[3] % 16 == 0 &&
           a->q.shape[3] <= 256 && a->v.shape[3] <= 256;
}

/* Register tiles, as wide_space, that blocks of keys divide into. */
static const tune_space wide_tiles = {2, {{"RT", {4, 2, 8}}, {"LANES", {4, 2}}}, NULL};

/* Two work-items of a head's keys for each compute unit, over all heads; each has a dq of its own, of which
 * they may together have a share of the memory only. */
static size_t ranges_of(const clsplat_limits *limits, const op_softmax_backward_args *a) {
    enum { BLOCK = 64 };
    size_t heads = a->k.shape[0] * a->k.shape[1], blocks = (a->k.shape[2] + BLOCK - 1) / BLOCK;
    size_t wanted = (2 * limits->compute_units + heads - 1) / heads;
    double bytes = 4.0 * (double)(a->q.shape[0] * a->q.shape[1]) * (double)(a->q.shape[2] * a->q.shape[3]);
    double room = fmin((double)limits->max_allocation, (double)limits->global_memory / 8) / bytes;
    wanted = wanted < blocks ? wanted : blocks;
    return room < (double)wanted ? (size_t)fmax(room, 1) : wanted;
}

/* The same for all three kernels, which are one program then. */
static void wide_options(kernel_options *o, queue *q, const op_softmax_backward_args *a, size_t ranges) {
    *o = (kernel_options){.group = 1};
    options_tuned(o, q, &wide_tiles);
    softmax_backward_options(o, a);
    options_elements(o, (double)ranges * (double)(a->q.shape[0] * a->q.shape[1]) *
                            (double)(a->q.shape[2] * a->q.shape[3]));
}

static clsplat_status wide_begin(queue *q, const op_softmax_backward_args *a, size_t ranges, cl_mem stats) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    wide_options(&o, q, a, ranges);
    TRY(options_launch(&o, q->device, "softmax_backward_wide.cl", "softmax_backward_begin", &l));
    launch_uint(&l, "queries", (uint32_t)a->q.shape[2]);
    launch_tensor(&l, &o, "out", &a->out);
    launch_tensor(&l, &o, "lse", &a->lse);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "stats", stats);
    if (a->dlse.mem)
        launch_tensor(&l, &o, "dlse", &a->dlse);
    TRY(launch_run(&l, q, grid_of(a->q.shape[2], a->q.shape[1], a->q.shape[0], 1),
                   (work){.flops = tensor_bytes(&a->out) / 2, .bytes = 2 * tensor_bytes(&a->out)}));
fail:
    return status;
}

static clsplat_status wide_merge(queue *q, const op_softmax_backward_args *a, size_t ranges, cl_mem parts) {
    clsplat_status status = CLSPLAT_OK;
    double bytes = (double)ranges * tensor_bytes(&a->q);
    kernel_options o;
    launch l;
    wide_options(&o, q, a, ranges);
    TRY(options_launch(&o, q->device, "softmax_backward_wide.cl", "softmax_backward_merge", &l));
    launch_uint(&l, "queries", (uint32_t)a->q.shape[2]);
    launch_uint(&l, "ranges", (uint32_t)ranges);
    launch_float(&l, "scale", a->scale);
    launch_mem(&l, "part_dq", parts);
    launch_tensor(&l, &o, "dq", &a->dq);
    TRY(launch_run(&l, q, grid_of(a->q.shape[2], a->q.shape[1], a->q.shape[0], 1),
                   (work){.flops = bytes / 4, .bytes = bytes}));
fail:
    return status;
}

static clsplat_status wide_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_softmax_backward_args *a = args;
    size_t rows = a->q.shape[0] * a->q.shape[1] * a->q.shape[2];
    size_t ranges = ranges_of(&q->device->info.limits, a);
    kernel_options o;
    cl_mem stats, parts;
    launch l;
    TRY(workspace_take(q->device, WORKSPACE_GRAD_STATS, 8 * rows, &stats));
    TRY(workspace_take(q->device, WORKSPACE_GRAD_PART_VALUE, 4 * ranges * rows * a->q.shape[3], &parts));
    TRY(wide_begin(q, a, ranges, stats));
    wide_options(&o, q, a, ranges);
    TRY(options_launch(&o, q->device, "softmax_backward_wide.cl", "softmax_backward_wide", &l));
    softmax_backward_inputs(&l, &o, a);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "stats", stats);
    launch_mem(&l, "part_dq", parts);
    softmax_backward_results(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(ranges, a->k.shape[1], a->k.shape[0], 1), softmax_backward_work(a, 3, 2)));
    TRY(wide_merge(q, a, ranges, parts));
fail:
    return status;
}

static void shape_of(const void *args, tune_shape *shape) {
    op_softmax_args forward = forward_of(args);
    op_softmax_family.shape(&forward, shape);
}

static const op_variant variants[] = {
    {"plain", "relative error of a gradient below 1e-5 in float32, and an ulp of the largest lse",
     op_fits_all, plain_run, "softmax_backward.cl", &plain_space},
    {"wide", "the same, and an ulp of every row's lse", wide_fits, wide_run, "softmax_backward_wide.cl",
     &wide_tiles},
    {"local", "the same, and an ulp of every row's lse", softmax_backward_local_fits,
     softmax_backward_local_run, "softmax_backward_local.cl", &tune_nothing},
    {"mma",
     "relative error of a gradient below 2e-2: weights and what they receive are rounded to the inputs' type",
     softmax_backward_mma_fits, softmax_backward_mma_run, "softmax_backward_mma.cl", &tune_nothing},
    {"wgmma", "the same", softmax_backward_wgmma_fits, softmax_backward_wgmma_run, "softmax_backward_mma.cl",
     &softmax_backward_wgmma_space},
};
const op_family op_softmax_backward_family = {"softmax_backward", variants,
                                              sizeof variants / sizeof *variants, shape_of};

clsplat_status op_softmax_backward(queue *q, const op_softmax_backward_args *args) {
    assert(args->window == 0 || args->diagonal != OP_SEES_ALL);
    return op_dispatch(q, &op_softmax_backward_family, args);
}
