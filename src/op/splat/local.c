#include "op/splat/local.h"

enum { ACROSS = OP_LOCAL_ACROSS, SOURCES = OP_LOCAL_EACH * OP_LOCAL_ACROSS };

/* Widths up to which the products' cancellation, spread² ulp, is as good as lost in what exponentials lose.
 */
#define PRODUCT_SPREAD 6.0

/* A tile of local_tile.clh: TY, RT and STEP. */
typedef struct local_tile {
    size_t high, rows_each, step;
} local_tile;

static bool space_allows(const clsplat_limits *limits, const tune_point *point) {
    return limits_allow_group(limits, ACROSS * point->value[0]);
}

const tune_space local_space = {2, {{"TY", {0, 8, 16, 32}}, {"RT", {4, 8}}}, space_allows};

local_shape local_shape_of(const op_splats *splats, size_t value_dim, bool splat_rows) {
    bool product = splats->covariance == CLSPLAT_ISOTROPIC && splats->spread <= PRODUCT_SPREAD;
    size_t parts = product ? 1 : 2;
    return (local_shape){splats->dim,           value_dim, product, splat_rows, splat_rows ? parts : 1,
                         splat_rows ? 1 : parts};
}

static size_t padded(size_t number, size_t multiple) {
    return (number + multiple - 1) / multiple * multiple;
}

/* Bytes of the kernel's arrays: rows; sources and weights, which share one; values; parts of products, and
 * the factors that go with them where rows are tokens; offsets, and a flag. Without values the last three are
 * missing. */
static size_t tile_bytes(local_shape s, local_tile t) {
    size_t rows = t.high * t.rows_each, sources = SOURCES * t.step * s.source_parts, weights = SOURCES * rows;
    size_t floats = rows * t.step * s.row_parts + (sources > weights ? sources : weights) +
                    SOURCES * padded(s.value_dim, SOURCES) + (s.product ? t.high * SOURCES : 4);
    if (s.value_dim > 0)
        floats += (s.product && !s.splat_rows ? SOURCES : 0) + SOURCES + 1;
    return sizeof(float) * floats;
}

/* The most columns at a time that there is local memory for; 0: not even `least`. Beside values no more than
 * 16 where registers of more were seen to spill, which is on AMD (clang 22: 32 columns spill 149 of gfx1100).
 */
static size_t columns_at_once(const clsplat_limits *limits, local_shape s, local_tile t, size_t least) {
    const size_t steps[] = {padded(s.dim, 8), 32, 16, 8};
    if (!limits_allow_group(limits, (uint32_t)(ACROSS * t.high)))
        return 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; ++i) {
        t.step = steps[i];
        if (t.step > 16 && s.value_dim > 0 && limits->nvidia_capability == 0)
            continue;
        if (t.step <= steps[0] && (t.step >= least || i == 0) &&
            tile_bytes(s, t) <= limits_local_share(limits))
            return t.step;
    }
    return 0;
}

/* The tile with TY as given, or as large as there is room for; step 0: none. */
static local_tile tile_for(const clsplat_limits *limits, local_shape s, size_t high, size_t rows_each) {
    const local_tile tries[] = {{high, rows_each, 16}, {16, rows_each, 16}, {8, rows_each, 16}, {8, 4, 8}};
    for (size_t i = high ? 0 : 1; i < sizeof tries / sizeof *tries; ++i) {
        local_tile tile = tries[i];
        tile.step = columns_at_once(limits, s, tile, tries[i].step);
        if (tile.step > 0)
            return tile;
    }
    return (local_tile){0};
}

bool local_fits(const clsplat_limits *limits, const op_splats *splats, local_shape shape) {
    return splats_are_close(splats) && shape.value_dim <= 128 && limits->local_memory > 0 &&
           tile_for(limits, shape, 0, 4).step > 0;
}

size_t options_local(kernel_options *o, const queue *q, local_shape shape) {
    local_tile tile = tile_for(&q->device->info.limits, shape, tuned_value(q, &local_space, 0),
                               tuned_value(q, &local_space, 1));
    *o = (kernel_options){.group = (uint32_t)(ACROSS * tile.high)};
    options_number(o, "TY", tile.high);
    options_number(o, "RT", tile.rows_each);
    options_number(o, "STEP", tile.step);
    options_number(o, "PRODUCT", shape.product);
    options_eager(o, q->device);
    if (shape.splat_rows) /* others spill with 16, not with 32 */
        options_narrow(o, q->device);
    return tile.high * tile.rows_each;
}
