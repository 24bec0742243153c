#include "model/weights_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/head.h"

enum { TARGETS_PER_LAYER = 29 + 4 * MATRIX_PARTS, TARGETS_BESIDE = 13 + 2 * MATRIX_PARTS };

/* Biases that a key of config.json asks for. */
typedef enum bias_kind { BIAS_QKV, BIAS_OUT, BIAS_GATE_UP, BIAS_DOWN } bias_kind;

/* The walk over the tensors that a configuration wants. */
typedef struct search {
    clsplat *lib;
    const model_folder *folder;
    const model_config *config;
    weight_plan *plan;
    const char *above; /* the prefix of all names but the head's */
    bool told[4];      /* by bias_kind: that it is missing */
    char prefix[64];   /* of the names that are looked for now */
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

static clsplat_status wrong_shape(const search *s, const model_tensor *t, size_t size, size_t columns) {
    text wanted = {0}, found = {0};
    text_add(&wanted, columns ? "[%zu, %zu]" : "[%zu]", size, columns);
    for (size_t i = 0; i < t->entry->rank && i < SAFETENSORS_MAX_RANK; ++i)
        text_add(&found, "%s%" PRIu64, i ? ", " : "", t->entry->shape[i]);
    clsplat_status status =
        log_error(s->lib, CLSPLAT_FORMAT, "%s: tensor '%s' has the shape [%s], where config.json asks for %s",
                  model_folder_path_of(s->folder, t), t->entry->name, found.data ? found.data : "",
                  wanted.data ? wanted.data : "another");
    text_free(&wanted);
    text_free(&found);
    return status;
}

/* "NAME.weight", or where old files of LayerNorms have it, "NAME.gamma" and "NAME.beta". */
static model_tensor find_named(const search *s, const char *name, const char *suffix, char *full,
                               size_t room) {
    static const struct {
        const char *suffix, *old;
    } spellings[] = {{".weight", ".gamma"}, {".bias", ".beta"}};
    model_tensor found;
    for (size_t i = 0; i < 2; ++i)
        if (strcmp(spellings[i].suffix, suffix) == 0) {
            snprintf(full, room, "%s%s%s", s->prefix, name, spellings[i].old);
            found = model_folder_find(s->folder, full);
            if (found.entry)
                return found;
        }
    snprintf(full, room, "%s%s%s", s->prefix, name, suffix);
    return model_folder_find(s->folder, full);
}

/* The key of config.json that asks for a tensor which not every model has. */
static const char *who_asks(const search *s, const char *name) {
    size_t head = s->config->names->head ? strlen(s->config->names->head) : 0;
    if (head > 0 && strncmp(name, s->config->names->head, head) == 0)
        return ": config.json does not say tie_word_embeddings, so that the head is a matrix of its own";
    return strstr(name, "_proj.bias") ? ": attention_bias or mlp_bias of config.json asks for it" : "";
}

static clsplat_status find_part(const search *s, const part_spec *spec, part_kind kind, model_tensor *found) {
    char name[192];
    *found = find_named(s, spec->name, kind.suffix, name, sizeof name);
    const safetensors_entry *e = found->entry;
    clsplat_dtype dtype;
    if (!e)
        return log_error(s->lib, CLSPLAT_FORMAT, "%s: tensor '%s' is missing%s", model_folder_path(s->folder),
                         name, who_asks(s, name));
    if (e->rank != (kind.columns ? 2 : 1) || e->shape[0] != spec->size ||
        (kind.columns && e->shape[1] != kind.columns))
        return wrong_shape(s, found, spec->size, kind.columns);
    if (!op_dtype_named(e->dtype, &dtype) || (!kind.columns && op_dtype_is_blocks(dtype)))
        return log_error(
            s->lib, CLSPLAT_UNSUPPORTED,
            "%s: tensor '%s' is of type %s; weights of F32, F16 and BF16 are supported, and matrices in the "
            "blocks of GGUF files",
            model_folder_path_of(s->folder, found), name, e->dtype);
    return CLSPLAT_OK;
}

/* Plans the parts, in as many buffers as there are types among them, or more; vectors are of one type. */
static clsplat_status plan(search *s, weight_place to, part_kind kind, const part_spec *specs, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    model_tensor parts[PARTS_MOST];
    for (size_t i = 0; i < count; ++i) {
        TRY(find_part(s, &specs[i], kind, &parts[i]));
        if (!kind.columns && strcmp(parts[i].entry->dtype, parts[0].entry->dtype) != 0)
            return log_error(s->lib, CLSPLAT_UNSUPPORTED,
                             "%s: tensors '%s' and '%s' must be of one type, but are %s and %s",
                             model_folder_path_of(s->folder, &parts[i]), parts[0].entry->name,
                             parts[i].entry->name, parts[0].entry->dtype, parts[i].entry->dtype);
    }
    for (size_t i = 0; i < count;)
        i += weight_plan_alike(s->plan, &to, kind.columns, parts + i, count - i);
fail:
    return status;
}

/* What a family has no name for stays absent. */
static clsplat_status plan_one(search *s, weight_place to, const char *name, part_kind kind, size_t size) {
    return name ? plan(s, to, kind, &(part_spec){name, size}, 1) : CLSPLAT_OK;
}

static clsplat_status plan_vector(search *s, op_tensor *tensor, const char *name, size_t size) {
    return plan_one(s, (weight_place){tensor, 1}, name, (part_kind){".weight", 0}, size);
}

static clsplat_status plan_bias(search *s, op_tensor *tensor, const char *name, size_t size) {
    return plan_one(s, (weight_place){tensor, 1}, name, (part_kind){".bias", 0}, size);
}

/* A matrix that is small wherever there is one. */
static clsplat_status plan_matrix(search *s, op_tensor *tensor, const char *name, size_t rows,
                                  size_t columns) {
    return plan_one(s, (weight_place){tensor, 1}, name, (part_kind){".weight", columns}, rows);
}

static clsplat_status plan_parts(search *s, op_tensor tensors[MATRIX_PARTS], const char *name, size_t rows,
                                 size_t columns) {
    return plan_one(s, (weight_place){tensors, MATRIX_PARTS}, name, (part_kind){".weight", columns}, rows);
}

/* Whether a bias that only a key asks for is not in the file at all: then it is 0, as transformers 5 starts
 * it. */
static bool is_left_out(search *s, bias_kind kind, const part_spec *parts, size_t count) {
    const model_family *f = model_family_find(s->config->family);
    const char *key = kind < BIAS_GATE_UP ? "attention_bias" : "mlp_bias";
    bool by_key = kind == BIAS_QKV   ? f->bias_key && !f->qkv_bias
                  : kind == BIAS_OUT ? f->bias_key && !f->out_bias
                                     : f->mlp_bias_key;
    char name[192];
    for (size_t i = 0; i < count; ++i) {
        snprintf(name, sizeof name, "%s%s.bias", s->prefix, parts[i].name);
        if (!by_key || model_folder_find(s->folder, name).entry)
            return false;
    }
    if (!s->told[kind])
        log_warning(
            s->lib,
            "%s: key %s of config.json asks for tensor '%s', which is missing: it is taken as 0, as in "
            "transformers 5",
            model_folder_path(s->folder), key, name);
    s->told[kind] = true;
    return true;
}

static clsplat_status plan_norm(search *s, model_norm *norm, const char *name) {
    clsplat_status status = CLSPLAT_OK;
    TRY(plan_vector(s, &norm->weight, name, s->config->hidden));
    if (s->config->layer.centred)
        TRY(plan_bias(s, &norm->shift, name, s->config->hidden));
fail:
    return status;
}

static clsplat_status plan_attention(search *s, model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = s->config;
    const model_names *n = c->names;
    size_t q_rows = c->heads * c->head_dim, kv_rows = c->kv_heads * c->head_dim;
    const part_spec apart[] = {{n->q, q_rows}, {n->k, kv_rows}, {n->v, kv_rows}};
    const part_spec whole[] = {{n->qkv, q_rows + 2 * kv_rows}};
    const part_spec *qkv = n->qkv ? whole : apart;
    size_t parts = n->qkv ? 1 : 3, all = c->layer.qk == QK_ALL_HEADS;
    TRY(plan_norm(s, &l->attention_norm, n->attention_norm));
    TRY(plan(s, (weight_place){l->qkv, MATRIX_PARTS}, (part_kind){".weight", c->hidden}, qkv, parts));
    if (c->qkv_bias && !is_left_out(s, BIAS_QKV, qkv, parts))
        TRY(plan(s, (weight_place){&l->qkv_bias, 1}, (part_kind){".bias", 0}, qkv, parts));
    if (c->layer.qk != QK_AS_THEY_ARE) {
        TRY(plan_vector(s, &l->q_norm, n->q_norm, all ? q_rows : c->head_dim));
        TRY(plan_vector(s, &l->k_norm, n->k_norm, all ? kv_rows : c->head_dim));
    }
    TRY(plan_parts(s, l->out, n->out, c->hidden, q_rows));
    if (c->out_bias && !is_left_out(s, BIAS_OUT, &(part_spec){n->out, c->hidden}, 1))
        TRY(plan_bias(s, &l->out_bias, n->out, c->hidden));
    TRY(plan_norm(s, &l->attention_result, n->attention_result));
fail:
    return status;
}

/* A logarithm per head, as attention takes the biases of keys. */
static clsplat_status plan_sinks(search *s, model_weights *w, model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = s->config;
    char name[192];
    if (!c->names->sinks || !find_named(s, c->names->sinks, "", name, sizeof name).entry)
        return CLSPLAT_OK;
    TRY(plan(s, (weight_place){&l->sinks, 1}, (part_kind){"", 0}, &(part_spec){c->names->sinks, c->heads},
             1));
    l->sinks.shape[1] = c->heads;
    l->sinks.shape[3] = l->sinks.stride[1] = l->sinks.stride[2] = 1;
    w->has_sinks = true;
fail:
    return status;
}

/* Models of before layers looked at the token before a token have nothing that says how much. */
static clsplat_status plan_splats(search *s, model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = s->config;
    const model_names *n = c->names;
    const part_spec gates[] = {{n->splat_strength, c->kv_heads}, {n->splat_decay, c->kv_heads}};
    size_t count = c->kv_heads * c->splats, parts = c->layer.encoder ? 1 : 2;
    char name[192];
    if (!c->layer.encoder && find_named(s, n->splat_shift, ".weight", name, sizeof name).entry)
        TRY(plan_vector(s, &l->splat_shift, n->splat_shift, (c->heads + 2 * c->kv_heads) * c->head_dim));
    TRY(plan_matrix(s, &l->splat_mean, n->splat_mean, count, c->head_dim));
    TRY(plan_matrix(s, &l->splat_precision, n->splat_precision, count, c->head_dim));
    TRY(plan_vector(s, &l->splat_amplitude, n->splat_amplitude, count));
    TRY(plan(s, (weight_place){&l->splat_gates, 1}, (part_kind){".weight", c->hidden}, gates, parts));
    TRY(plan(s, (weight_place){&l->splat_gates_bias, 1}, (part_kind){".bias", 0}, gates, parts));
fail:
    return status;
}

static clsplat_status plan_mlp(search *s, model_layer *l) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = s->config;
    const model_names *n = c->names;
    size_t halves = c->layer.gated ? 2 : 1;
    const part_spec apart[] = {{n->gate, c->intermediate}, {n->up, c->intermediate}};
    const part_spec whole[] = {{n->gate_up, halves * c->intermediate}};
    const part_spec *gate_up = n->gate_up ? whole : apart + (2 - halves);
    size_t parts = n->gate_up ? 1 : halves;
    TRY(plan_norm(s, &l->mlp_norm, n->mlp_norm));
    TRY(plan(s, (weight_place){l->gate_up, MATRIX_PARTS}, (part_kind){".weight", c->hidden}, gate_up, parts));
    TRY(plan_parts(s, l->down, n->down, c->hidden, c->intermediate));
    if (c->mlp_bias && !is_left_out(s, BIAS_GATE_UP, gate_up, parts))
        TRY(plan(s, (weight_place){&l->gate_up_bias, 1}, (part_kind){".bias", 0}, gate_up, parts));
    if (c->mlp_bias && !is_left_out(s, BIAS_DOWN, &(part_spec){n->down, c->hidden}, 1))
        TRY(plan_bias(s, &l->down_bias, n->down, c->hidden));
    TRY(plan_norm(s, &l->mlp_result, n->mlp_result));
fail:
    return status;
}

/* A decoder's head is a matrix. An encoder may come without one. */
static clsplat_status plan_head(search *s, model_weights *w) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = s->config;
    const model_names *n = c->names;
    char name[128];
    s->prefix[0] = '\0';
    if (c->layer.encoder && (n->head_dense || !s->plan->tied)) {
        snprintf(name, sizeof name, "%s.weight", n->head_dense ? n->head_dense : n->head);
        if (!model_folder_find(s->folder, name).entry)
            return CLSPLAT_OK;
    }
    TRY(plan_matrix(s, &w->head_dense, n->head_dense, c->hidden, c->hidden));
    TRY(plan_bias(s, &w->head_dense_bias, n->head_dense, c->hidden));
    TRY(plan_norm(s, &w->head_norm, n->head_norm));
    TRY(plan_bias(s, &w->head_bias, n->head_bias, c->vocabulary));
    if (!s->plan->tied)
        TRY(plan_parts(s, w->head, n->head, c->vocabulary, c->hidden));
fail:
    return status;
}

/* Names begin with the first prefix under which there is an embedding; without one, with the family's first.
 */
static void choose_prefix(search *s) {
    const model_names *n = s->config->names;
    char name[128];
    s->above = n->prefixes[0];
    for (size_t i = 0; i < sizeof n->prefixes / sizeof *n->prefixes && n->prefixes[i]; ++i) {
        snprintf(name, sizeof name, "%s%s.weight", n->prefixes[i], n->embedding);
        if (model_folder_find(s->folder, name).entry) {
            s->above = n->prefixes[i];
            return;
        }
    }
}

static clsplat_status find_head(search *s, model_folder *folder) {
    const model_names *n = s->config->names;
    char embedding[128], head[128];
    snprintf(embedding, sizeof embedding, "%s%s.weight", s->above, n->embedding);
    snprintf(head, sizeof head, "%s.weight", n->head ? n->head : "");
    s->plan->tied = s->config->tied;
    return n->head ? model_head_tie(s->lib, folder, embedding, head, &s->plan->tied) : CLSPLAT_OK;
}

static clsplat_status plan_all(search *s, model_weights *w) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = s->config;
    const model_names *n = c->names;
    snprintf(s->prefix, sizeof s->prefix, "%s", s->above);
    TRY(plan_parts(s, w->embedding, n->embedding, c->vocabulary, c->hidden));
    TRY(plan_matrix(s, &w->positions, n->positions, c->positions, c->hidden));
    TRY(plan_matrix(s, &w->types, n->types, c->types, c->hidden));
    TRY(plan_norm(s, &w->embedding_norm, n->embedding_norm));
    TRY(plan_norm(s, &w->norm, n->norm));
    TRY(plan_head(s, w));
    for (size_t i = 0; i < c->layers; ++i) {
        int above = snprintf(s->prefix, sizeof s->prefix, "%s", s->above);
        snprintf(s->prefix + above, sizeof s->prefix - (size_t)above, n->layer, i);
        TRY(plan_attention(s, &w->layers[i]));
        TRY(plan_sinks(s, w, &w->layers[i]));
        if (c->splatted && c->splatted[i])
            TRY(plan_splats(s, &w->layers[i]));
        TRY(plan_mlp(s, &w->layers[i]));
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

/* What may lie beside the weights and changes nothing: old files carry the rotary frequencies or the
 * positions' numbers, and a tied head may be there beside the embedding. */
static bool is_harmless(const search *s, const char *name) {
    const model_config *c = s->config;
    char head[128];
    snprintf(head, sizeof head, "%s.weight", c->names->head);
    if (strstr(name, "rotary_emb.inv_freq") || strstr(name, "embeddings.position_ids") ||
        (s->plan->tied && strcmp(name, head) == 0))
        return true;
    for (size_t i = 0; i < sizeof c->names->unused / sizeof *c->names->unused && c->names->unused[i]; ++i)
        if (strncmp(name, c->names->unused[i], strlen(c->names->unused[i])) == 0)
            return true;
    return false;
}

/* A tensor that nothing asks for may be a sign that the model does more than config.json says. */
static void warn_of_others(const search *s) {
    model_tensor t;
    for (size_t i = 0; t = model_folder_at(s->folder, i), t.entry; ++i)
        if (!is_planned(s->plan, t.entry) && !is_harmless(s, t.entry->name))
            log_warning(
                s->lib, "%s: tensor '%s' is not used by a model of type %s%s",
                model_folder_path_of(s->folder, &t), text_show(t.entry->name).bytes, s->config->family,
                strstr(t.entry->name, "_proj.bias") ? " without attention_bias or mlp_bias in config.json"
                                                    : "");
}

clsplat_status weight_plan_make(clsplat *lib, model_folder *folder, const model_config *config,
                                uint64_t limit, model_weights *weights, weight_plan **made) {
    clsplat_status status = CLSPLAT_OK;
    search s = {.lib = lib, .folder = folder, .config = config};
    *made = s.plan = calloc(1, sizeof *s.plan);
    if (s.plan) {
        s.plan->limit = limit;
        s.plan->targets =
            calloc(config->layers * TARGETS_PER_LAYER + TARGETS_BESIDE, sizeof *s.plan->targets);
    }
    if (!s.plan || !s.plan->targets)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors",
                         model_folder_path(folder));
    choose_prefix(&s);
    TRY(find_head(&s, folder));
    TRY(plan_all(&s, weights));
    warn_of_others(&s);
fail:
    return status;
}

void weight_plan_free(weight_plan *plan) {
    if (plan)
        free(plan->targets);
    free(plan);
}
