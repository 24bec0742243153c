#include "format/json_text.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

enum { ESCAPE = 6 }; /* \uXXXX */

/* The text not yet read. */
typedef struct reader {
    const char *at, *end;
    text *to;
} reader;

static size_t left(const reader *r) {
    return (size_t)(r->end - r->at);
}

static bool begins(const reader *r, const char *word) {
    return left(r) >= strlen(word) && memcmp(r->at, word, strlen(word)) == 0;
}

static void copy(reader *r, size_t count) {
    text_add_bytes(r->to, r->at, count);
    r->at += count;
}

static void replace(reader *r, size_t count, const char *by) {
    text_add_bytes(r->to, by, strlen(by));
    r->at += count;
}

/* The code of \uXXXX; −1 if there is none. */
static long escaped_code(const char *at, const char *end) {
    char digits[5] = {0}, *rest;
    if (end - at < ESCAPE || at[0] != '\\' || at[1] != 'u')
        return -1;
    memcpy(digits, at + 2, 4);
    long code = strtol(digits, &rest, 16);
    return rest == digits + 4 && digits[0] != '-' && digits[0] != '+' && digits[0] != ' ' ? code : -1;
}

static bool is_half(long code, long first) {
    return code >= first && code < first + 0x400;
}

static void mend_escape(reader *r) {
    long code = escaped_code(r->at, r->end);
    if (code == 0)
        replace(r, ESCAPE, JSON_NUL);
    else if (is_half(code, 0xd800) && is_half(escaped_code(r->at + ESCAPE, r->end), 0xdc00))
        copy(r, 2 * ESCAPE);
    else if (is_half(code, 0xd800) || is_half(code, 0xdc00))
        replace(r, ESCAPE, "\\ufffd");
    else
        copy(r, left(r) < 2 ? left(r) : 2);
}

static void mend_string(reader *r) {
    copy(r, 1);
    while (r->at < r->end) {
        size_t plain = 0;
        while (plain < left(r) && r->at[plain] != '"' && r->at[plain] != '\\')
            ++plain;
        copy(r, plain);
        if (begins(r, "\"")) {
            copy(r, 1);
            return;
        }
        if (r->at < r->end)
            mend_escape(r);
    }
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_infinite(const char *number) {
    return isinf(number_read(number, NULL));
}

static bool is_beyond_64_bits(const char *number) {
    errno = 0;
    strtoll(number, NULL, 10);
    return errno == ERANGE;
}

/* Most numbers are too short to be too large. */
static void mend_number(reader *r) {
    enum { SAFE_DIGITS = 18, SAFE_REAL = 300 };
    size_t length = 1;
    bool point = false, exponent = false;
    for (; length < left(r) && (is_digit(r->at[length]) || strchr("+-.eE", r->at[length])) && r->at[length];
         ++length) {
        point = point || r->at[length] == '.';
        exponent = exponent || (r->at[length] | 32) == 'e';
    }
    bool safe = !exponent && length <= (point ? SAFE_REAL : SAFE_DIGITS);
    char *number = safe ? NULL : strndup(r->at, length);
    if (number && is_infinite(number)) {
        replace(r, length, number[0] == '-' ? "\"-Infinity\"" : "\"Infinity\"");
    } else {
        copy(r, length);
        text_add(r->to, "%s", number && !point && !exponent && is_beyond_64_bits(number) ? ".0" : "");
    }
    free(number);
}

static void mend_number_or_word(reader *r) {
    static const char *const words[][2] = {
        {"NaN", "\"NaN\""}, {"Infinity", "\"Infinity\""}, {"-Infinity", "\"-Infinity\""}};
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
        if (begins(r, words[i][0])) {
            replace(r, strlen(words[i][0]), words[i][1]);
            return;
        }
    if (*r->at == 'N' || *r->at == 'I')
        copy(r, 1);
    else
        mend_number(r);
}

/* Whether something begins here that may have to be mended. */
static bool is_stop(char c, json_numbers numbers) {
    return c == '"' || (numbers == JSON_NUMBERS_PYTHON && (c == '-' || c == 'N' || c == 'I' || is_digit(c)));
}

void json_text_mend(const char *bytes, size_t count, json_numbers numbers, text *to) {
    reader r = {bytes, bytes + count, to};
    text_add(to, "%s", ""); /* a text of nothing is a text */
    if (begins(&r, "\xef\xbb\xbf"))
        r.at += 3;
    while (r.at < r.end) {
        size_t plain = 0;
        while (plain < left(&r) && !is_stop(r.at[plain], numbers))
            ++plain;
        copy(&r, plain);
        if (begins(&r, "\""))
            mend_string(&r);
        else if (r.at < r.end)
            mend_number_or_word(&r);
    }
}

static json_t *load(clsplat *lib, const char *path, const text *mended, json_error_t *error) {
    json_t *root = json_loadb(mended->data, mended->length, JSON_REJECT_DUPLICATES, error);
    if (root || json_error_code(error) != json_error_duplicate_key)
        return root;
    json_error_t first = *error;
    root = json_loadb(mended->data, mended->length, 0, error);
    if (root)
        log_warning(lib, "%s:%d: %s: a key is there twice; the last value counts", path, first.line,
                    text_show(first.text).bytes);
    return root;
}

clsplat_status json_text_read(clsplat *lib, const char *path, const char *bytes, size_t count,
                              json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    json_error_t error;
    text mended = {0};
    *root = NULL;
    json_text_mend(bytes, count, JSON_NUMBERS_PYTHON, &mended);
    if (!text_ok(&mended))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory to read it", path));
    *root = load(lib, path, &mended, &error);
    /* Jansson 2.14 has no words for it in most places. */
    if (!*root && (json_error_code(&error) == json_error_out_of_memory || !error.text[0]))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory to read it", path));
    if (!*root)
        TRY(log_error(lib, CLSPLAT_FORMAT, "%s:%d:%d: cannot be read as JSON: %s", path, error.line,
                      error.column, text_show(error.text).bytes));
fail:
    text_free(&mended);
    return status;
}

size_t json_text_restore(char *words, size_t length) {
    const size_t stand_in = strlen(JSON_NUL);
    char *to = words, *at = words, *end = words + length;
    for (char *found; (found = memmem(at, (size_t)(end - at), JSON_NUL, stand_in)); at = found + stand_in) {
        memmove(to, at, (size_t)(found - at));
        to += found - at;
        *to++ = '\0';
    }
    memmove(to, at, (size_t)(end - at) + 1);
    return (size_t)(to - words) + (size_t)(end - at);
}
