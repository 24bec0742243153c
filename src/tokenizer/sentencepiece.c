/* tokenizer.model, read by SentencePiece's own library. */
#include "tokenizer/kind.h"

#ifdef CLSPLAT_SENTENCEPIECE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json_text.h"
#include "tokenizer/added.h"
#include "tokenizer/beside.h"
#include "tokenizer/proto.h"
#include "tokenizer/sp.h"

enum { FILE_LIMIT = 256 << 20 };

/* SentencePiece's space, U+2581. */
static const char mark[] = "\xe2\x96\x81";
/* What it shows for a token that stands for unknown characters. */
static const char unknown[] = " \xe2\x81\x87 ";

/* U+E000, of a private area: no vocabulary has it. */
static const char anchor[] = "\xee\x80\x80";

typedef struct sp_tokenizer {
    sp_model *model;
    added_list special;
    /* Behind an added token: no space of the model's own, or none before a space, as transformers 5 has it.
     */
    bool joins, single_space;
} sp_tokenizer;

static void close_sp(void *state) {
    sp_tokenizer *s = state;
    if (!s)
        return;
    sp_close(s->model);
    added_free(&s->special);
    free(s);
}

typedef struct encoding {
    const tokenizer *t;
    const sp_tokenizer *s;
    const char *words;
    token_list *to;
} encoding;

static void take(void *user, int32_t token) {
    token_list_add(user, token);
}

/* What stands behind `anchor`, a character that nothing joins with: it is as it were within a word. */
static bool encode_behind(const encoding *e, size_t begin, size_t end, sp_why *why) {
    text whole = {0};
    token_list alone = {0}, all = {0};
    text_add(&whole, "%s", anchor);
    text_add_bytes(&whole, e->words + begin, end - begin);
    snprintf(why->words, sizeof why->words, "there is no memory for it");
    bool good = text_ok(&whole) && sp_encode(e->s->model, anchor, strlen(anchor), take, &alone, why) &&
                sp_encode(e->s->model, whole.data, whole.length, take, &all, why) && !alone.failed &&
                !all.failed;
    for (size_t i = alone.count; good && i < all.count; ++i)
        token_list_add(e->to, all.tokens[i]);
    text_free(&whole);
    token_list_free(&alone);
    token_list_free(&all);
    return good;
}

static clsplat_status encode_between(void *user, size_t begin, size_t end) {
    const encoding *e = user;
    sp_why why;
    bool behind = begin > 0 && (e->s->joins || (e->s->single_space && e->words[begin] == ' '));
    if (behind ? encode_behind(e, begin, end, &why)
               : sp_encode(e->s->model, e->words + begin, end - begin, take, e->to, &why))
        return CLSPLAT_OK;
    return log_error(e->t->lib, CLSPLAT_INVALID, "%s: a text of %zu bytes cannot be encoded: %s", e->t->path,
                     end - begin, text_show(why.words).bytes);
}

static clsplat_status encode(const tokenizer *t, const char *words, size_t count, bool special,
                             token_list *to) {
    encoding e = {t, t->state, words, to};
    return added_walk(&e.s->special, words, count, special, to, encode_between, &e);
}

static const tokenizer_kind sentencepiece_kind = {.encode = encode, .close = close_sp};

static clsplat_status read_piece(tokenizer *t, sp_tokenizer *s, int32_t token) {
    clsplat_status status = CLSPLAT_OK;
    sp_piece piece = sp_at(s->model, token);
    text bytes = {0};
    if (piece.byte >= 0) {
        text_add_bytes(&bytes, (char[]){(char)piece.byte}, 1);
    } else if (piece.unknown) {
        text_add(&bytes, "%s", unknown);
    } else {
        const char *at = piece.name;
        for (const char *found; (found = strstr(at, mark)); at = found + strlen(mark)) {
            text_add_bytes(&bytes, at, (size_t)(found - at));
            text_add(&bytes, " ");
        }
        text_add(&bytes, "%s", at);
    }
    if (!text_ok(&bytes) || (piece.control && *piece.name &&
                             !added_add(&s->special, piece.name, strlen(piece.name),
                                        (added_token){.token = token, .special = true})))
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its pieces", t->path));
    TRY(tokenizer_set_piece(t, token, piece.name, bytes.data, bytes.length));
    if ((size_t)token < t->vocabulary) {
        t->pieces[token].special = piece.control;
        t->pieces[token].as_it_is = piece.unknown;
    }
fail:
    text_free(&bytes);
    return status;
}

/* A token that the model's file does not know, or that has another name there: chat models name unused ones
 * anew. */
typedef struct beside_reader {
    tokenizer *t;
    sp_tokenizer *s;
} beside_reader;

static int32_t piece_of(const sp_model *model, const char *name) {
    for (int32_t token = 0; token < sp_size(model); ++token)
        if (strcmp(sp_at(model, token).name, name) == 0)
            return token;
    return -1;
}

static clsplat_status take_beside(void *user, const char *name, added_token token, bool normalised) {
    (void)
        normalised; /* it is found in the text as it stands, and each part between gets its own first space */
    clsplat_status status = CLSPLAT_OK;
    const beside_reader *r = user;
    tokenizer *t = r->t;
    added_token *there = added_has(&r->s->special, name);
    if (there && token.token < 0)
        return CLSPLAT_OK;
    if (token.token < 0)
        token.token = piece_of(r->s->model, name);
    if (token.token < 0)
        token.token = t->next;
    bool known =
        token.token < sp_size(r->s->model) && strcmp(sp_at(r->s->model, token.token).name, name) == 0;
    text plain = {0};
    text_add(&plain, "%s", name);
    if (!text_ok(&plain))
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its added tokens", t->path));
    plain.length = json_text_restore(plain.data, plain.length);
    if (there) {
        token.name = there->name;
        token.bytes = there->bytes;
        *there = token;
    } else if (!added_add(&r->s->special, plain.data, plain.length, token)) {
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its added tokens", t->path));
    }
    if (known)
        goto fail;
    TRY(tokenizer_set_piece(t, token.token, name, plain.data, plain.length));
    if ((size_t)token.token < t->vocabulary) {
        t->pieces[token.token].special = token.special;
        t->pieces[token.token].as_it_is = true;
    }
fail:
    text_free(&plain);
    return status;
}

/* As transformers 5: its LlamaTokenizer does unless it is told to be `legacy`, others only if they are told
 * not to be. */
static bool joins_words(const tokenizer_beside *b) {
    const json_t *legacy = json_object_get(b->config, "legacy");
    const char *class = json_string_value(json_object_get(b->config, "tokenizer_class"));
    return json_is_boolean(legacy) ? !json_is_true(legacy) : class && text_contains(class, "Llama");
}

/* Models of this kind begin a text with their token for it, unless tokenizer_config.json says otherwise. */
static clsplat_status read_beside(tokenizer *t, sp_tokenizer *s, const proto_normaliser *normaliser) {
    clsplat_status status = CLSPLAT_OK;
    tokenizer_beside b = {0};
    TRY(tokenizer_beside_read(t, &b));
    TRY(tokenizer_beside_walk(t, &b, take_beside, &(beside_reader){t, s}));
    s->joins = normaliser->prefix && joins_words(&b);
    s->single_space = normaliser->prefix && b.config;
    if (sp_begin(s->model) >= 0 && !json_is_false(json_object_get(b.config, "add_bos_token")))
        token_list_add(&t->begin, sp_begin(s->model));
    if (sp_end(s->model) >= 0 && json_is_true(json_object_get(b.config, "add_eos_token")))
        token_list_add(&t->end, sp_end(s->model));
fail:
    tokenizer_beside_free(&b);
    return status;
}

static clsplat_status read_model(tokenizer *t, sp_tokenizer *s, const char *bytes, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    proto_normaliser normaliser;
    sp_why why;
    const char *wrong = proto_check(bytes, count, &normaliser);
    if (wrong)
        TRY(log_error(t->lib, CLSPLAT_FORMAT, "%s: is no SentencePiece model: %s", t->path, wrong));
    s->model = sp_open(bytes, count, &why);
    if (!s->model)
        TRY(log_error(t->lib, CLSPLAT_FORMAT, "%s: is no SentencePiece model: %s", t->path,
                      text_show(why.words).bytes));
    for (int32_t token = 0; token < sp_size(s->model); ++token)
        TRY(read_piece(t, s, token));
    t->strip = normaliser.extra_spaces ? STRIP_SPACES : normaliser.prefix ? STRIP_SPACE : STRIP_NOTHING;
    TRY(read_beside(t, s, &normaliser));
    added_sort(&s->special);
fail:
    return status;
}

clsplat_status tokenizer_open_sentencepiece(tokenizer *t) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    TRY(file_load(t->lib, t->path, FILE_LIMIT, &bytes, &count));
    t->kind = &sentencepiece_kind;
    t->state = calloc(1, sizeof(sp_tokenizer));
    if (!t->state)
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", t->path));
    TRY(read_model(t, t->state, bytes, count));
fail:
    free(bytes);
    return status;
}
#else
clsplat_status tokenizer_open_sentencepiece(tokenizer *t) {
    return log_error(
        t->lib, CLSPLAT_UNSUPPORTED,
        "%s: this build does not read SentencePiece models; install libsentencepiece-dev and build "
        "again, or put the model's tokenizer.json beside it",
        t->path);
}
#endif
