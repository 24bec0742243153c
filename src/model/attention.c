#include "model/attention.h"

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static clsplat_status exact_open(clsplat_device *device, const attention_shape *shape,
                                 const clsplat_model_attention *parameters, void **state) {
    (void)device, (void)shape, (void)parameters, (void)state;
    return CLSPLAT_OK;
}

static clsplat_status window_open(clsplat_device *device, const attention_shape *shape,
                                  const clsplat_model_attention *parameters, void **state) {
    (void)shape, (void)state;
    if (parameters->window == 0 || parameters->window > INT32_MAX)
        return log_error(device->lib, CLSPLAT_INVALID, "a window of %zu keys is not from 1 to %d",
                         parameters->window, INT32_MAX);
    return CLSPLAT_OK;
}

/* Keys before the first query's window are left out; what is left of the window's edge is the operation's. */
clsplat_status attention_softmax(queue *q, const attention_step *step, size_t window) {
    size_t queries = step->q.shape[2], visible = step->first + queries;
    size_t begin = window && step->first + 1 > window ? step->first + 1 - window : 0;
    bool edge = window && visible > window && queries > 1;
    op_softmax_args args = {.q = step->q,
                            .k = op_slice(step->k, 2, begin, visible - begin),
                            .v = op_slice(step->v, 2, begin, visible - begin),
                            .out = step->out,
                            .lse = step->lse,
                            .scale = step->scale,
                            .cap = step->cap,
                            .diagonal = (int32_t)(step->first - begin),
                            .window = edge ? (uint32_t)window : 0};
    return op_softmax(q, &args);
}

const char *attention_lacks(const attention_form *form, const attention_shape *shape) {
    if (shape->capped && !form->caps)
        return "whose scores are capped (attn_logit_softcapping)";
    if (shape->scaled && !form->scales)
        return "whose scores have a scale of their own (query_pre_attn_scalar)";
    if (shape->sinks && form->hides_mass)
        return "whose heads have sinks (self_attn.sinks)";
    return NULL;
}

clsplat_status attention_sink(queue *q, const attention_step *step) {
    op_tensor zeros = step->zeros;
    zeros.shape[1] = step->q.shape[1];
    zeros.stride[0] = zeros.stride[1] = 0;
    return op_softmax(q, &(op_softmax_args){.q = step->q,
                                            .k = zeros,
                                            .v = zeros,
                                            .key_bias = step->sinks,
                                            .out = step->out,
                                            .lse = step->lse,
                                            .diagonal = OP_SEES_ALL,
                                            .accumulate = true});
}

static clsplat_status exact_attend(queue *q, void *state, const clsplat_model_attention *parameters,
                                   const attention_step *step) {
    (void)state, (void)parameters;
    return attention_softmax(q, step, step->window);
}

static clsplat_status window_attend(queue *q, void *state, const clsplat_model_attention *parameters,
                                    const attention_step *step) {
    (void)state;
    return attention_softmax(q, step,
                             step->window ? smaller(step->window, parameters->window) : parameters->window);
}

static size_t exact_keys(const clsplat_model_attention *parameters, size_t visible) {
    (void)parameters;
    return visible;
}

static size_t window_keys(const clsplat_model_attention *parameters, size_t visible) {
    return smaller(visible, parameters->window);
}

#define FULL .scales = true, .caps = true
const attention_form attention_exact = {FULL,
                                        .name = "exact",
                                        .open = exact_open,
                                        .attend = exact_attend,
                                        .divides = true,
                                        .exact_keys = exact_keys};
const attention_form attention_window = {FULL, .name = "window", .open = window_open, .attend = window_attend,
                                         .exact_keys = window_keys};

const attention_form *attention_form_of(clsplat_model_method method) {
    switch (method) {
    case CLSPLAT_MODEL_EXACT:
        return &attention_exact;
    case CLSPLAT_MODEL_WINDOW:
        return &attention_window;
    case CLSPLAT_MODEL_NEAR_FAR:
        return &attention_near_far;
    case CLSPLAT_MODEL_TOPK:
        return &attention_topk;
    case CLSPLAT_MODEL_BLOCKS:
        return &attention_blocks;
    }
    return NULL;
}
