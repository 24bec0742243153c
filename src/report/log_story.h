/* Logs of JSON lines to look at: of training (`clsplat train`), and of splats that adapt (`clsplat adapt
 * --history`). */
#ifndef CLSPLAT_REPORT_LOG_STORY_H
#define CLSPLAT_REPORT_LOG_STORY_H

#include <clsplat/status.h>
#include <jansson.h>

#include "report/page.h"

typedef struct log_story {
    char *title;
    json_t *lines;  /* objects */
    size_t damaged; /* lines that were none, as the last one of a log that is being written */
    bool history;   /* of adaptation; otherwise of training */
} log_story;

/* Reads a file of up to 256 MiB. Returns: IO, FORMAT if no line is an object of either kind, MEMORY.
 * Ownership: the story is the caller's, also after a failure: log_story_free. */
clsplat_status log_story_load(clsplat *lib, const char *path, const char *title, log_story *s);
void log_story_free(log_story *s);

void log_story_page(const void *story, text *to);
json_t *log_story_json(const void *story);
enum { TRAINING_PICTURES = 4, HISTORY_PICTURES = 2 };
extern const page_drawing training_pictures[TRAINING_PICTURES], history_pictures[HISTORY_PICTURES];

#endif
