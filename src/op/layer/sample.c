#include <string.h>

#include "op/families.h"
#include "op/kernel.h"
#include "runtime/buffer.h"

/* Tokens of a part at least, parts at most, and the digits of a threshold: see cl/layer/sample.cl. */
enum { SHARE_LEAST = 64, PARTS_MOST = 128, DIGITS = 256 };

/* One call: how the row is cut, and its workspaces. */
typedef struct drawing {
    const op_sample_args *args;
    queue *q;
    size_t parts, share;
    float inverse;                                /* 1 / temperature */
    cl_mem peak, place, histogram, folded, state; /* [parts] [parts] [parts,256] [256] sampler */
} drawing;

static clsplat_status take(drawing *d) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = d->q->device;
    TRY(workspace_take(device, WORKSPACE_PART_VALUE, 4 * d->parts * DIGITS, &d->histogram));
    TRY(workspace_take(device, WORKSPACE_PART_LSE, 4 * d->parts, &d->peak));
    TRY(workspace_take(device, WORKSPACE_STATE_LSE, 4 * d->parts, &d->place));
    TRY(workspace_take(device, WORKSPACE_STATE_VALUE, 4 * DIGITS, &d->folded));
    TRY(workspace_take(device, WORKSPACE_CARRY, 64, &d->state));
fail:
    return status;
}

/* A kernel over parts begins with parts, share and count; one over the row reads the logits. */
static clsplat_status begin(const drawing *d, const char *kernel, kernel_options *o, launch *l) {
    options_plain(o, d->q);
    options_tensor(o, "X", &d->args->logits);
    return options_launch(o, d->q->device, "sample.cl", kernel, l);
}

static void launch_parts(launch *l, const drawing *d) {
    launch_uint(l, "parts", (uint32_t)d->parts);
    launch_uint(l, "share", (uint32_t)d->share);
    launch_uint(l, "count", (uint32_t)d->args->logits.shape[3]);
}

static clsplat_status run(launch *l, const drawing *d, size_t items, size_t group) {
    return launch_run(l, d->q, grid_of(items, 1, 1, group), (work){.bytes = tensor_bytes(&d->args->logits)});
}

static clsplat_status find_top(const drawing *d) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    TRY(begin(d, "sample_peaks", &o, &l));
    launch_parts(&l, d);
    launch_tensor(&l, &o, "logits", &d->args->logits);
    launch_mem(&l, "peak", d->peak);
    launch_mem(&l, "place", d->place);
    TRY(run(&l, d, d->parts, o.group));
    TRY(begin(d, "sample_top", &o, &l));
    launch_uint(&l, "parts", (uint32_t)d->parts);
    launch_mem(&l, "peak", d->peak);
    launch_mem(&l, "place", d->place);
    launch_mem(&l, "s", d->state);
    launch_mem(&l, "token", d->args->token);
    TRY(run(&l, d, 1, 1));
fail:
    return status;
}

/* Eight bits of the threshold, from `shift` on. */
static clsplat_status find_digit(const drawing *d, uint32_t shift, bool mass, float want) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    TRY(begin(d, "sample_count", &o, &l));
    launch_parts(&l, d);
    launch_uint(&l, "shift", shift);
    launch_uint(&l, "mass", mass);
    launch_float(&l, "inverse", d->inverse);
    launch_tensor(&l, &o, "logits", &d->args->logits);
    launch_mem(&l, "s", d->state);
    launch_mem(&l, "histogram", d->histogram);
    TRY(run(&l, d, d->parts, o.group));
    TRY(begin(d, "sample_fold", &o, &l));
    launch_uint(&l, "parts", (uint32_t)d->parts);
    launch_mem(&l, "histogram", d->histogram);
    launch_mem(&l, "folded", d->folded);
    TRY(run(&l, d, DIGITS, o.group));
    TRY(begin(d, "sample_choose", &o, &l));
    launch_uint(&l, "shift", shift);
    launch_uint(&l, "mass", mass);
    launch_float(&l, "want", want);
    launch_mem(&l, "folded", d->folded);
    launch_mem(&l, "s", d->state);
    TRY(run(&l, d, 1, 1));
fail:
    return status;
}

static clsplat_status find_threshold(const drawing *d, bool mass, float want) {
    clsplat_status status = CLSPLAT_OK;
    for (int shift = 24; shift >= 0; shift -= 8)
        TRY(find_digit(d, (uint32_t)shift, mass, want));
fail:
    return status;
}

static clsplat_status draw(const drawing *d) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    TRY(begin(d, "sample_mass", &o, &l));
    launch_parts(&l, d);
    launch_float(&l, "inverse", d->inverse);
    launch_tensor(&l, &o, "logits", &d->args->logits);
    launch_mem(&l, "s", d->state);
    launch_mem(&l, "mass", d->peak);
    TRY(run(&l, d, d->parts, o.group));
    TRY(begin(d, "sample_draw", &o, &l));
    launch_parts(&l, d);
    launch_float(&l, "inverse", d->inverse);
    launch_float(&l, "draw", d->args->draw);
    launch_tensor(&l, &o, "logits", &d->args->logits);
    launch_mem(&l, "s", d->state);
    launch_mem(&l, "mass", d->peak);
    launch_mem(&l, "token", d->args->token);
    TRY(run(&l, d, 1, 1));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_sample_args *a = args;
    size_t count = a->logits.shape[3], share = (count + PARTS_MOST - 1) / PARTS_MOST;
    drawing d = {.args = a, .q = q, .share = share < SHARE_LEAST ? SHARE_LEAST : share};
    d.parts = (count + d.share - 1) / d.share;
    TRY(take(&d));
    TRY(find_top(&d));
    if (a->temperature == 0)
        return CLSPLAT_OK;
    d.inverse = 1 / a->temperature;
    if (a->top_k > 0 && a->top_k < count)
        TRY(find_threshold(&d, false, (float)a->top_k));
    if (a->top_p < 1)
        TRY(find_threshold(&d, true, a->top_p));
    TRY(draw(&d));
fail:
    return status;
}

static const op_variant variants[] = {
    {"plain", "sums of weights in float32, in a fixed order", op_fits_all, plain_run, "sample.cl",
     &plain_space},
};
const op_family op_sample_family = {"sample", variants, sizeof variants / sizeof *variants, NULL};

clsplat_status op_sample(queue *q, const op_sample_args *args) {
    return op_dispatch(q, &op_sample_family, args);
}
