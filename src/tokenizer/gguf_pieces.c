#include "tokenizer/gguf_pieces.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* As tokenizer.ggml.token_type counts. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };
enum {
    MERGED_LIMIT = 256
}; /* bytes of a token that merges are looked for in; real ones have up to 64 or so */

clsplat_status pieces_refuse(const pieces *p, clsplat_status status, const char *key, const char *format,
                             ...) {
    char problem[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    return log_error(p->lib, status, "%s: key '%s' %s", gguf_path(p->file), key, problem);
}

/* A list with an entry for each token, or nothing. */
static clsplat_status find_list(const pieces *p, const char *key, const gguf_value **list) {
    *list = gguf_find(p->file, key);
    if (*list && (!(*list)->is_array || (*list)->kind == GGUF_STRING || (*list)->count != p->count))
        return pieces_refuse(p, CLSPLAT_FORMAT, key, "must be a list of %zu numbers, one per token",
                             p->count);
    return CLSPLAT_OK;
}

clsplat_status pieces_read(pieces *p) {
    clsplat_status status = CLSPLAT_OK;
    static const char key[] = "tokenizer.ggml.tokens";
    const gguf_value *names = gguf_find(p->file, key);
    size_t at = 0;
    if (!names || !names->is_array || names->kind != GGUF_STRING || names->count == 0 ||
        names->count > INT32_MAX)
        return pieces_refuse(p, CLSPLAT_FORMAT, key, "must be a list of strings");
    p->count = names->count;
    p->names = calloc(p->count, sizeof *p->names);
    if (!p->names)
        return log_error(p->lib, CLSPLAT_MEMORY, "%s: no memory for its tokens", gguf_path(p->file));
    for (size_t i = 0; i < p->count && gguf_next(names, &at, &p->names[i]); ++i)
        if (memchr(p->names[i].bytes, '\0', p->names[i].count))
            return pieces_refuse(p, CLSPLAT_FORMAT, key, "has a NUL in entry %zu", i);
    TRY(find_list(p, "tokenizer.ggml.token_type", &p->types));
    TRY(find_list(p, "tokenizer.ggml.scores", &p->scores));
fail:
    return status;
}

void pieces_free(pieces *p) {
    free(p->names);
    p->names = NULL;
}

static uint64_t type_of(const pieces *p, size_t token) {
    uint64_t type = NORMAL;
    gguf_whole(p->types, token, &type);
    return type;
}

static clsplat_status no_memory(const pieces *p, const char *what) {
    return log_error(p->lib, CLSPLAT_MEMORY, "%s: no memory for its %s", gguf_path(p->file), what);
}

/* Control tokens are special; the user's own are found in texts, too, but written like others. */
static clsplat_status add_piece(const pieces *p, size_t token, json_t *vocabulary, json_t *added) {
    const gguf_words name = p->names[token];
    uint64_t type = type_of(p, token);
    bool is_added = (type == CONTROL || type == USER_DEFINED);
    if (name.count == 0)
        return CLSPLAT_OK;
    json_t *words = json_stringn(name.bytes, name.count);
    if (!words)
        return pieces_refuse(p, CLSPLAT_FORMAT, "tokenizer.ggml.tokens", "has entry %zu that is not UTF-8",
                             token);
    if (json_object_get(vocabulary, json_string_value(words))) {
        json_decref(words);
        if (type == UNUSED)
            return CLSPLAT_OK; /* what pads a vocabulary may be of one name */
        return pieces_refuse(p, CLSPLAT_FORMAT, "tokenizer.ggml.tokens",
                             "has entry %zu, which an earlier one is, too", token);
    }
    int failed =
        json_object_set_new(vocabulary, json_string_value(words), json_integer((json_int_t)token)) != 0;
    if (is_added)
        failed |=
            json_array_append_new(added, json_pack("{s:I,s:O,s:b,s:b}", "id", (json_int_t)token, "content",
                                                   words, "special", type == CONTROL, "normalized", 0)) != 0;
    json_decref(words);
    return failed ? no_memory(p, "tokens") : CLSPLAT_OK;
}

clsplat_status pieces_vocabulary(const pieces *p, json_t *vocabulary, json_t *added) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0; i < p->count; ++i)
        TRY(add_piece(p, i, vocabulary, added));
fail:
    return status;
}

clsplat_status pieces_merges(const pieces *p, json_t *merges) {
    static const char key[] = "tokenizer.ggml.merges";
    const gguf_value *list = gguf_find(p->file, key);
    gguf_words words;
    size_t at = 0;
    if (!list || !list->is_array || list->kind != GGUF_STRING)
        return pieces_refuse(p, CLSPLAT_FORMAT, key, "must be a list of strings");
    while (gguf_next(list, &at, &words)) {
        json_t *merge = json_stringn(words.bytes, words.count);
        if (!merge)
            return pieces_refuse(p, CLSPLAT_FORMAT, key, "has entry %zu that is not UTF-8",
                                 json_array_size(merges));
        if (json_array_append_new(merges, merge) != 0)
            return no_memory(p, "merges");
    }
    return CLSPLAT_OK;
}

/* Two tokens that make a third, in the order in which they are to be joined. */
typedef struct merge {
    double score;
    json_int_t left, right;
    size_t left_letters, right_letters, order;
} merge;

typedef struct merge_list {
    merge *list;
    size_t count, capacity;
} merge_list;

static bool add_merge(merge_list *m, merge one) {
    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? 2 * m->capacity : 1024;
        merge *list = realloc(m->list, capacity * sizeof *list);
        if (!list)
            return false;
        m->list = list;
        m->capacity = capacity;
    }
    one.order = m->count;
    m->list[m->count++] = one;
    return true;
}

static int descending(double a, double b) {
    return (a < b) - (a > b);
}

/* The best scores first; of equal ones the longer left part, then the longer right part, then as they were
 * found. */
static int by_score(const void *left, const void *right) {
    const merge *a = left, *b = right;
    int order = descending(a->score, b->score);
    if (order == 0)
        order = descending((double)a->left_letters, (double)b->left_letters);
    if (order == 0)
        order = descending((double)a->right_letters, (double)b->right_letters);
    return order ? order : (a->order > b->order) - (a->order < b->order);
}

static size_t letters_in(const char *bytes, size_t count) {
    size_t letters = 0;
    for (size_t i = 0; i < count; ++i)
        letters += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return letters;
}

/* Every way to make the token out of two others. */
static bool add_merges_of(const pieces *p, const json_t *vocabulary, size_t token, merge_list *to) {
    const gguf_words name = p->names[token];
    merge one = {0};
    if (name.count > MERGED_LIMIT || type_of(p, token) == CONTROL ||
        !gguf_number(p->scores, token, &one.score) || one.score != one.score)
        return true;
    for (size_t i = 1; i < name.count; ++i) {
        if (((unsigned char)name.bytes[i] & 0xc0) == 0x80)
            continue;
        const json_t *left = json_object_getn(vocabulary, name.bytes, i);
        const json_t *right = left ? json_object_getn(vocabulary, name.bytes + i, name.count - i) : NULL;
        if (!right)
            continue;
        one.left = json_integer_value(left);
        one.right = json_integer_value(right);
        one.left_letters = letters_in(name.bytes, i);
        one.right_letters = letters_in(name.bytes + i, name.count - i);
        if (!add_merge(to, one))
            return false;
    }
    return true;
}

clsplat_status pieces_scored_merges(const pieces *p, const json_t *vocabulary, json_t *merges) {
    merge_list list = {0};
    bool enough = true;
    if (!p->scores)
        return pieces_refuse(p, CLSPLAT_FORMAT, "tokenizer.ggml.scores", "is missing");
    for (size_t i = 0; enough && i < p->count; ++i)
        enough = add_merges_of(p, vocabulary, i, &list);
    if (enough && list.count > 0)
        qsort(list.list, list.count, sizeof *list.list, by_score);
    for (size_t i = 0; enough && i < list.count; ++i) {
        const gguf_words *left = &p->names[list.list[i].left], *right = &p->names[list.list[i].right];
        enough = json_array_append_new(merges, json_pack("[o,o]", json_stringn(left->bytes, left->count),
                                                         json_stringn(right->bytes, right->count))) == 0;
    }
    free(list.list);
    return enough ? CLSPLAT_OK : no_memory(p, "merges");
}
