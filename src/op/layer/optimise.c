#include "op/layer/optimise.h"

#include <math.h>

#include "op/families.h"
#include "op/kernel.h"
#include "op/layer/layer_backward_group.h"

static const char source[] = "optimise.cl";

/* Runs of PART numbers, until there are so many that runs grow. */
enum { PART = 1 << 12, PARTS_MOST = 1 << 12 };

size_t op_square_run(size_t count) {
    size_t run = (count + PARTS_MOST - 1) / PARTS_MOST;
    return run < PART ? PART : run;
}

size_t op_square_parts(size_t count) {
    return (count + op_square_run(count) - 1) / op_square_run(count);
}

static clsplat_status squares_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_square_sums_args *a = args;
    size_t parts = op_square_parts(a->count);
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_elements(&o, (double)a->count);
    TRY(options_launch(&o, q->device, source, "square_sums", &l));
    launch_index(&l, &o, "count", a->count);
    launch_uint(&l, "parts", (uint32_t)parts);
    launch_index(&l, &o, "run", op_square_run(a->count));
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_mem(&l, "g", a->g);
    launch_mem(&l, "partials", a->partials);
    TRY(launch_run(&l, q, grid_of(parts, 1, 1, o.group),
                   (work){.flops = 2 * (double)a->count, .bytes = 4 * (double)a->count}));
fail:
    return status;
}

static clsplat_status clip_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_clip_factor_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    TRY(options_launch(&o, q->device, source, "clip_factor", &l));
    launch_uint(&l, "parts", (uint32_t)a->parts);
    launch_float(&l, "limit", a->limit);
    launch_mem(&l, "partials", a->partials);
    launch_mem(&l, "result", a->result);
    TRY(launch_run(&l, q, grid_of(1, 1, 1, o.group),
                   (work){.flops = (double)a->parts, .bytes = 4 * (double)a->parts}));
fail:
    return status;
}

static clsplat_status adamw_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_adamw_args *a = args;
    double t = (double)a->step;
    float rates[4] = {(float)(a->rate / (1 - pow(a->beta1, t))), (float)(a->rate * a->decay),
                      (float)sqrt(1 - pow(a->beta2, t)), (float)a->epsilon};
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_elements(&o, (double)a->count);
    TRY(options_launch(&o, q->device, source, "adamw", &l));
    launch_index(&l, &o, "count", a->count);
    launch_float(&l, "beta1", (float)a->beta1);
    launch_float(&l, "beta2", (float)a->beta2);
    launch_bytes(&l, "rates", rates, sizeof rates);
    launch_mem(&l, "clip", a->clip);
    launch_mem(&l, "g", a->g);
    launch_mem(&l, "w", a->w);
    launch_mem(&l, "m", a->m);
    launch_mem(&l, "v", a->v);
    TRY(launch_run(&l, q, grid_of(a->count, 1, 1, o.group),
                   (work){.flops = 12 * (double)a->count, .bytes = 28 * (double)a->count}));
fail:
    return status;
}

static const op_variant squares_rows[] = {{"plain", "sums in float32", op_fits_all, squares_run, source,
                                           &plain_space},
                                          {"group", "the same, in another order", layer_group_fits,
                                           square_sums_group_run, "layer_backward_group.cl", &tune_nothing}},
                        clip_rows[] = {{"plain", "sums in float32", op_fits_all, clip_run, source,
                                        &plain_space}},
                        adamw_rows[] = {
                            {"plain", "a few ulp a step", op_fits_all, adamw_run, source, &plain_space}};

const op_family op_square_sums_family = {"square_sums", squares_rows, 2, NULL},
                op_clip_factor_family = {"clip_factor", clip_rows, 1, NULL},
                op_adamw_family = {"adamw", adamw_rows, 1, NULL};

clsplat_status op_square_sums(queue *q, const op_square_sums_args *args) {
    return op_dispatch(q, &op_square_sums_family, args);
}

clsplat_status op_clip_factor(queue *q, const op_clip_factor_args *args) {
    return op_dispatch(q, &op_clip_factor_family, args);
}

clsplat_status op_adamw(queue *q, const op_adamw_args *args) {
    return op_dispatch(q, &op_adamw_family, args);
}
