#include "op/splat/fit.h"

#include "op/kernel.h"
#include "runtime/buffer.h"

static queue_copy words(cl_mem mem, size_t first, size_t count, void *host) {
    return (queue_copy){.mem = mem,
                        .mem_offset = 4 * first,
                        .mem_pitch = 4 * count,
                        .host = host,
                        .host_pitch = 4 * count,
                        .row = 4 * count,
                        .rows = 1};
}

clsplat_status op_fit_put(queue *q, cl_mem mem, size_t first, size_t count, const void *host) {
    return queue_upload(q, words(mem, first, count, (void *)host)); /* an upload only reads */
}

clsplat_status op_fit_get(queue *q, cl_mem mem, size_t first, size_t count, void *host) {
    return queue_download(q, words(mem, first, count, host));
}

/* The buffers of a fit and how many 4-byte elements each has. */
typedef struct part {
    cl_mem *mem;
    size_t elements;
} part;
enum { PARTS = 7 };

static void list_parts(op_fit *f, part parts[PARTS]) {
    parts[0] = (part){&f->tokens, f->count * f->dim};
    parts[1] = (part){&f->means, f->splats * f->dim};
    parts[2] = (part){&f->variance, f->splats * f->dim};
    parts[3] = (part){&f->nearest, f->count};
    parts[4] = (part){&f->distance, f->count};
    parts[5] = (part){&f->order, f->count};
    parts[6] = (part){&f->begin, f->splats + 1};
}

clsplat_status op_fit_create(queue *q, const float *tokens, size_t count, size_t dim, size_t splats,
                             op_fit *fit) {
    clsplat_status status = CLSPLAT_OK;
    part parts[PARTS];
    *fit = (op_fit){.count = count, .dim = dim, .splats = splats};
    if ((double)(count > splats ? count : splats) * (double)dim > INT32_MAX)
        return log_error(
            q->device->lib, CLSPLAT_INVALID,
            "a sample of %zu tokens of %zu numbers is too large to fit splats to; take a smaller one", count,
            dim);
    list_parts(fit, parts);
    for (size_t i = 0; i < PARTS; ++i)
        TRY(buffer_create(q->device, 4 * parts[i].elements, parts[i].mem));
    TRY(op_fit_put(q, fit->tokens, 0, count * dim, tokens));
    return CLSPLAT_OK;
fail:
    op_fit_release(q->device, fit);
    return status;
}

void op_fit_release(clsplat_device *device, op_fit *fit) {
    part parts[PARTS];
    list_parts(fit, parts);
    for (size_t i = 0; i < PARTS; ++i)
        buffer_release(device, 4 * parts[i].elements, parts[i].mem);
}

static clsplat_status begin_launch(queue *q, const op_fit *fit, const char *kernel, size_t *group,
                                   launch *l) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    options_begin(&o, q->device);
    options_number(&o, "D", fit->dim);
    *group = o.group;
    TRY(options_launch(&o, q->device, "fit.cl", kernel, l));
fail:
    return status;
}

clsplat_status op_fit_nearest(queue *q, const op_fit *fit, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    size_t group;
    launch l;
    double tokens = (double)fit->count * (double)fit->dim;
    TRY(begin_launch(q, fit, "fit_nearest", &group, &l));
    launch_uint(&l, "count", (uint32_t)fit->count);
    launch_uint(&l, "splats", (uint32_t)splats);
    launch_mem(&l, "tokens", fit->tokens);
    launch_mem(&l, "means", fit->means);
    launch_mem(&l, "nearest", fit->nearest);
    launch_mem(&l, "distance", fit->distance);
    TRY(launch_run(&l, q, grid_of(fit->count, 1, 1, group),
                   (work){.flops = 3 * tokens * (double)splats, .bytes = 4 * tokens}));
fail:
    return status;
}

clsplat_status op_fit_closer(queue *q, const op_fit *fit, size_t splat, bool first) {
    clsplat_status status = CLSPLAT_OK;
    size_t group;
    launch l;
    double tokens = (double)fit->count * (double)fit->dim;
    TRY(begin_launch(q, fit, "fit_closer", &group, &l));
    launch_uint(&l, "count", (uint32_t)fit->count);
    launch_uint(&l, "splat", (uint32_t)splat);
    launch_uint(&l, "first", first);
    launch_mem(&l, "tokens", fit->tokens);
    launch_mem(&l, "means", fit->means);
    launch_mem(&l, "distance", fit->distance);
    TRY(launch_run(&l, q, grid_of(fit->count, 1, 1, group),
                   (work){.flops = 3 * tokens, .bytes = 4 * tokens}));
fail:
    return status;
}

clsplat_status op_fit_moments(queue *q, const op_fit *fit, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    size_t group;
    launch l;
    double tokens = (double)fit->count * (double)fit->dim;
    TRY(begin_launch(q, fit, "fit_moments", &group, &l));
    launch_mem(&l, "tokens", fit->tokens);
    launch_mem(&l, "order", fit->order);
    launch_mem(&l, "begin", fit->begin);
    launch_mem(&l, "means", fit->means);
    launch_mem(&l, "variance", fit->variance);
    TRY(launch_run(&l, q, grid_of(fit->dim, splats, 1, group),
                   (work){.flops = 5 * tokens, .bytes = 8 * tokens}));
fail:
    return status;
}

clsplat_status op_fit_covariance(queue *q, const op_fit *fit, size_t splats, cl_mem covariance) {
    clsplat_status status = CLSPLAT_OK;
    size_t group;
    launch l;
    double tokens = (double)fit->count * (double)fit->dim;
    if ((double)splats * (double)fit->dim * (double)fit->dim > INT32_MAX)
        return log_error(q->device->lib, CLSPLAT_INVALID,
                         "%zu full covariances of %zu dimensions are too many for one level; take fewer, or "
                         "diagonal ones",
                         splats, fit->dim);
    TRY(begin_launch(q, fit, "fit_covariance", &group, &l));
    launch_mem(&l, "tokens", fit->tokens);
    launch_mem(&l, "order", fit->order);
    launch_mem(&l, "begin", fit->begin);
    launch_mem(&l, "means", fit->means);
    launch_mem(&l, "covariance", covariance);
    TRY(launch_run(&l, q, grid_of(fit->dim, fit->dim, splats, group),
                   (work){.flops = 4 * tokens * (double)fit->dim, .bytes = 4 * tokens}));
fail:
    return status;
}
