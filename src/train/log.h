/* FOLDER/log.jsonl: a line of JSON for every report. Lines are added, and a line that cannot be is left out:
 * the log is for people and their plots. */
#ifndef CLSPLAT_TRAIN_LOG_H
#define CLSPLAT_TRAIN_LOG_H

#include <stdio.h>

#include "base/log.h"

struct train_report;

typedef struct train_log {
    FILE *file;
    double told; /* when there was a report last, by clock_seconds */
} train_log;

/* Returns: IO. */
clsplat_status train_log_open(clsplat *lib, const char *folder, train_log *log);
void train_log_add(train_log *log, const struct train_report *report);
/* Accepts a zeroed struct. */
void train_log_close(train_log *log);

#endif
