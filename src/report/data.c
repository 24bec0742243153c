/* A story's rows for the script: bytes, not numbers in words, so that thousands of them fit a page. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/page.h"
#include "report/story.h"

/* Little endian, as the script reads it. */
static unsigned char *put(unsigned char *at, uint32_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
        *at++ = (unsigned char)(value >> 8 * i);
    return at;
}

static unsigned char *put_float(unsigned char *at, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put(at, bits, 4);
}

/* A share as a whole number of `steps`. */
static uint32_t steps_of(double share, double steps) {
    return (uint32_t)lround(fmin(fmax(share, 0), 1) * steps);
}

static size_t row_bytes(const look *l) {
    return 24 + 5 * l->top + LOOK_BLOCKS;
}

static unsigned char *put_row(unsigned char *at, const look *l, const look_row *r) {
    at = put(at, r->visible, 4);
    at = put(at, r->exact, 4);
    at = put_float(at, r->expected);
    at = put_float(at, r->actual);
    at = put(at, steps_of((double)r->own, 65535), 2);
    at = put(at, steps_of((double)r->apart, 65535), 2);
    at = put_float(at, r->entropy);
    for (size_t i = 0; i < l->top; ++i) {
        at = put(at, r->key[i], 3);
        at = put(at, steps_of((double)r->weight[i], 65535), 2);
    }
    for (size_t i = 0; i < LOOK_BLOCKS; ++i)
        at = put(at, steps_of(sqrt((double)r->blocks[i]), 255), 1);
    return at;
}

static void add_rows(const look *l, text *to) {
    size_t count = l->layers * l->heads * l->count;
    unsigned char *bytes = malloc(count * row_bytes(l) + 1), *at = bytes;
    if (!bytes) {
        to->failed = true;
        return;
    }
    for (size_t i = 0; i < count; ++i)
        at = put_row(at, l, &l->rows[i]);
    page_bytes(to, bytes, (size_t)(at - bytes));
    free(bytes);
}

/* A bit a key. */
static void add_apart(const look *l, text *to) {
    size_t count = l->layers * l->kv_heads * l->keys;
    unsigned char *bytes = calloc(count / 8 + 1, 1);
    if (!bytes) {
        to->failed = true;
        return;
    }
    for (size_t i = 0; i < count; ++i)
        bytes[i / 8] |= (unsigned char)(l->apart[i] << i % 8);
    page_bytes(to, bytes, count / 8 + 1);
    free(bytes);
}

/* Eighths of a bit. */
static void add_surprise(const story *s, text *to) {
    size_t count = s->look.keys;
    unsigned char *bytes = malloc(count + 1);
    if (!bytes) {
        to->failed = true;
        return;
    }
    for (size_t i = 0; i < count; ++i)
        bytes[i] = (unsigned char)lround(8 * fmin(fmax((double)s->surprise[i], 0), 31));
    page_bytes(to, bytes, count);
    free(bytes);
}

static void add_tokens(const story *s, text *to) {
    text_add(to, "[");
    for (size_t i = 0; i < s->look.keys; ++i) {
        if (i)
            text_add_bytes(to, i % 64 ? "," : ",\n", i % 64 ? 1 : 2);
        page_string(to, s->words.data + s->starts[i], s->starts[i + 1] - s->starts[i]);
    }
    text_add(to, "]");
}

enum { WALK_HEAD = 14, WALKS_ROOM = 1600000 };

static size_t walks_bytes(const look *l, size_t walks) {
    size_t bytes = 0;
    for (size_t i = 0; i < l->layers * l->heads; ++i)
        for (size_t w = 0; w < walks; ++w)
            bytes += WALK_HEAD + 2 * (size_t)look_walk_at(l, i / l->heads, i % l->heads, w)->count;
    return bytes;
}

static unsigned char *put_walk(unsigned char *at, const look_walk *w) {
    at = put_float(at, w->accepted);
    at = put(at, w->count, 4);
    at = put(at, w->keys, 4);
    at = put(at, w->highest, 2);
    for (size_t i = 0; i < w->count; ++i)
        at = put(at, w->nodes[i], 2);
    return at;
}

size_t story_walks(const look *l) {
    size_t walks = l->levels ? l->walked : 0;
    while (walks > 0 && walks_bytes(l, walks) > WALKS_ROOM)
        --walks;
    return walks;
}

/* As many walks of each head as there is room for. */
static void add_walks(const look *l, text *to) {
    size_t walks = story_walks(l);
    unsigned char *bytes = walks ? malloc(walks_bytes(l, walks)) : NULL, *at = bytes;
    if (!bytes) {
        to->failed = to->failed || walks > 0;
        return;
    }
    for (size_t i = 0; i < l->layers * l->heads; ++i)
        for (size_t w = 0; w < walks; ++w)
            at = put_walk(at, look_walk_at(l, i / l->heads, i % l->heads, w));
    text_add(to, ",\n\"top_level\":%zu,\"sizes\":[", l->top_level);
    for (size_t i = 0; i < l->levels; ++i)
        text_add(to, "%s%zu", i ? "," : "", l->sizes[i]);
    text_add(to, "],\"walked\":[");
    for (size_t i = 0; i < walks; ++i)
        text_add(to, "%s%u", i ? "," : "", (unsigned)l->walked_queries[i]);
    text_add(to, "],\n\"walks\":");
    page_bytes(to, bytes, (size_t)(at - bytes));
    free(bytes);
}

void story_data(const story *s, text *to) {
    enum { PAGE = 768 };
    const look *l = &s->look;
    text_add(
        to,
        "{\"layers\":%zu,\"heads\":%zu,\"kv_heads\":%zu,\"keys\":%zu,\"chunk\":%zu,\"causal\":%s,\"top\":%zu,"
        "\"blocks\":%d,\"page\":%d,\"tolerance\":%g,\n\"positions\":[",
        l->layers, l->heads, l->kv_heads, l->keys, l->chunk, l->causal ? "true" : "false", l->top,
        LOOK_BLOCKS, PAGE, isfinite(s->tolerance) ? (double)s->tolerance : 0);
    for (size_t i = 0; i < l->count; ++i)
        text_add(to, "%s%u", i ? "," : "", (unsigned)l->positions[i]);
    text_add(to, "],\n\"rows\":");
    add_rows(l, to);
    text_add(to, ",\n\"apart\":");
    add_apart(l, to);
    add_walks(l, to);
    if (s->surprise) {
        text_add(to, ",\n\"surprise\":");
        add_surprise(s, to);
    }
    if (s->starts) {
        text_add(to, ",\n\"tokens\":");
        add_tokens(s, to);
    }
    text_add(to, "}\n");
}
