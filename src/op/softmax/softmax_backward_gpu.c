#include "op/backward.h"
#include "op/softmax/softmax.h"
#include "op/softmax/softmax_backward.h"
#include "op/workspace.h"
#include "runtime/buffer.h"

static const char source[] = "softmax_backward_local.cl";

/* The tile of cl/softmax/softmax_backward_local.cl: 8 × 8 items of four rows. */
enum { HIGH = 8, GROUP = OP_LOCAL_ACROSS * HIGH, ROWS = 4 * HIGH };

static size_t tile_bytes(size_t keys_each, size_t columns) {
    size_t others = OP_LOCAL_ACROSS * keys_each;
    return sizeof(float) * ((ROWS + others) * columns + 2 * others * ROWS);
}

/* Others of an item: as many as there is room for; 0: none. */
static size_t keys_each(const clsplat_limits *limits, const op_softmax_backward_args *a) {
    size_t columns = a->q.shape[3] + a->v.shape[3];
    for (size_t each = OP_LOCAL_EACH; each > 1; each /= 2)
        if (tile_bytes(each, columns) <= limits_local_share(limits))
            return each;
    return 0;
}

bool softmax_backward_local_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_backward_args *a = args;
    return limits_allow_group(limits, GROUP) && a->q.shape[3] <= 128 && a->v.shape[3] <= 128 &&
           a->q.shape[2] > 0 && a->k.shape[2] > 0 && keys_each(limits, a) > 0;
}

static void options(kernel_options *o, queue *q, const op_softmax_backward_args *a) {
    *o = (kernel_options){.group = GROUP};
    options_number(o, "TY", HIGH);
    options_number(o, "CT", keys_each(&q->device->info.limits, a));
    options_eager(o, q->device);
    softmax_backward_options(o, a);
}

static clsplat_status measure(queue *q, const op_softmax_backward_args *a, cl_mem stats) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    options(&o, q, a);
    TRY(options_launch(&o, q->device, source, "softmax_backward_stats", &l));
    launch_uint(&l, (uint32_t)a->q.shape[2]);
    launch_tensor(&l, &o, &a->out);
    launch_tensor(&l, &o, &a->lse);
    launch_tensor(&l, &o, &a->dout);
    launch_mem(&l, stats);
    if (a->dlse.mem)
        launch_tensor(&l, &o, &a->dlse);
    TRY(launch_run(&l, q, grid_of(a->q.shape[2], a->q.shape[1], a->q.shape[0], GROUP),
                   (work){.flops = tensor_bytes(&a->out) / 2, .bytes = 2 * tensor_bytes(&a->out)}));
fail:
    return status;
}

/* The tensors of a pass as its kernel calls them: what a group has, and what it goes over. */
typedef struct sides {
    const op_tensor *own[2], *other[2], *sum[2];
} sides;

static sides sides_of(const op_softmax_backward_args *a, bool by_keys) {
    return by_keys ? (sides){{&a->k, &a->v}, {&a->q, &a->dout}, {&a->dk, &a->dv}}
                   : (sides){{&a->q, &a->dout}, {&a->k, &a->v}, {&a->dq, &a->dv}};
}

static void options_sides(kernel_options *o, const sides *s, bool by_keys) {
    options_number(o, "BY_KEYS", by_keys);
    options_tensor(o, "OWN_1", s->own[0]);
    options_tensor(o, "OWN_2", s->own[1]);
    options_tensor(o, "OTHER_1", s->other[0]);
    options_tensor(o, "OTHER_2", s->other[1]);
    options_tensor(o, "SUM_1", s->sum[0]);
    options_tensor(o, "SUM_2", s->sum[1]);
}

/* A kernel for one pass, and the rows and items of its groups. */
typedef struct maker {
    const char *source, *kernel;
    size_t rows;
    uint32_t group;
} maker;

static clsplat_status pass(queue *q, const op_softmax_backward_args *a, const maker *m, bool by_keys,
                           cl_mem stats) {
    clsplat_status status = CLSPLAT_OK;
    sides s = sides_of(a, by_keys);
    kernel_options o;
    launch l;
    options(&o, q, a);
    options_sides(&o, &s, by_keys);
    TRY(options_launch(&o, q->device, m->source, m->kernel, &l));
    launch_uint(&l, (uint32_t)s.own[0]->shape[2]);
    launch_uint(&l, (uint32_t)s.other[0]->shape[2]);
    launch_uint(&l, (uint32_t)(a->q.shape[1] / a->k.shape[1]));
    launch_float(&l, a->scale);
    launch_int(&l, a->diagonal);
    launch_tensor(&l, &o, s.own[0]);
    launch_tensor(&l, &o, s.own[1]);
    launch_tensor(&l, &o, s.other[0]);
    launch_tensor(&l, &o, s.other[1]);
    if (a->key_bias.mem)
        launch_tensor(&l, &o, &a->key_bias);
    launch_mem(&l, stats);
    launch_tensor(&l, &o, s.sum[0]);
    if (by_keys)
        launch_tensor(&l, &o, s.sum[1]);
    if (by_keys && a->dkey_bias.mem)
        launch_tensor(&l, &o, &a->dkey_bias);
    size_t groups = (s.own[0]->shape[2] + m->rows - 1) / m->rows;
    TRY(launch_run(&l, q, grid_of(groups * m->group, s.own[0]->shape[1], s.own[0]->shape[0], m->group),
                   softmax_backward_work(a, 2, by_keys ? 2 : 1)));
fail:
    return status;
}

static clsplat_status run(queue *q, const op_softmax_backward_args *a, const maker *m) {
    clsplat_status status = CLSPLAT_OK;
    cl_mem stats;
    TRY(workspace_take(q->device, WORKSPACE_GRAD_STATS, 8 * a->q.shape[0] * a->q.shape[1] * a->q.shape[2],
                       &stats));
    TRY(measure(q, a, stats));
    TRY(pass(q, a, m, false, stats));
    TRY(pass(q, a, m, true, stats));
fail:
    return status;
}

clsplat_status softmax_backward_local_run(queue *q, const void *args) {
    static const maker local = {source, "softmax_backward_local", ROWS, GROUP};
    return run(q, args, &local);
}

static bool is_even(const op_tensor *t) {
    return t->offset % 2 == 0 && t->stride[0] % 2 == 0 && t->stride[1] % 2 == 0 && t->stride[2] % 2 == 0;
}

bool softmax_backward_mma_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_backward_args *a = args;
    const op_tensor *operands[] = {&a->q, &a->k, &a->v, &a->dout};
    for (size_t i = 0; i < sizeof operands / sizeof *operands; ++i)
        if (!tensor_suits_mma(operands[i]) || operands[i]->dtype != a->q.dtype)
            return false;
    return limits_have_mma(limits) && softmax_backward_local_fits(limits, args) && !a->key_bias.mem &&
           !a->dkey_bias.mem && a->q.shape[3] % 16 == 0 && a->v.shape[3] % 16 == 0 && a->q.shape[3] <= 64 &&
           a->v.shape[3] <= 64 && is_even(&a->dq) && is_even(&a->dk) && is_even(&a->dv);
}

clsplat_status softmax_backward_mma_run(queue *q, const void *args) {
    static const maker mma = {"softmax_backward_mma.cl", "softmax_backward_mma", 64, 128};
    return run(q, args, &mma);
}
