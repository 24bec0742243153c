#include "op/families.h"
#include "op/kernel.h"

/* Of one row: a number for every key, and with blocks one for each of them. */
static size_t row_scores(const op_topk_args *a) {
    size_t keys = a->k.shape[2];
    return a->block == 1 ? keys : keys + (keys + a->block - 1) / a->block;
}

size_t op_topk_scores(const op_topk_args *args) {
    return args->q.shape[0] * args->q.shape[1] * args->q.shape[2] * row_scores(args);
}

static clsplat_status plain_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_topk_args *a = args;
    size_t batch = a->q.shape[0], heads = a->q.shape[1], queries = a->q.shape[2], keys = a->k.shape[2];
    size_t keep = a->keep / a->block;
    double pairs = (double)(batch * heads) * (double)queries * (double)keys;
    kernel_options o;
    launch l;
    options_begin(&o, q->device);
    options_number(&o, "D", a->q.shape[3]);
    options_number(&o, "DV", a->v.shape[3]);
    options_number(&o, "BLOCK", a->block);
    options_tensor(&o, "Q", &a->q);
    options_tensor(&o, "K", &a->k);
    options_tensor(&o, "V", &a->v);
    options_tensor(&o, "OUT", &a->out);
    options_elements(&o, (double)op_topk_scores(a));
    TRY(options_launch(&o, q->device, "topk.cl", "topk_attention", &l));

    launch_uint(&l, "queries", (uint32_t)queries);
    launch_uint(&l, "keys", (uint32_t)keys);
    launch_uint(&l, "group", (uint32_t)(heads / a->k.shape[1]));
    launch_float(&l, "scale", a->scale);
    launch_int(&l, "diagonal", a->diagonal);
    launch_uint(&l, "keep", (uint32_t)(keep ? keep : 1));
    launch_uint(&l, "pitch", (uint32_t)row_scores(a));
    launch_mem(&l, "scores", a->scores);
    launch_tensor(&l, &o, "q", &a->q);
    launch_tensor(&l, &o, "k", &a->k);
    launch_tensor(&l, &o, "v", &a->v);
    launch_tensor(&l, &o, "out", &a->out);
    TRY(launch_run(&l, q, grid_of(queries, heads, batch, o.group),
                   (work){.flops = 2 * pairs * (double)a->q.shape[3],
                          .bytes = tensor_bytes(&a->q) + tensor_bytes(&a->k) + tensor_bytes(&a->v) +
                                   tensor_bytes(&a->out)}));
fail:
    return status;
}

static const op_variant variants[] = {
    {"plain", "relative error of out below 1e-5 in float32, if no two scores are nearly equal", op_fits_all,
     plain_run, "topk.cl", &tune_nothing},
};
const op_family op_topk_family = {"topk", variants, sizeof variants / sizeof *variants, NULL};

clsplat_status op_topk(queue *q, const op_topk_args *args) {
    return op_dispatch(q, &op_topk_family, args);
}
