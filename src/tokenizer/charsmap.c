#include "tokenizer/charsmap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

enum { CLUSTER_LIMIT = 6 }; /* bytes: longer ones are looked up character by character */

struct charsmap {
    unsigned char *bytes; /* the whole table */
    const unsigned char *units;
    uint32_t unit_count;
    const char *strings;
    size_t string_bytes; /* the last is NUL */
};

static int digit_of(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Returns: the number of bytes; SIZE_MAX if the text is not base64. */
static size_t decode(const char *base64, size_t count, unsigned char *to) {
    size_t made = 0;
    uint32_t bits = 0;
    while (count > 0 && base64[count - 1] == '=')
        --count;
    for (size_t i = 0; i < count; ++i) {
        int digit = digit_of(base64[i]);
        if (digit < 0)
            return SIZE_MAX;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0)
            to[made++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    return made;
}

static uint32_t unit_at(const unsigned char *units, uint32_t i) {
    const unsigned char *u = units + 4 * (size_t)i;
    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static const char *parse(charsmap *map, size_t bytes) {
    if (bytes < 4)
        return "is too short";
    uint32_t size = unit_at(map->bytes, 0);
    if (size == 0 || size % 4 != 0 || size > bytes - 4)
        return "has a trie longer than itself";
    map->units = map->bytes + 4;
    map->unit_count = size / 4;
    map->strings = (const char *)map->units + size;
    map->string_bytes = bytes - 4 - size;
    return map->string_bytes > 0 && map->strings[map->string_bytes - 1] == '\0'
               ? NULL
               : "has strings that do not end";
}

charsmap *charsmap_read(const char *base64, const char **wrong) {
    size_t count = strlen(base64);
    charsmap *map = calloc(1, sizeof *map);
    *wrong = NULL;
    if (!map || !(map->bytes = malloc(count + 1))) {
        charsmap_free(map);
        return NULL;
    }
    size_t bytes = decode(base64, count, map->bytes);
    *wrong = bytes == SIZE_MAX ? "is not base64" : parse(map, bytes);
    if (*wrong)
        charsmap_free(map);
    return *wrong ? NULL : map;
}

void charsmap_free(charsmap *map) {
    if (!map)
        return;
    free(map->bytes);
    free(map);
}

/* What the shortest beginning of the words that the trie has is replaced by; NULL: it has none. Where a
 * damaged trie leads out of itself there is nothing either. */
static const char *replacement(const charsmap *map, const char *words, size_t count) {
    uint32_t unit = unit_at(map->units, 0), at = (unit >> 10) << ((unit & (1u << 9)) >> 6);
    for (size_t i = 0; i < count && words[i]; ++i) {
        uint32_t byte = (unsigned char)words[i];
        at ^= byte;
        if (at >= map->unit_count)
            return NULL;
        unit = unit_at(map->units, at);
        if ((unit & ((1u << 31) | 0xff)) != byte)
            return NULL;
        at ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
        if (!((unit >> 8) & 1))
            continue;
        uint32_t found = at < map->unit_count ? unit_at(map->units, at) & 0x7fffffff : UINT32_MAX;
        return found < map->string_bytes ? map->strings + found : NULL;
    }
    return NULL;
}

/* Bytes of the cluster that begins the words: what a reader takes for one character. */
static size_t cluster(const char *words, size_t count) {
    utf8proc_int32_t state = 0;
    int32_t last, code;
    size_t at = utf8_next(words, count, &last);
    for (size_t length; at < count; at += length, last = code) {
        length = utf8_next(words + at, count - at, &code);
        if (last < 0 || code < 0 || utf8proc_grapheme_break_stateful(last, code, &state))
            return at;
    }
    return at;
}

/* Strings are places in a file's table, which may be in the middle of a character; what follows takes UTF-8
 * for granted. */
static void add(text *to, const char *by) {
    utf8_add_mended(to, by, strlen(by));
}

static void apply_each(const charsmap *map, const char *words, size_t count, text *to) {
    int32_t code;
    for (size_t at = 0, length; at < count; at += length) {
        length = utf8_next(words + at, count - at, &code);
        const char *by = replacement(map, words + at, length);
        if (by)
            add(to, by);
        else
            text_add_bytes(to, words + at, length);
    }
}

void charsmap_apply(const charsmap *map, const char *words, size_t count, text *to) {
    for (size_t at = 0, length; at < count; at += length) {
        length = cluster(words + at, count - at);
        const char *by = length < CLUSTER_LIMIT ? replacement(map, words + at, length) : NULL;
        if (by)
            add(to, by);
        else
            apply_each(map, words + at, length, to);
    }
}
