#include "op/tree/near_far.h"

#include "op/families.h"

/* Rows of a tile: the more there are, the fewer times a tree is read, but their states and scores must stay
 * in a core's cache. */
enum { ROWS = 64, ROWS_MOST = 128, BLOCK = 16 };

const tune_space near_far_wide_space = {1, {{"SPAN", {0, 8, 16, 32, 64}}}, NULL};

bool near_far_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    return limits_are_wide(limits) && a->forest->dim % BLOCK == 0 && a->forest->value_dim % BLOCK == 0 &&
           near_far_group(a) <= ROWS && !(a->kept && a->sparse_topk > 0) && !a->notes;
}

/* Blocks of 16 roots that a row may have, rounded up so that few programs are built. A row has 128 bytes
 * of private memory for each. */
static size_t root_blocks(const op_forest *f) {
    enum { STEP = 128 };
    size_t nodes = f->chunks, level = f->top, blocks = 0, rounded = 4;
    while (level + 1 < f->levels && nodes >= OP_ROOTS_LEAST * BLOCK) {
        nodes /= BLOCK;
        ++level;
        blocks += 2;
    }
    if (level > f->top && nodes < OP_ROOTS_LEAST * BLOCK)
        nodes = OP_ROOTS_LEAST * BLOCK; /* earlier rows still start one level below */
    blocks += (nodes + BLOCK - 1) / BLOCK + 1;
    while (rounded < blocks)
        rounded += rounded < STEP ? rounded : STEP;
    return rounded;
}

/* Positions of a tile of 128 rows, or 64 where roots are many or tiles too few for all compute units; of
 * fewer positions the more heads share a key head; no more than there are. */
static size_t span_of(const queue *q, const op_near_far_args *a) {
    enum { ROOT_BLOCKS_MOST = 32, TILES_EACH = 8 };
    size_t span = tuned_value(q, &near_far_wide_space, 0), rows = ROWS_MOST;
    size_t tiles = a->q.shape[0] * a->q.shape[1] * a->q.shape[2] / ROWS_MOST;
    if (root_blocks(a->forest) > ROOT_BLOCKS_MOST ||
        tiles < (size_t)TILES_EACH * q->device->info.limits.compute_units)
        rows = ROWS;
    if (span == 0)
        span = rows;
    while (span > 1 &&
           (span * near_far_group(a) > rows || span > a->forest->chunk || span / 2 >= a->q.shape[2]))
        span /= 2;
    return span;
}

clsplat_status near_far_wide_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_args *a = args;
    size_t span = span_of(q, a);
    kernel_options o = {.group = 1};
    launch l;
    options_number(&o, "SPAN", span);
    options_number(&o, "GROUP", near_far_group(a));
    options_number(&o, "LIMITED", a->sparse_topk > 0);
    options_number(&o, "ROOT_BLOCKS", root_blocks(a->forest));
    options_near_far(&o, a);
    TRY(options_launch(&o, q->device, "near_far_wide.cl", "near_far_wide", &l));
    launch_near_far(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(near_far_tiles(a, span), a->forest->heads, a->q.shape[0], 1),
                   near_far_work(a)));
fail:
    return status;
}
