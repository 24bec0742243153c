#include "op/layer/layer_backward_group.h"

#include "op/families.h"
#include "op/kernel.h"
#include "op/layer/layer_backward.h"
#include "op/layer/optimise.h"
#include "op/workspace.h"
#include "runtime/buffer.h"

static const char source[] = "layer_backward_group.cl";

/* Rows of a run, and runs at most. */
enum { RUN_LEAST = 32, RUNS_MOST = 512 };

bool layer_group_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_have_groups(limits, GROUP_ITEMS, 8 << 10);
}

static size_t rows_of(const op_tensor *t) {
    return t->shape[0] * t->shape[1] * t->shape[2];
}

/* So many runs of rows at most, and the rows of each. */
typedef struct runs {
    size_t rows, count;
} runs;

static runs runs_of(size_t rows, size_t most) {
    runs r = {.rows = (rows + most - 1) / most};
    r.rows = r.rows < RUN_LEAST ? RUN_LEAST : r.rows;
    r.count = (rows + r.rows - 1) / r.rows;
    return r;
}

static void launch_rows(launch *l, const op_tensor *x) {
    launch_uint(l, "rows", (uint32_t)x->shape[2]);
    launch_uint(l, "columns", (uint32_t)x->shape[3]);
    launch_uint(l, "heads", (uint32_t)x->shape[1]);
}

static clsplat_status parts_take(queue *q, size_t numbers, cl_mem *parts) {
    return workspace_take(q->device, WORKSPACE_GRAD_PART_VALUE, sizeof(cl_float) * numbers, parts);
}

/* sums += Σ of `count` rows of parts from `first` on, by the row for all devices. */
static clsplat_status add_parts(queue *q, cl_mem parts, size_t first, size_t count, size_t columns,
                                cl_mem sums) {
    op_tensor x = {.mem = parts,
                   .dtype = CLSPLAT_F32,
                   .offset = first * columns,
                   .shape = {1, 1, count, columns},
                   .stride = {count * columns, count * columns, columns}};
    return op_run(q, &op_column_sums_family.variants[0], NULL, &(op_column_sums_args){.x = x, .sums = sums});
}

clsplat_status column_sums_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_column_sums_args *a = args;
    size_t columns = a->x.shape[3];
    runs r = runs_of(rows_of(&a->x), RUNS_MOST);
    kernel_options o;
    launch l;
    cl_mem parts;
    TRY(parts_take(q, r.count * columns, &parts));
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_tensor(&o, "X", &a->x);
    options_elements(&o, (double)(r.count * columns));
    TRY(options_launch(&o, q->device, source, "column_parts", &l));
    launch_rows(&l, &a->x);
    launch_uint(&l, "all_rows", (uint32_t)rows_of(&a->x));
    launch_uint(&l, "run", (uint32_t)r.rows);
    launch_tensor(&l, &o, "x", &a->x);
    launch_mem(&l, "parts", parts);
    TRY(launch_run(&l, q, grid_of(columns, r.count, 1, o.group),
                   (work){.flops = layer_numbers(&a->x), .bytes = tensor_bytes(&a->x)}));
    TRY(add_parts(q, parts, 0, r.count, columns, a->sums));
fail:
    return status;
}

static clsplat_status norm_rows(queue *q, const op_norm_backward_args *a) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, GROUP_ITEMS);
    size_t share = options_share(&o, a->x.shape[2], a->x.shape[3]);
    norm_backward_options(&o, a);
    TRY(options_launch(&o, q->device, source, "norm_backward_group", &l));
    norm_backward_arguments(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2] * share, a->x.shape[1], a->x.shape[0], o.group),
                   (work){.flops = 9 * layer_numbers(&a->x), .bytes = 3 * tensor_bytes(&a->x)}));
fail:
    return status;
}

clsplat_status norm_backward_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_norm_backward_args *a = args;
    size_t columns = a->x.shape[3];
    runs r = runs_of(rows_of(&a->x), RUNS_MOST);
    kernel_options o;
    launch l;
    cl_mem parts;
    TRY(norm_rows(q, a));
    if (!a->dweight)
        return CLSPLAT_OK;
    TRY(parts_take(q, 2 * r.count * columns, &parts));
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DOUT", &a->dout);
    TRY(options_launch(&o, q->device, source, "norm_parts", &l));
    launch_rows(&l, &a->x);
    launch_uint(&l, "all_rows", (uint32_t)rows_of(&a->x));
    launch_uint(&l, "run", (uint32_t)r.rows);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "stats", a->stats);
    launch_mem(&l, "parts", parts);
    TRY(launch_run(&l, q, grid_of(columns, r.count, 1, o.group),
                   (work){.flops = 4 * layer_numbers(&a->x), .bytes = 2 * tensor_bytes(&a->x)}));
    TRY(add_parts(q, parts, 0, r.count, columns, a->dweight));
    if (a->dshift)
        TRY(add_parts(q, parts, r.count, r.count, columns, a->dshift));
fail:
    return status;
}

/* Tables of parts have so many numbers at most, all together. */
static const size_t TABLES_MOST = (size_t)1 << 24;

static size_t table_of(const op_embed_backward_args *a) {
    return a->vocabulary * a->dout.shape[3];
}

bool embed_backward_group_fits(const clsplat_limits *limits, const void *args) {
    return layer_group_fits(limits, args) && table_of(args) <= TABLES_MOST;
}

clsplat_status embed_backward_group_run(queue *q, const void *args) {
    enum { MOST = 64 };
    clsplat_status status = CLSPLAT_OK;
    const op_embed_backward_args *a = args;
    size_t table = table_of(a), room = TABLES_MOST / table;
    runs r = runs_of(a->dout.shape[2], room < MOST ? room : MOST);
    kernel_options o;
    launch l;
    cl_mem parts;
    TRY(parts_take(q, r.count * table, &parts));
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_tensor(&o, "DOUT", &a->dout);
    TRY(options_launch(&o, q->device, source, "embed_parts", &l));
    launch_uint(&l, "rows", (uint32_t)a->dout.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->dout.shape[3]);
    launch_uint(&l, "vocabulary", (uint32_t)a->vocabulary);
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_uint(&l, "run", (uint32_t)r.rows);
    launch_float(&l, "scale", a->scale != 0 ? a->scale : 1);
    launch_mem(&l, "ids", a->ids);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "parts", parts);
    TRY(launch_run(&l, q, grid_of(a->vocabulary * o.group, r.count, 1, o.group),
                   (work){.flops = layer_numbers(&a->dout), .bytes = tensor_bytes(&a->dout)}));
    TRY(add_parts(q, parts, 0, r.count, table, a->dtable));
fail:
    return status;
}

clsplat_status cross_entropy_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_cross_entropy_args *a = args;
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_tensor(&o, "X", &a->logits);
    TRY(options_launch(&o, q->device, source, "cross_entropy_group", &l));
    cross_entropy_arguments(&l, &o, a);
    TRY(launch_run(&l, q, grid_of(a->logits.shape[2] * o.group, 1, 1, o.group),
                   (work){.flops = 4 * layer_numbers(&a->logits), .bytes = 3 * tensor_bytes(&a->logits)}));
fail:
    return status;
}

clsplat_status turn_back_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_turn_back_args *a = args;
    size_t half = a->dout.shape[3] / 2, heads = a->dout.shape[1];
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, GROUP_ITEMS);
    size_t some = options_even(&o, q->device, half, (const op_tensor *[]){&a->dout, &a->dx}, 2);
    TRY(turn_back_begin(q, &o, source, "turn_back_pairs", a, &l));
    TRY(launch_run(&l, q, grid_of(a->dout.shape[2] * heads * half / some, a->dout.shape[0], 1, o.group),
                   (work){.flops = 3 * layer_numbers(&a->dout), .bytes = 2 * tensor_bytes(&a->dout)}));
fail:
    return status;
}

clsplat_status transpose_group_run(queue *q, const void *args) {
    enum { SIDE = 32 };
    clsplat_status status = CLSPLAT_OK;
    const op_transpose_args *a = args;
    size_t down = (a->x.shape[2] + SIDE - 1) / SIDE, across = (a->x.shape[3] + SIDE - 1) / SIDE;
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_number(&o, "SIDE", SIDE);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DX", &a->out);
    TRY(options_launch(&o, q->device, source, "transpose_local", &l));
    launch_rows(&l, &a->x);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "out", &a->out);
    TRY(launch_run(&l, q, grid_of(down * o.group, across, a->x.shape[0] * a->x.shape[1], o.group),
                   (work){.bytes = tensor_bytes(&a->x) + tensor_bytes(&a->out)}));
fail:
    return status;
}

clsplat_status square_sums_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_square_sums_args *a = args;
    size_t parts = op_square_parts(a->count);
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_elements(&o, (double)a->count);
    TRY(options_launch(&o, q->device, source, "square_sums_group", &l));
    launch_index(&l, &o, "count", a->count);
    launch_index(&l, &o, "run", op_square_run(a->count));
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_mem(&l, "g", a->g);
    launch_mem(&l, "partials", a->partials);
    TRY(launch_run(&l, q, grid_of(parts * o.group, 1, 1, o.group),
                   (work){.flops = 2 * (double)a->count, .bytes = 4 * (double)a->count}));
fail:
    return status;
}
