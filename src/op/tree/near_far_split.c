#include "op/families.h"
#include "op/tree/near_far.h"
#include "runtime/buffer.h"

/* Rows of a tile: their sets are words. */
enum { ROWS_MOST = 32, QUERIES_MOST = 16, CHUNKS_LEAST = 64, BLOCK = 16 };

bool near_far_split_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    return limits_are_wide(limits) && a->forest->dim % BLOCK == 0 && a->forest->value_dim % BLOCK == 0 &&
           near_far_group(a) <= ROWS_MOST && a->sparse_topk == 0 && !a->kept && !a->notes &&
           a->q.shape[2] <= QUERIES_MOST && a->keys / a->forest->chunk >= CHUNKS_LEAST;
}

/* How the rows are cut, and what work-items leave for each other. */
typedef struct cut {
    size_t span, tiles, rows, parts;
    cl_mem scores, lists, look_numbers, look_values, part_numbers, part_values;
} cut;

static size_t span_of(const op_near_far_args *a) {
    size_t span = QUERIES_MOST;
    while (span > 1 && (span * near_far_group(a) > ROWS_MOST || span / 2 >= a->q.shape[2]))
        span /= 2;
    return span;
}

/* A few parts for each compute unit, so that none waits long for the others. */
static size_t parts_of(const clsplat_limits *limits, size_t heads) {
    enum { EACH = 16, MOST = 32 };
    size_t wanted = limits->compute_units * (size_t)EACH / heads, parts = 2;
    while (parts < MOST && parts < wanted)
        parts *= 2;
    return parts;
}

static clsplat_status cut_rows(queue *q, const op_near_far_args *a, cut *c) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    size_t heads = f->batch * f->heads, blocks = f->first_block[f->levels];
    *c = (cut){.span = span_of(a)};
    c->tiles = near_far_tiles(a, c->span);
    c->rows = c->span * near_far_group(a);
    c->parts = parts_of(&q->device->info.limits, heads * c->tiles);
    size_t tiles = heads * c->tiles, looks = tiles * c->rows * (c->parts + 1) * sizeof(float),
           parts = a->q.shape[0] * a->q.shape[1] * a->q.shape[2] * c->parts * sizeof(float);
    TRY(workspace_take(q->device, WORKSPACE_NODE_NUMBERS,
                       tiles * (blocks - f->first_block[f->top]) * 2 * c->rows * BLOCK * sizeof(float),
                       &c->scores));
    TRY(workspace_take(q->device, WORKSPACE_NODE_VALUES, tiles * blocks * BLOCK * 2 * sizeof(uint32_t),
                       &c->lists));
    TRY(workspace_take(q->device, WORKSPACE_STATE_LSE, OP_LOOK_NUMBERS * looks, &c->look_numbers));
    TRY(workspace_take(q->device, WORKSPACE_STATE_VALUE, looks * f->value_dim, &c->look_values));
    TRY(workspace_take(q->device, WORKSPACE_PART_LSE, OP_PART_NUMBERS * parts, &c->part_numbers));
    TRY(workspace_take(q->device, WORKSPACE_PART_VALUE, parts * f->value_dim, &c->part_values));
fail:
    return status;
}

static clsplat_status begin(queue *q, const op_near_far_args *a, const cut *c, const char *kernel,
                            launch *l) {
    kernel_options o = {.group = 1};
    options_number(&o, "SPAN", c->span);
    options_number(&o, "GROUP", near_far_group(a));
    options_number(&o, "PARTS", c->parts);
    options_near_far(&o, a);
    clsplat_status status = options_launch(&o, q->device, "near_far_split.cl", kernel, l);
    if (status == CLSPLAT_OK)
        launch_near_far_inputs(l, &o, a);
    return status;
}

static clsplat_status look(queue *q, const op_near_far_args *a, const cut *c) {
    clsplat_status status = CLSPLAT_OK;
    launch l;
    TRY(begin(q, a, c, "near_far_look", &l));
    launch_mem(&l, "scores", c->scores);
    launch_mem(&l, "look_numbers", c->look_numbers);
    launch_mem(&l, "look_values", c->look_values);
    TRY(launch_run(&l, q, grid_of(a->forest->heads, c->tiles * (c->parts + 1), a->q.shape[0], 1),
                   near_far_work(a)));
fail:
    return status;
}

static clsplat_status walk(queue *q, const op_near_far_args *a, const cut *c) {
    clsplat_status status = CLSPLAT_OK;
    launch l;
    TRY(begin(q, a, c, "near_far_split", &l));
    launch_mem(&l, "scores", c->scores);
    launch_mem(&l, "listed", c->lists);
    launch_mem(&l, "look_numbers", c->look_numbers);
    launch_mem(&l, "look_values", c->look_values);
    launch_mem(&l, "part_numbers", c->part_numbers);
    launch_mem(&l, "part_values", c->part_values);
    TRY(launch_run(&l, q, grid_of(a->forest->heads, c->tiles * c->parts, a->q.shape[0], 1), (work){0}));
fail:
    return status;
}

static clsplat_status merge(queue *q, const op_near_far_args *a, const cut *c) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *shape = a->out.shape;
    double read = (double)(shape[0] * shape[1] * shape[2] * c->parts * (shape[3] + OP_PART_NUMBERS));
    kernel_options o = {.group = 1};
    launch l;
    options_number(&o, "PARTS", c->parts);
    options_near_far(&o, a);
    TRY(options_launch(&o, q->device, "near_far_merge.cl", "near_far_merge", &l));
    launch_mem(&l, "part_numbers", c->part_numbers);
    launch_mem(&l, "part_values", c->part_values);
    launch_near_far_results(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(shape[2], shape[1], shape[0], 1),
                   (work){.flops = 2 * read, .bytes = 4 * read}));
fail:
    return status;
}

clsplat_status near_far_split_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    cut c;
    TRY(cut_rows(q, args, &c));
    TRY(look(q, args, &c));
    TRY(walk(q, args, &c));
    TRY(merge(q, args, &c));
fail:
    return status;
}
