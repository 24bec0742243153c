#include "op/tree/near_far.h"

/* A step's sources, and columns at most: cl/tree/near_far_local.cl. */
enum { SOURCES = 16, COLUMNS_MOST = 128 };

/* Bytes of the kernel's arrays, for groups of `high` times 8 items. */
static size_t tile_bytes(const op_forest *f, size_t high) {
    size_t rows = OP_LOCAL_EACH * high, columns = (f->value_dim + 31) / 32 * 32,
           values = SOURCES * (rows + columns), keys = SOURCES * f->dim;
    return sizeof(float) *
           (f->dim * rows + (keys > values ? keys : values) + SOURCES * (OP_NODE_STATS + 2) + rows + 3);
}

/* Items of a group along the rows, as many as there is room for and a chunk has tokens; 0: none. */
static size_t high_for(const clsplat_limits *limits, const op_forest *f) {
    for (size_t high = 16; high >= 8; high /= 2)
        if (OP_LOCAL_EACH * high <= f->chunk &&
            limits_allow_group(limits, (uint32_t)(OP_LOCAL_ACROSS * high)) &&
            tile_bytes(f, high) <= limits_local_share(limits))
            return high;
    return 0;
}

bool near_far_local_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    const op_forest *f = a->forest;
    return limits->local_memory > 0 && f->chunk == SOURCES * f->leaf && f->dim <= COLUMNS_MOST &&
           f->value_dim <= COLUMNS_MOST && a->sparse_topk == 0 && !a->kept && high_for(limits, f) > 0;
}

clsplat_status near_far_local_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_args *a = args;
    size_t high = high_for(&q->device->info.limits, a->forest), rows = OP_LOCAL_EACH * high,
           share = near_far_share(a, rows);
    kernel_options o = {.group = (uint32_t)(OP_LOCAL_ACROSS * high)};
    launch l;
    options_number(&o, "TY", high);
    options_number(&o, "SHARE", share);
    options_eager(&o, q->device);
    options_near_far(&o, a);
    TRY(options_launch(&o, q->device, "near_far_local.cl", "near_far_local", &l));
    launch_near_far(&l, &o, a);
    TRY(launch_run(
        &l, q,
        grid_of(near_far_tiles(a, rows / share) * o.group, a->q.shape[1] / share, a->q.shape[0], o.group),
        near_far_work(a)));
fail:
    return status;
}
