#include "op/local_rows.h"
#include "op/softmax/softmax_backward.h"
#include "runtime/buffer.h"

enum { MMA_GROUP = 128 };

/* The largest tile that there is room for; high 0: none. */
static rows_tile tile_for(const clsplat_limits *limits, const op_softmax_backward_args *a) {
    size_t columns = rows_pitch(a->q.shape[3]) + rows_pitch(a->v.shape[3]);
    return rows_tile_for(limits, (rows_shape){.row = columns, .source = columns + 2, .weights = true});
}

static clsplat_status stats_make(queue *q, const op_softmax_backward_args *a, cl_mem *stats) {
    enum { GROUP = 64, SHARE = 8 }; /* items of a query */
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    TRY(workspace_take(q->device, WORKSPACE_GRAD_STATS, 8 * a->q.shape[0] * a->q.shape[1] * a->q.shape[2],
                       stats));
    options_group_of(&o, q->device, GROUP);
    options_number(&o, "SHARE", SHARE);
    softmax_backward_options(&o, a);
    TRY(options_launch(&o, q->device, "softmax_backward_stats.cl", "softmax_backward_stats", &l));
    launch_uint(&l, "queries", (uint32_t)a->q.shape[2]);
    launch_tensor(&l, &o, "out", &a->out);
    launch_tensor(&l, &o, "lse", &a->lse);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "stats", *stats);
    if (a->dlse.mem)
        launch_tensor(&l, &o, "dlse", &a->dlse);
    TRY(launch_run(&l, q, grid_of(a->q.shape[2] * SHARE, a->q.shape[1], a->q.shape[0], o.group),
                   (work){.flops = tensor_bytes(&a->out) / 2, .bytes = 2 * tensor_bytes(&a->out)}));
fail:
    return status;
}

/* A row's kernel for queries or for keys, and how many rows a group of it has. */
typedef struct pass {
    const char *source, *kernel;
    size_t rows;
    bool of_keys;
} pass;

static clsplat_status pass_run(queue *q, const op_softmax_backward_args *a, kernel_options *o, pass p,
                               cl_mem stats) {
    clsplat_status status = CLSPLAT_OK;
    const op_tensor *rows = p.of_keys ? &a->k : &a->q;
    launch l;
    options_number(o, "OF_KEYS", p.of_keys);
    softmax_backward_options(o, a);
    TRY(options_launch(o, q->device, p.source, p.kernel, &l));
    softmax_backward_inputs(&l, o, a);
    launch_tensor(&l, o, "dout", &a->dout);
    launch_mem(&l, "stats", stats);
    if (p.of_keys)
        softmax_backward_results(&l, o, a);
    else
        launch_tensor(&l, o, "dq", &a->dq);
    TRY(launch_run(
        &l, q,
        grid_of((rows->shape[2] + p.rows - 1) / p.rows * o->group, rows->shape[1], rows->shape[0], o->group),
        softmax_backward_work(a, 2, p.of_keys ? 2 : 1)));
fail:
    return status;
}

bool softmax_backward_local_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_backward_args *a = args;
    return a->q.shape[3] <= 128 && a->v.shape[3] <= 128 && tile_for(limits, a).high > 0;
}

clsplat_status softmax_backward_local_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_softmax_backward_args *a = args;
    rows_tile tile = tile_for(&q->device->info.limits, a);
    cl_mem stats;
    TRY(stats_make(q, a, &stats));
    for (int of_keys = 0; of_keys < 2; ++of_keys) {
        kernel_options o;
        options_rows(&o, q->device, tile);
        pass p = {"softmax_backward_local.cl",
                  of_keys ? "softmax_backward_local_keys" : "softmax_backward_local_queries", rows_high(tile),
                  of_keys};
        TRY(pass_run(q, a, &o, p, stats));
    }
fail:
    return status;
}

bool softmax_backward_mma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_backward_args *a = args;
    const op_tensor *inputs[] = {&a->q, &a->k, &a->v, &a->dout};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; ++i)
        if (!tensor_suits_mma(inputs[i]) || inputs[i]->dtype != a->q.dtype)
            return false;
    return limits_have_mma(limits) && a->q.shape[3] == a->v.shape[3] && a->q.shape[3] <= 128 &&
           a->q.shape[3] % 16 == 0 && a->k.shape[2] > 0 && tensor_suits_fours(&a->dq) &&
           tensor_suits_fours(&a->dk) && tensor_suits_fours(&a->dv);
}

static clsplat_status mma_run(queue *q, const op_softmax_backward_args *a, uint32_t group, bool wgmma) {
    clsplat_status status = CLSPLAT_OK;
    cl_mem stats;
    TRY(stats_make(q, a, &stats));
    for (int of_keys = 0; of_keys < 2; ++of_keys) {
        kernel_options o = {.group = group};
        options_number(&o, "WG", group);
        options_number(&o, "BLOCKS", 1); /* of 16 rows a warp */
        options_number(&o, "WGMMA", wgmma);
        pass p = {"softmax_backward_mma.cl",
                  of_keys ? "softmax_backward_mma_keys" : "softmax_backward_mma_queries", group / 32 * 16,
                  of_keys};
        TRY(pass_run(q, a, &o, p, stats));
    }
fail:
    return status;
}

clsplat_status softmax_backward_mma_run(queue *q, const void *args) {
    return mma_run(q, args, MMA_GROUP, false);
}

bool softmax_backward_wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_backward_args *a = args;
    return limits_have_wgmma(limits) && softmax_backward_mma_fits(limits, args) && a->q.shape[3] == 64;
}

enum { GROUP };
const tune_space softmax_backward_wgmma_space = {1, {{"GROUP", {MMA_GROUP, 2 * MMA_GROUP}}}, NULL};

clsplat_status softmax_backward_wgmma_run(queue *q, const void *args) {
    return mma_run(q, args, tuned_value(q, &softmax_backward_wgmma_space, GROUP), true);
}
