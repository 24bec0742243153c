#include "tokenizer/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"
#include "format/gguf.h"
#include "tokenizer/kind.h"

enum { VOCABULARY_LIMIT = 1 << 26, FEW_BEYOND = 64 };

void token_list_add(token_list *list, int32_t token) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        int32_t *tokens = list->failed ? NULL : realloc(list->tokens, capacity * sizeof *tokens);
        list->failed = !tokens;
        if (!tokens)
            return;
        list->tokens = tokens;
        list->capacity = capacity;
    }
    list->tokens[list->count++] = token;
}

void token_list_free(token_list *list) {
    free(list->tokens);
    *list = (token_list){0};
}

clsplat_status tokenizer_set_piece(tokenizer *t, int64_t token, const char *name, const void *bytes,
                                   size_t count) {
    if (token < 0)
        return log_error(t->lib, CLSPLAT_FORMAT, "%s: token '%s' has the number %" PRId64, t->path,
                         text_show(name).bytes, token);
    if (token >= t->next && token < INT32_MAX)
        t->next = (int32_t)token + 1;
    if ((uint64_t)token >= t->vocabulary) {
        if (t->beyond++ == 0)
            t->first_beyond = text_show(name);
        return CLSPLAT_OK;
    }
    token_piece *piece = &t->pieces[token];
    piece->begin = t->bytes.length;
    piece->count = count;
    text_add_bytes(&t->bytes, bytes, count);
    return CLSPLAT_OK;
}

/* One of the kinds, by the file that lies in the folder, or is it. */
static clsplat_status choose_kind(tokenizer *t, const char *folder) {
    static const struct {
        const char *file;
        clsplat_status (*open)(tokenizer *t);
    } kinds[] = {{"/tokenizer.json", tokenizer_open_json},
                 {"/vocab.txt", tokenizer_open_vocab},
                 {"/tokenizer.model", tokenizer_open_sentencepiece}};
    if (gguf_is(folder)) {
        t->path = text_copy(folder);
        return t->path ? tokenizer_open_gguf(t)
                       : log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", folder);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i) {
        text path = {0};
        text_add(&path, "%s%s", folder, kinds[i].file);
        t->path = path.data;
        if (!text_ok(&path))
            return log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", folder);
        if (file_is_there(t->path))
            return kinds[i].open(t);
        text_free(&path);
        t->path = NULL;
    }
    t->path = text_copy(folder);
    return tokenizer_open_bytes(t);
}

/* A padding token that was added behind the last row of the embedding is no matter: no text has it. */
static void tell_beyond(const tokenizer *t) {
    static const char words[] = "%s: %zu tokens, '%s' the first, lie beyond the model's vocabulary of %zu: a "
                                "text that has one is refused";
    if (t->beyond > FEW_BEYOND)
        log_warning(t->lib, words, t->path, t->beyond, t->first_beyond.bytes, t->vocabulary);
    else if (t->beyond > 0)
        log_info(t->lib, words, t->path, t->beyond, t->first_beyond.bytes, t->vocabulary);
}

clsplat_status tokenizer_open(clsplat *lib, const char *folder, size_t vocabulary, tokenizer **opened) {
    clsplat_status status = CLSPLAT_OK;
    *opened = NULL;
    if (vocabulary == 0 || vocabulary > VOCABULARY_LIMIT)
        return log_error(lib, CLSPLAT_UNSUPPORTED,
                         "%s: a vocabulary of %zu tokens; there can be 1 to %d of them", folder, vocabulary,
                         VOCABULARY_LIMIT);
    tokenizer *t = calloc(1, sizeof *t);
    token_piece *pieces = calloc(vocabulary, sizeof *pieces);
    if (!t || !pieces) {
        free(t);
        free(pieces);
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", folder);
    }
    *t = (tokenizer){.lib = lib, .vocabulary = vocabulary, .pieces = pieces};
    TRY(choose_kind(t, folder));
    if (!text_ok(&t->bytes) || t->begin.failed || t->end.failed || !t->path)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", folder));
    tell_beyond(t);
    *opened = t;
    return CLSPLAT_OK;
fail:
    tokenizer_close(&t);
    return status;
}

void tokenizer_close(tokenizer **t) {
    if (!t || !*t)
        return;
    if ((*t)->kind)
        (*t)->kind->close((*t)->state);
    token_list_free(&(*t)->begin);
    token_list_free(&(*t)->end);
    text_free(&(*t)->bytes);
    free((*t)->pieces);
    free((*t)->path);
    free(*t);
    *t = NULL;
}

static void add_all(token_list *to, const token_list *from) {
    for (size_t i = 0; i < from->count; ++i)
        token_list_add(to, from->tokens[i]);
}

/* The text as UTF-8: its own bytes, or *mended. */
static const char *mend(const tokenizer *t, const char *words, size_t *count, text *mended) {
    size_t wrong = utf8_add_mended(mended, words, *count);
    if (wrong == 0)
        return words;
    log_warning(t->lib, "the text is not UTF-8 in %zu places, which are read as U+FFFD", wrong);
    *count = mended->length;
    return mended->data;
}

static clsplat_status check_beyond(const tokenizer *t, const token_list *list) {
    for (size_t i = 0; t->beyond > 0 && i < list->count; ++i)
        if ((size_t)list->tokens[i] >= t->vocabulary)
            return log_error(t->lib, CLSPLAT_INVALID,
                             "%s: the text has the token %" PRId32
                             ", which lies beyond the model's vocabulary of %zu",
                             t->path, list->tokens[i], t->vocabulary);
    return CLSPLAT_OK;
}

clsplat_status tokenizer_encode(const tokenizer *t, const char *words, size_t bytes, bool special,
                                int32_t **tokens, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    token_list list = {0};
    text mended = {0};
    *tokens = NULL;
    *count = 0;
    if (t->kind->mute)
        return tokenizer_refuse(t);
    if (!t->kind->raw)
        words = mend(t, words, &bytes, &mended);
    if (special)
        add_all(&list, &t->begin);
    if (text_ok(&mended) && bytes > 0)
        TRY(t->kind->encode(t, words, bytes, special, &list));
    if (special)
        add_all(&list, &t->end);
    TRY(check_beyond(t, &list));
    if (list.count == 0) /* a list of nothing is a list too */
        list.tokens = malloc(sizeof *list.tokens);
    if (list.failed || !list.tokens || !text_ok(&mended))
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "no memory for the tokens of a text of %zu bytes", bytes));
    *tokens = list.tokens;
    *count = list.count;
    text_free(&mended);
    return CLSPLAT_OK;
fail:
    text_free(&mended);
    token_list_free(&list);
    return status;
}

/* Whether a space of the first piece belongs to the tokeniser. */
static void add_first(const tokenizer *t, text *to, const char *bytes, size_t count) {
    size_t i = 0;
    if (t->strip == STRIP_SPACE && count > 0 && bytes[0] == ' ')
        i = 1;
    if (t->strip == STRIP_SPACES)
        while (i < count && bytes[i] == ' ')
            ++i;
    for (; t->strip == STRIP_FIRST_SPACES && i < count; ++i)
        if (bytes[i] != ' ')
            text_add_bytes(to, bytes + i, 1);
    text_add_bytes(to, bytes + i, count - i);
}

/* Text before which `first` says that there is none yet. */
static clsplat_status decode(const tokenizer *t, const int32_t *tokens, size_t count, bool first,
                             char **words, size_t *bytes) {
    text to = {0};
    *words = NULL;
    *bytes = 0;
    if (t->kind->mute)
        return tokenizer_refuse(t);
    text_add(&to, "%s", "");
    for (size_t i = 0; i < count; ++i) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= t->vocabulary) {
            text_free(&to);
            return log_error(t->lib, CLSPLAT_INVALID, "token %" PRId32 " is not one of the vocabulary's %zu",
                             tokens[i], t->vocabulary);
        }
        const token_piece *piece = &t->pieces[tokens[i]];
        if (piece->special || piece->count == 0)
            continue;
        if (first && !piece->as_it_is)
            add_first(t, &to, t->bytes.data + piece->begin, piece->count);
        else
            text_add_bytes(&to, t->bytes.data + piece->begin, piece->count);
        first = first && t->strip == STRIP_SPACES && to.length == 0;
    }
    if (!text_ok(&to)) {
        text_free(&to);
        return log_error(t->lib, CLSPLAT_MEMORY, "no memory for the text of %zu tokens", count);
    }
    *words = to.data;
    *bytes = to.length;
    return CLSPLAT_OK;
}

clsplat_status tokenizer_decode(const tokenizer *t, const int32_t *tokens, size_t count, char **words,
                                size_t *bytes) {
    return decode(t, tokens, count, true, words, bytes);
}

clsplat_status tokenizer_decode_next(const tokenizer *t, int32_t previous, int32_t token, char **words,
                                     size_t *bytes) {
    bool first = previous < 0 || (t->begin.count > 0 && previous == t->begin.tokens[t->begin.count - 1]);
    return decode(t, &token, 1, first, words, bytes);
}

int32_t tokenizer_mask(const tokenizer *t) {
    static const char *const names[] = {"[MASK]", "<mask>"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !t->kind->mute; ++i) {
        token_list list = {0};
        int32_t token = -1;
        if (t->kind->encode(t, names[i], strlen(names[i]), true, &list) == CLSPLAT_OK && list.count == 1 &&
            t->pieces[list.tokens[0]].special)
            token = list.tokens[0];
        token_list_free(&list);
        if (token >= 0)
            return token;
    }
    return -1;
}
