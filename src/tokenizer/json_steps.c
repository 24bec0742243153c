/* The keys normalizer and pre_tokenizer of tokenizer.json. */
#include <string.h>
#include <utf8proc.h>

#include "tokenizer/json.h"

typedef struct reader {
    const tokenizer *t;
    const char *key;
    steps *steps;
} reader;

typedef clsplat_status read_part(const reader *r, const json_t *part);

static clsplat_status no_memory(const tokenizer *t) {
    return log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its steps", t->path);
}

static clsplat_status add_step(const reader *r, step_kind kind, step **added) {
    clsplat_status status = CLSPLAT_OK;
    TRY(hf_step(r->t, r->key, r->steps, added));
    (*added)->kind = kind;
fail:
    return status;
}

static clsplat_status add_words(const reader *r, step_kind kind, const char *words, step **added) {
    clsplat_status status = CLSPLAT_OK;
    TRY(add_step(r, kind, added));
    (*added)->words = text_copy(words);
    if (!(*added)->words)
        TRY(no_memory(r->t));
fail:
    return status;
}

/* A pattern that cuts, from the library's own hand. */
static clsplat_status add_split(const reader *r, const char *source, bool literal,
                                pattern_behavior behavior) {
    clsplat_status status = CLSPLAT_OK;
    step *s;
    TRY(add_step(r, STEP_SPLIT, &s));
    s->behavior = behavior;
    TRY(pattern_compile(r->t->lib, r->t->path, source, literal, &s->pattern));
fail:
    return status;
}

static clsplat_status read_form(const reader *r, const json_t *part) {
    static const struct {
        const char *type;
        int form;
    } forms[] = {{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    clsplat_status status = CLSPLAT_OK;
    const char *type;
    step *s;
    TRY(hf_type(r->t, r->key, part, &type));
    TRY(add_step(r, STEP_COMPOSE, &s));
    for (size_t i = 0; i < sizeof forms / sizeof *forms; ++i)
        if (strcmp(type, forms[i].type) == 0)
            s->form = forms[i].form;
fail:
    return status;
}

/* BERT's normaliser, or one of its parts alone. */
static clsplat_status read_bert(const reader *r, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    const char *type;
    step *s;
    TRY(hf_type(r->t, r->key, part, &type));
    TRY(add_step(r, STEP_BERT, &s));
    if (strcmp(type, "Lowercase") == 0) {
        s->rules.lower_case = true;
    } else if (strcmp(type, "BertNormalizer") == 0) {
        bool lower_case = hf_flag(part, "lowercase", true);
        s->rules = (bert_rules){.clean = hf_flag(part, "clean_text", true),
                                .chinese = hf_flag(part, "handle_chinese_chars", true),
                                .accents = hf_flag(part, "strip_accents", lower_case),
                                .lower_case = lower_case};
    }
fail:
    return status;
}

static clsplat_status read_map(const reader *r, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    const char *base64, *wrong;
    step *s;
    if (json_is_null(json_object_get(part, "precompiled_charsmap")))
        return CLSPLAT_OK;
    TRY(hf_words(r->t, r->key, part, "precompiled_charsmap", &base64));
    if (!*base64)
        return CLSPLAT_OK;
    TRY(add_step(r, STEP_MAP, &s));
    s->map = charsmap_read(base64, &wrong);
    if (wrong)
        return hf_refuse(r->t, CLSPLAT_FORMAT, r->key, "the precompiled_charsmap %s", wrong);
    if (!s->map)
        TRY(no_memory(r->t));
fail:
    return status;
}

static clsplat_status read_nmt(const reader *r, const json_t *part) {
    step *s;
    (void)part;
    return add_step(r, STEP_NMT, &s);
}

static clsplat_status read_strip(const reader *r, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    step *s;
    TRY(add_step(r, STEP_STRIP, &s));
    s->left = hf_flag(part, "strip_left", true);
    s->right = hf_flag(part, "strip_right", true);
fail:
    return status;
}

static clsplat_status read_words(const reader *r, const json_t *part) {
    step *s;
    (void)part;
    return add_step(r, STEP_WORDS, &s);
}

static clsplat_status read_spaces(const reader *r, const json_t *part) {
    (void)part;
    return add_split(r, "\\s+", false, PATTERN_REMOVED);
}

static clsplat_status read_prepend(const reader *r, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    const char *words;
    step *s;
    TRY(hf_words(r->t, r->key, part, "prepend", &words));
    TRY(add_words(r, STEP_PREPEND, words, &s));
fail:
    return status;
}

static clsplat_status read_replace(const reader *r, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    const char *words;
    step *s;
    TRY(hf_words(r->t, r->key, part, "content", &words));
    TRY(add_words(r, STEP_REPLACE, words, &s));
    TRY(hf_pattern(r->t, r->key, part, &s->pattern));
fail:
    return status;
}

static clsplat_status read_split(const reader *r, const json_t *part) {
    static const char *const behaviors[] = {[PATTERN_REMOVED] = "Removed",
                                            [PATTERN_ISOLATED] = "Isolated",
                                            [PATTERN_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                            [PATTERN_MERGED_WITH_NEXT] = "MergedWithNext",
                                            [PATTERN_CONTIGUOUS] = "Contiguous"};
    clsplat_status status = CLSPLAT_OK;
    const char *behavior;
    size_t b = 0;
    step *s;
    TRY(hf_words(r->t, r->key, part, "behavior", &behavior));
    while (b < sizeof behaviors / sizeof *behaviors && strcmp(behavior, behaviors[b]) != 0)
        ++b;
    if (b == sizeof behaviors / sizeof *behaviors)
        return hf_refuse(r->t, CLSPLAT_UNSUPPORTED, r->key, "the behavior '%s' of Split is not known",
                         text_show(behavior).bytes);
    TRY(add_step(r, STEP_SPLIT, &s));
    s->behavior = (pattern_behavior)b;
    s->invert = hf_flag(part, "invert", false);
    TRY(hf_pattern(r->t, r->key, part, &s->pattern));
fail:
    return status;
}

static clsplat_status read_digits(const reader *r, const json_t *part) {
    return add_split(r, hf_flag(part, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", false,
                     PATTERN_ISOLATED);
}

static clsplat_status read_byte_level(const reader *r, const json_t *part) {
    static const char gpt2[] =
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    clsplat_status status = CLSPLAT_OK;
    step *s;
    if (hf_flag(part, "add_prefix_space", true)) {
        TRY(add_words(r, STEP_SPACES, " ", &s));
        s->prefix = PREFIX_ALWAYS;
    }
    if (hf_flag(part, "use_regex", true))
        TRY(add_split(r, gpt2, false, PATTERN_ISOLATED));
    TRY(add_step(r, STEP_BYTES, &s));
fail:
    return status;
}

static clsplat_status read_metaspace(const reader *r, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    const char *words, *scheme = json_string_value(json_object_get(part, "prepend_scheme"));
    step *s;
    TRY(hf_words(r->t, r->key, part, "replacement", &words));
    TRY(add_words(r, STEP_SPACES, words, &s));
    if (!scheme) /* files of older versions */
        scheme = hf_flag(part, "add_prefix_space", true) ? "always" : "never";
    s->prefix = strcmp(scheme, "always") == 0  ? PREFIX_ALWAYS
                : strcmp(scheme, "first") == 0 ? PREFIX_FIRST
                                               : PREFIX_NEVER;
    if (s->prefix == PREFIX_NEVER && strcmp(scheme, "never") != 0)
        return hf_refuse(r->t, CLSPLAT_UNSUPPORTED, r->key,
                         "the prepend_scheme '%s' of Metaspace is not known", text_show(scheme).bytes);
    if (!*words)
        return hf_refuse(r->t, CLSPLAT_FORMAT, r->key, "the replacement of Metaspace is empty");
    if (hf_flag(part, "split", true))
        TRY(add_split(r, words, true, PATTERN_MERGED_WITH_NEXT));
fail:
    return status;
}

/* The types that a key may have besides Sequence. */
typedef struct part_type {
    const char *type;
    read_part *read;
} part_type;

static const part_type normalisers[] = {{"NFC", read_form},
                                        {"NFD", read_form},
                                        {"NFKC", read_form},
                                        {"NFKD", read_form},
                                        {"BertNormalizer", read_bert},
                                        {"Lowercase", read_bert},
                                        {"Nmt", read_nmt},
                                        {"Precompiled", read_map},
                                        {"Strip", read_strip},
                                        {"Prepend", read_prepend},
                                        {"Replace", read_replace},
                                        {NULL, NULL}};
static const part_type pre_tokenisers[] = {{"BertPreTokenizer", read_words},
                                           {"ByteLevel", read_byte_level},
                                           {"Digits", read_digits},
                                           {"Metaspace", read_metaspace},
                                           {"Split", read_split},
                                           {"WhitespaceSplit", read_spaces},
                                           {NULL, NULL}};

/* `list` is the key of a Sequence's parts. */
static clsplat_status read_any(const reader *r, const json_t *part, const part_type *types,
                               const char *list) {
    clsplat_status status = CLSPLAT_OK;
    const char *type;
    const json_t *inner;
    size_t i;
    TRY(hf_type(r->t, r->key, part, &type));
    if (!*type)
        return CLSPLAT_OK;
    if (strcmp(type, "Sequence") == 0) {
        json_array_foreach(json_object_get(part, list), i, inner) {
            TRY(read_any(r, inner, types, list));
        }
        return json_is_array(json_object_get(part, list))
                   ? CLSPLAT_OK
                   : hf_refuse(r->t, CLSPLAT_FORMAT, r->key, "a Sequence needs the list %s", list);
    }
    while (types->type && strcmp(type, types->type) != 0)
        ++types;
    if (!types->type)
        return hf_refuse(r->t, CLSPLAT_UNSUPPORTED, r->key, "the type '%s' is not supported",
                         text_show(type).bytes);
    TRY(types->read(r, part));
fail:
    return status;
}

clsplat_status hf_read_normaliser(const tokenizer *t, const json_t *part, steps *s) {
    return read_any(&(reader){t, "normalizer", s}, part, normalisers, "normalizers");
}

clsplat_status hf_read_pre_tokeniser(const tokenizer *t, const json_t *part, steps *s) {
    return read_any(&(reader){t, "pre_tokenizer", s}, part, pre_tokenisers, "pretokenizers");
}
