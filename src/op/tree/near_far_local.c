#include "op/tree/near_far.h"

/* A step's sources, columns at most, and rows on matrix units: cl/tree/near_far_local.cl. */
enum { SOURCES = 16, COLUMNS_MOST = 128, UNITS_ROWS = 64 };

/* Bytes of the kernel's arrays, with room to align them, for groups of `high` times 8 items. */
static size_t tile_bytes(const op_forest *f, size_t high) {
    size_t rows = OP_LOCAL_EACH * high, columns = (f->value_dim + 31) / 32 * 32,
           values = SOURCES * (rows + columns), keys = SOURCES * f->dim;
    return sizeof(float) *
           (f->dim * rows + (keys > values ? keys : values) + SOURCES * (OP_NODE_STATS + 2) + rows + 8);
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

static clsplat_status run(queue *q, const op_near_far_args *a, kernel_options *o, size_t high, size_t rows) {
    clsplat_status status = CLSPLAT_OK;
    size_t share = near_far_share(a, rows);
    launch l;
    options_number(o, "TY", high);
    options_number(o, "SHARE", share);
    options_eager(o, q->device);
    options_narrow(o, q->device);
    options_near_far(o, a);
    if (q->device->info.limits.nvidia_capability) /* four groups at a time, three of wide rows */
        text_add(&o->text, " -cl-nv-maxrregcount=%d", a->forest->value_dim <= 64 ? 128 : 168);
    TRY(options_launch(o, q->device, "near_far_local.cl", "near_far_local", &l));
    launch_near_far(&l, o, a);
    TRY(launch_run(
        &l, q,
        grid_of(near_far_tiles(a, rows / share) * o->group, a->q.shape[1] / share, a->q.shape[0], o->group),
        near_far_work(a)));
fail:
    return status;
}

clsplat_status near_far_local_run(queue *q, const void *args) {
    const op_near_far_args *a = args;
    size_t high = high_for(&q->device->info.limits, a->forest);
    kernel_options o = {.group = (uint32_t)(OP_LOCAL_ACROSS * high)};
    return run(q, a, &o, high, OP_LOCAL_EACH * high);
}

/* Items that share a row in cl/tree/near_far_units.clh; 0: there are no such units, or they spill registers.
 */
static size_t sharers_of(const clsplat_limits *limits, const op_forest *f) {
    bool small = f->dim + f->value_dim <= 128;
    switch (limits->matrix_units) {
    case CLSPLAT_UNITS_WMMA:
        return small ? 2 : 0;
    case CLSPLAT_UNITS_MFMA:
        return 4;
    case CLSPLAT_UNITS_DPAS:
        return small && (limits->subgroup == 16 || limits->subgroup == 8);
    case CLSPLAT_UNITS_NONE:
        break;
    }
    return 0;
}

static size_t units_rows(const op_forest *f) {
    return f->chunk < UNITS_ROWS ? f->chunk : UNITS_ROWS;
}

/* Bytes of its arrays. */
static size_t units_bytes(const op_forest *f, size_t group) {
    size_t keys = SOURCES * (f->dim + 8) / 2, values = f->value_dim * (SOURCES + 8) / 2;
    return sizeof(float) * ((2 * group > keys ? 2 * group : keys) + values + SOURCES * (OP_NODE_STATS + 2) +
                            units_rows(f) + 8);
}

bool near_far_units_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    const op_forest *f = a->forest;
    size_t group = sharers_of(limits, f) * units_rows(f);
    bool own = a->diagonal != OP_SEES_ALL, same = f->dtype != CLSPLAT_F32 && a->q.dtype == f->dtype;
    if (own)
        same = same && a->k.dtype == f->dtype && a->v.dtype == f->dtype;
    return group > 0 && same && near_far_local_fits(limits, args) && f->chunk >= UNITS_ROWS / 2 &&
           f->dim % 16 == 0 && f->value_dim % 16 == 0 && tensor_suits_mma(&a->q) && a->q.shape[2] >= 16 &&
           limits_allow_group(limits, (uint32_t)group) && units_bytes(f, group) <= limits_local_share(limits);
}

clsplat_status near_far_units_run(queue *q, const void *args) {
    const op_near_far_args *a = args;
    const clsplat_limits *limits = &q->device->info.limits;
    size_t sharers = sharers_of(limits, a->forest), rows = units_rows(a->forest);
    kernel_options o = {.group = (uint32_t)(sharers * rows)};
    options_number(&o, "UNITS", (size_t)limits->matrix_units);
    if (limits->matrix_units == CLSPLAT_UNITS_DPAS)
        options_number(&o, "WARP", limits->subgroup);
    options_number(&o, "TX", sharers);
    return run(q, a, &o, rows, rows);
}
