#include "op/families.h"
#include "op/kernel.h"

/* `rows`: a kernel whose work-items look after themselves takes it. */
static clsplat_status run(queue *q, const op_score_args *a, kernel_options *o, const char *source,
                          const char *kernel, grid g, bool rows) {
    clsplat_status status = CLSPLAT_OK;
    launch l;
    options_tensor(o, "X", &a->logits);
    TRY(options_launch(o, q->device, source, kernel, &l));
    if (rows)
        launch_uint(&l, "rows", (uint32_t)a->logits.shape[2]);
    launch_uint(&l, "count", (uint32_t)a->logits.shape[3]);
    launch_uint(&l, "first_row", (uint32_t)a->first);
    launch_tensor(&l, o, "logits", &a->logits);
    launch_mem(&l, "targets", a->targets);
    launch_mem(&l, "log_likelihood", a->log_likelihood);
    launch_mem(&l, "greedy", a->greedy);
    TRY(launch_run(&l, q, g, (work){.bytes = tensor_bytes(&a->logits)}));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    const op_score_args *a = args;
    kernel_options o;
    options_plain(&o, q);
    return run(q, a, &o, "score.cl", "score_rows", grid_of(a->logits.shape[2], 1, 1, o.group), true);
}

static bool group_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_have_groups(limits, GROUP_ITEMS, 3 * sizeof(cl_float) * GROUP_ITEMS);
}

static clsplat_status group_run(queue *q, const void *args) {
    const op_score_args *a = args;
    kernel_options o;
    options_group_of(&o, q->device, GROUP_ITEMS);
    return run(q, a, &o, "score_group.cl", "score_group",
               grid_of(a->logits.shape[2] * o.group, 1, 1, o.group), false);
}

static const op_variant variants[] = {
    {"plain", "error of log_likelihood of about 1e-6 + 1e-7 |log_likelihood|", op_fits_all, plain_run,
     "score.cl", &plain_space},
    {"group", "the same", group_fits, group_run, "score_group.cl", &tune_nothing},
};
const op_family op_score_family = {"score", variants, sizeof variants / sizeof *variants, NULL};

clsplat_status op_score(queue *q, const op_score_args *args) {
    return op_dispatch(q, &op_score_family, args);
}
