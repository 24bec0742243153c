#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `more` bytes and a NUL. */
static bool make_room(text *t, size_t more) {
    size_t needed = t->length + more + 1;
    if (t->failed || needed <= t->capacity)
        return !t->failed;
    size_t capacity = needed < 128 ? 128 : 2 * needed;
    char *data = realloc(t->data, capacity);
    if (!data) {
        t->failed = true;
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

void text_add_bytes(text *t, const void *bytes, size_t count) {
    if (!make_room(t, count))
        return;
    memcpy(t->data + t->length, bytes, count);
    t->length += count;
    t->data[t->length] = '\0';
}

void text_add(text *t, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int count = vsnprintf(NULL, 0, format, arguments);
    if (count < 0) {
        t->failed = true;
    } else if (make_room(t, (size_t)count)) {
        vsnprintf(t->data + t->length, (size_t)count + 1, format, again);
        t->length += (size_t)count;
    }
    va_end(again);
    va_end(arguments);
}

bool text_ok(const text *t) {
    return !t->failed;
}

void text_free(text *t) {
    free(t->data);
    *t = (text){0};
}

char *text_copy(const char *s) {
    return strdup(s);
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool begins_with(const char *whole, const char *part) {
    while (*part && lower(*whole) == lower(*part))
        ++whole, ++part;
    return !*part;
}

bool text_contains(const char *whole, const char *part) {
    do
        if (begins_with(whole, part))
            return true;
    while (*whole++);
    return false;
}

text_shown text_show(const char *words) {
    static const char digits[] = "0123456789abcdef", rest[] = "...";
    text_shown shown = {{0}};
    size_t length = 0, limit = sizeof shown.bytes - sizeof "\\xNN" - sizeof rest;
    for (; *words && length <= limit; ++words) {
        unsigned char c = (unsigned char)*words;
        if (c >= ' ' && c < 127) {
            shown.bytes[length++] = *words;
            continue;
        }
        const char escape[] = {'\\', 'x', digits[c >> 4], digits[c & 15]};
        memcpy(shown.bytes + length, escape, sizeof escape);
        length += sizeof escape;
    }
    if (*words)
        memcpy(shown.bytes + length, rest, sizeof rest);
    return shown;
}
