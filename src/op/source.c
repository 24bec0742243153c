#include <assert.h>
#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "op/choose.h"
#include "runtime/program.h"

/* Bytes up to the end of the first `mark` from s + from on, or of the text. */
static size_t until(const char *s, size_t from, const char *mark) {
    const char *end = strstr(s + from, mark);
    return end ? (size_t)(end - s) + strlen(mark) : strlen(s);
}

/* Bytes at `s` that no compiler sees: blanks, continued lines, comments, marks of lines. 0 if a word begins
 * there. */
static size_t unseen(const char *s) {
    if (isspace((unsigned char)*s))
        return 1;
    if (strncmp(s, "\\\n", 2) == 0)
        return 2;
    if (strncmp(s, "/*", 2) == 0)
        return until(s, 2, "*/");
    if (strncmp(s, "//", 2) == 0)
        return until(s, 2, "\n");
    return strncmp(s, "#line ", 6) == 0 ? until(s, 6, "\n") : 0;
}

static size_t literal(const char *s) {
    size_t length = 1;
    while (s[length] && s[length] != *s)
        length += s[length] == '\\' && s[length + 1] ? 2 : 1;
    return length + (s[length] != 0);
}

static bool in_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* Length of the name, the number, the literal or the single sign at `s`. */
static size_t word(const char *s) {
    size_t length = 0;
    if (*s == '"' || *s == '\'')
        return literal(s);
    while (in_word(s[length]))
        ++length;
    return length ? length : 1;
}

uint64_t op_text_hash(const char *words) {
    uint64_t hash = 0;
    while (*words) {
        size_t length = unseen(words);
        if (!length) {
            length = word(words);
            hash = XXH3_64bits_withSeed(words, length, hash);
        }
        words += length;
    }
    return hash;
}

uint64_t op_source_hash(const op_variant *variant) {
    const char *words = variant->source ? program_source(variant->source) : "";
    assert(words);
    return op_text_hash(words);
}
