/* tokenizer.json, as Hugging Face's tokenizers write it: a byte-pair encoding with what happens before and
 * after it. Its keys truncation and padding are about batches and are ignored. */
#include "tokenizer/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "format/json_text.h"
#include "tokenizer/added.h"
#include "tokenizer/beside.h"
#include "tokenizer/gguf.h"

enum { FILE_LIMIT = 64 << 20 }; /* bytes; the largest that are published have half of that */

clsplat_status hf_refuse(const tokenizer *t, clsplat_status status, const char *key, const char *format,
                         ...) {
    char words[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    return log_error(t->lib, status, "%s: %s: %s", t->path, key, words);
}

clsplat_status hf_type(const tokenizer *t, const char *key, const json_t *part, const char **type) {
    *type = "";
    if (!part || json_is_null(part))
        return CLSPLAT_OK;
    *type = json_string_value(json_object_get(part, "type"));
    return *type && **type ? CLSPLAT_OK
                           : hf_refuse(t, CLSPLAT_FORMAT, key, "must be null or an object with a type");
}

clsplat_status hf_words(const tokenizer *t, const char *key, const json_t *part, const char *name,
                        const char **words) {
    *words = json_string_value(json_object_get(part, name));
    return *words ? CLSPLAT_OK : hf_refuse(t, CLSPLAT_FORMAT, key, "%s must be a string", name);
}

bool hf_flag(const json_t *part, const char *name, bool absent) {
    const json_t *value = json_object_get(part, name);
    return json_is_boolean(value) ? json_is_true(value) : absent;
}

clsplat_status hf_pattern(const tokenizer *t, const char *key, const json_t *part, pattern **p) {
    clsplat_status status = CLSPLAT_OK;
    text where = {0};
    const json_t *source = json_object_get(part, "pattern");
    const char *regex = json_string_value(json_object_get(source, "Regex"));
    const char *words = json_string_value(json_object_get(source, "String"));
    const char *given = regex ? regex : words;
    *p = NULL;
    if (!given || !*given)
        return hf_refuse(t, CLSPLAT_FORMAT, key, "pattern must be a Regex or a String that is not empty");
    text_add(&where, "%s: %s", t->path, key);
    if (!text_ok(&where))
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its patterns", t->path));
    TRY(pattern_compile(t->lib, where.data, given, !regex, p));
fail:
    text_free(&where);
    return status;
}

clsplat_status hf_step(const tokenizer *t, const char *key, steps *s, step **added) {
    if (s->count == STEPS_LIMIT)
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, key, "has more than %d steps", STEPS_LIMIT);
    *added = &s->list[s->count++];
    **added = (step){0};
    return CLSPLAT_OK;
}

/* What encoding needs of the file. */
typedef struct hf_tokenizer {
    hf_model model;
    steps normaliser, pre_tokeniser;
    added_list raw, normalised; /* found before and after the normaliser */
} hf_tokenizer;

static void close_hf(void *state) {
    hf_tokenizer *j = state;
    if (!j)
        return;
    bpe_destroy(j->model.b);
    unigram_destroy(j->model.scored);
    free(j->model.pieces.prefix);
    steps_free(&j->normaliser);
    steps_free(&j->pre_tokeniser);
    added_free(&j->raw);
    added_free(&j->normalised);
    free(j);
}

/* One text on its way, and the part of it that is being looked at. */
typedef struct encoding {
    const tokenizer *t;
    const hf_tokenizer *j;
    bool special, first; /* `words` begin the text */
    const char *words;
    token_list *to;
} encoding;

static clsplat_status encode_word(void *user, const char *word, size_t count) {
    const encoding *e = user;
    const hf_model *m = &e->j->model;
    if (m->scored)
        return unigram_encode(m->scored, word, count, e->to);
    if (m->pieces.prefix)
        return wordpiece_encode(e->t->lib, &m->pieces, m->b, word, count, e->to);
    return bpe_encode(m->b, word, count, e->to);
}

static clsplat_status encode_normalised(void *user, size_t begin, size_t end) {
    encoding *e = user;
    return steps_cut(e->t->lib, &e->j->pre_tokeniser, e->words + begin, end - begin, e->first && begin == 0,
                     encode_word, e);
}

static clsplat_status encode_raw(void *user, size_t begin, size_t end) {
    clsplat_status status = CLSPLAT_OK;
    encoding e = *(const encoding *)user;
    text normalised = {0};
    TRY(steps_normalise(e.t->lib, &e.j->normaliser, e.words + begin, end - begin, &normalised));
    e.words = normalised.data;
    e.first = begin == 0;
    TRY(added_walk(&e.j->normalised, normalised.data, normalised.length, e.special, e.to, encode_normalised,
                   &e));
fail:
    text_free(&normalised);
    return status;
}

static clsplat_status encode(const tokenizer *t, const char *words, size_t count, bool special,
                             token_list *to) {
    encoding e = {t, t->state, special, true, words, to};
    return added_walk(&e.j->raw, words, count, special, to, encode_raw, &e);
}

static const tokenizer_kind hf_kind = {.encode = encode, .close = close_hf};

static clsplat_status set_piece(tokenizer *t, const hf_decoder *d, const char *name, int64_t token) {
    clsplat_status status = CLSPLAT_OK;
    text bytes = {0};
    hf_decode_name(d, name, &bytes);
    if (!text_ok(&bytes))
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", t->path));
    if (bytes.data)
        bytes.length = json_text_restore(bytes.data, bytes.length);
    TRY(tokenizer_set_piece(t, token, name, bytes.data, bytes.length));
fail:
    text_free(&bytes);
    return status;
}

static clsplat_status read_piece(tokenizer *t, const hf_decoder *d, const char *name, json_int_t token) {
    if (token >= 0 && (size_t)token < t->vocabulary && t->pieces[token].count > 0)
        return hf_refuse(t, CLSPLAT_FORMAT, "model.vocab",
                         "token '%s' has the number %lld, which another has too", text_show(name).bytes,
                         (long long)token);
    return set_piece(t, d, name, token);
}

/* The names of the vocabulary, which is an object of numbers, or a list of names with scores. */
static clsplat_status read_pieces(tokenizer *t, const json_t *model, const hf_decoder *d) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *vocabulary = json_object_get(model, "vocab"), *entry;
    const char *name;
    size_t i;
    json_object_foreach((json_t *)vocabulary, name, entry) {
        TRY(read_piece(t, d, name, json_integer_value(entry)));
    }
    json_array_foreach(vocabulary, i, entry) {
        TRY(read_piece(t, d, json_string_value(json_array_get(entry, 0)), (json_int_t)i));
    }
fail:
    return status;
}

static clsplat_status add_token(tokenizer *t, hf_tokenizer *j, const char *name, added_token added,
                                bool normalised) {
    clsplat_status status = CLSPLAT_OK;
    bool added_it = false;
    text words = {0};
    if (normalised)
        TRY(steps_normalise(t->lib, &j->normaliser, name, strlen(name), &words));
    else
        text_add(&words, "%s", name);
    if (words.data)
        words.length = json_text_restore(words.data, words.length);
    added_it = text_ok(&words) && (words.length == 0 || added_add(normalised ? &j->normalised : &j->raw,
                                                                  words.data, words.length, added));
    if (!added_it)
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its added tokens", t->path));
fail:
    text_free(&words);
    return status;
}

static clsplat_status read_added(tokenizer *t, hf_tokenizer *j, const json_t *entry, const hf_decoder *d) {
    clsplat_status status = CLSPLAT_OK;
    const char *name = json_string_value(json_object_get(entry, "content"));
    const json_t *number = json_object_get(entry, "id");
    if (!name || !json_is_integer(number))
        return hf_refuse(t, CLSPLAT_FORMAT, "added_tokens", "each needs an id and a content");
    json_int_t token = json_integer_value(number);
    int32_t known = bpe_find(j->model.b, name, strlen(name));
    if (!*name)
        return CLSPLAT_OK;
    if (known >= 0 && known != token)
        log_warning(t->lib, "%s: token '%s' is %lld in added_tokens and %d in model.vocab, which counts",
                    t->path, text_show(name).bytes, (long long)token, (int)known);
    token = known >= 0 ? known : token;
    if (token > INT32_MAX)
        return hf_refuse(t, CLSPLAT_FORMAT, "added_tokens", "'%s' has the number %lld", text_show(name).bytes,
                         (long long)token);
    TRY(set_piece(t, d, name, token));
    bool special = hf_flag(entry, "special", false);
    if ((uint64_t)token < t->vocabulary)
        t->pieces[token].special = special;
    TRY(add_token(t, j, name,
                  (added_token){.token = (int32_t)token,
                                .special = special,
                                .single_word = hf_flag(entry, "single_word", false),
                                .left = hf_flag(entry, "lstrip", false),
                                .right = hf_flag(entry, "rstrip", false)},
                  hf_flag(entry, "normalized", !special)));
fail:
    return status;
}

/* A token that only the files beside this one know. */
typedef struct beside_reader {
    tokenizer *t;
    hf_tokenizer *j;
    const hf_decoder *d;
} beside_reader;

static clsplat_status take_beside(void *user, const char *name, added_token token, bool normalised) {
    clsplat_status status = CLSPLAT_OK;
    const beside_reader *r = user;
    added_token *there = added_has(&r->j->raw, name);
    int32_t known = bpe_find(r->j->model.b, name, strlen(name));
    there = there ? there : added_has(&r->j->normalised, name);
    if (there && token.token < 0)
        return CLSPLAT_OK;
    if (there) { /* how it is found is said anew; its number stays */
        *there = (added_token){there->name,       there->bytes, there->token, token.special,
                               token.single_word, token.left,   token.right};
        known = there->token;
    } else {
        token.token = known >= 0 ? known : token.token >= 0 ? token.token : r->t->next;
        TRY(add_token(r->t, r->j, name, token, normalised));
        if (known < 0)
            TRY(set_piece(r->t, r->d, name, token.token));
        known = token.token;
    }
    if ((size_t)known < r->t->vocabulary)
        r->t->pieces[known].special = token.special;
fail:
    return status;
}

/* The post-processor counts, as in transformers 5, whatever add_bos_token says. */
static void warn_of_begin(const tokenizer *t, const tokenizer_beside *b) {
    const json_t *begins = json_object_get(b->config, "add_bos_token");
    if (json_is_boolean(begins) && json_is_true(begins) != (t->begin.count > 0))
        log_warning(t->lib,
                    "%s: its post_processor begins texts %s a token, though tokenizer_config.json has "
                    "add_bos_token %s; "
                    "the post_processor counts",
                    t->path, t->begin.count > 0 ? "with" : "without",
                    json_is_true(begins) ? "true" : "false");
}

static clsplat_status read_parts(tokenizer *t, hf_tokenizer *j, const json_t *root) {
    clsplat_status status = CLSPLAT_OK;
    hf_decoder decoder = {0};
    const json_t *added = json_object_get(root, "added_tokens"), *entry;
    tokenizer_beside beside = {0};
    size_t i;
    if (added && !json_is_null(added) && !json_is_array(added))
        return hf_refuse(t, CLSPLAT_FORMAT, "added_tokens", "must be a list");
    TRY(hf_read_model(t, root, &j->model));
    TRY(hf_read_normaliser(t, json_object_get(root, "normalizer"), &j->normaliser));
    TRY(hf_read_pre_tokeniser(t, json_object_get(root, "pre_tokenizer"), &j->pre_tokeniser));
    TRY(hf_read_decoder(t, json_object_get(root, "decoder"), &decoder));
    TRY(read_pieces(t, json_object_get(root, "model"), &decoder));
    json_array_foreach(added, i, entry) {
        TRY(read_added(t, j, entry, &decoder));
    }
    TRY(tokenizer_beside_read(t, &beside));
    TRY(tokenizer_beside_walk(t, &beside, take_beside, &(beside_reader){t, j, &decoder}));
    added_sort(&j->raw);
    added_sort(&j->normalised);
    TRY(hf_read_post_processor(t, json_object_get(root, "post_processor")));
    warn_of_begin(t, &beside);
fail:
    tokenizer_beside_free(&beside);
    return status;
}

clsplat_status tokenizer_read_json(tokenizer *t, const json_t *root) {
    t->kind = &hf_kind;
    t->state = calloc(1, sizeof(hf_tokenizer));
    if (!t->state)
        return log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", t->path);
    return read_parts(t, t->state, root);
}

clsplat_status tokenizer_open_json(tokenizer *t) {
    clsplat_status status = CLSPLAT_OK;
    json_t *root = NULL;
    TRY(json_file(t->lib, t->path, FILE_LIMIT, &root));
    TRY(tokenizer_read_json(t, root));
fail:
    json_decref(root);
    return status;
}

clsplat_status tokenizer_open_gguf(tokenizer *t) {
    clsplat_status status = CLSPLAT_OK;
    gguf *file = NULL;
    json_t *root = NULL;
    TRY(gguf_open(t->lib, t->path, &file));
    TRY(gguf_tokenizer(t->lib, file, &root));
    if (root)
        TRY(tokenizer_read_json(t, root));
    else
        TRY(tokenizer_open_bytes(t));
fail:
    json_decref(root);
    gguf_close(&file);
    return status;
}
