/* The read on matrix units: cl/splat/read_mma.cl. */
#include "op/splat/read.h"
#include "runtime/buffer.h"

enum { GROUP = 128, KEYS = 64 }; /* work-items; splats are packed in whole tiles of at most that many */

/* What read_pack makes of the splats and their states, once a call. */
typedef struct packed {
    cl_mem mean, value, term;
    size_t writers, splats; /* B·Hw, and S rounded up to whole tiles */
} packed;

bool read_mma_fits(const clsplat_limits *limits, const void *args) {
    const op_read_args *a = args;
    size_t value_dim = a->out.shape[3];
    return limits_have_mma(limits) && !a->causal && a->mixing == CLSPLAT_JOINT && tensor_suits_mma(&a->q) &&
           splats_suit_mma(a->splats, a->q.dtype) && value_dim <= 128 && value_dim % 16 == 0 &&
           tensor_suits_fours(&a->out);
}

static void options_read(kernel_options *o, const op_read_args *a, size_t blocks, bool wgmma) {
    *o = (kernel_options){.group = GROUP};
    options_number(o, "WG", GROUP);
    options_number(o, "BLOCKS", blocks);
    options_number(o, "WGMMA", wgmma);
    options_number(o, "ORIGIN", splats_are_near(a->splats));
    options_splats(o, a->splats);
    options_number(o, "DV", a->out.shape[3]);
    options_tensor(o, "Q", &a->q);
    options_tensor(o, "OUT", &a->out);
    options_tensor(o, "LSE", &a->lse);
}

static clsplat_status pack(queue *q, const op_read_args *a, kernel_options *o, packed *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_splats *splats = a->splats;
    size_t rows = p->writers * p->splats, columns = splats->dim + a->out.shape[3];
    launch l;
    TRY(workspace_take(q->device, WORKSPACE_PACKED_MEAN, 2 * rows * splats->dim, &p->mean));
    TRY(workspace_take(q->device, WORKSPACE_PACKED_VALUE, 2 * rows * a->out.shape[3], &p->value));
    TRY(workspace_take(q->device, WORKSPACE_PACKED_TERM, 8 * rows, &p->term));
    TRY(options_launch(o, q->device, "read_mma.cl", "read_pack", &l));
    launch_uint(&l, "levels", (uint32_t)splats->levels);
    launch_uint(&l, "state_heads", (uint32_t)(p->writers / a->q.shape[0]));
    launch_splats(&l, splats);
    launch_mem(&l, "log_weight", splats->log_weight);
    launch_mem(&l, "level_begin", splats->level_begin);
    launch_mem(&l, "level_log_weight", splats->level_log_weight);
    launch_mem(&l, "state_lse", a->state.lse);
    launch_mem(&l, "state_value", a->state.value);
    launch_mem(&l, "packed_mean", p->mean);
    launch_mem(&l, "packed_value", p->value);
    launch_mem(&l, "packed_term", p->term);
    TRY(launch_run(&l, q, grid_of(p->splats * GROUP, 1, p->writers, GROUP),
                   (work){.flops = 0, .bytes = 6.0 * (double)(rows * columns)}));
fail:
    return status;
}

/* Groups that walk over the queries: as many as compute units hold at once, `resident` each. */
static size_t walkers(const clsplat_limits *limits, const op_read_args *a, size_t rows, size_t resident) {
    size_t heads = a->q.shape[0] * a->q.shape[1], blocks = (a->q.shape[2] + rows - 1) / rows;
    size_t fitting = limits->compute_units * resident / heads, wanted = fitting > 0 ? fitting : 1;
    return wanted < blocks ? wanted : blocks;
}

static clsplat_status run(queue *q, const op_read_args *a, size_t blocks, bool wgmma) {
    clsplat_status status = CLSPLAT_OK;
    const op_splats *splats = a->splats;
    size_t batch = a->q.shape[0], heads = a->q.shape[1], rows = GROUP / 32 * 16 * blocks;
    packed p = {.writers = batch * (splats->heads > 1 ? heads : a->kv_heads),
                .splats = (splats->count + KEYS - 1) / KEYS * KEYS};
    kernel_options o;
    launch l;
    options_read(&o, a, blocks, wgmma);
    TRY(pack(q, a, &o, &p));
    options_read(&o, a, blocks, wgmma);
    TRY(options_launch(&o, q->device, "read_mma.cl", "read_mma", &l));
    launch_uint(&l, "queries", (uint32_t)a->q.shape[2]);
    launch_uint(&l, "group", (uint32_t)(heads / a->kv_heads));
    launch_uint(&l, "splats", (uint32_t)p.splats);
    launch_splat_heads(&l, splats);
    launch_mem(&l, "centre", splats->centre);
    launch_mem(&l, "packed_mean", p.mean);
    launch_mem(&l, "packed_value", p.value);
    launch_mem(&l, "packed_term", p.term);
    launch_tensor(&l, &o, "q", &a->q);
    launch_tensor(&l, &o, "out", &a->out);
    launch_tensor(&l, &o, "lse", &a->lse);
    TRY(launch_run(
        &l, q, grid_of(walkers(&q->device->info.limits, a, rows, wgmma ? 3 : 2) * GROUP, heads, batch, GROUP),
        read_work(a)));
fail:
    return status;
}

clsplat_status read_mma_run(queue *q, const void *args) {
    const op_read_args *a = args;
    return run(q, a, a->q.shape[3] + a->out.shape[3] > 128 ? 1 : 2, false);
}

bool read_wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_read_args *a = args;
    return limits_have_wgmma(limits) && read_mma_fits(limits, args) && a->q.shape[3] == 64 &&
           a->out.shape[3] == 64;
}

clsplat_status read_wgmma_run(queue *q, const void *args) {
    return run(q, args, 1, true);
}
