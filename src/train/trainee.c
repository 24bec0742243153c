#include "train/trainee.h"

#include <stdlib.h>
#include <string.h>

#include "op/kernel.h"
#include "op/layer/optimise.h"
#include "runtime/buffer.h"

clsplat_status trainee_check(clsplat *lib, const char *folder, const model_config *c) {
    const char *what = c->positions                    ? "an encoder with learned positions"
                       : c->layer.qk != QK_AS_THEY_ARE ? "a model that normalises queries and keys"
                       : c->layer.sums                 ? "a model that normalises sums"
                       : c->layer.logit_cap != 0       ? "a model with a cap on logits"
                       : c->layer.embedding_scale != 0 ? "a model that scales embeddings"
                       : c->names->attention_result    ? "a model that normalises results"
                       : c->out_bias || c->mlp_bias    ? "a model with biases beside those of q, k and v"
                       : !c->names->attention_norm     ? "a model without norms before its layers"
                                                       : NULL;
    if (what)
        return log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "%s: key model_type of config.json is '%s', %s; that is not trained; models of type llama, "
            "mistral, qwen2, phi3, eurobert and clsplat are",
            folder, c->family, what);
    return CLSPLAT_OK;
}

/* Where a splat is, and how wide, are no weights that should be small. */
static bool is_splat(const char *name) {
    return strstr(name, "self_attn.splat_mean.") || strstr(name, "self_attn.splat_log_precision.");
}

static clsplat_status make_parameter(trainee *t, const weight_target *from, const weight_target *to,
                                     double rate, train_parameter *p) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    *p = (train_parameter){.weight = *from->tensor,
                           .count = from->bytes / clsplat_dtype_size(from->tensor->dtype),
                           .rate = rate,
                           .decays = from->tensor->shape[2] > 1 && !is_splat(to->parts[0].entry->name),
                           .parts = to};
    if (rate == 0)
        return CLSPLAT_OK;
    if (from->tensor->dtype != CLSPLAT_F32)
        return log_error(t->device->lib, CLSPLAT_UNSUPPORTED, "tensor '%s' is not of type F32",
                         to->parts[0].entry->name);
    TRY(buffer_create(t->device, from->bytes, &to->tensor->mem));
    TRY(buffer_create(t->device, from->bytes, &p->first));
    TRY(buffer_create(t->device, from->bytes, &p->second));
    p->gradient = *to->tensor;
    queue_begin(t->device, 0, NULL, &q);
    TRY(queue_fill(&q, p->first, 0, from->bytes, 0.0f));
    TRY(queue_fill(&q, p->second, 0, from->bytes, 0.0f));
    t->parts += op_square_parts(p->count);
fail:
    return status;
}

clsplat_status trainee_open(clsplat_device *device, const char *folder, trainee_choice *learns,
                            const void *user, trainee *t) {
    enum { CHUNK = 16 }; /* sessions of this model are not opened */
    clsplat_status status = CLSPLAT_OK;
    clsplat_model_options options = clsplat_model_options_defaults();
    *t = (trainee){.device = device};
    options.chunk = options.context = CHUNK;
    TRY(clsplat_model_open(device, folder, options, &t->model));
    TRY(trainee_check(device->lib, folder, &t->model->config));
    if (t->model->weights.has_sinks)
        TRY(log_error(
            device->lib, CLSPLAT_UNSUPPORTED,
            "%s: its heads have sinks (self_attn.sinks), which are not trained; take a model without them",
            folder));
    if (t->model->info.encoder && (!t->model->info.head || t->model->info.mask < 0))
        TRY(log_error(device->lib, CLSPLAT_UNSUPPORTED,
                      "%s: an encoder learns what stands behind masks, and this one has no %s", folder,
                      t->model->info.head ? "token for one: config.json may name it (mask_token_id)"
                                          : "head that guesses it: take one that was saved with it "
                                            "(…ForMaskedLM)"));
    if (t->model->weights.plan->cut)
        TRY(log_error(device->lib, CLSPLAT_UNSUPPORTED,
                      "%s: %s has no room for its largest matrix in one buffer; it is not trained there",
                      folder, device->info.name));
    TRY(model_folder_open(device->lib, folder, &t->files));
    t->gradient.layers = calloc(t->model->config.layers, sizeof *t->gradient.layers);
    if (!t->gradient.layers)
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "%s: no memory for its list of gradients", folder));
    TRY(weight_plan_make(device->lib, t->files, &t->model->config, device->info.limits.max_allocation,
                         &t->gradient, &t->gradient.plan));
    t->parameters = calloc(t->gradient.plan->count, sizeof *t->parameters);
    if (!t->parameters)
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "%s: no memory for its list of gradients", folder));
    for (; t->count < t->gradient.plan->count; ++t->count) {
        const weight_target *to = &t->gradient.plan->targets[t->count];
        TRY(make_parameter(t, &t->model->weights.plan->targets[t->count], to,
                           learns ? learns(user, to->parts[0].entry->name) : 1, &t->parameters[t->count]));
    }
    if (t->gradient.plan->tied)
        memcpy(t->gradient.head, t->gradient.embedding, sizeof t->gradient.head);
    TRY(buffer_create(device, (t->parts + 1) * sizeof(float), &t->partials));
    TRY(buffer_create(device, 2 * sizeof(float), &t->clip));
fail:
    return status;
}

void trainee_take_type(trainee *t, train_type type) {
    bool narrow = type == TRAIN_AUTO ? limits_have_mma(&t->device->info.limits) : type == TRAIN_BF16;
    t->type = narrow ? CLSPLAT_BF16 : CLSPLAT_F32;
}

void trainee_close(trainee *t) {
    for (size_t i = 0; t->parameters && i < t->gradient.plan->count; ++i) {
        size_t bytes = t->parameters[i].count * sizeof(float);
        buffer_release(t->device, bytes, &t->parameters[i].first);
        buffer_release(t->device, bytes, &t->parameters[i].second);
    }
    buffer_release(t->device, (t->parts + 1) * sizeof(float), &t->partials);
    buffer_release(t->device, 2 * sizeof(float), &t->clip);
    model_weights_free(t->device, &t->gradient);
    free(t->parameters);
    model_folder_close(&t->files);
    clsplat_model_close(&t->model);
    *t = (trainee){0};
}

clsplat_status trainee_clear(queue *q, const trainee *t) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0; i < t->count; ++i)
        if (t->parameters[i].gradient.mem)
            TRY(queue_fill(q, t->parameters[i].gradient.mem, 0, t->parameters[i].count * sizeof(float),
                           0.0f));
fail:
    return status;
}

clsplat_status trainee_step(queue *q, const trainee *t, const train_settings *s, double rate, uint64_t step) {
    clsplat_status status = CLSPLAT_OK;
    size_t first = 0;
    for (size_t i = 0; i < t->count; ++i) {
        const train_parameter *p = &t->parameters[i];
        if (!p->gradient.mem)
            continue;
        TRY(op_square_sums(
            q, &(op_square_sums_args){
                   .g = p->gradient.mem, .partials = t->partials, .count = p->count, .first = first}));
        first += op_square_parts(p->count);
    }
    TRY(op_clip_factor(
        q, &(op_clip_factor_args){
               .partials = t->partials, .result = t->clip, .parts = t->parts, .limit = (float)s->clip}));
    for (size_t i = 0; i < t->count; ++i) {
        const train_parameter *p = &t->parameters[i];
        if (!p->gradient.mem)
            continue;
        TRY(op_adamw(q, &(op_adamw_args){.w = p->weight.mem,
                                         .g = p->gradient.mem,
                                         .m = p->first,
                                         .v = p->second,
                                         .clip = t->clip,
                                         .count = p->count,
                                         .rate = rate * p->rate,
                                         .decay = p->decays ? s->decay : 0,
                                         .beta1 = s->beta1,
                                         .beta2 = s->beta2,
                                         .epsilon = s->epsilon,
                                         .step = step}));
    }
fail:
    return status;
}

clsplat_status trainee_norm(queue *q, const trainee *t, double *norm) {
    float result[2] = {0, 0};
    clsplat_status status =
        queue_download(q, (queue_copy){.mem = t->clip, .host = result, .row = sizeof result, .rows = 1});
    *norm = (double)result[0];
    return status;
}
