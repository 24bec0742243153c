/* Numbers as a line of blocks, as high as they are large, for whoever sits at a terminal. */
#ifndef CLSPLAT_CLI_SHOW_H
#define CLSPLAT_CLI_SHOW_H

#include <stddef.h>

#include "base/text.h"

enum { SHOW_WIDTH = 60 };

/* Adds "name least ▁▂▅█ most unit": each block the mean of its share of the numbers, which stay in their
 * order; the least of them is the lowest block. NaN is a blank. Nothing without numbers. */
void show_line(text *to, const char *name, const double *numbers, size_t count, const char *unit);

#endif
