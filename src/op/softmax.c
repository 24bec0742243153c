#include "op/softmax.h"

#include "op/families.h"
#include "op/kernel.h"

/* Pairs of a query and a key it sees: all, or a trapezoid under the diagonal. */
static double visible_pairs(double queries, double keys, double diagonal) {
    double first = diagonal + 1, last = diagonal + queries; /* keys that query 0 and query N − 1 would see */
    if (first >= keys)
        return queries * keys;
    if (last <= 0)
        return 0;
    double full = last > keys ? last - keys : 0, begin = first > 0 ? first : 0,
           end = last < keys ? last : keys;
    return full * keys + (end - begin + 1) * (begin + end) / 2;
}

work softmax_work(const op_softmax_args *a) {
    double pairs = (double)a->q.shape[0] * (double)a->q.shape[1] *
                   visible_pairs((double)a->q.shape[2], (double)a->k.shape[2], a->diagonal);
    return (work){
        .flops = 2 * pairs * (double)(a->q.shape[3] + a->v.shape[3]),
        .bytes = tensor_bytes(&a->q) + tensor_bytes(&a->k) + tensor_bytes(&a->v) +
                 tensor_bytes(&a->key_bias) + tensor_bytes(&a->out) + tensor_bytes(&a->lse),
    };
}

clsplat_status softmax_launch(queue *q, const op_softmax_args *a, kernel_options *o, const char *source,
                              const char *kernel, size_t queries_per_group) {
    clsplat_status status = CLSPLAT_OK;
    size_t batch = a->q.shape[0], heads = a->q.shape[1], queries = a->q.shape[2];
    launch l;

    options_number(o, "D", a->q.shape[3]);
    options_number(o, "DV", a->v.shape[3]);
    options_number(o, "BIAS", a->key_bias.mem != NULL);
    options_tensor(o, "Q", &a->q);
    options_tensor(o, "K", &a->k);
    options_tensor(o, "V", &a->v);
    if (a->key_bias.mem)
        options_tensor(o, "BIAS", &a->key_bias);
    options_tensor(o, "OUT", &a->out);
    options_tensor(o, "LSE", &a->lse);
    TRY(options_launch(o, q->device, source, kernel, &l));

    launch_uint(&l, (uint32_t)queries);
    launch_uint(&l, (uint32_t)a->k.shape[2]);
    launch_uint(&l, (uint32_t)(heads / a->k.shape[1]));
    launch_float(&l, a->scale);
    launch_int(&l, a->diagonal);
    launch_uint(&l, a->accumulate);
    launch_tensor(&l, o, &a->q);
    launch_tensor(&l, o, &a->k);
    launch_tensor(&l, o, &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, o, &a->key_bias);
    launch_tensor(&l, o, &a->out);
    launch_tensor(&l, o, &a->lse);
    size_t items = (queries + queries_per_group - 1) / queries_per_group * o->group;
    TRY(launch_run(&l, q, grid_of(items, heads, batch, o->group), softmax_work(a)));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    kernel_options o;
    options_plain(&o, q);
    return softmax_launch(q, args, &o, "softmax.cl", "softmax_attention", o.group);
}

static bool wide_fits(const clsplat_limits *limits, const void *args) {
    const op_softmax_args *a = args;
    return limits_are_wide(limits) && a->q.shape[3] % 16 == 0 && a->v.shape[3] % 16 == 0;
}

static clsplat_status wide_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    kernel_options o;
    size_t tile = options_wide(&o, q, a->q.shape[2]);
    return softmax_launch(q, args, &o, "softmax_wide.cl", "softmax_wide", tile);
}

static void softmax_shape(const void *args, tune_shape *shape) {
    const op_softmax_args *a = args;
    *shape = (tune_shape){.heads = a->q.shape[0] * a->q.shape[1],
                          .rows = a->q.shape[2],
                          .sources = a->k.shape[2],
                          .dim = a->q.shape[3],
                          .value_dim = a->v.shape[3]};
    shape_words(shape, a->k.dtype, a->diagonal == OP_SEES_ALL ? "-" : "causal");
}

static const op_variant variants[] = {
    {"plain", "relative error of out below 1e-5 in float32", op_fits_all, plain_run, "softmax.cl",
     &plain_space},
    {"wide", "relative error of out below 1e-5 in float32", wide_fits, wide_run, "softmax_wide.cl",
     &wide_space},
    {"split", "relative error of out below 1e-5 in float32", softmax_split_fits, softmax_split_run,
     "softmax_split.cl", &tune_nothing},
    {"local", "relative error of out below 1e-5 in float32", softmax_local_fits, softmax_local_run,
     "softmax_local.cl", &tune_nothing},
    {"mma", "relative error of out below 1e-2: weights are rounded to the inputs' type", softmax_mma_fits,
     softmax_mma_run, "softmax_mma.cl", &tune_nothing},
};
const op_family op_softmax_family = {"softmax", variants, sizeof variants / sizeof *variants, softmax_shape};

clsplat_status op_softmax(queue *q, const op_softmax_args *args) {
    return op_dispatch(q, &op_softmax_family, args);
}
