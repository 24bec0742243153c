/* Exact and near-far attention with their gradients, and the product of matrices. */
#include <math.h>

#include "op/backward.h"
#include "op/families.h"
#include "op/gemm/gemm.h"
#include "op/softmax/softmax.h"
#include "op/tree/forest.h"
#include "tuning/make.h"

static float scale_of(const example *e) {
    return 1 / sqrtf((float)e->shape.dim);
}

static clsplat_status make_softmax(example *e) {
    clsplat_status status = CLSPLAT_OK;
    op_softmax_args *a = &e->args.softmax;
    e->parts[0] = (example_part){&op_softmax_family, a};
    *a = (op_softmax_args){.scale = scale_of(e)};
    e->diagonal = &a->diagonal;
    TRY(make_tokens(e, &a->q, &a->k, &a->v));
    TRY(make_outputs(e, &a->out, &a->lse));
fail:
    return status;
}

static work softmax_example_work(const example *e) {
    return softmax_work(&e->args.softmax);
}

static clsplat_status enqueue_softmax(queue *q, const void *args) {
    return op_softmax(q, args);
}

const example_kind example_softmax = {make_softmax, enqueue_softmax, softmax_example_work, .by_key = false};

/* What is known of the forward pass is its input. */
static clsplat_status make_softmax_backward(example *e) {
    clsplat_status status = CLSPLAT_OK;
    op_softmax_backward_args *a = &e->args.softmax_backward;
    queue q;
    e->parts[0] = (example_part){&op_softmax_backward_family, a};
    *a = (op_softmax_backward_args){.scale = scale_of(e)};
    e->diagonal = &a->diagonal;
    TRY(make_tokens(e, &a->q, &a->k, &a->v));
    TRY(make_rows(e, MAKE_RANDOM, e->shape.value_dim, &a->dout));
    TRY(make_outputs(e, &a->out, &a->lse));
    e->buffers[e->count - 1].result = e->buffers[e->count - 2].result = false;
    TRY(make_gradients(e, &a->dq, &a->dk, &a->dv));
    example_take(e, e->shape.queries);
    op_softmax_args forward = {.q = a->q,
                               .k = a->k,
                               .v = a->v,
                               .out = a->out,
                               .lse = a->lse,
                               .scale = a->scale,
                               .diagonal = a->diagonal};
    queue_begin(e->device, 0, NULL, &q);
    TRY(op_softmax(&q, &forward));
fail:
    return status;
}

/* Five products of a pair's columns, of which the forward pass has two. */
static work backward_work(op_tensor q, op_tensor k, op_tensor v, int32_t diagonal) {
    op_softmax_args forward = {.q = q, .k = k, .v = v, .diagonal = diagonal};
    double dim = (double)q.shape[3], value_dim = (double)v.shape[3];
    work w = softmax_work(&forward);
    w.flops *= (3 * dim + 2 * value_dim) / (dim + value_dim);
    w.bytes = 2 * w.bytes + 2 * tensor_bytes(&q) / dim * value_dim; /* gradients; out and dout */
    return w;
}

static work softmax_backward_work(const example *e) {
    const op_softmax_backward_args *a = &e->args.softmax_backward;
    return backward_work(a->q, a->k, a->v, a->diagonal);
}

const example_kind example_softmax_backward = {make_softmax_backward, NULL, softmax_backward_work,
                                               .by_key = false};

/* The trees of all keys, which a cache would have. */
static clsplat_status make_forest(example *e, op_tensor k, op_tensor v) {
    clsplat_status status = CLSPLAT_OK;
    size_t keys = e->shape.keys;
    queue q;
    e->forest = forest_shape(&k, &v, keys, forest_chunk(&e->device->info.limits, keys, 0), 0);
    TRY(forest_create(e->device, &e->forest));
    queue_begin(e->device, 0, NULL, &q);
    TRY(forest_clear(&q, &e->forest));
    TRY(op_gather(&q, &(op_gather_args){.forest = &e->forest, .k = k, .v = v}));
    TRY(clsplat_device_finish(e->device));
fail:
    return status;
}

static clsplat_status make_near_far(example *e) {
    clsplat_status status = CLSPLAT_OK;
    op_near_far_args *a = &e->args.near_far;
    e->parts[0] = (example_part){&op_near_far_family, a};
    *a = (op_near_far_args){.forest = &e->forest,
                            .scale = scale_of(e),
                            .keys = e->shape.keys,
                            .tolerance = clsplat_attention_defaults().tolerance};
    e->diagonal = &a->diagonal;
    TRY(make_tokens(e, &a->q, &a->k, &a->v));
    TRY(make_outputs(e, &a->out, &a->lse));
    TRY(make_forest(e, a->k, a->v));
fail:
    return status;
}

/* Of what it replaces. */
static work near_far_example_work(const example *e) {
    const op_near_far_args *a = &e->args.near_far;
    op_softmax_args exact = {
        .q = a->q, .k = a->k, .v = a->v, .out = a->out, .lse = a->lse, .diagonal = a->diagonal};
    return softmax_work(&exact);
}

const example_kind example_near_far = {make_near_far, NULL, near_far_example_work, .tolerant = true};

static clsplat_status make_near_far_backward(example *e) {
    clsplat_status status = CLSPLAT_OK;
    op_near_far_backward_args *a = &e->args.near_far_backward;
    e->parts[0] = (example_part){&op_near_far_backward_family, a};
    *a = (op_near_far_backward_args){
        .forest = &e->forest, .scale = scale_of(e), .tolerance = clsplat_attention_defaults().tolerance};
    e->diagonal = &a->diagonal;
    TRY(make_tokens(e, &a->q, &a->k, &a->v));
    TRY(make_rows(e, MAKE_RANDOM, e->shape.value_dim, &a->dout));
    TRY(make_gradients(e, &a->dq, &a->dk, &a->dv));
    TRY(make_forest(e, a->k, a->v));
fail:
    return status;
}

static work near_far_backward_work(const example *e) {
    const op_near_far_backward_args *a = &e->args.near_far_backward;
    return backward_work(a->q, a->k, a->v, a->diagonal);
}

const example_kind example_near_far_backward = {make_near_far_backward, NULL, near_far_backward_work,
                                                .tolerant = true};

static clsplat_status make_gemm(example *e) {
    clsplat_status status = CLSPLAT_OK;
    op_gemm_args *a = &e->args.gemm;
    e->parts[0] = (example_part){&op_gemm_family, a};
    TRY(make_rows(e, MAKE_RANDOM, e->shape.dim, &a->a));
    TRY(make_keys(e, MAKE_RANDOM, e->shape.dim, &a->b));
    TRY(make_rows(e, MAKE_RESULT, e->shape.keys, &a->c));
fail:
    return status;
}

static work gemm_example_work(const example *e) {
    return gemm_work(&e->args.gemm);
}

const example_kind example_gemm = {make_gemm, NULL, gemm_example_work, .product = true};
