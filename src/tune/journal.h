/* What is being tried right now, on disk before it runs: if that stops the process or the machine, the next
 * run knows what not to try again. */
#ifndef CLSPLAT_TUNE_JOURNAL_H
#define CLSPLAT_TUNE_JOURNAL_H

#include "base/log.h"
#include "base/text.h"

typedef struct tune_journal {
    int descriptor;
} tune_journal;

/* One process at a time has it. *left is the line that a process before did not live to end; the caller frees
 * it. Returns: IO, also if another process tunes; MEMORY. */
clsplat_status tune_journal_open(clsplat *lib, const char *path, tune_journal *journal, text *left);
/* The line is on disk when this returns. Returns: IO. */
clsplat_status tune_journal_begin(clsplat *lib, const tune_journal *journal, const char *line);
void tune_journal_end(const tune_journal *journal);
/* Accepts one that was never opened: {-1}. */
void tune_journal_close(tune_journal *journal);

#endif
