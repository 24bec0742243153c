/* vocab.txt: WordPiece as BERT's first files have it, a piece a line, with rules in tokenizer_config.json. It
 * is read as the tokenizer.json that Hugging Face's converters make of it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "tokenizer/json.h"

enum { VOCABULARY_LIMIT = 64 << 20, CONFIG_LIMIT = 16 << 20 };

/* What the folder says besides, or what BERT's own tokeniser does. */
typedef struct vocab_rules {
    json_t *config; /* NULL: there is none */
    bool lower_case, chinese;
    const json_t *accents; /* null: as lower case */
} vocab_rules;

static clsplat_status no_memory(const tokenizer *t) {
    return log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", t->path);
}

static clsplat_status read_rules(const tokenizer *t, const char *folder, vocab_rules *rules) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0};
    *rules = (vocab_rules){.lower_case = true, .chinese = true};
    text_add(&path, "%s/tokenizer_config.json", folder);
    if (!text_ok(&path))
        TRY(no_memory(t));
    if (access(path.data, F_OK) != 0)
        goto fail;
    TRY(json_file(t->lib, path.data, CONFIG_LIMIT, &rules->config));
    const char *words = json_string_value(json_object_get(rules->config, "word_tokenizer_type"));
    if (words && strcmp(words, "basic") != 0)
        TRY(log_error(t->lib, CLSPLAT_UNSUPPORTED,
                      "%s: key word_tokenizer_type is '%s'; a vocab.txt is read with basic only", path.data,
                      text_show(words).bytes));
    rules->lower_case = hf_flag(rules->config, "do_lower_case", true);
    rules->chinese = hf_flag(rules->config, "tokenize_chinese_chars", true);
    rules->accents = json_object_get(rules->config, "strip_accents");
fail:
    text_free(&path);
    return status;
}

/* {piece: line}, of which a later one counts where two are alike. */
static clsplat_status read_vocabulary(const tokenizer *t, json_t *vocabulary) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    json_int_t number = 0;
    TRY(file_load(t->lib, t->path, VOCABULARY_LIMIT, &bytes, &count));
    for (size_t at = 0; at < count; ++number) {
        char *end = memchr(bytes + at, '\n', count - at);
        size_t length = end ? (size_t)(end - bytes) - at : count - at, trimmed = length;
        if (trimmed > 0 && bytes[at + trimmed - 1] == '\r')
            --trimmed;
        text piece = {0};
        text_add_bytes(&piece, bytes + at, trimmed);
        bool set = text_ok(&piece) && strlen(piece.data) == trimmed &&
                   json_object_set_new(vocabulary, piece.data, json_integer(number)) == 0;
        text_free(&piece);
        if (!set)
            TRY(log_error(t->lib, CLSPLAT_FORMAT, "%s:%lld: is no piece in UTF-8", t->path,
                          (long long)number + 1));
        at += length + 1;
    }
fail:
    free(bytes);
    return status;
}

/* The token that plays a part, by the name that the folder has for it. */
static const char *name_of(const vocab_rules *rules, const char *part, const char *usual) {
    const json_t *given = json_object_get(rules->config, part);
    const char *name = json_string_value(json_is_object(given) ? json_object_get(given, "content") : given);
    return name && *name ? name : usual;
}

static json_t *add_token(json_t *added, const json_t *vocabulary, const char *name, bool special) {
    json_t *number = json_object_get(vocabulary, name);
    if (!number)
        return added;
    return json_push(added, json_pack("{s:O, s:s, s:b, s:b, s:b}", "id", number, "content", name, "special",
                                      special, "normalized", false, "single_word", !special));
}

/* Tokens that are found in a text before anything else happens to it. */
static json_t *added_tokens(const vocab_rules *rules, const json_t *vocabulary) {
    static const char *const parts[][2] = {{"pad_token", "[PAD]"},
                                           {"unk_token", "[UNK]"},
                                           {"cls_token", "[CLS]"},
                                           {"sep_token", "[SEP]"},
                                           {"mask_token", "[MASK]"}};
    const json_t *never = json_object_get(rules->config, "never_split"), *entry;
    json_t *added = json_array();
    size_t i;
    for (i = 0; i < sizeof parts / sizeof *parts; ++i)
        added = add_token(added, vocabulary, name_of(rules, parts[i][0], parts[i][1]), true);
    json_array_foreach(never, i, entry) {
        if (json_is_string(entry))
            added = add_token(added, vocabulary, json_string_value(entry), false);
    }
    return added;
}

static json_t *place_of(const vocab_rules *rules, const json_t *vocabulary, const char *part,
                        const char *usual) {
    const char *name = name_of(rules, part, usual);
    json_t *number = json_object_get(vocabulary, name);
    return number ? json_pack("[s, O]", name, number) : NULL;
}

static clsplat_status make_root(const tokenizer *t, const vocab_rules *rules, json_t *vocabulary,
                                json_t **root) {
    json_t *cls = place_of(rules, vocabulary, "cls_token", "[CLS]"),
           *sep = place_of(rules, vocabulary, "sep_token", "[SEP]");
    if (!cls || !sep) {
        json_decref(cls);
        json_decref(sep);
        return log_error(t->lib, CLSPLAT_FORMAT,
                         "%s: the tokens %s and %s, which stand around a text, are missing", t->path,
                         text_show(name_of(rules, "cls_token", "[CLS]")).bytes,
                         text_show(name_of(rules, "sep_token", "[SEP]")).bytes);
    }
    bool accents =
        rules->accents && !json_is_null(rules->accents) ? json_is_true(rules->accents) : rules->lower_case;
    *root = json_pack("{s:{s:s, s:O, s:s, s:s, s:i}, s:{s:s, s:b, s:b, s:b, s:b}, s:{s:s}, s:{s:s, s:o, "
                      "s:o}, s:{s:s, s:s}, s:o}",
                      "model", "type", "WordPiece", "vocab", vocabulary, "unk_token",
                      name_of(rules, "unk_token", "[UNK]"), "continuing_subword_prefix", "##",
                      "max_input_chars_per_word", 100, "normalizer", "type", "BertNormalizer", "clean_text",
                      true, "handle_chinese_chars", rules->chinese, "strip_accents", accents, "lowercase",
                      rules->lower_case, "pre_tokenizer", "type", "BertPreTokenizer", "post_processor",
                      "type", "BertProcessing", "cls", cls, "sep", sep, "decoder", "type", "WordPiece",
                      "prefix", "##", "added_tokens", added_tokens(rules, vocabulary));
    return *root ? CLSPLAT_OK : no_memory(t);
}

clsplat_status tokenizer_open_vocab(tokenizer *t) {
    clsplat_status status = CLSPLAT_OK;
    vocab_rules rules = {0};
    json_t *vocabulary = json_object(), *root = NULL;
    char *folder = text_copy(t->path);
    if (!vocabulary || !folder)
        TRY(no_memory(t));
    *strrchr(folder, '/') = '\0';
    TRY(read_rules(t, folder, &rules));
    TRY(read_vocabulary(t, vocabulary));
    TRY(make_root(t, &rules, vocabulary, &root));
    TRY(tokenizer_read_json(t, root));
fail:
    json_decref(rules.config);
    json_decref(vocabulary);
    json_decref(root);
    free(folder);
    return status;
}
