/* Gradients of tensors in host memory: blocks of batch entries and key heads, with their query heads, go
 * through the device one after the other. A splat's moments stay there until all have been. */
#include <math.h>
#include <stdlib.h>

#include "attention/attend.h"
#include "attention/gaussian_backward.h"
#include "attention/near_far.h"
#include "attention/splats_gradient.h"
#include "attention/stage.h"
#include "base/sized.h"
#include "runtime/buffer.h"
#include "runtime/tensor.h"

typedef struct walk {
    const attend_call *call;
    const clsplat_attention_gradients *gradients;
    size_t batch, kv_heads, group;
    size_t batch_step, kv_step;
    stage_box by_key, by_query; /* the current block */
    op_splats splats;           /* with its first head */
    cl_mem moments;
    double *level_gradients; /* [L] */
    queue queue;
} walk;

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static bool is_absent(const clsplat_tensor *t) {
    return !t->host && !t->buffer;
}

static clsplat_status check_one(clsplat *lib, const char *name, clsplat_tensor *t, const clsplat_tensor *of) {
    clsplat_status status = CLSPLAT_OK;
    TRY(tensor_check_place(lib, name, t, true));
    TRY(tensor_check_shape(lib, name, t, of->shape));
fail:
    return status;
}

static clsplat_status check(clsplat *lib, const attend_call *call, clsplat_attention_gradients *g) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &call->tensors;
    clsplat_tensor bias = {.shape = {t->k.shape[0], t->k.shape[1], t->k.shape[2], 1}};
    if (is_absent(&t->lse))
        return log_error(lib, CLSPLAT_INVALID,
                         "lse is absent; gradients need the lse that clsplat_attend wrote");
    TRY(check_one(lib, "dout", &g->dout, &t->out));
    TRY(check_one(lib, "dq", &g->dq, &t->q));
    TRY(check_one(lib, "dk", &g->dk, &t->k));
    TRY(check_one(lib, "dv", &g->dv, &t->v));
    if (!is_absent(&g->dkey_bias))
        TRY(check_one(lib, "dkey_bias", &g->dkey_bias, &bias));
fail:
    return status;
}

/* Whether so many batch entries and key heads fit the device together: tensors come in as they are, gradients
 * are float32. */
static bool block_fits(const walk *w, const clsplat_limits *limits) {
    const clsplat_attention_tensors *t = &w->call->tensors;
    double heads = (double)(w->batch_step * w->kv_step), group = (double)w->group;
    double queries = heads * group * (double)t->q.shape[2], keys = heads * (double)t->k.shape[2];
    double dim = (double)t->q.shape[3], value_dim = (double)t->v.shape[3];
    double each[] = {queries * dim, queries * value_dim, keys * dim, keys * value_dim}, total = 0;
    for (size_t i = 0; i < sizeof each / sizeof *each; ++i) {
        if (4 * each[i] > (double)limits->max_allocation)
            return false;
        total += 4 * (i == 1 ? 3 : 2) * each[i];
    }
    gaussian_call whole = {.splats = w->call->splats};
    whole.q.shape[1] = t->q.shape[1];
    whole.k.shape[1] = t->k.shape[1];
    whole.v.shape[3] = t->v.shape[3];
    if (w->call->attention.method == CLSPLAT_NEAR_FAR &&
        !near_far_backward_fits(limits, w->call, w->batch_step, w->kv_step, &total))
        return false;
    return total <= (double)limits->global_memory / 2 &&
           (!w->call->splats || (gaussian_heads_fit(limits, &whole, w->batch_step, w->kv_step) &&
                                 gaussian_backward_fits(limits, &whole, w->batch_step, w->kv_step)));
}

static void choose_size(walk *w, const clsplat_limits *limits) {
    w->batch_step = w->batch;
    w->kv_step = w->kv_heads;
    while (!block_fits(w, limits) && (w->batch_step > 1 || w->kv_step > 1)) {
        size_t *step = w->batch_step > 1 ? &w->batch_step : &w->kv_step;
        *step = (*step + 1) / 2;
    }
}

/* The block's inputs, and room for what it gives. */
typedef struct block {
    op_tensor q, k, v, key_bias, out, lse, dout, dq, dk, dv, dkey_bias;
} block;

static clsplat_status bring(walk *w, block *b) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &w->call->tensors;
    const clsplat_attention_gradients *g = w->gradients;
    TRY(stage_in(&w->queue, WORKSPACE_Q, &t->q, w->by_query, &b->q));
    TRY(stage_in(&w->queue, WORKSPACE_K, &t->k, w->by_key, &b->k));
    TRY(stage_in(&w->queue, WORKSPACE_V, &t->v, w->by_key, &b->v));
    TRY(stage_in(&w->queue, WORKSPACE_BIAS, &t->key_bias, w->by_key, &b->key_bias));
    TRY(stage_in(&w->queue, WORKSPACE_OUT, &t->out, w->by_query, &b->out));
    TRY(stage_in(&w->queue, WORKSPACE_LSE, &t->lse, w->by_query, &b->lse));
    TRY(stage_in(&w->queue, WORKSPACE_DOUT, &g->dout, w->by_query, &b->dout));
    TRY(stage_result(w->queue.device, WORKSPACE_DQ, &g->dq, w->by_query, &b->dq));
    TRY(stage_result(w->queue.device, WORKSPACE_DK, &g->dk, w->by_key, &b->dk));
    TRY(stage_result(w->queue.device, WORKSPACE_DV, &g->dv, w->by_key, &b->dv));
    if (g->dkey_bias.host)
        TRY(stage_result(w->queue.device, WORKSPACE_DBIAS, &g->dkey_bias, w->by_key, &b->dkey_bias));
fail:
    return status;
}

static clsplat_status take(walk *w, const block *b) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_gradients *g = w->gradients;
    TRY(stage_out(&w->queue, &b->dq, &g->dq, w->by_query));
    TRY(stage_out(&w->queue, &b->dk, &g->dk, w->by_key));
    TRY(stage_out(&w->queue, &b->dv, &g->dv, w->by_key));
    TRY(stage_out(&w->queue, &b->dkey_bias, &g->dkey_bias, w->by_key));
fail:
    return status;
}

static clsplat_status download(queue *q, cl_mem mem, size_t count, float **numbers) {
    *numbers = calloc(count, sizeof **numbers);
    if (!*numbers)
        return log_error(q->device->lib, CLSPLAT_MEMORY, "no memory for %zu sums of gradients", count);
    size_t bytes = count * sizeof **numbers;
    return queue_download(q, (queue_copy){.mem = mem, .host = *numbers, .row = bytes, .rows = 1});
}

static clsplat_status gaussian_block(walk *w, const block *b) {
    clsplat_status status = CLSPLAT_OK;
    float *level_gradients = NULL;
    size_t levels = w->splats.levels, count = b->q.shape[0] * b->q.shape[1] * levels;
    bool per_level = w->call->attention.mixing == CLSPLAT_PER_LEVEL;
    gaussian_gradient g = {.call = {.splats = &w->splats,
                                    .mixing = w->call->attention.mixing,
                                    .diagonal = w->call->diagonal,
                                    .q = b->q,
                                    .k = b->k,
                                    .v = b->v,
                                    .key_bias = b->key_bias},
                           .dout = b->dout,
                           .dq = b->dq,
                           .dk = b->dk,
                           .dv = b->dv,
                           .dkey_bias = b->dkey_bias,
                           .moments = w->moments};
    if (per_level) {
        TRY(workspace_take(w->queue.device, WORKSPACE_GRAD_LEVELS, 4 * count, &g.level_gradients));
        TRY(queue_fill(&w->queue, g.level_gradients, 0, 4 * count, 0.0f));
    }
    TRY(gaussian_backward(&w->queue, &g));
    if (per_level)
        TRY(download(&w->queue, g.level_gradients, count, &level_gradients));
    for (size_t i = 0; per_level && i < count; ++i)
        w->level_gradients[i % levels] += (double)level_gradients[i];
fail:
    free(level_gradients);
    return status;
}

static clsplat_status near_far_block(walk *w, const block *b) {
    clsplat_status status = CLSPLAT_OK;
    op_forest forest;
    op_near_far_backward_args args = {.forest = &forest,
                                      .q = b->q,
                                      .k = b->k,
                                      .v = b->v,
                                      .key_bias = b->key_bias,
                                      .dout = b->dout,
                                      .dq = b->dq,
                                      .dk = b->dk,
                                      .dv = b->dv,
                                      .dkey_bias = b->dkey_bias,
                                      .scale = w->call->attention.scale,
                                      .diagonal = w->call->diagonal,
                                      .tolerance = w->call->attention.tolerance,
                                      .sparse_topk = w->call->attention.sparse_topk};
    TRY(near_far_plant(&w->queue, w->call, b->k, b->v, b->key_bias, &forest));
    TRY(op_near_far_backward(&w->queue, &args));
fail:
    return status;
}

static clsplat_status softmax_block(walk *w, const block *b) {
    op_softmax_backward_args args = {.q = b->q,
                                     .k = b->k,
                                     .v = b->v,
                                     .key_bias = b->key_bias,
                                     .out = b->out,
                                     .lse = b->lse,
                                     .dout = b->dout,
                                     .dq = b->dq,
                                     .dk = b->dk,
                                     .dv = b->dv,
                                     .dkey_bias = b->dkey_bias,
                                     .scale = w->call->attention.scale,
                                     .diagonal = w->call->diagonal,
                                     .window = w->call->window};
    return op_softmax_backward(&w->queue, &args);
}

static clsplat_status heads_back(walk *w, size_t batch, size_t kv_head) {
    clsplat_status status = CLSPLAT_OK;
    block b = {0};
    size_t batches = smaller(w->batch_step, w->batch - batch),
           heads = smaller(w->kv_step, w->kv_heads - kv_head);
    w->by_key = (stage_box){{batch, kv_head, 0}, {batches, heads, w->call->tensors.k.shape[2]}};
    w->by_query =
        (stage_box){{batch, kv_head * w->group, 0}, {batches, heads * w->group, w->call->tensors.q.shape[2]}};
    if (w->call->splats) {
        w->splats = *w->call->splats;
        w->splats.first_head = kv_head * w->group;
    }
    TRY(bring(w, &b));
    TRY(w->call->splats                                 ? gaussian_block(w, &b)
        : w->call->attention.method == CLSPLAT_NEAR_FAR ? near_far_block(w, &b)
                                                        : softmax_block(w, &b));
    TRY(take(w, &b));
    const clsplat_attention *a = &w->call->attention;
    double done = (double)(batch * w->kv_heads + batches * (kv_head + heads)),
           all = (double)(w->batch * w->kv_heads);
    if (a->progress && !a->progress(a->progress_user, fmin(done / all, 1)))
        return log_error(w->queue.device->lib, CLSPLAT_CANCELLED, "stopped by the caller");
fail:
    return status;
}

static size_t moments_count(const op_splats *splats) {
    return splats->heads * splats->count * op_moments_size(splats);
}

static clsplat_status walk_blocks(walk *w, const op_splats *splats) {
    clsplat_status status = CLSPLAT_OK;
    if (splats) {
        size_t bytes = 4 * moments_count(splats);
        w->level_gradients = calloc(splats->levels, sizeof *w->level_gradients);
        if (!w->level_gradients)
            return log_error(w->queue.device->lib, CLSPLAT_MEMORY, "no memory for %zu levels",
                             splats->levels);
        TRY(workspace_take(w->queue.device, WORKSPACE_GRAD_MOMENTS, bytes, &w->moments));
        TRY(queue_fill(&w->queue, w->moments, 0, bytes, 0.0f));
    }
    for (size_t b = 0; b < w->batch; b += w->batch_step)
        for (size_t h = 0; h < w->kv_heads; h += w->kv_step)
            TRY(heads_back(w, b, h));
fail:
    return status;
}

clsplat_status clsplat_attend_backward_sized(clsplat_device *device, const clsplat_attention *attention_given,
                                             const clsplat_attention_tensors *tensors_given,
                                             const clsplat_attention_gradients *gradients_given) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention attention;
    clsplat_attention_tensors tensors;
    clsplat_attention_gradients gradients = {0};
    attend_call call;
    float *moments = NULL;
    walk w = {.call = &call, .gradients = &gradients};
    TRY(attend_read(device->lib, attention_given, tensors_given, &attention, &tensors));
    TRY(SIZED_READ(device->lib, gradients, gradients_given));
    TRY(attend_check(device, attention, tensors, true, &call));
    TRY(check(device->lib, &call, &gradients));
    w.batch = call.tensors.q.shape[0];
    w.kv_heads = call.tensors.k.shape[1];
    w.group = call.tensors.q.shape[1] / w.kv_heads;
    choose_size(&w, &device->info.limits);
    attend_begin(device, &call, 0, NULL, &w.queue);
    TRY(walk_blocks(&w, call.splats));
    if (call.splats) {
        TRY(download(&w.queue, w.moments, moments_count(call.splats), &moments));
        TRY(splats_gradient_finish(attention.splats, moments,
                                   attention.mixing == CLSPLAT_PER_LEVEL ? w.level_gradients : NULL,
                                   &gradients.splats));
    }
fail:
    free(moments);
    free(w.level_gradients);
    return status;
}
