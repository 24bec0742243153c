#include "op/kernel.h"
#include "op/softmax.h"
#include "runtime/buffer.h"

/* Rows that share a key head, up to which one work-item takes them all; and what their states may take. */
enum { ROWS_LIMIT = 32, QUERIES_LIMIT = 16, KEYS_LEAST = 1024, STATE_LIMIT = 64 << 20 };

/* How the keys are cut: `splits` ranges of `share` keys each, the last perhaps shorter. */
typedef struct cut {
    size_t rows; /* N·H/Hk */
    size_t share, splits;
} cut;

/* A few ranges per compute unit, so that none waits long for the others; each long enough to be worth a
 * state, and short enough for a sum in float32. */
static cut choose_cut(const clsplat_limits *limits, const op_softmax_args *a) {
    enum { RANGES = 8, SHORTEST = 512, LONGEST = 1 << 16 };
    size_t heads = a->k.shape[0] * a->k.shape[1], keys = a->k.shape[2];
    size_t wanted = (limits->compute_units * (size_t)RANGES + heads - 1) / heads;
    size_t share = (keys + wanted - 1) / wanted;
    share = share < SHORTEST ? SHORTEST : share > LONGEST ? LONGEST : (share + 63) / 64 * 64;
    return (cut){.rows = a->q.shape[1] / a->k.shape[1] * a->q.shape[2],
                 .share = share,
                 .splits = (keys + share - 1) / share};
}

static size_t states_of(const op_softmax_args *a, const cut *c) {
    return a->k.shape[0] * a->k.shape[1] * c->rows * c->splits;
}

bool softmax_split_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    cut c = choose_cut(limits, a);
    return limits_are_wide(limits) && a->q.shape[3] % 16 == 0 && a->v.shape[3] % 16 == 0 &&
           a->q.shape[2] <= QUERIES_LIMIT && c.rows <= ROWS_LIMIT && a->k.shape[2] >= KEYS_LEAST &&
           4 * states_of(a, &c) * a->v.shape[3] <= STATE_LIMIT;
}

/* Up to FEW rows each reads the keys as they lie; more are worth transposing them. */
static void options_split(kernel_options *o, const op_softmax_args *a, const cut *c) {
    enum { FEW = 8 };
    size_t high = c->rows <= FEW ? 1 : 4;
    *o = (kernel_options){.group = 1};
    options_number(o, "RT", high);
    options_number(o, "TILE", (c->rows + high - 1) / high * high);
    options_number(o, "LANES", high);
    softmax_options(o, a);
}

static clsplat_status split(queue *q, const op_softmax_args *a, const cut *c, const op_state *part) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options_split(&o, a, c);
    TRY(options_launch(&o, q->device, "softmax_split.cl", "softmax_split", &l));
    launch_uint(&l, (uint32_t)a->q.shape[2]);
    launch_uint(&l, (uint32_t)a->k.shape[2]);
    launch_uint(&l, (uint32_t)(a->q.shape[1] / a->k.shape[1]));
    launch_float(&l, a->scale);
    launch_int(&l, a->diagonal);
    launch_uint(&l, (uint32_t)c->share);
    launch_tensor(&l, &o, &a->q);
    launch_tensor(&l, &o, &a->k);
    launch_tensor(&l, &o, &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, &o, &a->key_bias);
    launch_mem(&l, part->lse);
    launch_mem(&l, part->value);
    TRY(launch_run(&l, q, grid_of(c->splits, a->k.shape[1], a->k.shape[0], 1), softmax_work(a)));
fail:
    return status;
}

static clsplat_status merge(queue *q, const op_softmax_args *a, const cut *c, const op_state *part) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    double states = (double)states_of(a, c), values = states * (double)a->v.shape[3];
    options_split(&o, a, c);
    TRY(options_launch(&o, q->device, "softmax_split.cl", "softmax_merge", &l));
    launch_uint(&l, (uint32_t)a->q.shape[2]);
    launch_uint(&l, (uint32_t)(a->q.shape[1] / a->k.shape[1]));
    launch_uint(&l, (uint32_t)c->splits);
    launch_uint(&l, a->accumulate);
    launch_mem(&l, part->lse);
    launch_mem(&l, part->value);
    launch_tensor(&l, &o, &a->out);
    launch_tensor(&l, &o, &a->lse);
    TRY(launch_run(&l, q, grid_of(c->rows, a->k.shape[1], a->k.shape[0], 1),
                   (work){.flops = 2 * values, .bytes = 4 * (values + states)}));
fail:
    return status;
}

clsplat_status softmax_split_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_softmax_args *a = args;
    cut c = choose_cut(&q->device->info.limits, a);
    op_state part = {.segments = c.splits};
    size_t states = states_of(a, &c);
    TRY(workspace_take(q->device, WORKSPACE_PART_LSE, 4 * states, &part.lse));
    TRY(workspace_take(q->device, WORKSPACE_PART_VALUE, 4 * states * a->v.shape[3], &part.value));
    TRY(split(q, a, &c, &part));
    TRY(merge(q, a, &c, &part));
fail:
    return status;
}
