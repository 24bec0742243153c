/* What became of splats, as lines of JSON in a file that can be read while it grows: a line a decision
 * (births and parents by the numbers in "from" and "to", ages in cycles), and after each cycle one with its
 * counts and the lifetimes of those that ended in it. */
#ifndef CLSPLAT_CLI_HISTORY_H
#define CLSPLAT_CLI_HISTORY_H

#include <clsplat/adapt.h>
#include <stdio.h>

enum { HISTORY_LINES = 200000 }; /* about 60 MB; later decisions are counted and not told */

typedef struct history_cycle {
    size_t kept[CLSPLAT_DECISIONS], undone[CLSPLAT_DECISIONS], ended, age;
    unsigned oldest;
} history_cycle;

typedef struct history {
    clsplat *lib;
    FILE *file;
    const char *path;
    const char *const *levels; /* NULL: of a model, whose layers are told instead */
    unsigned cycle;            /* 0: none yet */
    history_cycle now;
    size_t lines, untold;
    bool failed;
} history;

/* Begins the file anew, or with `more` goes on behind what it has. Returns: IO. */
clsplat_status history_open(clsplat *lib, const char *path, const char *const *levels, bool more, history *h);
clsplat_adapt_listener history_add;
/* A line that says that nothing of what was told was kept, for what ended before it was done. */
void history_fail(history *h);
/* The last line: how many were not told, if any. Returns: IO if a line did not reach the file. */
clsplat_status history_end(history *h);
void history_close(history *h);

#endif
