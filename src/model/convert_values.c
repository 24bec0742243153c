/* The keys of a GGUF file out of a folder's configuration and tokeniser: the other way round of gguf_config.c
 * and tokenizer/gguf.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "model/convert_parts.h"

enum {
    NORMAL = 1,
    UNKNOWN = 2,
    CONTROL = 3,
    USER_DEFINED = 4,
    UNUSED = 5,
    BYTE = 6
}; /* tokenizer.ggml.token_type */

typedef struct key_name {
    char bytes[96];
} key_name;

static key_name key_of(const conversion *c, const char *name) {
    key_name key;
    snprintf(key.bytes, sizeof key.bytes, "%s.%s",
             strcmp(c->config.family, "mistral") == 0 ? "llama" : c->config.family, name);
    return key;
}

static void put_sizes(const conversion *c, gguf_values *v) {
    const model_config *m = &c->config;
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {{"block_count", m->layers},
                 {"context_length", m->context},
                 {"embedding_length", m->hidden},
                 {"feed_forward_length", m->intermediate},
                 {"attention.head_count", m->heads},
                 {"attention.head_count_kv", m->kv_heads},
                 {"attention.key_length", m->head_dim},
                 {"attention.value_length", m->head_dim},
                 {"rope.dimension_count", m->head_dim},
                 {"vocab_size", m->vocabulary}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        gguf_put_whole(v, key_of(c, sizes[i].name).bytes, (uint32_t)sizes[i].value);
    gguf_put_real(v, key_of(c, "attention.layer_norm_rms_epsilon").bytes, (double)m->epsilon);
    if (strcmp(m->family, "mistral") == 0 && m->window)
        gguf_put_whole(v, key_of(c, "attention.sliding_window").bytes, (uint32_t)m->window);
}

static const json_t *rotary_of(const conversion *c) {
    const json_t *parameters = json_object_get(c->about, "rope_parameters");
    return json_is_object(parameters) ? parameters : json_object_get(c->about, "rope_scaling");
}

static const char *kind_of(const conversion *c) {
    const json_t *r = rotary_of(c);
    const char *kind = json_string_value(json_object_get(r, "rope_type"));
    kind = kind ? kind : json_string_value(json_object_get(r, "type"));
    return kind ? kind : "default";
}

static double theta_of(const conversion *c) {
    const json_t *theta = json_object_get(rotary_of(c), "rope_theta");
    theta = theta ? theta : json_object_get(c->about, "rope_theta");
    return json_is_number(theta) ? json_number_value(theta) : 10000;
}

clsplat_status convert_divisors(conversion *c) {
    size_t half = c->config.head_dim / 2;
    if (c->from_packed || !c->packed || strcmp(kind_of(c), "llama3") != 0)
        return CLSPLAT_OK;
    c->divisors = malloc(half * sizeof *c->divisors);
    if (!c->divisors)
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory to convert it", c->request->from);
    for (size_t i = 0; i < half; ++i)
        c->divisors[i] =
            (float)(pow(theta_of(c), -(double)i / (double)half) / (double)c->config.frequencies[i]);
    return CLSPLAT_OK;
}

/* Scaling that the format has words for, or a tensor. */
static clsplat_status put_rotary(const conversion *c, gguf_values *v) {
    const char *kind = kind_of(c);
    gguf_put_real(v, key_of(c, "rope.freq_base").bytes, theta_of(c));
    if (strcmp(kind, "default") == 0 || c->divisors)
        return CLSPLAT_OK;
    if (strcmp(kind, "linear") != 0 && strcmp(kind, "yarn") != 0)
        return log_error(c->lib, CLSPLAT_UNSUPPORTED,
                         "%s: rotary positions of the kind '%s' cannot be written as a GGUF file; default, "
                         "linear, yarn and "
                         "llama3 can",
                         c->request->from, kind);
    gguf_put_words(v, key_of(c, "rope.scaling.type").bytes, kind, strlen(kind));
    gguf_put_real(v, key_of(c, "rope.scaling.factor").bytes,
                  json_number_value(json_object_get(rotary_of(c), "factor")));
    const json_t *original = json_object_get(rotary_of(c), "original_max_position_embeddings");
    if (original)
        gguf_put_whole(v, key_of(c, "rope.scaling.original_context_length").bytes,
                       (uint32_t)json_integer_value(original));
    return CLSPLAT_OK;
}

/* A token as it will be listed. */
typedef struct listed {
    const char *name; /* NULL: there is none of that number */
    int32_t type;
    float score;
} listed;

static void list_vocabulary(const conversion *c, listed *list, bool scored) {
    const json_t *model = json_object_get(c->tokenizer, "model"), *number, *entry;
    const char *name, *unknown = json_string_value(json_object_get(model, "unk_token"));
    size_t i;
    json_object_foreach((json_t *)json_object_get(model, "vocab"), name, number) {
        size_t token = (size_t)json_integer_value(number);
        bool byte = scored && strlen(name) == 6 && strncmp(name, "<0x", 3) == 0;
        if (token < c->config.vocabulary)
            list[token] = (listed){name,
                                   byte                                    ? BYTE
                                   : unknown && strcmp(unknown, name) == 0 ? UNKNOWN
                                                                           : NORMAL,
                                   0};
    }
    json_array_foreach(json_object_get(c->tokenizer, "added_tokens"), i, entry) {
        size_t token = (size_t)json_integer_value(json_object_get(entry, "id"));
        const char *content = json_string_value(json_object_get(entry, "content"));
        if (token < c->config.vocabulary && content && list[token].type != UNKNOWN)
            list[token] = (listed){
                content, json_is_true(json_object_get(entry, "special")) ? CONTROL : USER_DEFINED, 0};
    }
}

/* "a b", whichever way the file has it; false: it is none. */
static bool merge_words(const json_t *merge, text *words) {
    const char *whole = json_string_value(merge), *left = json_string_value(json_array_get(merge, 0)),
               *right = json_string_value(json_array_get(merge, 1));
    if (whole)
        text_add(words, "%s", whole);
    else if (left && right)
        text_add(words, "%s %s", left, right);
    return (whole || (left && right)) && text_ok(words);
}

static bool put_merges(const conversion *c, gguf_values *v) {
    const json_t *merges = json_object_get(json_object_get(c->tokenizer, "model"), "merges"), *merge;
    bool good = true;
    size_t i;
    gguf_put_list(v, "tokenizer.ggml.merges", GGUF_STRING, json_array_size(merges));
    json_array_foreach(merges, i, merge) {
        text words = {0};
        good = good && merge_words(merge, &words);
        gguf_put_list_words(v, words.data ? words.data : "", words.length);
        text_free(&words);
    }
    return good;
}

/* Pieces are joined in the order of their scores: a token's is the rank of the first merge that makes it. */
static void score_merges(const conversion *c, listed *list) {
    const json_t *model = json_object_get(c->tokenizer, "model"),
                 *vocabulary = json_object_get(model, "vocab"), *merge;
    size_t i;
    json_array_foreach(json_object_get(model, "merges"), i, merge) {
        text words = {0};
        char *space = merge_words(merge, &words) ? strchr(words.data, ' ') : NULL;
        if (space) {
            memmove(space, space + 1, strlen(space));
            const json_t *token = json_object_get(vocabulary, words.data);
            size_t number = (size_t)json_integer_value(token);
            if (token && number < c->config.vocabulary && list[number].score == 0)
                list[number].score = -(float)(i + 1);
        }
        text_free(&words);
    }
}

static void put_list(const conversion *c, const listed *list, gguf_values *v, bool scored) {
    size_t count = c->config.vocabulary;
    char pad[32];
    gguf_put_list(v, "tokenizer.ggml.tokens", GGUF_STRING, count);
    for (size_t i = 0; i < count; ++i) {
        snprintf(pad, sizeof pad, "[PAD%zu]", i);
        const char *name = list[i].name ? list[i].name : pad;
        gguf_put_list_words(v, name, strlen(name));
    }
    gguf_put_list(v, "tokenizer.ggml.token_type", GGUF_I32, count);
    for (size_t i = 0; i < count; ++i)
        gguf_put_list_whole(v, list[i].name ? list[i].type : UNUSED);
    if (!scored)
        return;
    gguf_put_list(v, "tokenizer.ggml.scores", GGUF_F32, count);
    for (size_t i = 0; i < count; ++i)
        gguf_put_list_real(v, list[i].score);
}

/* Whether the tokeniser puts a token before, or behind, a text. */
static void around(const json_t *part, bool *begins, bool *ends) {
    const json_t *inner, *single = json_object_get(part, "single");
    size_t i, last = json_array_size(single);
    json_array_foreach(json_object_get(part, "processors"), i, inner) {
        around(inner, begins, ends);
    }
    if (last == 0)
        return;
    *begins = json_object_get(json_array_get(single, 0), "SpecialToken") != NULL;
    *ends = json_object_get(json_array_get(single, last - 1), "SpecialToken") != NULL;
}

static void put_whole_tokenizer(const conversion *c, gguf_values *v) {
    bool begins = false, ends = false;
    around(json_object_get(c->tokenizer, "post_processor"), &begins, &ends);
    gguf_put_flag(v, "tokenizer.ggml.add_bos_token", begins);
    gguf_put_flag(v, "tokenizer.ggml.add_eos_token", ends);
    char *whole = json_write(c->tokenizer, JSON_COMPACT);
    if (whole)
        gguf_put_words(v, "tokenizer.huggingface.json", whole, strlen(whole));
    v->bytes.failed = v->bytes.failed || !whole;
    free(whole);
}

static clsplat_status put_tokenizer(const conversion *c, gguf_values *v) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *model = json_object_get(c->tokenizer, "model");
    bool scored = json_is_true(json_object_get(model, "byte_fallback"));
    const char *name = scored ? "llama" : "gpt2", *pre = scored ? NULL : gguf_pre_of(c->tokenizer);
    listed *list = calloc(c->config.vocabulary, sizeof *list);
    if (!list)
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its tokens", c->request->from);
    gguf_put_words(v, "tokenizer.ggml.model", name, strlen(name));
    if (pre)
        gguf_put_words(v, "tokenizer.ggml.pre", pre, strlen(pre));
    list_vocabulary(c, list, scored);
    if (scored)
        score_merges(c, list);
    put_list(c, list, v, scored);
    if (!scored && !put_merges(c, v))
        TRY(log_error(c->lib, CLSPLAT_FORMAT, "%s: tokenizer.json: model.merges are no pairs",
                      c->request->from));
    put_whole_tokenizer(c, v);
fail:
    free(list);
    return status;
}

static clsplat_status put_folder(const conversion *c, gguf_values *v) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *m = &c->config;
    const char *slash = strrchr(c->request->from, '/'),
               *name = slash && slash[1] ? slash + 1 : c->request->from;
    gguf_put_words(v, "general.architecture", key_of(c, "").bytes, strlen(key_of(c, "").bytes) - 1);
    gguf_put_words(v, "general.name", name, strlen(name));
    put_sizes(c, v);
    if (m->window && strcmp(m->family, "mistral") != 0)
        return log_error(c->lib, CLSPLAT_UNSUPPORTED,
                         "%s: has layers with a sliding window, for which GGUF files of %s have no key",
                         c->request->from, m->family);
    TRY(put_rotary(c, v));
    if (c->tokenizer)
        TRY(put_tokenizer(c, v));
    else if (m->vocabulary != 256)
        log_warning(c->lib, "%s: has no tokenizer.json, and so its GGUF file has no tokeniser",
                    c->request->from);
    if (m->begin >= 0)
        gguf_put_whole(v, "tokenizer.ggml.bos_token_id", (uint32_t)m->begin);
    if (m->end_count > 0)
        gguf_put_whole(v, "tokenizer.ggml.eos_token_id", (uint32_t)m->ends[0]);
    if (m->end_count > 1)
        gguf_put_whole(v, "tokenizer.ggml.eot_token_id", (uint32_t)m->ends[1]);
    if (c->template)
        gguf_put_words(v, "tokenizer.chat_template", c->template, strlen(c->template));
fail:
    return status;
}

/* Of another GGUF file all but what is of its types and places. */
static void put_packed(const gguf *file, gguf_values *v) {
    static const char *const others[] = {"general.alignment", "general.file_type",
                                         "general.quantization_version"};
    const gguf_value *value;
    for (size_t i = 0; value = gguf_value_at(file, i), value; ++i) {
        bool other = false;
        for (size_t o = 0; o < sizeof others / sizeof *others; ++o)
            other = other || strcmp(others[o], value->key) == 0;
        if (!other)
            gguf_put_value(v, value);
    }
}

clsplat_status convert_values(const conversion *c, gguf_values *v) {
    clsplat_status status = CLSPLAT_OK;
    if (c->from_packed)
        put_packed(model_folder_packed(c->folder), v);
    else
        TRY(put_folder(c, v));
    if (c->request->type)
        gguf_put_whole(v, "general.file_type", c->request->type->file_type);
    gguf_put_whole(v, "general.quantization_version", 2);
fail:
    return status;
}
