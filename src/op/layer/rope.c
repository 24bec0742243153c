#include "op/families.h"
#include "op/kernel.h"

static clsplat_status turn_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_turn_args *a = args;
    double angles = (double)(a->rows * a->dim / 2);
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_number(&o, "D", a->dim);
    TRY(options_launch(&o, q->device, "rope.cl", "turn_rows", &l));
    launch_uint(&l, "first", a->first);
    launch_float(&l, "factor", a->factor);
    launch_mem(&l, "frequencies", a->frequencies);
    launch_mem(&l, "turn", a->turn);
    TRY(launch_run(&l, q, grid_of(a->dim / 2, a->rows, 1, o.group),
                   (work){.flops = angles, .bytes = 8 * angles}));
fail:
    return status;
}

static clsplat_status rope_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_rope_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_number(&o, "D", a->x.shape[3]);
    options_number(&o, "NORM", a->q_weight.mem != NULL);
    options_tensor(&o, "X", &a->x);
    options_optional(&o, "BIAS", &a->bias);
    options_optional(&o, "QW", &a->q_weight);
    options_optional(&o, "KW", &a->k_weight);
    options_tensor(&o, "Q", &a->q);
    options_tensor(&o, "K", &a->k);
    options_tensor(&o, "V", &a->v);
    TRY(options_launch(&o, q->device, "rope.cl", "rope_rows", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "heads", (uint32_t)a->q.shape[1]);
    launch_uint(&l, "kv_heads", (uint32_t)a->k.shape[1]);
    launch_float(&l, "epsilon", a->epsilon);
    launch_mem(&l, "turn", a->turn);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "bias", &a->bias);
    launch_tensor(&l, &o, "q_weight", &a->q_weight);
    launch_tensor(&l, &o, "k_weight", &a->k_weight);
    launch_tensor(&l, &o, "q", &a->q);
    launch_tensor(&l, &o, "k", &a->k);
    launch_tensor(&l, &o, "v", &a->v);
    double turned = tensor_bytes(&a->q) + tensor_bytes(&a->k);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2], a->x.shape[1], a->x.shape[0], o.group),
                   (work){.flops = turned, .bytes = tensor_bytes(&a->x) + turned + tensor_bytes(&a->v)}));
fail:
    return status;
}

/* A head's norm is a sum over its row. */
static bool pairs_fits(const clsplat_limits *limits, const void *args) {
    const op_rope_args *a = args;
    return limits_have_groups(limits, GROUP_ITEMS, 0) && !a->q_weight.mem && a->x.shape[3] % 2 == 0;
}

/* Values that lie in x already stay there. */
static bool values_stay(const op_rope_args *a) {
    op_tensor own = a->x;
    own.offset += (a->q.shape[1] + a->k.shape[1]) * own.stride[1];
    return !a->bias.mem && a->v.mem == own.mem && a->v.dtype == own.dtype && a->v.offset == own.offset &&
           a->v.stride[0] == own.stride[0] && a->v.stride[1] == own.stride[1] &&
           a->v.stride[2] == own.stride[2];
}

static clsplat_status pairs_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_rope_args *a = args;
    size_t dim = a->x.shape[3];
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_number(&o, "D", dim);
    options_tensor(&o, "X", &a->x);
    options_optional(&o, "BIAS", &a->bias);
    options_tensor(&o, "Q", &a->q);
    options_tensor(&o, "K", &a->k);
    options_tensor(&o, "V", &a->v);
    size_t some =
        options_even(&o, q->device, dim / 2, (const op_tensor *[]){&a->x, &a->bias, &a->q, &a->k, &a->v}, 5);
    size_t heads = a->x.shape[1] - (values_stay(a) ? a->v.shape[1] : 0);
    TRY(options_launch(&o, q->device, "rope_pairs.cl", "rope_pairs", &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_uint(&l, "heads", (uint32_t)a->q.shape[1]);
    launch_uint(&l, "kv_heads", (uint32_t)a->k.shape[1]);
    launch_mem(&l, "turn", a->turn);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "bias", &a->bias);
    launch_tensor(&l, &o, "q", &a->q);
    launch_tensor(&l, &o, "k", &a->k);
    launch_tensor(&l, &o, "v", &a->v);
    double turned = tensor_bytes(&a->q) + tensor_bytes(&a->k);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2] * dim / 2 / some, heads, a->x.shape[0], o.group),
                   (work){.flops = turned, .bytes = tensor_bytes(&a->x) + turned + tensor_bytes(&a->v)}));
fail:
    return status;
}

static const op_variant turn_variants[] = {
    {"plain", "angles rounded once to float32", op_fits_all, turn_run, "rope.cl", &plain_space},
};
const op_family op_turn_family = {"turn", turn_variants, sizeof turn_variants / sizeof *turn_variants, NULL};

static const op_variant rope_variants[] = {
    {"plain", "relative error of a few ulp", op_fits_all, rope_run, "rope.cl", &plain_space},
    {"pairs", "relative error of a few ulp", pairs_fits, pairs_run, "rope_pairs.cl", &tune_nothing},
};
const op_family op_rope_family = {"rope", rope_variants, sizeof rope_variants / sizeof *rope_variants, NULL};

clsplat_status op_turn(queue *q, const op_turn_args *args) {
    return op_dispatch(q, &op_turn_family, args);
}

clsplat_status op_rope(queue *q, const op_rope_args *args) {
    return op_dispatch(q, &op_rope_family, args);
}
