#include "op/softmax.h"

/* Work-items of a group, 8 by 8, and the queries it has: as cl/softmax_local.cl chooses its tile by D and Dv.
 */
enum { LOCAL_GROUP = 64, LOCAL_MEMORY = (32 << 10) + 4, MMA_GROUP = 128 };

static bool columns_fit(const op_softmax_args *a, size_t multiple) {
    size_t dim = a->q.shape[3], value_dim = a->v.shape[3];
    return dim <= 128 && value_dim <= 128 && dim % multiple == 0 && value_dim % multiple == 0;
}

/* Rows of a tile share the moments at which their sums are rescaled, and so a last bit may depend on another
 * row's keys: what must be strictly causal is not for these rows of the table. */
static bool sees_all(const op_softmax_args *a) {
    return a->diagonal == OP_SEES_ALL && a->window == 0;
}

bool softmax_local_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return limits->local_memory >= LOCAL_MEMORY && limits->max_work_group >= LOCAL_GROUP && sees_all(a) &&
           columns_fit(a, 1) && a->q.shape[2] >= 16;
}

clsplat_status softmax_local_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    kernel_options o = {.group = LOCAL_GROUP};
    size_t queries = a->q.shape[3] > 64 || a->v.shape[3] > 64 ? 32 : 64;
    return softmax_launch(q, a, &o, "softmax_local.cl", "softmax_local", queries);
}

/* Rows are copied 16 bytes at a time. */
static bool is_aligned(const op_tensor *t) {
    return t->offset % 8 == 0 && t->stride[0] % 8 == 0 && t->stride[1] % 8 == 0 && t->stride[2] % 8 == 0;
}

bool softmax_mma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    bool half = a->q.dtype != CLSPLAT_F32 && a->k.dtype == a->q.dtype && a->v.dtype == a->q.dtype;
    return limits->nvidia_capability >= 80 && half && sees_all(a) && columns_fit(a, 16) && a->scale > 0 &&
           a->q.shape[2] >= 16 && is_aligned(&a->q) && is_aligned(&a->k) && is_aligned(&a->v) &&
           is_aligned(&a->out);
}

clsplat_status softmax_mma_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    kernel_options o = {.group = MMA_GROUP};
    size_t blocks = a->q.shape[3] + a->v.shape[3] > 128 ? 1 : 2; /* of 16 rows a warp */
    options_number(&o, "WG", MMA_GROUP);
    options_number(&o, "BLOCKS", blocks);
    return softmax_launch(q, a, &o, "softmax_mma.cl", "softmax_mma", MMA_GROUP / 32 * 16 * blocks);
}
