#include "op/tree/near_far.h"

#include <math.h>

#include "op/families.h"

work near_far_work(const op_near_far_args *a) {
    const op_forest *f = a->forest;
    double rows = (double)(a->q.shape[0] * a->q.shape[1] * a->q.shape[2]),
           columns = (double)(f->dim + f->value_dim);
    double chunks = ((double)a->keys - (double)a->q.shape[2] / 2) / (double)f->chunk,
           own = (double)f->chunk / 2;
    if (a->diagonal == OP_SEES_ALL) {
        chunks = (double)a->keys / (double)f->chunk;
        own = 0;
    }
    return (work){.flops = 2 * rows * (fmax(chunks, 0) + own) * columns,
                  .bytes = tensor_bytes(&a->q) + tensor_bytes(&a->out) + tensor_bytes(&a->lse)};
}

size_t near_far_group(const op_near_far_args *a) {
    return a->q.shape[1] / a->forest->heads;
}

size_t near_far_share(const op_near_far_args *a, size_t rows) {
    size_t group = near_far_group(a), share = 1;
    while (rows / share / 2 >= a->q.shape[2] && group % (2 * share) == 0)
        share *= 2;
    return share;
}

size_t near_far_tiles(const op_near_far_args *a, size_t span) {
    size_t lead = a->diagonal == OP_SEES_ALL ? 0 : (size_t)(a->diagonal & (int32_t)(span - 1));
    return (lead + a->q.shape[2] + span - 1) / span;
}

void options_near_far(kernel_options *o, const op_near_far_args *a) {
    bool own = a->diagonal != OP_SEES_ALL;
    options_forest(o, a->forest);
    options_number(o, "OWN", own);
    options_number(o, "BIAS", own && a->key_bias.mem);
    options_number(o, "COUNTED", a->exact_keys.mem != NULL);
    options_number(o, "ESTIMATED", a->error_estimate.mem != NULL);
    if (a->kept) {
        options_number(o, "KEPT", 1);
        options_elements(o, (double)OP_KEPT * (double)(a->q.shape[0] * a->q.shape[1] * a->q.shape[2]));
    }
    if (a->notes) {
        options_number(o, "NOTED", 1);
        options_elements(o,
                         (double)a->forest->chunks * (double)(a->q.shape[0] * a->q.shape[1] * a->q.shape[2]));
    }
    options_tensor(o, "Q", &a->q);
    if (own) {
        options_tensor(o, "K", &a->k);
        options_tensor(o, "V", &a->v);
        if (a->key_bias.mem)
            options_tensor(o, "BIAS", &a->key_bias);
    }
    options_tensor(o, "OUT", &a->out);
    options_tensor(o, "LSE", &a->lse);
    if (a->error_estimate.mem)
        options_tensor(o, "ERROR", &a->error_estimate);
}

void launch_near_far_inputs(launch *l, const kernel_options *o, const op_near_far_args *a) {
    launch_uint(l, "queries", (uint32_t)a->q.shape[2]);
    launch_uint(l, "keys", (uint32_t)a->keys);
    launch_uint(l, "group", (uint32_t)(a->q.shape[1] / a->forest->heads));
    launch_float(l, "scale", a->scale);
    launch_int(l, "diagonal", a->diagonal);
    launch_uint(l, "first_key", (uint32_t)a->first_key);
    launch_float(l, "tolerance", a->tolerance);
    launch_uint(l, "limit", (uint32_t)a->sparse_topk);
    launch_forest_shape(l, a->forest);
    launch_tensor(l, o, "q", &a->q);
    if (a->diagonal != OP_SEES_ALL) {
        launch_tensor(l, o, "k", &a->k);
        launch_tensor(l, o, "v", &a->v);
        if (a->key_bias.mem)
            launch_tensor(l, o, "bias", &a->key_bias);
    }
    launch_forest_keys(l, a->forest);
    launch_forest_nodes(l, a->forest);
    launch_mem(l, "covariances", a->forest->covariances);
    launch_mem(l, "apart", a->forest->apart);
}

void launch_near_far_results(launch *l, const kernel_options *o, const op_near_far_args *a) {
    launch_tensor(l, o, "out", &a->out);
    launch_tensor(l, o, "lse", &a->lse);
    if (a->exact_keys.mem)
        launch_tensor(l, o, "exact", &a->exact_keys);
    if (a->error_estimate.mem)
        launch_tensor(l, o, "error", &a->error_estimate);
    if (a->kept)
        launch_mem(l, "kept", a->kept);
    if (a->notes)
        launch_mem(l, "notes", a->notes);
}

void launch_near_far(launch *l, const kernel_options *o, const op_near_far_args *a) {
    launch_near_far_inputs(l, o, a);
    launch_near_far_results(l, o, a);
}

static clsplat_status plain_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_near_far(&o, a);
    TRY(options_launch(&o, q->device, "near_far.cl", "near_far", &l));
    launch_near_far(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(a->q.shape[2], a->q.shape[1], a->q.shape[0], o.group), near_far_work(a)));
fail:
    return status;
}

static void near_far_shape(const void *args, tune_shape *shape) {
    const op_near_far_args *a = args;
    *shape = (tune_shape){.heads = a->q.shape[0] * a->q.shape[1],
                          .rows = a->q.shape[2],
                          .sources = a->keys,
                          .dim = a->forest->dim,
                          .value_dim = a->forest->value_dim};
    shape_words(shape, a->forest->dtype, a->diagonal == OP_SEES_ALL ? "-" : "causal");
}

static const op_variant variants[] = {
    {"plain", "relative error of out below 1e-5 in float32 against the same nodes and keys", op_fits_all,
     plain_run, "near_far.cl", &plain_space},
    {"local", "relative error of out below 1e-5 in float32 against the same nodes and keys",
     near_far_local_fits, near_far_local_run, "near_far_local.cl", &tune_nothing},
    {"wide", "relative error of out below 1e-5 in float32 against the same nodes and keys",
     near_far_wide_fits, near_far_wide_run, "near_far_wide.cl", &near_far_wide_space},
    {"split", "relative error of out below 1e-5 in float32 against the same nodes and keys",
     near_far_split_fits, near_far_split_run, "near_far_split.cl", &tune_nothing},
    {"units", "as local, but below 1e-2: nodes' variances and weights are rounded to the inputs' type",
     near_far_units_fits, near_far_units_run, "near_far_local.cl", &tune_nothing},
    {"mma",
     "relative error of out below 1e-2 against softmax over what a row opened, in the inputs' type; a row "
     "also opens what an earlier token of its tile did",
     near_far_mma_fits, near_far_mma_run, "near_far_mma.cl", &tune_nothing},
    {"wgmma", "the same", near_far_wgmma_fits, near_far_wgmma_run, "near_far_mma.cl", &tune_nothing},
};
const op_family op_near_far_family = {"near_far", variants, sizeof variants / sizeof *variants,
                                      near_far_shape};

clsplat_status op_near_far(queue *q, const op_near_far_args *args) {
    return op_dispatch(q, &op_near_far_family, args);
}
