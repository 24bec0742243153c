/* `clsplat report` in parts: what was asked for, and the stories of models and tensors. */
#ifndef CLSPLAT_CLI_MAKE_REPORT_H
#define CLSPLAT_CLI_MAKE_REPORT_H

#include "cli/language.h"
#include "report/story.h"

typedef struct report_request {
    language_request model;
    char *output, *rows, *scale; /* as given; NULL: not given */
    char *svg, *png, *which;     /* of a single picture */
    int causal, dark, tuning;
} report_request;

/* What a report is made of: one kind of story, and how to write it down. */
typedef struct report_kind {
    const page_drawing *drawings;
    size_t drawing_count;
    void (*page)(const void *of, text *to);
    json_t *(*numbers)(const void *of);
} report_kind;
/* Writes what was asked for: the page, a picture, and numbers or `line` for a person. */
clsplat_status report_deliver(cli *c, const report_request *r, const report_kind *kind, const void *of,
                              const char *line);

/* The queries of 0 … total − 1 that are looked at closely, rising: as --rows says, or spread over all, with
 * the last ones together, as many as a page of `heads` heads (over all layers) has room for. Ownership: *list
 * is the caller's. */
clsplat_status report_choose(cli *c, const char *rows, size_t total, size_t heads, uint32_t **list,
                             size_t *count);
/* Of each query's strongest keys, how many a page of so many heads shows. */
size_t report_top(size_t heads);

/* A model reads a text; and attention of q, k and v in a tensor file. Ownership: the story is the caller's,
 * also after a failure: story_free. */
clsplat_status report_model(cli *c, report_request *r, const char *model, const char *path, story *s);
clsplat_status report_tensors(cli *c, report_request *r, const char *path, story *s);

/* Sums up what was profiled. */
void report_count_kernels(story *s);

#endif
