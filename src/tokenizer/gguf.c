/* tokenizer.json out of a GGUF file's keys: byte-level BPE with its merges ("gpt2"), or SentencePiece's BPE
 * with scores
 * ("llama"). Source: the format's description; patterns as the models' own tokenizer.json have them, by the
 * names that llama.cpp gives them; merges out of scores as Hugging Face transformers makes them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/json.h"
#include "tokenizer/gguf.h"
#include "tokenizer/gguf_pieces.h"

#define SPLIT(pattern)                                                                                       \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern        \
    "\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"    \
    "\"use_regex\":false}]}"
#define DIGITS                                                                                               \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"            \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]}"
static const char gpt2[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";
static const char digits[] = DIGITS;
static const char llama3[] = SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
                                   "\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+["
                                   "\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+");
static const char qwen2[] = SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
                                  "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+["
                                  "\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+");
static const char tekken[] =
    SPLIT("[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}"
          "\\\\p{Lo}\\\\p{M}]+"
          "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}"
          "\\\\p{Lo}\\\\p{M}]*"
          "|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+");

/* What tokenizer.ggml.pre stands for. */
static const struct cut {
    const char *name, *json, *normalizer;
    bool whole_words, begins;
} cuts[] = {
    {"gpt-2", gpt2, NULL, false, false},
    {"gpt2", gpt2, NULL, false, false},
    {"smollm", digits, NULL, false, false},
    {"starcoder", digits, NULL, false, false},
    {"refact", digits, NULL, false, false},
    {"codeshell", digits, NULL, false, false},
    {"command-r", digits, NULL, false, false},
    {"llama-bpe", llama3, NULL, true, true},
    {"llama3", llama3, NULL, true, true},
    {"llama-v3", llama3, NULL, true, true},
    {"qwen2", qwen2, "{\"type\":\"NFC\"}", false, false},
    {"deepseek-r1-qwen", qwen2, NULL, false, true},
    {"tekken", tekken, NULL, true, true},
};
enum { CUTS = sizeof cuts / sizeof *cuts };

static clsplat_status find_cut(const pieces *p, const struct cut **cut) {
    gguf_words name = {"", 0};
    char shown[64];
    size_t at = 0;
    const gguf_value *value = gguf_find(p->file, "tokenizer.ggml.pre");
    gguf_next(value, &at, &name);
    for (size_t i = 0; i < CUTS; ++i)
        if (strlen(cuts[i].name) == name.count && memcmp(cuts[i].name, name.bytes, name.count) == 0) {
            *cut = &cuts[i];
            return CLSPLAT_OK;
        }
    snprintf(shown, sizeof shown, "%.*s", (int)(name.count < 60 ? name.count : 60), name.bytes);
    return pieces_refuse(
        p, CLSPLAT_UNSUPPORTED, "tokenizer.ggml.pre",
        "is %s%s%s; gpt-2, smollm, starcoder, refact, codeshell, command-r, llama-bpe, qwen2, "
        "deepseek-r1-qwen and tekken are supported",
        value ? "'" : "missing", value ? text_show(shown).bytes : "", value ? "'" : "");
}

static bool flag_of(const pieces *p, const char *key, bool absent) {
    bool flag = absent;
    gguf_flag(gguf_find(p->file, key), &flag);
    return flag;
}

/* The token of that key into a template around a text. */
static void add_around(const pieces *p, const char *key, json_t **single, json_t **specials) {
    uint64_t token;
    if (!gguf_whole(gguf_find(p->file, key), 0, &token) || token >= p->count)
        return;
    *single = json_push(*single, json_pack("{s:{s:s,s:i}}", "SpecialToken", "id", key, "type_id", 0));
    *specials = json_put(*specials, key,
                         json_pack("{s:s,s:[I],s:[s]}", "id", key, "ids", (json_int_t)token, "tokens", key));
}

static json_t *template_of(const pieces *p, bool begins) {
    json_t *single = json_array(), *specials = json_object();
    if (flag_of(p, "tokenizer.ggml.add_bos_token", begins))
        add_around(p, "tokenizer.ggml.bos_token_id", &single, &specials);
    single = json_push(single, json_pack("{s:{s:s,s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (flag_of(p, "tokenizer.ggml.add_eos_token", false))
        add_around(p, "tokenizer.ggml.eos_token_id", &single, &specials);
    return json_pack("{s:s,s:o,s:o}", "type", "TemplateProcessing", "single", single, "special_tokens",
                     specials);
}

/* What a tokeniser is made of; whoever takes one of them leaves NULL. */
typedef struct parts {
    json_t *vocabulary, *merges, *added;
} parts;

static json_t *take(json_t **part) {
    json_t *taken = *part;
    *part = NULL;
    return taken;
}

static clsplat_status gpt2_tokenizer(const pieces *p, parts *of, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    const struct cut *cut = NULL;
    TRY(find_cut(p, &cut));
    TRY(pieces_vocabulary(p, of->vocabulary, of->added));
    TRY(pieces_merges(p, of->merges));
    *root = json_pack("{s:o,s:{s:s,s:b,s:o,s:o},s:o,s:{s:s}}", "added_tokens", take(&of->added), "model",
                      "type", "BPE", "ignore_merges", (int)cut->whole_words, "vocab", take(&of->vocabulary),
                      "merges", take(&of->merges), "pre_tokenizer", json_loads(cut->json, 0, NULL), "decoder",
                      "type", "ByteLevel");
    if (cut->normalizer)
        *root = json_put(*root, "normalizer", json_loads(cut->normalizer, 0, NULL));
    *root = json_put(*root, "post_processor", template_of(p, cut->begins));
fail:
    return status;
}

static const char prefixed[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},\"decoder\":{\"type\":"
    "\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" "
    "\"},"
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,"
    "\"stop\":0}]}}";
static const char bare[] =
    "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
    "\"},\"content\":\"\\u2581\"},\"decoder\":"
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},"
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}}";

static clsplat_status llama_tokenizer(const pieces *p, parts *of, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t unknown = 0;
    TRY(pieces_vocabulary(p, of->vocabulary, of->added));
    TRY(pieces_scored_merges(p, of->vocabulary, of->merges));
    json_t *model = json_pack("{s:s,s:b,s:b,s:o,s:o}", "type", "BPE", "byte_fallback", 1, "fuse_unk", 1,
                              "vocab", take(&of->vocabulary), "merges", take(&of->merges));
    gguf_whole(gguf_find(p->file, "tokenizer.ggml.unknown_token_id"), 0, &unknown);
    if (unknown < p->count)
        model = json_put(model, "unk_token", json_stringn(p->names[unknown].bytes, p->names[unknown].count));
    *root = json_loads(flag_of(p, "tokenizer.ggml.add_space_prefix", true) ? prefixed : bare, 0, NULL);
    *root = json_put(*root, "added_tokens", take(&of->added));
    *root = json_put(*root, "model", model);
    *root = json_put(*root, "post_processor", template_of(p, true));
fail:
    return status;
}

/* The whole of tokenizer.json, which some files carry. */
static clsplat_status carried(clsplat *lib, const gguf *file, const gguf_value *value, json_t **root) {
    json_error_t error;
    gguf_words words = {"", 0};
    size_t at = 0;
    if (!value->is_array && gguf_next(value, &at, &words))
        *root = json_loadb(words.bytes, words.count, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(*root))
        return CLSPLAT_OK;
    json_decref(*root);
    *root = NULL;
    return log_error(lib, CLSPLAT_FORMAT, "%s: key 'tokenizer.huggingface.json' is no JSON object",
                     gguf_path(file));
}

clsplat_status gguf_tokenizer(clsplat *lib, const gguf *file, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    const gguf_value *model = gguf_find(file, "tokenizer.ggml.model"),
                     *whole = gguf_find(file, "tokenizer.huggingface.json");
    gguf_words name = {"", 0};
    size_t at = 0;
    pieces p = {.lib = lib, .file = file};
    parts of = {0};
    *root = NULL;
    if (whole)
        return carried(lib, file, whole, root);
    if (!model)
        return CLSPLAT_OK;
    gguf_next(model, &at, &name);
    of = (parts){json_object(), json_array(), json_array()};
    TRY(pieces_read(&p));
    if (name.count == 4 && memcmp(name.bytes, "gpt2", 4) == 0)
        TRY(gpt2_tokenizer(&p, &of, root));
    else if (name.count == 5 && memcmp(name.bytes, "llama", 5) == 0)
        TRY(llama_tokenizer(&p, &of, root));
    else
        TRY(pieces_refuse(&p, CLSPLAT_UNSUPPORTED, "tokenizer.ggml.model", "is neither 'gpt2' nor 'llama'"));
    if (!*root)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its tokenizer", gguf_path(file)));
fail:
    json_decref(of.vocabulary);
    json_decref(of.merges);
    json_decref(of.added);
    pieces_free(&p);
    return status;
}

/* Whether all that `part` says stands in `whole`, too. */
static bool says(const json_t *whole, const json_t *part) {
    const char *key;
    const json_t *value;
    size_t i;
    if (!json_is_object(part) && !json_is_array(part))
        return json_equal(whole, part);
    json_object_foreach((json_t *)part, key, value) {
        if (!says(json_object_get(whole, key), value))
            return false;
    }
    json_array_foreach(part, i, value) {
        if (!says(json_array_get(whole, i), value))
            return false;
    }
    return json_array_size(whole) == json_array_size(part);
}

const char *gguf_pre_of(const json_t *root) {
    const json_t *cutting = json_object_get(root, "pre_tokenizer"),
                 *normaliser = json_object_get(root, "normalizer");
    bool whole_words = json_is_true(json_object_get(json_object_get(root, "model"), "ignore_merges"));
    for (size_t i = 0; i < CUTS; ++i) {
        json_t *part = json_loads(cuts[i].json, 0, NULL);
        bool found = says(cutting, part) && whole_words == cuts[i].whole_words &&
                     (cuts[i].normalizer != NULL) == (normaliser && !json_is_null(normaliser));
        json_decref(part);
        if (found)
            return cuts[i].name;
    }
    return NULL;
}
