#include "tokenizer/added.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

bool added_add(added_list *list, const char *name, size_t bytes, added_token token) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        added_token *tokens = realloc(list->tokens, capacity * sizeof *tokens);
        if (!tokens)
            return false;
        list->tokens = tokens;
        list->capacity = capacity;
    }
    token.name = malloc(bytes + 1);
    token.bytes = bytes;
    if (!token.name)
        return false;
    memcpy(token.name, name, bytes);
    token.name[bytes] = '\0';
    list->tokens[list->count++] = token;
    return true;
}

added_token *added_has(const added_list *list, const char *name) {
    size_t bytes = strlen(name);
    for (size_t i = 0; i < list->count; ++i)
        if (list->tokens[i].bytes == bytes && memcmp(list->tokens[i].name, name, bytes) == 0)
            return &list->tokens[i];
    return NULL;
}

void added_free(added_list *list) {
    for (size_t i = 0; i < list->count; ++i)
        free(list->tokens[i].name);
    free(list->tokens);
    *list = (added_list){0};
}

static unsigned char first_of(const added_token *t) {
    return (unsigned char)t->name[0];
}

static int by_first_then_longest(const void *left, const void *right) {
    const added_token *a = left, *b = right;
    if (first_of(a) != first_of(b))
        return first_of(a) < first_of(b) ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes ? -1 : 1;
    return memcmp(a->name, b->name, a->bytes);
}

void added_sort(added_list *list) {
    if (list->count > 0)
        qsort(list->tokens, list->count, sizeof *list->tokens, by_first_then_longest);
    for (size_t byte = 0, i = 0; byte < 257; ++byte) {
        while (i < list->count && first_of(&list->tokens[i]) < byte)
            ++i;
        list->first[byte] = i;
    }
}

/* The longest token that begins here. */
static const added_token *find(const added_list *list, const char *words, size_t count) {
    unsigned char byte = (unsigned char)words[0];
    for (size_t i = list->first[byte]; i < list->first[byte + 1]; ++i) {
        const added_token *t = &list->tokens[i];
        if (t->bytes <= count && memcmp(t->name, words, t->bytes) == 0)
            return t;
    }
    return NULL;
}

/* The character that ends before `at`; −1 at the beginning. */
static int32_t code_before(const char *words, size_t at, size_t *begin) {
    int32_t code = -1;
    *begin = at;
    if (at > 0) {
        do
            --*begin;
        while (*begin > 0 && ((unsigned char)words[*begin] & 0xc0) == 0x80);
        utf8_next(words + *begin, at - *begin, &code);
    }
    return code;
}

static bool is_white(int32_t code) {
    if (code < 0x80)
        return code == ' ' || (code >= '\t' && code <= '\r');
    utf8proc_category_t c = utf8proc_category(code);
    return code == 0x85 || c == UTF8PROC_CATEGORY_ZS || c == UTF8PROC_CATEGORY_ZL ||
           c == UTF8PROC_CATEGORY_ZP;
}

static bool is_letter(int32_t code) {
    if (code < 0)
        return false;
    utf8proc_category_t c = utf8proc_category(code);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_ND) || c == UTF8PROC_CATEGORY_NL ||
           c == UTF8PROC_CATEGORY_PC || code == 0x200c || code == 0x200d;
}

static bool stands_alone(const char *words, size_t begin, size_t end, size_t count) {
    size_t unused;
    int32_t after = -1;
    if (end < count)
        utf8_next(words + end, count - end, &after);
    return !is_letter(code_before(words, begin, &unused)) && !is_letter(after);
}

static size_t white_begin(const char *words, size_t at) {
    for (size_t before; at > 0 && is_white(code_before(words, at, &before));)
        at = before;
    return at;
}

static size_t white_end(const char *words, size_t at, size_t count) {
    while (at < count) {
        int32_t code;
        size_t length = utf8_next(words + at, count - at, &code);
        if (!is_white(code))
            break;
        at += length;
    }
    return at;
}

clsplat_status added_walk(const added_list *list, const char *words, size_t count, bool special,
                          token_list *to, added_between *between, void *user) {
    clsplat_status status = CLSPLAT_OK;
    size_t done = 0;
    for (size_t at = 0; list->count > 0 && at < count;) {
        const added_token *t = find(list, words + at, count - at);
        if (!t) {
            ++at;
            continue;
        }
        size_t begin = at, end = at + t->bytes;
        at = end;
        if ((t->special && !special) || (t->single_word && !stands_alone(words, begin, end, count)))
            continue;
        if (t->left) {
            begin = white_begin(words, begin);
            begin = begin > done ? begin : done;
        }
        if (t->right)
            end = white_end(words, end, count);
        if (begin > done)
            TRY(between(user, done, begin));
        token_list_add(to, t->token);
        done = end > done ? end : done;
    }
    if (done < count)
        TRY(between(user, done, count));
fail:
    return status;
}
