#include "model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "model/gguf_model.h"
#include "model/pattern.h"
#include "model/rotary.h"

enum {
    FILE_LIMIT = 16 << 20,
    LAYERS_LIMIT = 1 << 12,
    HIDDEN_LIMIT = 1 << 20,
    HEADS_LIMIT = 1 << 12,
    HEAD_DIM_LIMIT = 1024, /* what attention takes */
    VOCABULARY_LIMIT = 1 << 24,
    CONTEXT_LIMIT = 1 << 30,
    ENDS_LIMIT = 64
};

static clsplat_status find_family(const json_place *at, const model_family **found) {
    clsplat_status status = CLSPLAT_OK;
    const char *name = NULL;
    TRY(json_word(at, "model_type", JSON_NEEDED, &name));
    *found = model_family_find(name);
    if (!*found) {
        text names = {0};
        for (size_t i = 0; i < model_family_count; ++i)
            text_add(&names, "%s%s", i ? ", " : "", model_families[i].name);
        status = json_refuse(at, CLSPLAT_UNSUPPORTED, "model_type", "is '%s'; what is supported: %s",
                             text_show(name).bytes, names.data ? names.data : "");
        text_free(&names);
    }
fail:
    return status;
}

/* A head's own layer has the activation of the others unless the family says otherwise. */
static clsplat_status read_activation(const json_place *at, const model_family *f, model_config *c) {
    static const struct {
        const char *name;
        op_activation activation;
    } known[] = {{"silu", OP_SILU},        {"swish", OP_SILU},         {"gelu", OP_GELU},
                 {"gelu_python", OP_GELU}, {"gelu_new", OP_GELU_TANH}, {"gelu_pytorch_tanh", OP_GELU_TANH},
                 {"relu", OP_RELU}};
    enum { KNOWN = sizeof known / sizeof *known };
    clsplat_status status = CLSPLAT_OK;
    const char *name = NULL;
    size_t i = 0;
    TRY(json_word(at, f->keys->activation, JSON_OPTIONAL, &name));
    while (name && i < KNOWN && strcmp(known[i].name, name) != 0)
        ++i;
    if (i == KNOWN)
        return json_refuse(at, CLSPLAT_UNSUPPORTED, f->keys->activation,
                           "is '%s'; silu, gelu, gelu_new, gelu_pytorch_tanh and relu are supported",
                           text_show(name).bytes);
    if (name)
        c->layer.activation = known[i].activation;
    if (f->gelu_is_tanh && c->layer.activation == OP_GELU)
        c->layer.activation = OP_GELU_TANH;
    if (c->layer.head_activation == OP_IDENTITY)
        c->layer.head_activation = c->layer.activation;
fail:
    return status;
}

/* A configuration that says how layers attend may say that tokens see those after, too. */
static clsplat_status read_direction(const json_place *at, const model_family *f, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    bool decoder = true;
    if (!f->patterns)
        return CLSPLAT_OK;
    TRY(json_bool(at, "is_decoder", &decoder));
    c->layer.encoder = !decoder;
fail:
    return status;
}

/* What would change the arithmetic, and is not here. */
static clsplat_status refuse_others(const json_place *at, const model_family *f, const model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    const char *positions = "absolute";
    bool decoder = false, crossed = false, both_ways = false;
    const json_t *architecture = json_array_get(json_object_get(at->object, "architectures"), 0);
    if (json_has(at, "quantization_config"))
        return json_refuse(
            at, CLSPLAT_UNSUPPORTED, "quantization_config",
            "is set: folders have weights of F32, F16 or BF16 here, and quantised ones come in GGUF files");
    if (!c->layer.encoder && json_is_string(architecture) &&
        !text_contains(json_string_value(architecture), "ForCausalLM"))
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "architectures",
                           "is '%s', which does not predict next tokens (…ForCausalLM)",
                           text_show(json_string_value(architecture)).bytes);
    TRY(json_bool(at, "use_bidirectional_attention", &both_ways));
    if (both_ways)
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "use_bidirectional_attention",
                           "is true: a model of type %s is run as a decoder only", f->name);
    if (!c->layer.encoder || f->patterns)
        return CLSPLAT_OK;
    TRY(json_word(at, "position_embedding_type", JSON_OPTIONAL, &positions));
    TRY(json_bool(at, "is_decoder", &decoder));
    TRY(json_bool(at, "add_cross_attention", &crossed));
    if (strcmp(positions, "absolute") != 0)
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "position_embedding_type",
                           "is '%s'; only absolute is supported", text_show(positions).bytes);
    if (decoder || crossed)
        return json_refuse(at, CLSPLAT_UNSUPPORTED, decoder ? "is_decoder" : "add_cross_attention",
                           "is true: a model of type %s is run as an encoder only", f->name);
fail:
    return status;
}

static bool is_rotary(const model_config *c) {
    return !c->names->positions;
}

/* Learned positions are a table, whose first rows may be left to padding. */
static clsplat_status read_positions(const json_place *at, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    size_t pad = c->layer.position_after_pad ? 1 : 0;
    size_t mask = SIZE_MAX;
    if (!c->layer.encoder)
        return CLSPLAT_OK;
    TRY(json_size(at, "pad_token_id", JSON_OPTIONAL, 0, c->vocabulary - 1, &pad));
    TRY(json_size(at, "mask_token_id", JSON_OPTIONAL, 0, c->vocabulary - 1, &mask));
    c->pad = (int32_t)pad;
    c->mask = mask == SIZE_MAX ? -1 : (int32_t)mask;
    if (is_rotary(c))
        return CLSPLAT_OK;
    c->positions = c->context;
    c->first_position = c->layer.position_after_pad ? pad + 1 : 0;
    if (c->first_position >= c->positions)
        return json_refuse(at, CLSPLAT_FORMAT, "pad_token_id",
                           "is %zu, which leaves none of max_position_embeddings, %zu, for tokens", pad,
                           c->positions);
    c->context = c->positions - c->first_position;
    if (c->names->types) {
        c->types = 2;
        TRY(json_size(at, "type_vocab_size", JSON_OPTIONAL, 1, CONTEXT_LIMIT, &c->types));
    }
fail:
    return status;
}

static clsplat_status read_sizes(const json_place *at, const model_family *f, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    double epsilon = f->epsilon;
    TRY(json_size(at, f->keys->layers, JSON_NEEDED, 1, LAYERS_LIMIT, &c->layers));
    TRY(json_size(at, f->keys->hidden, JSON_NEEDED, 1, HIDDEN_LIMIT, &c->hidden));
    TRY(json_size(at, f->keys->heads, JSON_NEEDED, 1, HEADS_LIMIT, &c->heads));
    TRY(json_size(at, f->keys->intermediate, JSON_NEEDED, 1, HIDDEN_LIMIT, &c->intermediate));
    TRY(json_size(at, "vocab_size", JSON_NEEDED, 1, VOCABULARY_LIMIT, &c->vocabulary));
    c->kv_heads = f->kv_heads ? f->kv_heads : c->heads;
    if (is_rotary(c))
        c->kv_heads =
            json_is_null(json_object_get(at->object, "num_key_value_heads")) ? c->heads : c->kv_heads;
    if (is_rotary(c))
        TRY(json_size(at, "num_key_value_heads", JSON_OPTIONAL, 1, HEADS_LIMIT, &c->kv_heads));
    if (c->heads % c->kv_heads != 0)
        return json_refuse(at, CLSPLAT_FORMAT, "num_attention_heads",
                           "is %zu, which is no multiple of num_key_value_heads, %zu", c->heads, c->kv_heads);
    c->head_dim = f->head_dim ? f->head_dim : c->hidden / c->heads;
    TRY(json_size(at, "head_dim", JSON_OPTIONAL, 2, HEAD_DIM_LIMIT, &c->head_dim));
    if (!json_has(at, "head_dim") && !f->head_dim && c->hidden % c->heads != 0)
        return json_refuse(at, CLSPLAT_FORMAT, f->keys->hidden,
                           "is %zu, which is no multiple of %s, %zu, and there is no head_dim", c->hidden,
                           f->keys->heads, c->heads);
    if (c->head_dim < 2 || c->head_dim > HEAD_DIM_LIMIT || (is_rotary(c) && c->head_dim % 2 != 0))
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "head_dim", "is %zu; it must be even, from 2 to %d",
                           c->head_dim, HEAD_DIM_LIMIT);
    c->context = f->context;
    TRY(json_size(at, "max_position_embeddings", JSON_OPTIONAL, 1, CONTEXT_LIMIT, &c->context));
    if (f->keys->epsilon)
        TRY(json_double(at, f->keys->epsilon, JSON_OPTIONAL, 0, 1, &epsilon));
    c->epsilon = (float)epsilon;
    if (f->embedding_scaled)
        c->layer.embedding_scale = sqrtf((float)c->hidden);
    c->tied = f->tied;
    TRY(json_bool(at, "tie_word_embeddings", &c->tied));
fail:
    return status;
}

/* null: there is none. */
static clsplat_status read_cap(const json_place *at, const char *key, double *cap) {
    if (json_is_null(json_object_get(at->object, key)))
        *cap = 0;
    return json_double(at, key, JSON_OPTIONAL, 0, 1e6, cap);
}

/* What becomes of scores and logits: tanh between ±cap. */
static clsplat_status read_caps(const json_place *at, const model_family *f, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    double scalar = 256, scores = (double)f->caps_scores, logits = (double)f->caps_logits;
    c->score_scale = 1 / sqrtf((float)c->head_dim);
    if (!f->caps)
        return CLSPLAT_OK;
    TRY(json_double(at, "query_pre_attn_scalar", JSON_OPTIONAL, 1e-3, 1e6, &scalar));
    TRY(read_cap(at, "attn_logit_softcapping", &scores));
    TRY(read_cap(at, "final_logit_softcapping", &logits));
    if (scalar != (double)c->head_dim)
        c->score_scale = (float)(1 / sqrt(scalar));
    c->layer.score_cap = (float)scores;
    c->layer.logit_cap = (float)logits;
fail:
    return status;
}

static clsplat_status read_biases(const json_place *at, const model_family *f, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    if (f->bias_key) {
        TRY(json_bool(at, "attention_bias", &c->qkv_bias));
        c->out_bias = c->qkv_bias;
    }
    c->qkv_bias = c->qkv_bias || f->qkv_bias;
    c->out_bias = c->out_bias || f->out_bias;
    c->mlp_bias = f->mlp_bias;
    if (f->mlp_bias_key)
        TRY(json_bool(at, "mlp_bias", &c->mlp_bias));
    if (f->mlp_bias_key && c->layer.encoder && c->mlp_bias)
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "mlp_bias",
                           "is true: heads with biases of models of type %s are not supported", f->name);
fail:
    return status;
}

/* layer_types, if it is there, must be what the family's other keys mean; qwen2 and qwen3 may choose. */
static clsplat_status read_layer_types(const json_place *at, const model_family *f, model_config *c) {
    const json_t *types = json_object_get(at->object, "layer_types");
    if (!json_has(at, "layer_types"))
        return CLSPLAT_OK;
    if (!json_is_array(types) || json_array_size(types) != c->layers)
        return json_refuse(at, CLSPLAT_FORMAT, "layer_types", "must be a list of %zu names, one per layer",
                           c->layers);
    for (size_t i = 0; i < c->layers; ++i) {
        const char *type = json_string_value(json_array_get(types, i));
        bool sliding = type && strcmp(type, "sliding_attention") == 0;
        if (!type || (!sliding && strcmp(type, "full_attention") != 0))
            return json_refuse(at, CLSPLAT_UNSUPPORTED, "layer_types",
                               "has entry %zu that is neither full_attention nor sliding_attention", i);
        if (!f->window_some && !f->window_pattern && sliding != c->windowed[i])
            return json_refuse(at, CLSPLAT_UNSUPPORTED, "layer_types",
                               "has entry %zu that differs from what %s does in every layer", i, f->name);
        c->windowed[i] = sliding && c->window;
    }
    return CLSPLAT_OK;
}

static clsplat_status read_window(const json_place *at, const model_family *f, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    bool used = f->window_always, given = json_object_get(at->object, "sliding_window") != NULL;
    size_t from = f->window_some ? 28 : 0, pattern = f->window_pattern;
    c->windowed = calloc(c->layers, sizeof *c->windowed);
    if (!c->windowed)
        return log_error(at->lib, CLSPLAT_MEMORY, "%s: no memory for its layers", at->path);
    if (f->window_some) {
        TRY(json_bool(at, "use_sliding_window", &used));
        TRY(json_size(at, "max_window_layers", JSON_OPTIONAL, 0, CONTEXT_LIMIT, &from));
    }
    if (used) {
        c->window = given || f->window_unsaid ? 0 : 4096; /* null: none */
        TRY(json_size(at, "sliding_window", JSON_OPTIONAL, 1, CONTEXT_LIMIT, &c->window));
    }
    if (f->window_pattern) {
        TRY(json_size(at, "sliding_window_pattern", JSON_OPTIONAL, 1, CONTEXT_LIMIT, &pattern));
        if (!c->window)
            return json_refuse(at, CLSPLAT_UNSUPPORTED, "sliding_window",
                               "is null: models of type %s are run with a window", f->name);
    }
    for (size_t i = 0; i < c->layers; ++i)
        c->windowed[i] = c->window && i >= from && !(pattern && (i + 1) % pattern == 0);
    TRY(read_layer_types(at, f, c));
fail:
    return status;
}

static void add_end(model_config *c, int32_t token) {
    for (size_t i = 0; i < c->end_count; ++i)
        if (c->ends[i] == token)
            return;
    c->ends[c->end_count++] = token;
}

/* One token, or a list of them, beside those that are known. Writers put −1 for none, and some tokens that
 * the model does not have: neither ever comes. */
static clsplat_status read_ends(const json_place *at, model_config *c) {
    const json_t *found = json_object_get(at->object, "eos_token_id");
    bool list = json_is_array(found);
    size_t count = !json_has(at, "eos_token_id") ? 0 : list ? json_array_size(found) : 1;
    if (count > ENDS_LIMIT)
        return json_refuse(at, CLSPLAT_FORMAT, "eos_token_id", "lists more than %d tokens", ENDS_LIMIT);
    for (size_t i = 0; i < count; ++i) {
        const json_t *token = list ? json_array_get(found, i) : found;
        json_int_t id = json_integer_value(token);
        if (!json_is_integer(token) && !json_is_null(token))
            return json_refuse(at, CLSPLAT_FORMAT, "eos_token_id", "must be a token, or a list of them");
        if (json_is_integer(token) && id >= 0 && (size_t)id < c->vocabulary)
            add_end(c, (int32_t)id);
        else if (json_is_integer(token) && id >= 0)
            log_warning(at->lib,
                        "%s: key eos_token_id has %lld, which is beyond vocab_size, %zu, and so never comes",
                        at->path, (long long)id, c->vocabulary);
    }
    return CLSPLAT_OK;
}

/* Chat models end their turns with tokens that only this file lists. */
static clsplat_status read_generation(clsplat *lib, const char *folder, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    json_t *root = NULL;
    text path = {0};
    text_add(&path, "%s/generation_config.json", folder);
    if (!text_ok(&path))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    if (file_is_there(path.data)) {
        TRY(json_file(lib, path.data, FILE_LIMIT, &root));
        TRY(read_ends(&(json_place){.lib = lib, .path = path.data, .prefix = "", .object = root}, c));
    }
fail:
    json_decref(root);
    text_free(&path);
    return status;
}

static clsplat_status read_tokens(const json_place *at, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *begin = json_object_get(at->object, "bos_token_id");
    json_int_t token = json_is_integer(begin) ? json_integer_value(begin) : -1;
    if (json_has(at, "bos_token_id") && !json_is_integer(begin))
        return json_refuse(at, CLSPLAT_FORMAT, "bos_token_id", "must be a token");
    c->begin = token >= 0 && (uint64_t)token < c->vocabulary ? (int32_t)token : -1;
    if (token >= 0 && c->begin < 0)
        log_warning(at->lib,
                    "%s: key bos_token_id is %lld, which is beyond vocab_size, %zu: texts begin without it",
                    at->path, (long long)token, c->vocabulary);
    c->ends = calloc(2 * ENDS_LIMIT, sizeof *c->ends);
    if (!c->ends)
        return log_error(at->lib, CLSPLAT_MEMORY, "%s: no memory for its tokens", at->path);
    TRY(read_ends(at, c));
fail:
    return status;
}

/* A folder's config.json, or what a GGUF file says. */
static clsplat_status read_root(clsplat *lib, const char *folder, text *path, json_t **root) {
    bool is_file = gguf_is(folder);
    text_add(path, is_file ? "%s" : "%s/config.json", folder);
    if (!text_ok(path))
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder);
    return is_file ? gguf_config_of(lib, folder, root) : json_file(lib, path->data, FILE_LIMIT, root);
}

clsplat_status model_config_load(clsplat *lib, const char *folder, model_config *config) {
    clsplat_status status = CLSPLAT_OK;
    const model_family *f = NULL;
    json_t *root = NULL;
    text path = {0};
    *config = (model_config){0};
    TRY(read_root(lib, folder, &path, &root));
    json_place at = {.lib = lib, .path = path.data, .prefix = "", .object = root};
    TRY(find_family(&at, &f));
    config->family = f->name;
    config->layer = f->layer;
    config->names = f->names;
    TRY(read_direction(&at, f, config));
    TRY(refuse_others(&at, f, config));
    TRY(read_activation(&at, f, config));
    TRY(read_sizes(&at, f, config));
    TRY(read_positions(&at, config));
    TRY(read_biases(&at, f, config));
    TRY(read_caps(&at, f, config));
    config->local_turn = f->local_turn;
    TRY(read_window(&at, f, config));
    if (f->patterns)
        TRY(pattern_load(&at, config));
    TRY(read_tokens(&at, config));
    TRY(read_generation(lib, folder, config));
    if (is_rotary(config))
        TRY(rotary_load(&at, config));
fail:
    if (status != CLSPLAT_OK)
        model_config_free(config);
    json_decref(root);
    text_free(&path);
    return status;
}

void model_config_free(model_config *config) {
    free(config->windowed);
    free(config->splatted);
    free(config->near_far);
    free(config->frequencies);
    free(config->ends);
    *config = (model_config){0};
}
