/* Numbers as words, written as C writes them whatever locale the host program has set: a file or an option
 * says 0.5 also where people write 0,5. */
#ifndef CLSPLAT_BASE_NUMBER_H
#define CLSPLAT_BASE_NUMBER_H

#include "base/text.h"

/* As strtod in the C locale. Threads: any. */
double number_read(const char *words, char **end);
/* `format` is for one double, "%.6g". Threads: any. */
void number_add(text *t, const char *format, double number);

#endif
