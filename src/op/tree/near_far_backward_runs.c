#include "op/tree/near_far_backward.h"

/* Columns of values that a work-item of a GPU with few registers keeps in them: on Intel's smallest 128
 * floats are all there is, and with 128 columns near_far_back_behind spilled 238. */
size_t near_far_back_strips(const op_forest *f) {
    enum { MOST = 64 };
    size_t strips = 1;
    while (f->value_dim / strips > MOST && f->value_dim % (2 * strips) == 0)
        strips *= 2;
    return strips;
}

/* CPUs have kernels of their own, and NVIDIA's GPUs 255 registers. */
size_t near_far_back_strips_of(const near_far_back *p) {
    bool one = p->turned || p->q->device->info.limits.nvidia_capability > 0;
    return one ? 1 : near_far_back_strips(p->a->forest);
}

/* Matrices of runs, each with those behind it: a core of a CPU has rows of all. */
static clsplat_status sum_runs_wide(const near_far_back *p) {
    enum { ROWS_EACH = 4 }; /* of a matrix, that it sums up at a time */
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    kernel_options o;
    launch l;
    options_near_far_back(&o, p, true);
    options_number(&o, "ROWS_EACH", ROWS_EACH);
    TRY(near_far_back_open(p, &o, "near_far_back_runs_wide.cl", "near_far_back_runs_wide", &l));
    launch_mem(&l, "covariance_terms", p->mem[BACK_COVARIANCE_TERMS]);
    launch_mem(&l, "masses", p->mem[BACK_RUN_MASSES]);
    launch_mem(&l, "run_sums", p->mem[BACK_RUN_SUMS]);
    launch_mem(&l, "run_slopes", p->mem[BACK_RUN_SLOPES]);
    TRY(launch_run(&l, p->q, grid_of(f->dim / ROWS_EACH, f->heads, f->batch, o.group), (work){0}));
fail:
    return status;
}

/* Other devices have a row of one, and add them up later. */
static clsplat_status sum_runs(const near_far_back *p, size_t runs) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    kernel_options o;
    launch l;
    options_near_far_back(&o, p, false);
    TRY(near_far_back_open(p, &o, "near_far_back_runs.cl", "near_far_back_runs", &l));
    launch_mem(&l, "covariance_terms", p->mem[BACK_COVARIANCE_TERMS]);
    launch_mem(&l, "run_sums", p->mem[BACK_RUN_SUMS]);
    TRY(launch_run(&l, p->q, grid_of(runs * near_far_back_strips_of(p) * f->dim, f->heads, f->batch, o.group),
                   (work){0}));
    options_near_far_back(&o, p, false);
    TRY(near_far_back_open(p, &o, "near_far_back_runs.cl", "near_far_back_behind", &l));
    launch_mem(&l, "masses", p->mem[BACK_RUN_MASSES]);
    launch_mem(&l, "run_sums", p->mem[BACK_RUN_SUMS]);
    launch_mem(&l, "run_slopes", p->mem[BACK_RUN_SLOPES]);
    TRY(launch_run(&l, p->q, grid_of(near_far_back_strips_of(p) * f->dim, f->heads, f->batch, o.group),
                   (work){0}));
fail:
    return status;
}

clsplat_status near_far_back_runs(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    size_t runs = p->forward.keys / f->chunk / OP_FOREST_RUN;
    kernel_options o;
    launch l;
    if (runs == 0)
        return CLSPLAT_OK;
    options_near_far_back(&o, p, false);
    TRY(options_launch(&o, p->q->device, "near_far_back_runs.cl", "near_far_back_masses", &l));
    launch_uint(&l, "keys", (uint32_t)p->forward.keys);
    launch_forest_shape(&l, f);
    launch_mem(&l, "stats", f->stats);
    launch_mem(&l, "masses", p->mem[BACK_RUN_MASSES]);
    TRY(launch_run(&l, p->q, grid_of(1, f->heads, f->batch, 1), (work){0}));
    TRY(p->turned ? sum_runs_wide(p) : sum_runs(p, runs));
fail:
    return status;
}
