#include "op/gemm/gemm.h"

#include <math.h>

#include "op/families.h"
#include "op/kernel.h"

work gemm_work(const op_gemm_args *a) {
    double products = tensor_bytes(&a->c) / (double)clsplat_dtype_size(a->c.dtype) * (double)a->a.shape[3];
    return (work){.flops = 2 * products,
                  .bytes = tensor_bytes(&a->a) + tensor_bytes(&a->b) + tensor_bytes(&a->c)};
}

clsplat_status gemm_launch(queue *q, const op_gemm_args *a, kernel_options *o, const char *source,
                           const char *kernel, grid g) {
    clsplat_status status = CLSPLAT_OK;
    launch l;
    options_tensor(o, "A", &a->a);
    options_tensor(o, "B", &a->b);
    options_tensor(o, "C", &a->c);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "rows", (uint32_t)a->c.shape[2]);
    launch_uint(&l, "columns", (uint32_t)a->c.shape[3]);
    launch_uint(&l, "depth", (uint32_t)a->a.shape[3]);
    launch_uint(&l, "heads", (uint32_t)a->c.shape[1]);
    launch_tensor(&l, o, "a", &a->a);
    launch_tensor(&l, o, "b", &a->b);
    launch_tensor(&l, o, "c", &a->c);
    TRY(launch_run(&l, q, g, gemm_work(a)));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    const op_gemm_args *a = args;
    kernel_options o;
    options_plain(&o, q);
    grid g = grid_of(a->c.shape[3], a->c.shape[2], a->c.shape[0] * a->c.shape[1], o.group);
    return gemm_launch(q, a, &o, "gemm.cl", "gemm", g);
}

static bool wide_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_are_wide(limits);
}

/* Work-items of tile × width elements of c. */
static grid wide_grid(const op_gemm_args *a, size_t tile, size_t width) {
    size_t rows = a->c.shape[2], columns = a->c.shape[3];
    return grid_of((rows + tile - 1) / tile, (columns + width - 1) / width, a->c.shape[0] * a->c.shape[1], 1);
}

/* The tile of least time, of those that few kernels are enough for: the tiles of the unit that has most, each
 * with its products and with copying its rows of a and b. A row of a costs as much as COPY_A products a
 * column of its own, one of b as COPY_B (measured at 2048³ with tiles of 256 × 256 and 128 × 64,
 * cl/gemm/gemm_wide.cl). */
static void choose_tiles(const clsplat_limits *limits, const op_gemm_args *a, size_t block, size_t *tile,
                         size_t *width) {
    enum { SMALLEST = 32, LARGEST = 256, COPY_A = 16, COPY_B = 10 };
    double least = INFINITY;
    *tile = *width = LARGEST;
    for (size_t t = SMALLEST; t <= LARGEST; t *= 2)
        for (size_t w = block; w <= LARGEST; w += block) {
            grid g = wide_grid(a, t, w);
            size_t groups = g.size[0] * g.size[1] * g.size[2], units = limits->compute_units;
            double each = (double)((groups + units - 1) / units),
                   time = each * (double)(t * w + COPY_A * t + COPY_B * w);
            if (time < least) {
                least = time;
                *tile = t;
                *width = w;
            }
        }
}

enum { TILE, WIDTH, RT, LANES };
static bool tiles_allows(const clsplat_limits *limits, const tune_point *point) {
    uint32_t vectors = point->value[RT] * point->value[LANES];
    (void)limits;
    return vectors >= 8 && vectors <= 24;
}
static const tune_space tiles_space = {5,
                                       {{"TILE", {0, 64, 128, 256}},
                                        {"WIDTH", {0, 64, 128, 256}},
                                        {"RT", {4, 6, 8}},
                                        {"LANES", {4, 2, 3}},
                                        {"DEPTH", {256, 128, 512}}},
                                       tiles_allows};

/* Whole register tiles. */
static clsplat_status wide_run(queue *q, const void *args) {
    kernel_options o = {.group = 1};
    size_t tile, width, block = 16 * tuned_value(q, &tiles_space, LANES);
    choose_tiles(&q->device->info.limits, args, block, &tile, &width);
    tile = tuned_value(q, &tiles_space, TILE) ? tuned_value(q, &tiles_space, TILE) : tile;
    width = tuned_value(q, &tiles_space, WIDTH) ? tuned_value(q, &tiles_space, WIDTH) : width;
    tile -= tile % tuned_value(q, &tiles_space, RT);
    width = (width + block - 1) / block * block;
    options_number(&o, "TILE", tile);
    options_number(&o, "WIDTH", width);
    for (size_t p = RT; p < tiles_space.count; ++p)
        options_number(&o, tiles_space.parameters[p].name, tuned_value(q, &tiles_space, p));
    return gemm_launch(q, args, &o, "gemm_wide.cl", "gemm_wide", wide_grid(args, tile, width));
}

static void gemm_shape(const void *args, tune_shape *shape) {
    const op_gemm_args *a = args;
    *shape = (tune_shape){.heads = a->c.shape[0] * a->c.shape[1],
                          .rows = a->c.shape[2],
                          .sources = a->c.shape[3],
                          .dim = a->a.shape[3]};
    shape_words(shape, a->b.dtype, "-");
}

static const op_variant variants[] = {
    {"plain", "relative error of c below 1e-6 in float32", op_fits_all, plain_run, "gemm.cl", &plain_space},
    {"local", "relative error of c of about 1e-7 √K", gemm_local_fits, gemm_local_run, "gemm_local.cl",
     &tune_nothing},
#ifdef CLSPLAT_CLBLAST
    {"clblast", "relative error of c of about 1e-7 √K", gemm_clblast_fits, gemm_clblast_run, NULL,
     &gemm_clblast_space},
#endif
    {"wide", "relative error of c below 1e-6 in float32", wide_fits, wide_run, "gemm_wide.cl", &tiles_space},
    {"mma", "relative error of c below 1e-6 before it is stored", gemm_mma_fits, gemm_mma_run, "gemm_mma.cl",
     &tune_nothing},
    {"units", "relative error of c below 1e-6 before it is stored", gemm_units_fits, gemm_units_run,
     "gemm_mma.cl", &tune_nothing},
    {"wgmma", "relative error of c below 1e-6 before it is stored", gemm_wgmma_fits, gemm_wgmma_run,
     "gemm_wgmma.cl", &gemm_wgmma_space},
    {"few", "relative error of c below 1e-6 in float32", gemm_few_fits, gemm_few_run, "gemm_few.cl",
     &tune_nothing},
    {"blocks", "relative error of c below 1e-6 in float32", gemm_blocks_fits, gemm_blocks_run,
     "gemm_blocks.cl", &tune_nothing},
};
const op_family op_gemm_family = {"gemm", variants, sizeof variants / sizeof *variants, gemm_shape};

clsplat_status op_gemm(queue *q, const op_gemm_args *args) {
    return op_dispatch(q, &op_gemm_family, args);
}
