#include "base/number.h"

#include <locale.h>
#include <stdlib.h>

/* The C locale is a constant of the C library: asking for it takes no memory, and cannot fail. */
static locale_t plain(void) {
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

double number_read(const char *words, char **end) {
    locale_t c = plain();
    double number = c ? strtod_l(words, end, c) : strtod(words, end);
    if (c)
        freelocale(c);
    return number;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
void number_add(text *t, const char *format, double number) {
    locale_t c = plain(), before = c ? uselocale(c) : (locale_t)0;
    text_add(t, format, number);
    if (c) {
        uselocale(before);
        freelocale(c);
    }
}
#pragma GCC diagnostic pop
