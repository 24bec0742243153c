#include "attention/attend.h"

#include <math.h>

#include "attention/gaussian.h"
#include "attention/near_far.h"
#include "base/sized.h"
#include "runtime/buffer.h"

void clsplat_attention_defaults_sized(clsplat_attention *defaults) {
    clsplat_attention own = {.scale = NAN, .window = 512, .tolerance = 0.02F};
    sized_write(&own, sizeof own, defaults);
}

void attend_begin(clsplat_device *device, const attend_call *call, cl_uint wait_count,
                  const cl_event *wait_list, queue *q) {
    queue_begin(device, wait_count, wait_list, q);
    q->variant = call->attention.variant;
}

clsplat_status clsplat_attend_sized(clsplat_device *device, const clsplat_attention *attention_given,
                                    const clsplat_attention_tensors *tensors_given) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention attention;
    clsplat_attention_tensors tensors;
    attend_call call;
    TRY(attend_read(device->lib, attention_given, tensors_given, &attention, &tensors));
    TRY(attend_check(device, attention, tensors, true, &call));
    TRY(attend_blocks(device, &call));
fail:
    return status;
}

static op_tensor tensor_on_device(const clsplat_tensor *t) {
    return (op_tensor){.mem = t->buffer,
                       .dtype = t->dtype,
                       .shape = {t->shape[0], t->shape[1], t->shape[2], t->shape[3]},
                       .offset = t->offset,
                       .stride = {t->stride[0], t->stride[1], t->stride[2]}};
}

/* Kernels always write lse; where the caller has no use for it, a workspace takes it. */
static clsplat_status lse_on_device(clsplat_device *device, const clsplat_attention_tensors *t,
                                    op_tensor *lse) {
    clsplat_status status = CLSPLAT_OK;
    size_t batch = t->q.shape[0], heads = t->q.shape[1], queries = t->q.shape[2];
    *lse = tensor_on_device(&t->lse);
    if (lse->mem)
        return CLSPLAT_OK;
    *lse = (op_tensor){
        .dtype = CLSPLAT_F32, .shape = {batch, heads, queries, 1}, .stride = {heads * queries, queries, 1}};
    TRY(workspace_take(device, WORKSPACE_LSE, 4 * batch * heads * queries, &lse->mem));
fail:
    return status;
}

/* One block of heads: from batch entry b and key head h on, `batch` and `kv_heads` of them. */
static clsplat_status near_far_heads(queue *q, const attend_call *call, op_near_far_args all,
                                     const size_t at[2], const size_t count[2]) {
    clsplat_status status = CLSPLAT_OK;
    size_t group = all.q.shape[1] / all.k.shape[1];
    op_tensor *const tensors[] = {&all.q,   &all.k,   &all.v,          &all.key_bias,
                                  &all.out, &all.lse, &all.exact_keys, &all.error_estimate};
    op_forest forest;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; ++i) {
        size_t heads = i >= 1 && i <= 3 ? 1 : group;
        *tensors[i] = op_slice(op_slice(*tensors[i], 0, at[0], count[0]), 1, at[1] * heads, count[1] * heads);
    }
    TRY(near_far_plant(q, call, all.k, all.v, all.key_bias, &forest));
    all.forest = &forest;
    TRY(op_near_far(q, &all));
fail:
    return status;
}

/* All heads at once, or one by one where their forest would not fit the device. */
static clsplat_status near_far_enqueue(queue *q, const attend_call *call, op_tensor lse) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &call->tensors;
    op_near_far_args all = near_far_args(call, NULL);
    all.q = tensor_on_device(&t->q);
    all.k = tensor_on_device(&t->k);
    all.v = tensor_on_device(&t->v);
    all.key_bias = tensor_on_device(&t->key_bias);
    all.out = tensor_on_device(&t->out);
    all.lse = lse;
    all.exact_keys = tensor_on_device(&t->exact_keys);
    all.error_estimate = tensor_on_device(&t->error_estimate);
    bool whole = near_far_fits(&q->device->info.limits, call);
    size_t count[2] = {whole ? all.k.shape[0] : 1, whole ? all.k.shape[1] : 1};
    for (size_t b = 0; b < all.k.shape[0]; b += count[0])
        for (size_t h = 0; h < all.k.shape[1]; h += count[1])
            TRY(near_far_heads(q, call, all, (size_t[]){b, h}, count));
fail:
    return status;
}

static clsplat_status enqueue(queue *q, const attend_call *call, op_tensor lse) {
    const clsplat_attention_tensors *t = &call->tensors;
    if (call->splats) {
        gaussian_call g = {.splats = call->splats,
                           .mixing = call->attention.mixing,
                           .diagonal = call->diagonal,
                           .q = tensor_on_device(&t->q),
                           .k = tensor_on_device(&t->k),
                           .v = tensor_on_device(&t->v),
                           .key_bias = tensor_on_device(&t->key_bias),
                           .out = tensor_on_device(&t->out),
                           .lse = lse};
        return gaussian_enqueue(q, &g);
    }
    if (call->attention.method == CLSPLAT_NEAR_FAR)
        return near_far_enqueue(q, call, lse);
    op_softmax_args s = {.q = tensor_on_device(&t->q),
                         .k = tensor_on_device(&t->k),
                         .v = tensor_on_device(&t->v),
                         .key_bias = tensor_on_device(&t->key_bias),
                         .out = tensor_on_device(&t->out),
                         .lse = lse,
                         .scale = call->attention.scale,
                         .diagonal = call->diagonal,
                         .window = call->window};
    return op_softmax(q, &s);
}

clsplat_status clsplat_attend_enqueue_sized(clsplat_device *device, const clsplat_attention *attention_given,
                                            const clsplat_attention_tensors *tensors_given,
                                            cl_uint wait_count, const cl_event *wait_list, cl_event *event) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention attention;
    clsplat_attention_tensors tensors;
    attend_call call;
    op_tensor lse;
    queue q;
    TRY(attend_read(device->lib, attention_given, tensors_given, &attention, &tensors));
    TRY(attend_check(device, attention, tensors, false, &call));
    TRY(lse_on_device(device, &call.tensors, &lse));
    attend_begin(device, &call, wait_count, wait_list, &q);
    TRY(enqueue(&q, &call, lse));
    TRY(queue_end(&q, event));
fail:
    return status;
}
