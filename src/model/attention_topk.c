#include "model/attention.h"
#include "runtime/buffer.h"

enum { BLOCK = 16 }; /* consecutive keys: as many as a leaf of near-far attention has */

static clsplat_status topk_open(clsplat_device *device, const attention_shape *shape,
                                const clsplat_model_attention *parameters, void **state) {
    (void)shape, (void)state;
    if (parameters->sparse_topk < 1 || parameters->sparse_topk > INT32_MAX)
        return log_error(device->lib, CLSPLAT_INVALID, "a sparse_topk of %zu keys is not from 1 to %d",
                         parameters->sparse_topk, INT32_MAX);
    return CLSPLAT_OK;
}

/* The model's own window stays: its layers are exact. */
static clsplat_status attend(queue *q, const clsplat_model_attention *parameters, const attention_step *step,
                             size_t block) {
    clsplat_status status = CLSPLAT_OK;
    op_topk_args args = {.q = step->q,
                         .k = step->k,
                         .v = step->v,
                         .out = step->out,
                         .scale = step->scale,
                         .diagonal = (int32_t)step->first,
                         .keep = parameters->sparse_topk,
                         .block = block};
    if (step->window)
        return attention_softmax(q, step, step->window);
    TRY(workspace_take(q->device, WORKSPACE_QUERY_LOG_DENSITY, 4 * op_topk_scores(&args), &args.scores));
    TRY(op_topk(q, &args));
fail:
    return status;
}

static clsplat_status topk_attend(queue *q, void *state, const clsplat_model_attention *parameters,
                                  const attention_step *step) {
    (void)state;
    return attend(q, parameters, step, 1);
}

static clsplat_status blocks_attend(queue *q, void *state, const clsplat_model_attention *parameters,
                                    const attention_step *step) {
    (void)state;
    return attend(q, parameters, step, BLOCK);
}

static size_t kept(const clsplat_model_attention *parameters, size_t visible) {
    return visible < parameters->sparse_topk ? visible : parameters->sparse_topk;
}

const attention_form attention_topk = {.name = "topk",
                                       .scales = true,
                                       .hides_mass = true,
                                       .open = topk_open,
                                       .attend = topk_attend,
                                       .exact_keys = kept};
const attention_form attention_blocks = {.name = "blocks",
                                         .scales = true,
                                         .hides_mass = true,
                                         .open = topk_open,
                                         .attend = blocks_attend,
                                         .exact_keys = kept};
