#include "model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/folder.h"
#include "runtime/buffer.h"

enum { PARTS_MOST = 3, TARGETS_PER_LAYER = 12, TARGETS_BESIDE = 3, PIECE = 16 << 20 };
static const double MIB = 1024.0 * 1024.0;

/* One buffer in the making: a tensor, or several below each other. */
typedef struct weight_target {
    op_tensor *tensor;
    model_tensor parts[PARTS_MOST];
    size_t count;
    size_t bytes;
} weight_target;

typedef struct weight_plan {
    weight_target *targets;
    size_t count;
    size_t frequency_bytes;
} weight_plan;

/* The walk over the tensors that a configuration wants. */
typedef struct search {
    clsplat *lib;
    const model_folder *folder;
    weight_plan *plan;
    uint64_t parameters;
    char prefix[64]; /* of the names of a layer's tensors */
} search;

/* A part of a buffer: the tensor's name up to its last word, and its rows, or numbers if it is a vector. */
typedef struct part_spec {
    const char *name;
    size_t size;
} part_spec;

/* How a dense matrix's parts are to be found: columns 0 says vectors. */
typedef struct part_kind {
    const char *suffix; /* ".weight" or ".bias" */
    size_t columns;
} part_kind;

static bool dtype_of(const char *name, clsplat_dtype *dtype) {
    static const char *const names[] = {
        [CLSPLAT_F32] = "F32", [CLSPLAT_F16] = "F16", [CLSPLAT_BF16] = "BF16"};
    for (int i = 0; i < 3; ++i)
        if (strcmp(names[i], name) == 0) {
            *dtype = (clsplat_dtype)i;
            return true;
        }
    return false;
}

static clsplat_status wrong_shape(const search *s, const model_tensor *t, size_t size, size_t columns) {
    text wanted = {0}, found = {0};
    text_add(&wanted, columns ? "[%zu, %zu]" : "[%zu]", size, columns);
    for (size_t i = 0; i < t->entry->rank && i < SAFETENSORS_MAX_RANK; ++i)
        text_add(&found, "%s%" PRIu64, i ? ", " : "", t->entry->shape[i]);
    clsplat_status status =
        log_error(s->lib, CLSPLAT_FORMAT, "%s: tensor '%s' has the shape [%s], where config.json asks for %s",
                  safetensors_path(t->file), t->entry->name, found.data ? found.data : "",
                  wanted.data ? wanted.data : "another");
    text_free(&wanted);
    text_free(&found);
    return status;
}

static clsplat_status find_part(const search *s, const part_spec *spec, part_kind kind, model_tensor *found) {
    char name[192];
    snprintf(name, sizeof name, "%s%s%s", s->prefix, spec->name, kind.suffix);
    *found = model_folder_find(s->folder, name);
    const safetensors_entry *e = found->entry;
    clsplat_dtype dtype;
    if (!e)
        return log_error(s->lib, CLSPLAT_FORMAT, "%s: tensor '%s' is missing", model_folder_path(s->folder),
                         name);
    if (e->rank != (kind.columns ? 2 : 1) || e->shape[0] != spec->size ||
        (kind.columns && e->shape[1] != kind.columns))
        return wrong_shape(s, found, spec->size, kind.columns);
    if (!dtype_of(e->dtype, &dtype))
        return log_error(s->lib, CLSPLAT_UNSUPPORTED,
                         "%s: tensor '%s' is of type %s; weights of F32, F16 and BF16 are supported",
                         safetensors_path(found->file), name, e->dtype);
    return CLSPLAT_OK;
}

/* Plans a buffer for the parts, one below the other. */
static clsplat_status plan(search *s, op_tensor *tensor, part_kind kind, const part_spec *parts,
                           size_t count) {
    clsplat_status status = CLSPLAT_OK;
    weight_target *target = &s->plan->targets[s->plan->count];
    size_t size = 0, columns = kind.columns;
    *target = (weight_target){.tensor = tensor, .count = count};
    for (size_t i = 0; i < count; ++i) {
        model_tensor *part = &target->parts[i];
        TRY(find_part(s, &parts[i], kind, part));
        if (strcmp(part->entry->dtype, target->parts[0].entry->dtype) != 0)
            return log_error(s->lib, CLSPLAT_UNSUPPORTED,
                             "%s: tensors '%s' and '%s' must be of one type, but are %s and %s",
                             safetensors_path(part->file), target->parts[0].entry->name, part->entry->name,
                             target->parts[0].entry->dtype, part->entry->dtype);
        target->bytes += part->entry->bytes;
        s->parameters += part->entry->count;
        size += parts[i].size;
    }
    size_t numbers = columns ? size * columns : size;
    *tensor = (op_tensor){.shape = {1, 1, columns ? size : 1, columns ? columns : size},
                          .stride = {numbers, numbers, columns ? columns : size}};
    dtype_of(target->parts[0].entry->dtype, &tensor->dtype);
    ++s->plan->count;
fail:
    return status;
}

static clsplat_status plan_vector(search *s, op_tensor *tensor, const char *name, size_t size) {
    return plan(s, tensor, (part_kind){".weight", 0}, &(part_spec){name, size}, 1);
}

static clsplat_status plan_attention(search *s, const model_config *c, model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    size_t q_rows = c->heads * c->head_dim, kv_rows = c->kv_heads * c->head_dim;
    const part_spec qkv[] = {
        {"self_attn.q_proj", q_rows}, {"self_attn.k_proj", kv_rows}, {"self_attn.v_proj", kv_rows}};
    const part_spec out[] = {{"self_attn.o_proj", c->hidden}};
    TRY(plan_vector(s, &l->norm, "input_layernorm", c->hidden));
    TRY(plan(s, &l->qkv, (part_kind){".weight", c->hidden}, qkv, 3));
    if (c->qkv_bias)
        TRY(plan(s, &l->qkv_bias, (part_kind){".bias", 0}, qkv, 3));
    if (c->head_norms) {
        TRY(plan_vector(s, &l->q_norm, "self_attn.q_norm", c->head_dim));
        TRY(plan_vector(s, &l->k_norm, "self_attn.k_norm", c->head_dim));
    }
    TRY(plan(s, &l->out, (part_kind){".weight", q_rows}, out, 1));
    if (c->out_bias)
        TRY(plan(s, &l->out_bias, (part_kind){".bias", 0}, out, 1));
fail:
    return status;
}

static clsplat_status plan_mlp(search *s, const model_config *c, model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const part_spec gate_up[] = {{"mlp.gate_proj", c->intermediate}, {"mlp.up_proj", c->intermediate}};
    const part_spec down[] = {{"mlp.down_proj", c->hidden}};
    TRY(plan_vector(s, &l->mlp_norm, "post_attention_layernorm", c->hidden));
    TRY(plan(s, &l->gate_up, (part_kind){".weight", c->hidden}, gate_up, 2));
    TRY(plan(s, &l->down, (part_kind){".weight", c->intermediate}, down, 1));
    if (c->mlp_bias) {
        TRY(plan(s, &l->gate_up_bias, (part_kind){".bias", 0}, gate_up, 2));
        TRY(plan(s, &l->down_bias, (part_kind){".bias", 0}, down, 1));
    }
fail:
    return status;
}

static clsplat_status plan_all(search *s, const model_config *c, model_weights *w) {
    clsplat_status status = CLSPLAT_OK;
    const part_kind rows = {".weight", c->hidden};
    TRY(plan(s, &w->embedding, rows, &(part_spec){"model.embed_tokens", c->vocabulary}, 1));
    TRY(plan_vector(s, &w->norm, "model.norm", c->hidden));
    if (!c->tied)
        TRY(plan(s, &w->head, rows, &(part_spec){"lm_head", c->vocabulary}, 1));
    for (size_t i = 0; i < c->layers; ++i) {
        snprintf(s->prefix, sizeof s->prefix, "model.layers.%zu.", i);
        TRY(plan_attention(s, c, &w->layers[i]));
        TRY(plan_mlp(s, c, &w->layers[i]));
    }
fail:
    return status;
}

static bool is_planned(const weight_plan *plan, const safetensors_entry *entry) {
    for (size_t i = 0; i < plan->count; ++i)
        for (size_t part = 0; part < plan->targets[i].count; ++part)
            if (plan->targets[i].parts[part].entry == entry)
                return true;
    return false;
}

/* A tensor that nothing asks for may be a sign that the model does more than config.json says. Old files
 * carry the rotary frequencies, and a tied head may be there beside the embedding. */
static void warn_of_others(const search *s, const model_config *c) {
    model_tensor t;
    for (size_t i = 0; t = model_folder_at(s->folder, i), t.entry; ++i)
        if (!is_planned(s->plan, t.entry) && !strstr(t.entry->name, "rotary_emb.inv_freq") &&
            !(c->tied && strcmp(t.entry->name, "lm_head.weight") == 0))
            log_warning(s->lib, "%s: tensor '%s' is not used by a model of type %s", safetensors_path(t.file),
                        text_show(t.entry->name).bytes, c->family);
}

static clsplat_status check_memory(clsplat_device *device, const char *folder, const weight_plan *plan,
                                   uint64_t bytes) {
    const clsplat_limits *limits = &device->info.limits;
    if (bytes > limits->global_memory - device->memory.now || device->memory.now > limits->global_memory)
        return log_error(device->lib, CLSPLAT_MEMORY,
                         "%s: its weights need %.1f MiB; %s has %.1f MiB, of which %.1f are in use", folder,
                         (double)bytes / MIB, device->info.name, (double)limits->global_memory / MIB,
                         (double)device->memory.now / MIB);
    for (size_t i = 0; i < plan->count; ++i)
        if (plan->targets[i].bytes > limits->max_allocation)
            return log_error(
                device->lib, CLSPLAT_MEMORY,
                "%s: tensor '%s' is part of a matrix of %.1f MiB; %s allows %.1f MiB in one piece", folder,
                plan->targets[i].parts[0].entry->name, (double)plan->targets[i].bytes / MIB,
                device->info.name, (double)limits->max_allocation / MIB);
    return CLSPLAT_OK;
}

/* Uploads in pieces, between which the caller may stop. */
typedef struct upload {
    queue q;
    const clsplat_model_options *options;
    uint64_t done, total;
} upload;

static clsplat_status upload_part(upload *u, const model_tensor *part, cl_mem mem, size_t offset) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = u->q.device->lib;
    const void *bytes = NULL;
    TRY(safetensors_map(lib, part->file, part->entry, &bytes));
    for (uint64_t at = 0; at < part->entry->bytes; at += PIECE) {
        uint64_t left = part->entry->bytes - at;
        size_t count = left < PIECE ? (size_t)left : PIECE;
        TRY(queue_upload(&u->q, (queue_copy){.mem = mem,
                                             .mem_offset = offset + (size_t)at,
                                             .host = (char *)bytes + at,
                                             .row = count,
                                             .rows = 1}));
        u->done += count;
        if (u->options->progress &&
            !u->options->progress(u->options->progress_user, (double)u->done / (double)u->total))
            return log_error(lib, CLSPLAT_CANCELLED, "stopped by the caller");
    }
fail:
    return status;
}

static clsplat_status upload_all(clsplat_device *device, const weight_plan *plan, uint64_t bytes,
                                 const clsplat_model_options *options) {
    clsplat_status status = CLSPLAT_OK;
    upload u = {.options = options, .total = bytes};
    queue_begin(device, 0, NULL, &u.q);
    for (size_t i = 0; i < plan->count; ++i) {
        const weight_target *target = &plan->targets[i];
        size_t offset = 0;
        TRY(buffer_create(device, target->bytes, &target->tensor->mem));
        for (size_t part = 0; part < target->count; ++part) {
            TRY(upload_part(&u, &target->parts[part], target->tensor->mem, offset));
            offset += (size_t)target->parts[part].entry->bytes;
        }
    }
fail:
    return status;
}

clsplat_status model_weights_load(clsplat_device *device, const char *folder, const model_config *config,
                                  const clsplat_model_options *options, model_weights *weights) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = device->lib;
    model_folder *files = NULL;
    search s = {.lib = lib};
    *weights = (model_weights){0};
    TRY(model_folder_open(lib, folder, &files));
    weights->layers = calloc(config->layers, sizeof *weights->layers);
    weights->plan = s.plan = calloc(1, sizeof *s.plan);
    if (s.plan)
        s.plan->targets =
            calloc(config->layers * TARGETS_PER_LAYER + TARGETS_BESIDE, sizeof *s.plan->targets);
    if (!weights->layers || !s.plan || !s.plan->targets)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", folder));
    s.folder = files;
    TRY(plan_all(&s, config, weights));
    warn_of_others(&s, config);
    for (size_t i = 0; i < s.plan->count; ++i)
        weights->bytes += s.plan->targets[i].bytes;
    weights->parameters = s.parameters;
    TRY(check_memory(device, folder, s.plan, weights->bytes));
    TRY(upload_all(device, s.plan, weights->bytes, options));
    s.plan->frequency_bytes = config->head_dim / 2 * sizeof(float);
    for (size_t i = 0; i < (config->short_context ? 2 : 1); ++i)
        TRY(buffer_create_from(device, s.plan->frequency_bytes,
                               config->frequencies + i * (config->head_dim / 2), &weights->frequencies[i]));
    if (config->tied)
        weights->head = weights->embedding;
fail:
    model_folder_close(&files);
    if (status != CLSPLAT_OK)
        model_weights_free(device, weights);
    return status;
}

void model_weights_free(clsplat_device *device, model_weights *weights) {
    weight_plan *plan = weights->plan;
    for (size_t i = 0; plan && i < plan->count; ++i)
        buffer_release(device, plan->targets[i].bytes, &plan->targets[i].tensor->mem);
    if (plan) {
        for (size_t i = 0; i < 2; ++i)
            buffer_release(device, plan->frequency_bytes, &weights->frequencies[i]);
        free(plan->targets);
    }
    free(plan);
    free(weights->layers);
    *weights = (model_weights){0};
}
