#include "op/softmax/softmax.h"

enum { MMA_GROUP = 128 };

static bool columns_fit(const op_softmax_args *a, size_t multiple) {
    size_t dim = a->q.shape[3], value_dim = a->v.shape[3];
    return dim <= 128 && value_dim <= 128 && dim % multiple == 0 && value_dim % multiple == 0;
}

/* A tile of cl/softmax/softmax_local.cl: TY items of a group along the queries, four queries each, and CT
 * keys of an item, eight items along the keys. */
typedef struct local_tile {
    size_t high, keys_each;
} local_tile;

/* Bytes of the kernel's arrays and its flag. */
static size_t tile_bytes(local_tile t, size_t dim, size_t value_dim) {
    size_t queries = 4 * t.high, keys = OP_LOCAL_ACROSS * t.keys_each,
           shared = keys * (dim > queries ? dim : queries);
    size_t query_tile = (dim > 1 ? dim - 1 : 1) * queries, value_tile = keys * ((value_dim + 31) / 32 * 32);
    return sizeof(float) * (query_tile + shared + value_tile + 1);
}

/* The largest that there is room for; high 0: none. Four keys each only where registers hold them beside the
 * values. */
static local_tile tile_for(const clsplat_limits *limits, const op_softmax_args *a) {
    static const local_tile tries[] = {{16, 4}, {8, 4}, {16, 2}, {8, 2}};
    size_t dim = a->q.shape[3], value_dim = a->v.shape[3];
    for (size_t i = dim > 64 || value_dim > 64 ? 2 : 0; i < sizeof tries / sizeof *tries; ++i)
        if (limits_allow_group(limits, OP_LOCAL_ACROSS * (uint32_t)tries[i].high) &&
            tile_bytes(tries[i], dim, value_dim) <= limits_local_share(limits))
            return tries[i];
    return (local_tile){0};
}

bool softmax_local_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return a->cap == 0 && columns_fit(a, 1) && a->q.shape[2] >= 16 && tile_for(limits, a).high > 0;
}

clsplat_status softmax_local_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    local_tile tile = tile_for(&q->device->info.limits, a);
    kernel_options o = {.group = OP_LOCAL_ACROSS * (uint32_t)tile.high};
    options_number(&o, "TY", tile.high);
    options_number(&o, "CT", tile.keys_each);
    options_eager(&o, q->device);
    options_narrow(&o, q->device);
    return softmax_launch(q, a, &o, "softmax_local.cl", "softmax_local", 4 * tile.high);
}

/* What every matrix unit takes. */
static bool halves_fit(const op_softmax_args *a) {
    return a->window == 0 && a->cap == 0 && tensor_suits_mma(&a->q) && tensor_suits_mma(&a->k) &&
           tensor_suits_mma(&a->v) && a->k.dtype == a->q.dtype && a->v.dtype == a->q.dtype &&
           columns_fit(a, 16) && a->scale > 0 && a->k.shape[2] > 0 && a->q.shape[2] >= 16 &&
           tensor_suits_fours(&a->out);
}

/* How cl/shared/units.clh is built. More than 128 columns leave registers for fewer keys or rows at a time,
 * and for nothing with subgroups of 8. */
typedef struct units_form {
    size_t group, warp, block_rows, blocks, keys;
} units_form;

static units_form units_form_of(const clsplat_limits *limits, const op_softmax_args *a) {
    bool large = a->q.shape[3] + a->v.shape[3] > 128;
    size_t warp = limits->subgroup;
    switch (limits->matrix_units) {
    case CLSPLAT_UNITS_WMMA:
        return (units_form){128, 32, 16, 1, large ? 16 : 32};
    case CLSPLAT_UNITS_MFMA:
        return (units_form){256, 64, 16, large ? 1 : 2, 32};
    case CLSPLAT_UNITS_DPAS:
        return (units_form){(warp == 8 && !large) || warp == 16 ? 128 : 0, warp, warp, 1, large ? 16 : 32};
    case CLSPLAT_UNITS_NONE:
        break;
    }
    return (units_form){0};
}

/* Bytes of two tiles each of keys, of values, and of biases. */
static size_t units_bytes(const units_form *f, const op_softmax_args *a) {
    return 4 * (f->keys * (a->q.shape[3] + 8) + a->v.shape[3] * (f->keys + 8) + 2 * f->keys);
}

bool softmax_units_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    units_form form = units_form_of(limits, a);
    return form.group > 0 && halves_fit(a) && limits_allow_group(limits, (uint32_t)form.group) &&
           units_bytes(&form, a) <= limits_local_share(limits);
}

clsplat_status softmax_units_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    const clsplat_limits *limits = &q->device->info.limits;
    units_form form = units_form_of(limits, a);
    kernel_options o = {.group = (uint32_t)form.group};
    options_number(&o, "WG", form.group);
    options_registers(&o, q->device);
    options_number(&o, "UNITS", (size_t)limits->matrix_units);
    if (limits->matrix_units == CLSPLAT_UNITS_DPAS)
        options_number(&o, "WARP", form.warp);
    options_number(&o, "BLOCKS", form.blocks);
    options_number(&o, "KEYS", form.keys);
    return softmax_launch(q, a, &o, "softmax_mma.cl", "softmax_mma",
                          form.group / form.warp * form.block_rows * form.blocks);
}

bool softmax_mma_fits(const clsplat_limits *limits, const void *args) {
    return limits_have_mma(limits) && halves_fit(args);
}

static clsplat_status mma_run(queue *q, const op_softmax_args *a, size_t blocks, bool wgmma) {
    kernel_options o = {.group = MMA_GROUP};
    options_number(&o, "WG", MMA_GROUP);
    options_number(&o, "BLOCKS", blocks); /* of 16 rows a warp */
    options_number(&o, "WGMMA", wgmma);
    return softmax_launch(q, a, &o, "softmax_mma.cl", "softmax_mma", MMA_GROUP / 32 * 16 * blocks);
}

clsplat_status softmax_mma_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    return mma_run(q, a, a->q.shape[3] + a->v.shape[3] > 128 ? 1 : 2, false);
}

bool softmax_wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return limits_have_wgmma(limits) && softmax_mma_fits(limits, args) && a->q.shape[3] == 64 &&
           a->v.shape[3] == 64;
}

clsplat_status softmax_wgmma_run(queue *q, const void *args) {
    return mma_run(q, args, 1, true);
}
