#include "op/gemm/gemm.h"

/* Rows of a, up to which reading b is all the time there is; work-items that share a sum on a GPU; and bytes
 * of b that are worth a work-item on a CPU, where a number in blocks takes as long as so many bytes. */
enum { ROWS_LIMIT = 8, GPU_GROUP = 64, WORTH = 32 << 10, BLOCKS_EACH = 2 };

/* Rows of b at once, and of each so many groups of 32 if it is in blocks. A CPU's prefetching wants one row
 * after the other; more rows of a are worth sharing. */
typedef struct tile {
    size_t columns, groups;
} tile;

static tile tile_of(const clsplat_limits *limits, const op_gemm_args *a) {
    size_t rows = a->c.shape[2];
    if (!limits_are_wide(limits))
        return (tile){rows <= 4 ? 4 : 2, 1};
    return rows <= 4 ? (tile){1, 4} : (tile){2, 2};
}

static bool suits(const clsplat_limits *limits, const op_gemm_args *a) {
    size_t rows = a->c.shape[2], bytes = sizeof(cl_float) * rows * tile_of(limits, a).columns * GPU_GROUP;
    return rows <= ROWS_LIMIT && (limits_are_wide(limits) || limits_have_groups(limits, GPU_GROUP, bytes));
}

bool gemm_few_fits(const clsplat_limits *limits, const void *args) {
    const op_gemm_args *a = args;
    return !op_dtype_is_blocks(a->b.dtype) && suits(limits, a);
}

/* Blocks of columns for one work-item: enough work for each, and enough of them for all compute units. */
static size_t choose_blocks(const clsplat_limits *limits, const op_gemm_args *a, size_t columns) {
    size_t each = op_dtype_is_blocks(a->b.dtype) ? BLOCKS_EACH : clsplat_dtype_size(a->b.dtype);
    size_t bytes = columns * a->a.shape[3] * each, blocks = 1;
    size_t all = (a->c.shape[3] + columns - 1) / columns, wanted = 4 * (size_t)limits->compute_units;
    while (2 * blocks * bytes <= WORTH && all / (2 * blocks) >= wanted)
        blocks *= 2;
    return blocks;
}

static clsplat_status run(queue *q, const op_gemm_args *a, const char *source, const char *kernel) {
    const clsplat_limits *limits = &q->device->info.limits;
    bool wide = limits_are_wide(limits);
    tile t = tile_of(limits, a);
    size_t blocks = wide ? choose_blocks(limits, a, t.columns) : 1;
    kernel_options o;
    options_group_of(&o, q->device, wide ? 1 : GPU_GROUP);
    options_number(&o, "ROWS", a->c.shape[2]);
    options_number(&o, "COLUMNS", t.columns);
    if (op_dtype_is_blocks(a->b.dtype))
        options_number(&o, "GROUPS", t.groups);
    options_number(&o, "BLOCKS", blocks);
    size_t groups = (a->c.shape[3] + t.columns * blocks - 1) / (t.columns * blocks);
    return gemm_launch(q, a, &o, source, kernel,
                       grid_of(groups * o.group, 1, a->c.shape[0] * a->c.shape[1], o.group));
}

clsplat_status gemm_few_run(queue *q, const void *args) {
    return run(q, args, "gemm_few.cl", "gemm_few");
}

bool gemm_blocks_fits(const clsplat_limits *limits, const void *args) {
    const op_gemm_args *a = args;
    return op_dtype_is_blocks(a->b.dtype) && suits(limits, a);
}

clsplat_status gemm_blocks_run(queue *q, const void *args) {
    return run(q, args, "gemm_blocks.cl", "gemm_blocks");
}
