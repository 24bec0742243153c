/* What became of splats, as lines of JSON in a file that can be read while it grows. */
#ifndef CLSPLAT_CLI_HISTORY_H
#define CLSPLAT_CLI_HISTORY_H

#include <clsplat/adapt.h>
#include <stdio.h>

enum { HISTORY_LINES = 200000 }; /* about 60 MB; later decisions are counted and not told */

typedef struct history {
    clsplat *lib;
    FILE *file;
    const char *path;
    const char *const *levels;
    size_t lines, untold;
    bool failed;
} history;

/* Begins the file anew. Returns: IO. */
clsplat_status history_open(clsplat *lib, const char *path, const char *const *levels, history *h);
clsplat_adapt_listener history_add;
/* The last line: how many were not told, if any. Returns: IO if a line did not reach the file. */
clsplat_status history_end(history *h);
void history_close(history *h);

#endif
