#include "op/gemm/gemm.h"

/* Parts of c that a work-group may make, cl/gemm/gemm_wgmma.cl: teams of 128 work-items, and groups that a
 * multiprocessor holds at once. What a round of them takes on an H200, in hundredths of a microsecond: each
 * DEPTH of the summed dimension, and what comes before and after. */
typedef struct tile {
    size_t high, broad, teams, groups, step, more;
} tile;
static const tile tiles[] = {{128, 256, 2, 1, 73, 300},
                             {192, 192, 3, 1, 75, 400},
                             {128, 192, 2, 1, 50, 270},
                             {64, 128, 1, 1, 21, 500},
                             {64, 128, 1, 2, 51, 300}};
enum { TILES = sizeof tiles / sizeof *tiles, DEPTH = 64, STAGES = 4 };

/* By its rows and columns in the product, wherever they lie. */
static op_tensor turned(op_tensor x, bool transposed) {
    size_t rows = x.shape[2];
    if (transposed) {
        x.shape[2] = x.shape[3];
        x.shape[3] = rows;
    }
    return x;
}

static op_gemm_args product_of(const op_gemm_transposed_args *t) {
    return (op_gemm_args){.a = turned(t->a, t->a_transposed), .b = turned(t->b, t->b_transposed), .c = t->c};
}

/* Eight numbers that are copied at once are all inside or all outside. */
bool gemm_wgmma_transposed_fits(const clsplat_limits *limits, const void *args) {
    enum { ROWS_LEAST = 32 };
    const op_gemm_transposed_args *t = args;
    op_gemm_args a = product_of(t);
    return limits_have_wgmma(limits) && tensor_suits_mma(&a.a) && tensor_suits_mma(&a.b) &&
           a.a.dtype == a.b.dtype && ((t->a_transposed && t->b_transposed) || a.a.shape[3] % 8 == 0) &&
           (!t->a_transposed || a.c.shape[2] % 8 == 0) && a.c.shape[3] % 8 == 0 &&
           a.c.shape[2] >= ROWS_LEAST && tensor_suits_fours(&a.c);
}

bool gemm_wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_gemm_args *a = args;
    return gemm_wgmma_transposed_fits(limits, &(op_gemm_transposed_args){.a = a->a, .b = a->b, .c = a->c});
}

static size_t groups_of(const tile *t, const op_gemm_args *a) {
    return ((a->c.shape[2] + t->high - 1) / t->high) * ((a->c.shape[3] + t->broad - 1) / t->broad);
}

static size_t time_of(const tile *t, size_t units, const op_gemm_args *a) {
    size_t all = groups_of(t, a) * a->c.shape[0] * a->c.shape[1], at_once = units * t->groups;
    size_t steps = (a->a.shape[3] + DEPTH - 1) / DEPTH, rounds = (all + at_once - 1) / at_once;
    return rounds * (steps * t->step + t->more);
}

/* Of factors that lie transposed three teams cannot share the copies. */
static bool tile_takes(const tile *t, bool transposed) {
    return t->teams < 3 || !transposed;
}

static const tile *choose_tile(const clsplat_limits *limits, const op_gemm_args *a, bool transposed) {
    const tile *best = tiles;
    for (const tile *t = tiles + 1; t < tiles + TILES; ++t)
        if (tile_takes(t, transposed) &&
            time_of(t, limits->compute_units, a) < time_of(best, limits->compute_units, a))
            best = t;
    return best;
}

enum { TILE, BAND };
const tune_space gemm_wgmma_space = {2, {{"TILE", {0, 1, 2, 3, 4, 5}}, {"BAND", {8, 4, 16}}}, NULL};
const tune_space gemm_wgmma_transposed_space = {2, {{"TILE", {0, 1, 3, 4, 5}}, {"BAND", {8, 4, 16}}}, NULL};

static clsplat_status run(queue *q, const op_gemm_transposed_args *as_laid, const tune_space *space) {
    op_gemm_args a = product_of(as_laid);
    uint32_t wanted = tuned_value(q, space, TILE);
    const tile *t =
        wanted ? &tiles[wanted - 1]
               : choose_tile(&q->device->info.limits, &a, as_laid->a_transposed || as_laid->b_transposed);
    kernel_options o = {.group = (uint32_t)t->teams * 128};
    options_number(&o, "TEAMS", t->teams);
    options_number(&o, "HIGH", t->high);
    options_number(&o, "BROAD", t->broad);
    options_number(&o, "EACH", t->broad);
    options_number(&o, "STAGES", STAGES);
    options_number(&o, "BAND", tuned_value(q, space, BAND));
    options_number(&o, "A_TRANSPOSED", as_laid->a_transposed);
    options_number(&o, "B_TRANSPOSED", as_laid->b_transposed);
    size_t all = groups_of(t, &a), matrices = a.c.shape[0] * a.c.shape[1];
    size_t groups = (t->groups * q->device->info.limits.compute_units + matrices - 1) / matrices;
    groups = groups < all ? groups : all;
    return gemm_launch(q, &a, &o, "gemm_wgmma.cl", "gemm_wgmma",
                       grid_of(groups * o.group, 1, matrices, o.group));
}

clsplat_status gemm_wgmma_run(queue *q, const void *args) {
    const op_gemm_args *a = args;
    return run(q, &(op_gemm_transposed_args){.a = a->a, .b = a->b, .c = a->c}, &gemm_wgmma_space);
}

clsplat_status gemm_wgmma_transposed_run(queue *q, const void *args) {
    return run(q, args, &gemm_wgmma_transposed_space);
}
