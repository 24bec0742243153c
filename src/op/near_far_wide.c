#include "op/near_far.h"

#include "op/families.h"
#include "runtime/buffer.h"

/* Rows of a tile: the more there are, the fewer times a tree is read, but their states and scores must stay
 * in a core's cache. */
enum { ROWS = 64, ROWS_MOST = 128, BLOCK = 16 };

const tune_space near_far_wide_space = {1, {{"SPAN", {0, 8, 16, 32, 64}}}, NULL};

static size_t group_of(const op_near_far_args *a) {
    return a->q.shape[1] / a->forest->heads;
}

bool near_far_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    return limits_are_wide(limits) && a->forest->dim % BLOCK == 0 && a->forest->value_dim % BLOCK == 0 &&
           group_of(a) <= ROWS;
}

/* Blocks of 16 roots that a row may have, rounded up so that few programs are built. A row has 128 bytes
 * of private memory for each. */
static size_t root_blocks(const op_forest *f) {
    enum { STEP = 128 };
    enum { ROOTS_LEAST = 256 }; /* as in cl/near_far.clh */
    size_t nodes = f->chunks, level = f->top, blocks = 0, rounded = 4;
    while (level + 1 < f->levels && nodes >= ROOTS_LEAST * BLOCK) {
        nodes /= BLOCK;
        ++level;
        blocks += 2;
    }
    if (level > f->top && nodes < ROOTS_LEAST * BLOCK)
        nodes = ROOTS_LEAST * BLOCK; /* earlier rows still start one level below */
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
    while (span > 1 && (span * group_of(a) > rows || span > a->forest->chunk || span / 2 >= a->q.shape[2]))
        span /= 2;
    return span;
}

/* Tiles begin at multiples of their span in the positions of keys. */
static size_t tiles_of(const op_near_far_args *a, size_t span) {
    size_t lead = a->diagonal == OP_SEES_ALL ? 0 : (size_t)(a->diagonal & (int32_t)(span - 1));
    return (lead + a->q.shape[2] + span - 1) / span;
}

static void options_rows(kernel_options *o, const op_near_far_args *a, size_t span, size_t parts) {
    *o = (kernel_options){.group = 1};
    options_number(o, "SPAN", span);
    options_number(o, "PARTS", parts);
    options_number(o, "GROUP", group_of(a));
    options_number(o, "LIMITED", a->sparse_topk > 0);
    options_number(o, "ROOT_BLOCKS", root_blocks(a->forest));
    options_near_far(o, a);
}

clsplat_status near_far_wide_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_args *a = args;
    size_t span = span_of(q, a);
    kernel_options o;
    launch l;
    options_rows(&o, a, span, 1);
    TRY(options_launch(&o, q->device, "near_far_wide.cl", "near_far_wide", &l));
    launch_near_far(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(tiles_of(a, span), a->forest->heads, a->q.shape[0], 1), near_far_work(a)));
fail:
    return status;
}

/* A few parts for each compute unit, so that none waits long for the others. */
static size_t parts_of(const clsplat_limits *limits, const op_near_far_args *a) {
    enum { EACH = 4, MOST = 16 };
    size_t heads = a->forest->batch * a->forest->heads, wanted = limits->compute_units * (size_t)EACH / heads,
           parts = 2;
    while (parts < MOST && parts < wanted)
        parts *= 2;
    return parts;
}

bool near_far_split_fits(const clsplat_limits *limits, const void *args) {
    enum { QUERIES_MOST = 16, CHUNKS_LEAST = 64 };
    const op_near_far_args *a = args;
    return near_far_wide_fits(limits, args) && a->sparse_topk == 0 && a->q.shape[2] <= QUERIES_MOST &&
           a->keys / a->forest->chunk >= CHUNKS_LEAST;
}

static clsplat_status merge_parts(queue *q, const op_near_far_args *a, size_t parts, cl_mem numbers,
                                  cl_mem values) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *shape = a->out.shape;
    double read = (double)(shape[0] * shape[1] * shape[2] * parts * (shape[3] + 5));
    kernel_options o;
    launch l;
    options_rows(&o, a, span_of(q, a), parts);
    TRY(options_launch(&o, q->device, "near_far_merge.cl", "near_far_merge", &l));
    launch_mem(&l, numbers);
    launch_mem(&l, values);
    launch_near_far_results(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(shape[2], shape[1], shape[0], 1),
                   (work){.flops = 2 * read, .bytes = 4 * read}));
fail:
    return status;
}

clsplat_status near_far_split_run(queue *q, const void *args) {
    enum { PART_NUMBERS = 5 }; /* as in cl/near_far.clh */
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_args *a = args;
    size_t parts = parts_of(&q->device->info.limits, a), span = span_of(q, a);
    size_t states = a->q.shape[0] * a->q.shape[1] * a->q.shape[2] * parts;
    cl_mem numbers, values;
    kernel_options o;
    launch l;
    TRY(workspace_take(q->device, WORKSPACE_PART_LSE, PART_NUMBERS * sizeof(float) * states, &numbers));
    TRY(workspace_take(q->device, WORKSPACE_PART_VALUE, sizeof(float) * states * a->out.shape[3], &values));
    options_rows(&o, a, span, parts);
    TRY(options_launch(&o, q->device, "near_far_wide.cl", "near_far_wide", &l));
    launch_near_far_inputs(&l, &o, a);
    launch_mem(&l, numbers);
    launch_mem(&l, values);
    TRY(launch_run(&l, q, grid_of(tiles_of(a, span) * parts, a->forest->heads, a->q.shape[0], 1),
                   near_far_work(a)));
    TRY(merge_parts(q, a, parts, numbers, values));
fail:
    return status;
}
