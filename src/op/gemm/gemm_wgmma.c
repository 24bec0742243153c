#include "op/gemm/gemm.h"

/* Parts of c that a work-group may make, cl/gemm/gemm_wgmma.cl: teams of 128 work-items, parts of the summed
 * dimension in local memory, and groups that a multiprocessor holds at once. */
typedef struct tile {
    size_t high, broad, teams, stages, groups;
} tile;
static const tile tiles[] = {
    {128, 256, 2, 4, 1}, {256, 128, 2, 4, 1}, {256, 192, 2, 4, 1}, {192, 192, 3, 4, 1}, {64, 128, 1, 4, 2}};
enum { TILES = sizeof tiles / sizeof *tiles };

bool gemm_wgmma_fits(const clsplat_limits *limits, const void *args) {
    enum { ROWS_LEAST = 32 };
    const op_gemm_args *a = args;
    return limits_have_wgmma(limits) && tensor_suits_mma(&a->a) && tensor_suits_mma(&a->b) &&
           a->a.dtype == a->b.dtype && a->a.shape[3] % 8 == 0 && a->c.shape[3] % 8 == 0 &&
           a->c.shape[2] >= ROWS_LEAST && a->c.offset % 4 == 0 && a->c.stride[0] % 4 == 0 &&
           a->c.stride[1] % 4 == 0 && a->c.stride[2] % 4 == 0;
}

static size_t groups_of(const tile *t, const op_gemm_args *a) {
    return ((a->c.shape[2] + t->high - 1) / t->high) * ((a->c.shape[3] + t->broad - 1) / t->broad);
}

/* What all groups take in time: rounds over all multiprocessors, and a little for each group, as they share
 * memory. What a group does before its first product and after its last is worth OVERHEAD columns of the
 * summed dimension, less where another group multiplies meanwhile. */
static double time_of(const tile *t, size_t units, const op_gemm_args *a) {
    enum { OVERHEAD = 400, SHARED = 8 };
    size_t all = groups_of(t, a) * a->c.shape[0] * a->c.shape[1], beside = all > units ? t->groups : 1;
    size_t rounds = (all + units * beside - 1) / (units * beside);
    double columns = (double)a->a.shape[3] + OVERHEAD / (double)beside;
    double parts = (double)(rounds * beside) + (double)all / (double)(units * SHARED);
    return parts * columns * (double)(t->high * t->broad);
}

static const tile *choose_tile(const clsplat_limits *limits, const op_gemm_args *a) {
    const tile *best = tiles;
    for (const tile *t = tiles + 1; t < tiles + TILES; ++t)
        if (time_of(t, limits->compute_units, a) < time_of(best, limits->compute_units, a))
            best = t;
    return best;
}

enum { TILE, BAND };
const tune_space gemm_wgmma_space = {2, {{"TILE", {0, 1, 2, 3, 4, 5}}, {"BAND", {8, 4, 16}}}, NULL};

clsplat_status gemm_wgmma_run(queue *q, const void *args) {
    const op_gemm_args *a = args;
    uint32_t wanted = tuned_value(q, &gemm_wgmma_space, TILE);
    const tile *t = wanted ? &tiles[wanted - 1] : choose_tile(&q->device->info.limits, a);
    kernel_options o = {.group = (uint32_t)t->teams * 128};
    options_number(&o, "TEAMS", t->teams);
    options_number(&o, "HIGH", t->high);
    options_number(&o, "BROAD", t->broad);
    options_number(&o, "EACH", t->broad);
    options_number(&o, "STAGES", t->stages);
    options_number(&o, "BAND", tuned_value(q, &gemm_wgmma_space, BAND));
    size_t all = groups_of(t, a), matrices = a->c.shape[0] * a->c.shape[1];
    size_t groups = (t->groups * q->device->info.limits.compute_units + matrices - 1) / matrices;
    groups = groups < all ? groups : all;
    return gemm_launch(q, a, &o, "gemm_wgmma.cl", "gemm_wgmma",
                       grid_of(groups * o.group, 1, matrices, o.group));
}
