#include "op/tree/near_far.h"

/* Columns at most: cl/tree/near_far_local.cl. */
enum { COLUMNS_MOST = 128, BLOCK = 16 };

/* A tile: items of a group along the rows, and sources of a step. */
typedef struct tile {
    size_t high, sources;
} tile;

static const tile tiles[] = {{16, 2 * BLOCK}, {8, 2 * BLOCK}, {8, BLOCK}};

/* Bytes of the kernel's arrays. */
static size_t tile_bytes(const op_forest *f, tile t) {
    size_t rows = OP_LOCAL_EACH * t.high, columns = (f->value_dim + 31) / 32 * 32,
           values = t.sources * (rows + columns), keys = t.sources * f->dim;
    return sizeof(float) * (f->dim * rows + (keys > values ? keys : values) +
                            t.sources * (OP_NODE_STATS + 2) + t.sources / BLOCK * rows + 3);
}

/* The first for which there is room, and no more tokens than in a chunk; NULL: none. */
static const tile *tile_for(const clsplat_limits *limits, const op_forest *f) {
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++)
        if (OP_LOCAL_EACH * tiles[i].high <= f->chunk && tiles[i].sources <= f->chunk &&
            limits_allow_group(limits, (uint32_t)(OP_LOCAL_ACROSS * tiles[i].high)) &&
            tile_bytes(f, tiles[i]) <= limits_local_share(limits))
            return &tiles[i];
    return NULL;
}

bool near_far_local_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    const op_forest *f = a->forest;
    return limits->local_memory > 0 && f->chunk == BLOCK * f->leaf && f->dim <= COLUMNS_MOST &&
           f->value_dim <= COLUMNS_MOST && a->sparse_topk == 0 && !a->kept && tile_for(limits, f);
}

clsplat_status near_far_local_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_args *a = args;
    const tile *t = tile_for(&q->device->info.limits, a->forest);
    size_t rows = OP_LOCAL_EACH * t->high, share = near_far_share(a, rows);
    kernel_options o = {.group = (uint32_t)(OP_LOCAL_ACROSS * t->high)};
    launch l;
    options_number(&o, "TY", t->high);
    options_number(&o, "CT", t->sources / OP_LOCAL_ACROSS);
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
