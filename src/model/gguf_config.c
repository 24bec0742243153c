/* config.json out of a GGUF file's keys. Source: the format's description (docs/gguf.md of ggml), and for
 * what the keys become Hugging Face transformers' integrations/ggml.py. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/gguf_model.h"

static const gguf_family families[] = {{"llama", "llama", true},
                                       {"mistral", "mistral", true},
                                       {"qwen2", "qwen2", false},
                                       {"qwen3", "qwen3", false}};
enum { FAMILIES = sizeof families / sizeof *families };

/* Converters write Mistral's models as llama; here a model with a window keeps its name. */
const gguf_family *gguf_family_for(const char *model_type) {
    for (size_t i = 0; i < FAMILIES; ++i)
        if (strcmp(families[i].model_type, model_type) == 0)
            return &families[i];
    return NULL;
}

static bool is_words(const gguf_value *value, const char *words) {
    gguf_words found;
    size_t at = 0;
    return value && !value->is_array && gguf_next(value, &at, &found) && found.count == strlen(words) &&
           memcmp(found.bytes, words, found.count) == 0;
}

clsplat_status gguf_family_of(clsplat *lib, const gguf *file, const gguf_family **family) {
    const gguf_value *value = gguf_find(file, "general.architecture");
    gguf_words found = {"", 0};
    char name[64];
    size_t at = 0;
    for (size_t i = 0; i < FAMILIES; ++i)
        if (is_words(value, families[i].architecture)) {
            *family = &families[i];
            return CLSPLAT_OK;
        }
    if (!value || value->is_array || !gguf_next(value, &at, &found))
        return log_error(lib, CLSPLAT_FORMAT, "%s: key 'general.architecture' is missing, or no word",
                         gguf_path(file));
    snprintf(name, sizeof name, "%.*s", (int)(found.count < 60 ? found.count : 60), found.bytes);
    return log_error(lib, CLSPLAT_UNSUPPORTED,
                     "%s: key 'general.architecture' is '%s'; llama, mistral, qwen2 and qwen3 are supported",
                     gguf_path(file), text_show(name).bytes);
}

/* What is being read: the keys of an architecture, and the object that they become. */
typedef struct reader {
    clsplat *lib;
    const gguf *file;
    const gguf_family *family;
    json_t *to;
    bool failed; /* something could not be set: there was no memory */
} reader;

typedef struct key_name {
    char bytes[96];
} key_name;

static key_name key_of(const char *architecture, const char *name) {
    key_name key;
    snprintf(key.bytes, sizeof key.bytes, "%s.%s", architecture, name);
    return key;
}

static clsplat_status refuse(const reader *r, clsplat_status status, const char *key, const char *problem) {
    return log_error(r->lib, status, "%s: key '%s' %s", gguf_path(r->file), key, problem);
}

clsplat_status gguf_size(clsplat *lib, const gguf *file, const char *name, bool needed, uint64_t *value) {
    clsplat_status status = CLSPLAT_OK;
    const gguf_family *family = NULL;
    TRY(gguf_family_of(lib, file, &family));
    reader r = {.lib = lib, .file = file};
    key_name key = key_of(family->architecture, name);
    const gguf_value *found = gguf_find(file, key.bytes);
    if (!found)
        return needed ? refuse(&r, CLSPLAT_FORMAT, key.bytes, "is missing") : CLSPLAT_OK;
    if (found->is_array)
        return refuse(&r, CLSPLAT_UNSUPPORTED, key.bytes,
                      "differs from layer to layer, which is not supported");
    if (!gguf_whole(found, 0, value) || *value > INT32_MAX)
        return refuse(&r, CLSPLAT_FORMAT, key.bytes, "must be a whole number below 2^31");
fail:
    return status;
}

static clsplat_status copy_size(reader *r, const char *name, bool needed, const char *as) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t value = UINT64_MAX;
    TRY(gguf_size(r->lib, r->file, name, needed, &value));
    if (value != UINT64_MAX)
        r->failed |= json_object_set_new(r->to, as, json_integer((json_int_t)value));
fail:
    return status;
}

static clsplat_status read_real(const reader *r, const char *name, bool *found, double *value) {
    key_name key = key_of(r->family->architecture, name);
    const gguf_value *v = gguf_find(r->file, key.bytes);
    *found = v != NULL;
    if (v && (v->is_array || !gguf_number(v, 0, value) || !(*value >= -1e30 && *value <= 1e30)))
        return refuse(r, CLSPLAT_FORMAT, key.bytes, "must be a finite number");
    return CLSPLAT_OK;
}

/* The decimal fraction that a float32 was made from: 1e-05, not 9.99999975e-06. */
static double shortest(double value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.7g", value);
    double rounded = strtod(digits, NULL);
    return (float)rounded == (float)value ? rounded : value;
}

static clsplat_status copy_real(reader *r, json_t *to, const char *name, const char *as) {
    clsplat_status status = CLSPLAT_OK;
    bool found = false;
    double value = 0;
    TRY(read_real(r, name, &found, &value));
    if (found)
        r->failed |= json_object_set_new(to, as, json_real(shortest(value)));
fail:
    return status;
}

static clsplat_status copy_sizes(reader *r) {
    static const struct {
        const char *name;
        bool needed;
        const char *as;
    } sizes[] = {{"block_count", true, "num_hidden_layers"},
                 {"embedding_length", true, "hidden_size"},
                 {"feed_forward_length", true, "intermediate_size"},
                 {"attention.head_count", true, "num_attention_heads"},
                 {"attention.key_length", false, "head_dim"},
                 {"context_length", true, "max_position_embeddings"},
                 {"attention.sliding_window", false, "sliding_window"}};
    clsplat_status status = CLSPLAT_OK;
    uint64_t kv_heads = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        TRY(copy_size(r, sizes[i].name, sizes[i].needed, sizes[i].as));
    TRY(gguf_size(r->lib, r->file, "attention.head_count", true, &kv_heads));
    TRY(gguf_size(r->lib, r->file, "attention.head_count_kv", false, &kv_heads));
    r->failed |= json_object_set_new(r->to, "num_key_value_heads", json_integer((json_int_t)kv_heads));
    TRY(copy_real(r, r->to, "attention.layer_norm_rms_epsilon", "rms_norm_eps"));
fail:
    return status;
}

/* What the file's tensors show and its keys do not say. */
static clsplat_status copy_tensors(reader *r) {
    const gguf_tensor *embedding = gguf_find_tensor(r->file, "token_embd.weight");
    if (!embedding)
        return log_error(r->lib, CLSPLAT_FORMAT, "%s: tensor 'token_embd.weight' is missing",
                         gguf_path(r->file));
    if (embedding->rank != 2 || embedding->shape[1] > INT32_MAX)
        return log_error(r->lib, CLSPLAT_FORMAT,
                         "%s: tensor 'token_embd.weight' is no matrix with a row per token",
                         gguf_path(r->file));
    r->failed |= json_object_set_new(r->to, "vocab_size", json_integer((json_int_t)embedding->shape[1]));
    r->failed |= json_object_set_new(r->to, "tie_word_embeddings",
                                     json_boolean(!gguf_find_tensor(r->file, "output.weight")));
    r->failed |= json_object_set_new(r->to, "attention_bias",
                                     json_boolean(strcmp(r->family->model_type, "qwen2") != 0 &&
                                                  gguf_find_tensor(r->file, "blk.0.attn_q.bias")));
    r->failed |=
        json_object_set_new(r->to, "mlp_bias", json_boolean(gguf_find_tensor(r->file, "blk.0.ffn_up.bias")));
    return CLSPLAT_OK;
}

/* What would change the arithmetic, and is not here. */
static clsplat_status refuse_others(const reader *r) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t experts = 0, heads = 1, width = 0, length = 0, values = 0, turned = 0;
    TRY(gguf_size(r->lib, r->file, "expert_count", false, &experts));
    TRY(gguf_size(r->lib, r->file, "attention.head_count", true, &heads));
    TRY(gguf_size(r->lib, r->file, "embedding_length", true, &width));
    if (experts > 0)
        return refuse(r, CLSPLAT_UNSUPPORTED, key_of(r->family->architecture, "expert_count").bytes,
                      "is not 0: mixtures of experts are not supported");
    if (heads == 0)
        return refuse(r, CLSPLAT_FORMAT, key_of(r->family->architecture, "attention.head_count").bytes,
                      "is 0");
    length = width / heads;
    TRY(gguf_size(r->lib, r->file, "attention.key_length", false, &length));
    values = turned = length;
    TRY(gguf_size(r->lib, r->file, "attention.value_length", false, &values));
    TRY(gguf_size(r->lib, r->file, "rope.dimension_count", false, &turned));
    if (values != length)
        return refuse(r, CLSPLAT_UNSUPPORTED, key_of(r->family->architecture, "attention.value_length").bytes,
                      "differs from the length of keys, which is not supported");
    if (turned != length)
        return refuse(r, CLSPLAT_UNSUPPORTED, key_of(r->family->architecture, "rope.dimension_count").bytes,
                      "differs from the length of keys: only heads that are turned as a whole are supported");
fail:
    return status;
}

/* Divisors of the frequencies, one for each pair: how llama3's scaling comes, and others. */
static clsplat_status copy_divisors(reader *r, json_t *scaling) {
    const gguf_tensor *t = gguf_find_tensor(r->file, "rope_freqs.weight");
    json_t *list = json_array();
    float divisor;
    if (t->rank != 1 || strcmp(t->type->name, "F32") != 0 || t->count > BLOCK_NUMBERS_MOST * 4) {
        json_decref(list);
        return log_error(r->lib, CLSPLAT_FORMAT, "%s: tensor 'rope_freqs.weight' is no list of F32",
                         gguf_path(r->file));
    }
    for (size_t i = 0; i < t->count; ++i) {
        blocks_read(t->type, (const char *)gguf_data(r->file, t) + 4 * i, 1, &divisor);
        r->failed |=
            json_array_append_new(list, json_real(divisor > 0 && divisor < 1e30f ? (double)divisor : 0));
    }
    r->failed |= json_object_set_new(scaling, "rope_type", json_string("longrope"));
    r->failed |= json_object_set(scaling, "short_factor", list);
    r->failed |= json_object_set_new(scaling, "long_factor", list);
    r->failed |= json_object_set_new(scaling, "attention_factor", json_real(1));
    r->failed |= json_object_set(scaling, "original_max_position_embeddings",
                                 json_object_get(r->to, "max_position_embeddings"));
    return CLSPLAT_OK;
}

static clsplat_status copy_scaling(reader *r, json_t *scaling, const char *type) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t original = 0;
    r->failed |= json_object_set_new(scaling, "rope_type", json_string(type));
    TRY(copy_real(r, scaling, "rope.scaling.factor", "factor"));
    TRY(copy_real(r, scaling, "rope.scaling.yarn_beta_fast", "beta_fast"));
    TRY(copy_real(r, scaling, "rope.scaling.yarn_beta_slow", "beta_slow"));
    TRY(gguf_size(r->lib, r->file, "rope.scaling.original_context_length", false, &original));
    if (original)
        r->failed |= json_object_set_new(scaling, "original_max_position_embeddings",
                                         json_integer((json_int_t)original));
fail:
    return status;
}

static clsplat_status copy_rotary(reader *r) {
    clsplat_status status = CLSPLAT_OK;
    json_t *scaling = json_object();
    bool found = false;
    double factor = 1;
    key_name key = key_of(r->family->architecture, "rope.scaling.type");
    const gguf_value *type = gguf_find(r->file, key.bytes);
    TRY(copy_real(r, r->to, "rope.freq_base", "rope_theta"));
    TRY(read_real(r, "rope.scaling.attn_factor", &found, &factor));
    if (found && factor != 1)
        TRY(refuse(r, CLSPLAT_UNSUPPORTED, key_of(r->family->architecture, "rope.scaling.attn_factor").bytes,
                   "is not 1, which is not supported"));
    if (gguf_find_tensor(r->file, "rope_freqs.weight"))
        TRY(copy_divisors(r, scaling));
    else if (is_words(type, "linear") || is_words(type, "yarn"))
        TRY(copy_scaling(r, scaling, is_words(type, "yarn") ? "yarn" : "linear"));
    else if (type && !is_words(type, "none"))
        TRY(refuse(r, CLSPLAT_UNSUPPORTED, key.bytes, "is none of none, linear and yarn"));
    if (json_object_size(scaling) > 0)
        r->failed |= json_object_set(r->to, "rope_scaling", scaling);
fail:
    json_decref(scaling);
    return status;
}

/* Tokens that begin a text, and all that end an answer. */
static clsplat_status copy_tokens(reader *r) {
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    const json_int_t vocabulary = json_integer_value(json_object_get(r->to, "vocab_size"));
    uint64_t token;
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof ends / sizeof *ends; ++i)
        if (gguf_whole(gguf_find(r->file, ends[i]), 0, &token) && token < (uint64_t)vocabulary)
            r->failed |= json_array_append_new(list, json_integer((json_int_t)token));
    r->failed |= json_object_set_new(r->to, "eos_token_id", list);
    if (gguf_whole(gguf_find(r->file, "tokenizer.ggml.bos_token_id"), 0, &token) &&
        token < (uint64_t)vocabulary)
        r->failed |= json_object_set_new(r->to, "bos_token_id", json_integer((json_int_t)token));
    return CLSPLAT_OK;
}

static clsplat_status no_memory(clsplat *lib, const gguf *file) {
    return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its configuration", gguf_path(file));
}

clsplat_status gguf_config(clsplat *lib, const gguf *file, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    reader r = {.lib = lib, .file = file, .to = json_object()};
    *root = NULL;
    if (!r.to)
        return no_memory(lib, file);
    TRY(gguf_family_of(lib, file, &r.family));
    TRY(refuse_others(&r));
    const char *type = r.family->model_type;
    if (gguf_find(file, key_of(r.family->architecture, "attention.sliding_window").bytes) &&
        strcmp(type, "llama") == 0)
        type = "mistral";
    r.failed |= json_object_set_new(r.to, "model_type", json_string(type));
    TRY(copy_sizes(&r));
    if (strcmp(type, "mistral") == 0 && !json_object_get(r.to, "sliding_window"))
        r.failed |= json_object_set_new(r.to, "sliding_window", json_null());
    TRY(copy_tensors(&r));
    TRY(copy_rotary(&r));
    TRY(copy_tokens(&r));
    if (r.failed)
        TRY(no_memory(lib, file));
    *root = r.to;
    r.to = NULL;
fail:
    json_decref(r.to);
    return status;
}

clsplat_status gguf_config_of(clsplat *lib, const char *path, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    gguf *file = NULL;
    *root = NULL;
    TRY(gguf_open(lib, path, &file));
    TRY(gguf_config(lib, file, root));
fail:
    gguf_close(&file);
    return status;
}
