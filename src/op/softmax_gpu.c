#include "op/softmax.h"

enum { MMA_GROUP = 128 };

static bool columns_fit(const op_softmax_args *a, size_t multiple) {
    size_t dim = a->q.shape[3], value_dim = a->v.shape[3];
    return dim <= 128 && value_dim <= 128 && dim % multiple == 0 && value_dim % multiple == 0;
}

/* Items of a group along the queries, four queries each, in cl/softmax_local.cl: as many as local memory and
 * group size allow, or 0. */
static size_t local_items(const clsplat_limits *limits, const op_softmax_args *a) {
    size_t dim = a->q.shape[3], value_dim = a->v.shape[3], keys = dim > 64 || value_dim > 64 ? 16 : 32;
    for (size_t items = 16; items >= 8; items /= 2) {
        size_t queries = 4 * items, shared = keys * (dim > queries ? dim : queries);
        size_t floats = dim * queries + shared + keys * ((value_dim + 31) / 32 * 32) + 1;
        if (limits->max_work_group >= 8 * items && limits->local_memory >= 4 * floats)
            return items;
    }
    return 0;
}

bool softmax_local_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return a->window == 0 && columns_fit(a, 1) && a->q.shape[2] >= 16 && local_items(limits, a) > 0;
}

clsplat_status softmax_local_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    size_t items = local_items(&q->device->info.limits, a);
    kernel_options o = {.group = (uint32_t)(8 * items)};
    options_number(&o, "TY", items);
    return softmax_launch(q, a, &o, "softmax_local.cl", "softmax_local", 4 * items);
}

bool softmax_mma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return limits_have_mma(limits) && a->window == 0 && tensor_suits_mma(&a->q) && tensor_suits_mma(&a->k) &&
           tensor_suits_mma(&a->v) && a->k.dtype == a->q.dtype && a->v.dtype == a->q.dtype &&
           columns_fit(a, 16) && a->scale > 0 && a->k.shape[2] > 0 && a->q.shape[2] >= 16 &&
           a->out.offset % 4 == 0 && a->out.stride[0] % 4 == 0 && a->out.stride[1] % 4 == 0 &&
           a->out.stride[2] % 4 == 0;
}

static clsplat_status mma_run(queue *q, const op_softmax_args *a, size_t blocks, bool wgmma) {
    kernel_options o = {.group = MMA_GROUP};
    options_number(&o, "WG", MMA_GROUP);
    options_number(&o, "BLOCKS", blocks); /* of 16 rows a warp */
    options_number(&o, "WGMMA", wgmma);
    return softmax_launch(q, a, &o, "softmax_mma.cl", "softmax_mma", MMA_GROUP / 32 * 16 * blocks);
}

clsplat_status softmax_mma_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    return mma_run(q, a, a->q.shape[3] + a->v.shape[3] > 128 ? 1 : 2, false);
}

bool softmax_wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return limits_have_wgmma(limits) && softmax_mma_fits(limits, args) && a->q.shape[3] == 64 &&
           a->v.shape[3] == 64;
}

clsplat_status softmax_wgmma_run(queue *q, const void *args) {
    return mma_run(q, args, 1, true);
}
