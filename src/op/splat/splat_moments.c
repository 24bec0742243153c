/* The last operation of the backward pass: what the splats' parameters need. */
#include "op/families.h"
#include "op/local_rows.h"
#include "op/splat/backward_kernel.h"
#include "runtime/buffer.h"

size_t op_moments_size(const op_splats *splats) {
    size_t dim = splats->dim;
    size_t second = splats->covariance == CLSPLAT_ISOTROPIC  ? 1
                    : splats->covariance == CLSPLAT_DIAGONAL ? dim
                                                             : dim * dim;
    return 1 + dim + second;
}

/* One set of all heads, or a set a head. */
static size_t sets_of(const op_splat_moments_args *a) {
    return a->splats->heads > 1 ? a->heads : 1;
}

static clsplat_status moments_run(queue *q, const op_splat_moments_args *a, kernel_options *o,
                                  const char *source, const char *kernel, size_t items) {
    clsplat_status status = CLSPLAT_OK;
    double weights = (double)(a->x.shape[0] * a->heads) * (double)a->x.shape[2] * (double)a->splats->count;
    double size = (double)op_moments_size(a->splats);
    launch l;
    options_splats(o, a->splats);
    options_number(o, "DV", 1);
    options_tensor(o, "X", &a->x);
    options_elements(o, weights);
    options_elements(o, (double)(a->splats->heads * a->splats->count) * size);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "batch", (uint32_t)a->x.shape[0]);
    launch_uint(&l, "heads", (uint32_t)a->heads);
    launch_uint(&l, "x_group", (uint32_t)(a->heads / a->x.shape[1]));
    launch_uint(&l, "amplitude", a->amplitude);
    launch_splats(&l, a->splats);
    launch_tensor(&l, o, "x", &a->x);
    launch_mem(&l, "weights", a->weights);
    launch_mem(&l, "moments", a->moments);
    TRY(launch_run(&l, q, grid_of(items, 1, sets_of(a), o->group),
                   (work){.flops = 2 * weights * size, .bytes = 4 * weights + tensor_bytes(&a->x)}));
fail:
    return status;
}

static clsplat_status moments_plain_run(queue *q, const void *args) {
    const op_splat_moments_args *a = args;
    size_t parts = a->splats->covariance == CLSPLAT_FULL ? a->splats->dim : 1;
    kernel_options o;
    options_plain(&o, q);
    return moments_run(q, a, &o, "splat_moments.cl", "splat_moments", a->splats->count * parts);
}

static bool moments_wide_fits(const clsplat_limits *limits, const void *args) {
    return backward_tokens_are_wide(limits, ((const op_splat_moments_args *)args)->splats);
}

static clsplat_status moments_wide_run(queue *q, const void *args) {
    enum { TILE = BACKWARD_TILE / 2 }; /* a set is not many splats: more, smaller work-items */
    const op_splat_moments_args *a = args;
    kernel_options o;
    options_backward_wide(&o, q, TILE);
    return moments_run(q, a, &o, "splat_moments_wide.cl", "splat_moments_wide",
                       tiles_of(a->splats->count, TILE));
}

enum { MOMENTS_GROUP = 256, MOMENTS_SPLATS = 4 }; /* of cl/splat/splat_moments_group.cl */

static bool moments_group_fits(const clsplat_limits *limits, const void *args) {
    const op_splat_moments_args *a = args;
    return a->splats->covariance != CLSPLAT_FULL && a->splats->dim <= MOMENTS_GROUP &&
           limits_have_groups(limits, MOMENTS_GROUP, MOMENTS_GROUP * sizeof(float));
}

static clsplat_status moments_group_run(queue *q, const void *args) {
    const op_splat_moments_args *a = args;
    size_t columns = 8;
    while (columns < a->splats->dim && columns < MOMENTS_GROUP / 4)
        columns *= 2;
    kernel_options o = {.group = MOMENTS_GROUP};
    options_number(&o, "WG", MOMENTS_GROUP);
    options_number(&o, "COLUMNS", columns);
    return moments_run(q, a, &o, "splat_moments_group.cl", "splat_moments_group",
                       tiles_of(a->splats->count, MOMENTS_SPLATS) * MOMENTS_GROUP);
}

static rows_tile moments_tile(const clsplat_limits *limits, const op_splats *splats) {
    size_t tiles = splats->covariance == CLSPLAT_DIAGONAL ? 2 : 1;
    return rows_tile_for(
        limits,
        (rows_shape){.row = 2, .source = tiles * rows_pitch(splats->dim) + OP_LOCAL_ACROSS, .weights = true});
}

/* Parts of a head's tokens whose numbers one buffer holds. */
static size_t segments_most(const clsplat_limits *limits, const op_splat_moments_args *a) {
    return (size_t)(limits->max_allocation / (sizeof(cl_float) * a->x.shape[0] * a->heads * a->splats->count *
                                              op_moments_size(a->splats)));
}

static bool moments_local_fits(const clsplat_limits *limits, const void *args) {
    const op_splat_moments_args *a = args;
    const op_splats *splats = a->splats;
    return splats_are_close(splats) && splats->dim <= 128 && moments_tile(limits, splats).high > 0 &&
           segments_most(limits, a) > 0;
}

/* Parts of a head's tokens: enough groups for the device together, each of some tiles of tokens. */
static size_t segments_of(const clsplat_limits *limits, const op_splat_moments_args *a, size_t groups) {
    enum { GROUPS = 8, LEAST = 256 }; /* of a compute unit; tokens of a part */
    size_t wanted = GROUPS * limits->compute_units / (groups * a->x.shape[0] * a->heads) + 1;
    size_t most = tiles_of(a->x.shape[2], LEAST), fitting = segments_most(limits, a);
    most = most < fitting ? most : fitting;
    return wanted < most ? wanted : most;
}

/* What both kernels are built with, which are one program then; `numbers` are those of all parts. */
static void local_options(kernel_options *o, queue *q, const op_splat_moments_args *a, double numbers) {
    options_rows(o, q->device, moments_tile(&q->device->info.limits, a->splats));
    options_splats(o, a->splats);
    options_tensor(o, "X", &a->x);
    options_elements(o,
                     (double)(a->x.shape[0] * a->heads) * (double)a->x.shape[2] * (double)a->splats->count);
    options_elements(o, numbers);
}

static clsplat_status local_parts(queue *q, const op_splat_moments_args *a, size_t groups, size_t segments,
                                  size_t parts_each, cl_mem parts) {
    clsplat_status status = CLSPLAT_OK;
    double weights = (double)(a->x.shape[0] * a->heads) * (double)a->x.shape[2] * (double)a->splats->count;
    double size = (double)op_moments_size(a->splats);
    size_t sets = sets_of(a);
    kernel_options o;
    launch l;
    local_options(&o, q, a, (double)(sets * parts_each * a->splats->count) * size);
    TRY(options_launch(&o, q->device, "splat_moments_local.cl", "splat_moments_local", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "heads", (uint32_t)a->heads);
    launch_uint(&l, "x_group", (uint32_t)(a->heads / a->x.shape[1]));
    launch_uint(&l, "segments", (uint32_t)segments);
    launch_uint(&l, "splats", (uint32_t)a->splats->count);
    launch_splat_heads(&l, a->splats);
    launch_mem(&l, "centre", a->splats->centre);
    launch_tensor(&l, &o, "x", &a->x);
    launch_mem(&l, "weights", a->weights);
    launch_mem(&l, "parts", parts);
    TRY(launch_run(&l, q, grid_of(groups * o.group, parts_each, sets, o.group),
                   (work){.flops = 2 * weights * size, .bytes = 4 * weights + tensor_bytes(&a->x)}));
fail:
    return status;
}

static clsplat_status local_merge(queue *q, const op_splat_moments_args *a, size_t parts_each, cl_mem parts) {
    clsplat_status status = CLSPLAT_OK;
    size_t sets = sets_of(a);
    double numbers = (double)(sets * parts_each * a->splats->count) * (double)op_moments_size(a->splats);
    kernel_options o;
    launch l;
    local_options(&o, q, a, numbers);
    TRY(options_launch(&o, q->device, "splat_moments_local.cl", "splat_moments_merge", &l));
    launch_uint(&l, "count", (uint32_t)parts_each);
    launch_uint(&l, "amplitude", a->amplitude);
    launch_uint(&l, "splats", (uint32_t)a->splats->count);
    launch_splat_heads(&l, a->splats);
    launch_mem(&l, "mean", a->splats->mean);
    launch_mem(&l, "centre", a->splats->centre);
    launch_mem(&l, "parts", parts);
    launch_mem(&l, "moments", a->moments);
    TRY(launch_run(&l, q, grid_of(o.group, a->splats->count, sets, o.group),
                   (work){.flops = numbers, .bytes = 4 * numbers}));
fail:
    return status;
}

static clsplat_status moments_local_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_splat_moments_args *a = args;
    const clsplat_limits *limits = &q->device->info.limits;
    size_t groups = rows_groups(moments_tile(limits, a->splats), a->splats->count);
    size_t segments = segments_of(limits, a, groups);
    size_t parts_each = segments * a->x.shape[0] * (a->heads / sets_of(a));
    cl_mem parts;
    TRY(workspace_take(
        q->device, WORKSPACE_GRAD_PART_MOMENTS,
        sizeof(cl_float) * sets_of(a) * parts_each * a->splats->count * op_moments_size(a->splats), &parts));
    TRY(local_parts(q, a, groups, segments, parts_each, parts));
    TRY(local_merge(q, a, parts_each, parts));
fail:
    return status;
}

static void moments_shape(const void *args, tune_shape *shape) {
    const op_splat_moments_args *a = args;
    backward_shape(a->splats, &a->x, false, shape);
    shape->sources = shape->rows;
    shape->rows = a->splats->count;
}

static const op_variant moments_variants[] = {
    {"plain", "sums in float32, difference first", op_fits_all, moments_plain_run, "splat_moments.cl",
     &plain_space},
    {"wide", "the same, for means within SPREAD_LIMIT widths of their centre", moments_wide_fits,
     moments_wide_run, "splat_moments_wide.cl", &backward_wide_space},
    {"group", "sums in float32, difference first", moments_group_fits, moments_group_run,
     "splat_moments_group.cl", &tune_nothing},
    {"local", "as wide", moments_local_fits, moments_local_run, "splat_moments_local.cl", &tune_nothing},
};
const op_family op_splat_moments_family = {"splat_moments", moments_variants,
                                           sizeof moments_variants / sizeof *moments_variants, moments_shape};

clsplat_status op_splat_moments(queue *q, const op_splat_moments_args *args) {
    return op_dispatch(q, &op_splat_moments_family, args);
}
