/* A growing string. Running out of memory is remembered, not reported at every step: check
 * text_ok once at the end. */
#ifndef CLSPLAT_BASE_TEXT_H
#define CLSPLAT_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct text {
    char *data; /* NUL-terminated once anything was added; NULL before */
    size_t length, capacity;
    bool failed;
} text;

void text_add(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(text *t, const void *bytes, size_t count);
bool text_ok(const text *t);
void text_free(text *t);

/* A copy that the caller frees; NULL without memory. */
char *text_copy(const char *s);
/* Whether `part` occurs in `whole`, letters of either case alike (ASCII). */
bool text_contains(const char *whole, const char *part);

/* Words out of a file, fit for one line of a message: control characters and what is not ASCII become \xNN,
 * and what is cut after 100 characters or more ends in "...". Used as text_show(name).bytes within one
 * expression. */
typedef struct text_shown {
    char bytes[128];
} text_shown;
text_shown text_show(const char *words);

#endif
