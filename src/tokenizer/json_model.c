/* The keys model, decoder and post_processor of tokenizer.json. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/json.h"

static clsplat_status read_merge(const tokenizer *t, bpe *b, const json_t *merge) {
    const char *left = json_string_value(merge), *right = left ? strchr(left, ' ') : NULL;
    size_t left_bytes = right ? (size_t)(right - left) : 0;
    if (json_array_size(merge) == 2) {
        left = json_string_value(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
        left_bytes = left ? strlen(left) : 0;
    } else if (right && strchr(++right, ' ')) {
        right = NULL;
    }
    if (!left || !right)
        return hf_refuse(t, CLSPLAT_FORMAT, "model.merges",
                         "each must be two parts, \"a b\" or [\"a\", \"b\"]");
    return bpe_add_merge(b, left, left_bytes, right);
}

/* What changes the result and is not there for a language model. */
static clsplat_status refuse_extras(const tokenizer *t, const json_t *model) {
    static const char *const words[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = json_string_value(json_object_get(model, "type"));
    bool is_bpe = type ? strcmp(type, "BPE") == 0 : json_object_get(model, "merges") != NULL;
    if (!is_bpe)
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "model",
                         "the type '%s' is not supported; BPE, Unigram and WordPiece are",
                         text_show(type ? type : "").bytes);
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i) {
        const char *value = json_string_value(json_object_get(model, words[i]));
        if (value && *value)
            return hf_refuse(t, CLSPLAT_UNSUPPORTED, "model", "%s is not supported", words[i]);
    }
    if (json_number_value(json_object_get(model, "dropout")) != 0)
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "model", "dropout is not supported");
    return CLSPLAT_OK;
}

/* HF's converters put a line of merges.txt that is no merge into the list. */
static bool is_version(const json_t *merge) {
    const char *line = json_string_value(merge);
    return line && strncmp(line, "#version", strlen("#version")) == 0;
}

/* The number of an added token; −1 if there is none of that name. */
static int32_t number_of_added(const json_t *added, const char *name) {
    const json_t *entry;
    size_t i;
    json_array_foreach(added, i, entry) {
        const char *content = json_string_value(json_object_get(entry, "content"));
        json_int_t number = json_integer_value(json_object_get(entry, "id"));
        if (content && strcmp(content, name) == 0 && number >= 0 && number <= INT32_MAX)
            return (int32_t)number;
    }
    return -1;
}

static clsplat_status add_vocabulary(const tokenizer *t, const json_t *vocabulary, bpe *b) {
    clsplat_status status = CLSPLAT_OK;
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)vocabulary, name, entry) {
        json_int_t token = json_integer_value(entry);
        if (!json_is_integer(entry) || token < 0 || token > INT32_MAX)
            TRY(hf_refuse(t, CLSPLAT_FORMAT, "model.vocab", "the number of '%s' is not one from 0 up",
                          text_show(name).bytes));
        TRY(bpe_add_token(b, name, (int32_t)token));
    }
fail:
    return status;
}

static clsplat_status read_bpe(const tokenizer *t, const json_t *root, bpe **b) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *model = json_object_get(root, "model");
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    const json_t *vocabulary = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges"),
                 *entry;
    size_t i;
    TRY(refuse_extras(t, model));
    if (!json_is_object(vocabulary) || !json_is_array(merges))
        return hf_refuse(t, CLSPLAT_FORMAT, "model", "needs an object vocab and a list merges");
    TRY(bpe_create(t->lib, t->path,
                   (bpe_rules){.unknown = unknown,
                               .fuse_unknown = hf_flag(model, "fuse_unk", false),
                               .byte_fallback = hf_flag(model, "byte_fallback", false),
                               .whole_words = hf_flag(model, "ignore_merges", false),
                               .tokens = json_object_size(vocabulary),
                               .merges = json_array_size(merges)},
                   b));
    TRY(add_vocabulary(t, vocabulary, *b));
    json_array_foreach(merges, i, entry) {
        if (!is_version(entry))
            TRY(read_merge(t, *b, entry));
    }
    if (unknown)
        bpe_set_unknown(*b, number_of_added(json_object_get(root, "added_tokens"), unknown));
    TRY(bpe_finish(*b));
fail:
    return status;
}

static clsplat_status read_wordpiece(const tokenizer *t, const json_t *model, bpe **b, wordpiece *pieces) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *vocabulary = json_object_get(model, "vocab");
    const char *prefix = json_string_value(json_object_get(model, "continuing_subword_prefix"));
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    json_int_t longest = json_integer_value(json_object_get(model, "max_input_chars_per_word"));
    if (!json_is_object(vocabulary) || !unknown || longest < 0)
        return hf_refuse(t, CLSPLAT_FORMAT, "model",
                         "needs an object vocab, a name unk_token and a count max_input_chars_per_word");
    TRY(bpe_create(t->lib, t->path, (bpe_rules){.tokens = json_object_size(vocabulary)}, b));
    TRY(add_vocabulary(t, vocabulary, *b));
    TRY(bpe_finish(*b));
    *pieces = (wordpiece){.prefix = text_copy(prefix ? prefix : "##"),
                          .unknown = bpe_find(*b, unknown, strlen(unknown)),
                          .longest = longest ? (size_t)longest : 100};
    if (!pieces->prefix)
        return log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", t->path);
    if (pieces->unknown < 0)
        return hf_refuse(t, CLSPLAT_FORMAT, "model", "unk_token '%s' is not in vocab",
                         text_show(unknown).bytes);
fail:
    return status;
}

/* The list of [name, score]; a token's number is its place. */
static clsplat_status add_scored(const tokenizer *t, const json_t *vocabulary, hf_model *m) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *entry;
    size_t i;
    json_array_foreach(vocabulary, i, entry) {
        const char *name = json_string_value(json_array_get(entry, 0));
        const json_t *score = json_array_get(entry, 1);
        if (!name || !json_is_number(score) || json_array_size(entry) != 2)
            return hf_refuse(t, CLSPLAT_FORMAT, "model.vocab", "entry %zu is not a name and a score", i);
        TRY(bpe_add_token(m->b, name, (int32_t)i));
        TRY(unigram_add(m->scored, name, (int32_t)i, json_number_value(score)));
    }
fail:
    return status;
}

static clsplat_status read_unigram(const tokenizer *t, const json_t *model, hf_model *m) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *vocabulary = json_object_get(model, "vocab"), *unknown = json_object_get(model, "unk_id");
    size_t count = json_array_size(vocabulary);
    json_int_t number = json_is_integer(unknown) ? json_integer_value(unknown) : -1;
    if (!json_is_array(vocabulary) || count > INT32_MAX || number < -1 || number >= (json_int_t)INT32_MAX)
        return hf_refuse(t, CLSPLAT_FORMAT, "model", "needs a list vocab, and a number unk_id or none");
    TRY(bpe_create(t->lib, t->path, (bpe_rules){.tokens = count}, &m->b));
    TRY(unigram_create(t->lib, t->path, count, &m->scored));
    TRY(add_scored(t, vocabulary, m));
    TRY(bpe_finish(m->b));
    TRY(unigram_finish(m->scored, (int32_t)number, hf_flag(model, "byte_fallback", false)));
fail:
    return status;
}

clsplat_status hf_read_model(const tokenizer *t, const json_t *root, hf_model *m) {
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!json_is_object(model))
        return hf_refuse(t, CLSPLAT_FORMAT, "model", "must be an object");
    if (type && strcmp(type, "WordPiece") == 0)
        return read_wordpiece(t, model, &m->b, &m->pieces);
    if (type ? strcmp(type, "Unigram") == 0 : json_object_get(model, "unk_id") != NULL)
        return read_unigram(t, model, m);
    return read_bpe(t, root, &m->b);
}

static clsplat_status read_one_decoder(tokenizer *t, const json_t *part, hf_decoder *d);

static clsplat_status read_decoders(tokenizer *t, const json_t *list, hf_decoder *d) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *inner;
    size_t i;
    if (!json_is_array(list))
        return hf_refuse(t, CLSPLAT_FORMAT, "decoder", "a Sequence needs the list decoders");
    json_array_foreach(list, i, inner) {
        TRY(read_one_decoder(t, inner, d));
    }
fail:
    return status;
}

static clsplat_status add_replacement(tokenizer *t, hf_decoder *d, const char *from, const char *to) {
    if (!from || !*from || !to)
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "decoder", "Replace must have a String and a content");
    if (d->replacements == STEPS_LIMIT)
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "decoder", "has more than %d steps", STEPS_LIMIT);
    d->from[d->replacements] = from;
    d->to[d->replacements++] = to;
    return CLSPLAT_OK;
}

/* Only what SentencePiece's models need: one space at the very beginning. */
static clsplat_status read_strip(tokenizer *t, const json_t *part, const hf_decoder *d) {
    const char *content = json_string_value(json_object_get(part, "content"));
    json_int_t start = json_integer_value(json_object_get(part, "start"));
    if (!d->fused || !content || strcmp(content, " ") != 0 || start < 0 || start > 1 ||
        json_integer_value(json_object_get(part, "stop")) != 0)
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "decoder",
                         "Strip must follow Fuse and take one space at the beginning");
    t->strip = start == 1 ? STRIP_SPACE : STRIP_NOTHING;
    return CLSPLAT_OK;
}

static clsplat_status read_metaspace(tokenizer *t, const json_t *part, hf_decoder *d) {
    const char *scheme = json_string_value(json_object_get(part, "prepend_scheme"));
    bool strips = scheme ? strcmp(scheme, "never") != 0 : hf_flag(part, "add_prefix_space", true);
    t->strip = strips ? STRIP_FIRST_SPACES : STRIP_NOTHING;
    return add_replacement(t, d, json_string_value(json_object_get(part, "replacement")), " ");
}

static clsplat_status read_one_decoder(tokenizer *t, const json_t *part, hf_decoder *d) {
    clsplat_status status = CLSPLAT_OK;
    const char *type;
    TRY(hf_type(t, "decoder", part, &type));
    if (strcmp(type, "Sequence") == 0)
        return read_decoders(t, json_object_get(part, "decoders"), d);
    if (strcmp(type, "ByteLevel") == 0)
        d->bytes = true;
    else if (strcmp(type, "ByteFallback") == 0)
        d->fallback = true;
    else if (strcmp(type, "Fuse") == 0)
        d->fused = true;
    else if (strcmp(type, "WordPiece") == 0) {
        const char *prefix = json_string_value(json_object_get(part, "prefix"));
        d->pieces = prefix ? prefix : "##";
        t->strip = STRIP_SPACE;
    } else if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, part, d);
    else if (strcmp(type, "Strip") == 0)
        return read_strip(t, part, d);
    else if (strcmp(type, "Replace") == 0)
        return add_replacement(t, d,
                               json_string_value(json_object_get(json_object_get(part, "pattern"), "String")),
                               json_string_value(json_object_get(part, "content")));
    else
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "decoder", "the type '%s' is not supported",
                         *type ? text_show(type).bytes : "null");
fail:
    return status;
}

clsplat_status hf_read_decoder(tokenizer *t, const json_t *part, hf_decoder *d) {
    return read_one_decoder(t, part, d);
}

/* The whole name in GPT-2's alphabet, or as it is. */
static void decode_letters(const char *name, text *to) {
    size_t count = strlen(name), length;
    text bytes = {0};
    for (size_t i = 0; i < count; i += length) {
        int32_t code;
        length = utf8_next(name + i, count - i, &code);
        int byte = steps_byte_of(code);
        if (byte < 0) {
            text_add_bytes(to, name, count);
            text_free(&bytes);
            return;
        }
        text_add_bytes(&bytes, (char[]){(char)byte}, 1);
    }
    to->failed = to->failed || bytes.failed;
    text_add_bytes(to, bytes.data ? bytes.data : "", bytes.length);
    text_free(&bytes);
}

static int hexadecimal(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of <0x00> to <0xFF>; −1 for other names. */
static int fallback_byte(const char *name) {
    if (strlen(name) != 6 || strncmp(name, "<0x", 3) != 0 || name[5] != '>')
        return -1;
    int high = hexadecimal(name[3]), low = hexadecimal(name[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* All occurrences of one string by another. */
static void replace(text *in, const char *from, const char *by) {
    text out = {0};
    const char *at = in->data;
    for (const char *found; at && (found = strstr(at, from)); at = found + strlen(from)) {
        text_add_bytes(&out, at, (size_t)(found - at));
        text_add(&out, "%s", by);
    }
    text_add(&out, "%s", at ? at : "");
    out.failed = out.failed || in->failed;
    text_free(in);
    *in = out;
}

void hf_decode_name(const hf_decoder *d, const char *name, text *to) {
    int byte = d->fallback ? fallback_byte(name) : -1;
    if (byte >= 0) {
        text_add_bytes(to, (char[]){(char)byte}, 1);
        return;
    }
    if (d->pieces && strncmp(name, d->pieces, strlen(d->pieces)) == 0)
        name += strlen(d->pieces);
    else if (d->pieces)
        text_add(to, " ");
    text_add(to, "%s", d->bytes ? "" : name);
    for (size_t i = 0; i < d->replacements; ++i)
        replace(to, d->from[i], d->to[i]);
    if (d->bytes)
        decode_letters(name, to);
}

/* The tokens of one entry of a template's special_tokens. */
static clsplat_status add_template_token(tokenizer *t, const json_t *template, const char *name,
                                         token_list *to) {
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(template, "special_tokens"), name), "ids");
    const json_t *id;
    size_t i;
    if (!json_is_array(ids))
        return hf_refuse(t, CLSPLAT_FORMAT, "post_processor", "special_tokens does not say what '%s' is",
                         text_show(name).bytes);
    json_array_foreach(ids, i, id) {
        json_int_t token = json_integer_value(id);
        if (!json_is_integer(id) || token < 0 || (uint64_t)token >= t->vocabulary)
            return hf_refuse(t, CLSPLAT_FORMAT, "post_processor",
                             "'%s' is not a token of the model's vocabulary", text_show(name).bytes);
        token_list_add(to, (int32_t)token);
    }
    return CLSPLAT_OK;
}

static clsplat_status read_template(tokenizer *t, const json_t *template) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *single = json_object_get(template, "single"), *entry;
    bool seen = false;
    size_t i;
    json_array_foreach(single, i, entry) {
        const char *name = json_string_value(json_object_get(json_object_get(entry, "SpecialToken"), "id"));
        if (name)
            TRY(add_template_token(t, template, name, seen ? &t->end : &t->begin));
        else if (json_object_get(entry, "Sequence") && !seen)
            seen = true;
        else
            return hf_refuse(t, CLSPLAT_FORMAT, "post_processor",
                             "single must be a list of SpecialTokens around one Sequence");
    }
    if (!seen)
        return hf_refuse(t, CLSPLAT_FORMAT, "post_processor",
                         "single must be a list of SpecialTokens around one Sequence");
fail:
    return status;
}

/* {"cls": [name, number], "sep": [name, number]}, of BERT and RoBERTa. */
static clsplat_status read_pair(tokenizer *t, const json_t *part) {
    static const char *const keys[] = {"cls", "sep"};
    for (size_t i = 0; i < 2; ++i) {
        const json_t *number = json_array_get(json_object_get(part, keys[i]), 1);
        json_int_t token = json_integer_value(number);
        if (!json_is_integer(number) || token < 0 || (uint64_t)token >= t->vocabulary)
            return hf_refuse(t, CLSPLAT_FORMAT, "post_processor",
                             "%s must be a name and a token of the model's vocabulary", keys[i]);
        token_list_add(i == 0 ? &t->begin : &t->end, (int32_t)token);
    }
    return CLSPLAT_OK;
}

clsplat_status hf_read_post_processor(tokenizer *t, const json_t *part) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *inner;
    const char *type;
    size_t i;
    TRY(hf_type(t, "post_processor", part, &type));
    if (strcmp(type, "Sequence") == 0) {
        json_array_foreach(json_object_get(part, "processors"), i, inner) {
            TRY(hf_read_post_processor(t, inner));
        }
    } else if (strcmp(type, "TemplateProcessing") == 0 || strcmp(type, "BertProcessing") == 0 ||
               strcmp(type, "RobertaProcessing") == 0) {
        if (t->begin.count + t->end.count > 0)
            return hf_refuse(t, CLSPLAT_UNSUPPORTED, "post_processor", "has more than one template");
        TRY(*type == 'T' ? read_template(t, part) : read_pair(t, part));
    } else if (*type && strcmp(type, "ByteLevel") != 0) { /* which is about offsets only */
        return hf_refuse(t, CLSPLAT_UNSUPPORTED, "post_processor", "the type '%s' is not supported",
                         text_show(type).bytes);
    }
fail:
    return status;
}
