#include "op/softmax/softmax.h"

#include <assert.h>
#include <string.h>

#include "op/families.h"
#include "op/kernel.h"
#include "runtime/quirks.h"

/* Keys that rows of a diagonal see: all, or a trapezoid under the diagonal. */
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
    double queries = (double)a->q.shape[2], keys = (double)a->k.shape[2];
    double pairs = visible_pairs(queries, keys, a->diagonal);
    if (a->window)
        pairs -= visible_pairs(queries, keys, (double)a->diagonal - a->window);
    pairs *= (double)a->q.shape[0] * (double)a->q.shape[1];
    return (work){
        .flops = 2 * pairs * (double)(a->q.shape[3] + a->v.shape[3]),
        .bytes = tensor_bytes(&a->q) + tensor_bytes(&a->k) + tensor_bytes(&a->v) +
                 tensor_bytes(&a->key_bias) + tensor_bytes(&a->out) + tensor_bytes(&a->lse),
    };
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

void softmax_options(kernel_options *o, const op_softmax_args *a) {
    options_number(o, "D", a->q.shape[3]);
    options_number(o, "DV", a->v.shape[3]);
    options_number(o, "BIAS", a->key_bias.mem != NULL);
    options_number(o, "WINDOW", a->window);
    options_number(o, "CAP", bits_of(a->cap));
    options_tensor(o, "Q", &a->q);
    options_tensor(o, "K", &a->k);
    options_tensor(o, "V", &a->v);
    if (a->key_bias.mem)
        options_tensor(o, "BIAS", &a->key_bias);
    options_tensor(o, "OUT", &a->out);
    options_tensor(o, "LSE", &a->lse);
}

clsplat_status softmax_launch(queue *q, const op_softmax_args *a, kernel_options *o, const char *source,
                              const char *kernel, size_t queries_per_group) {
    clsplat_status status = CLSPLAT_OK;
    size_t batch = a->q.shape[0], heads = a->q.shape[1], queries = a->q.shape[2];
    launch l;

    softmax_options(o, a);
    TRY(options_launch(o, q->device, source, kernel, &l));

    launch_uint(&l, "queries", (uint32_t)queries);
    launch_uint(&l, "keys", (uint32_t)a->k.shape[2]);
    launch_uint(&l, "group", (uint32_t)(heads / a->k.shape[1]));
    launch_float(&l, "scale", a->scale);
    launch_int(&l, "diagonal", a->diagonal);
    launch_uint(&l, "accumulate", a->accumulate);
    launch_tensor(&l, o, "q", &a->q);
    launch_tensor(&l, o, "k", &a->k);
    launch_tensor(&l, o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, o, "bias", &a->key_bias);
    launch_tensor(&l, o, "out", &a->out);
    launch_tensor(&l, o, "lse", &a->lse);
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
    {"units", "relative error of out below 1e-2: weights are rounded to the inputs' type", softmax_units_fits,
     softmax_units_run, "softmax_mma.cl", &tune_nothing},
    {"mma", "relative error of out below 1e-2: weights are rounded to the inputs' type", softmax_mma_fits,
     softmax_mma_run, "softmax_mma.cl", &tune_nothing},
    {"wgmma", "relative error of out below 1e-2: weights are rounded to the inputs' type", softmax_wgmma_fits,
     softmax_wgmma_run, "softmax_mma.cl", &tune_nothing},
    {"few", "relative error of out below 1e-5 in float32", softmax_few_fits, softmax_few_run,
     "softmax_few.cl", &tune_nothing},
};
const op_family op_softmax_family = {"softmax", variants, sizeof variants / sizeof *variants, softmax_shape};

/* Keys of one launch: where a work-item's loops end early, so few that they stay well below. */
static size_t keys_at_once(const clsplat_device *device, const op_softmax_args *a) {
    enum { ITERATIONS = 60000 };
    size_t keys = ITERATIONS / (a->q.shape[3] + a->v.shape[3] + 8);
    return device->quirks & QUIRK_LOOP_LIMIT && keys < a->k.shape[2] ? keys : a->k.shape[2];
}

clsplat_status op_softmax(queue *q, const op_softmax_args *args) {
    clsplat_status status = CLSPLAT_OK;
    size_t keys = args->k.shape[2], most = keys_at_once(q->device, args);
    assert(args->window == 0 || args->diagonal != OP_SEES_ALL);
    if (most == keys)
        return op_dispatch(q, &op_softmax_family, args);
    for (size_t begin = 0; begin < keys; begin += most) {
        op_softmax_args part = *args;
        size_t count = keys - begin < most ? keys - begin : most;
        part.k = op_slice(args->k, 2, begin, count);
        part.v = op_slice(args->v, 2, begin, count);
        part.key_bias = op_slice(args->key_bias, 2, begin, count);
        part.accumulate = args->accumulate || begin > 0;
        if (args->diagonal != OP_SEES_ALL)
            part.diagonal = args->diagonal - (int32_t)begin;
        TRY(op_dispatch(q, &op_softmax_family, &part));
    }
fail:
    return status;
}
