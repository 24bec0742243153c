/* What a tuner tried, to look at: for each class of problems on a device the fastest candidate, those that
 * differ from it in one parameter, and all others. */
#ifndef CLSPLAT_REPORT_TUNING_STORY_H
#define CLSPLAT_REPORT_TUNING_STORY_H

#include <clsplat/status.h>
#include <jansson.h>

#include "report/page.h"
#include "tune/database.h"

/* A parameter's value of a candidate, out of its words. */
enum { TUNING_PARAMETERS = 8, TUNING_NAME = 24 };
typedef struct tuning_setting {
    char name[TUNING_NAME];
    double value;
} tuning_setting;

/* A candidate that could be timed, or was rejected (seconds INFINITY). */
typedef struct tuning_try {
    const tune_record *record;
    tuning_setting settings[TUNING_PARAMETERS];
    size_t count;
    size_t differs; /* in so many settings from the champion; SIZE_MAX: it is of another variant */
} tuning_try;

typedef struct tuning_group {
    tuning_try *tries; /* [count], the fastest first, the rejected last */
    size_t count, rejected;
    size_t champion; /* what calls use, by the user's records; otherwise the fastest; SIZE_MAX: none */
} tuning_group;

typedef struct tuning_story {
    char *title;
    tune_database tried, best;
    tuning_group *groups;
    size_t count;
} tuning_story;

/* `path`: a file of what was tried; NULL: the user's. Returns: IO, also if nothing has been tuned yet;
 * MEMORY. Ownership: the story is the caller's, also after a failure: tuning_story_free. */
clsplat_status tuning_story_load(clsplat *lib, const char *path, tuning_story *s);
void tuning_story_free(tuning_story *s);

void tuning_story_page(const void *story, text *to);
json_t *tuning_story_json(const void *story);
enum { TUNING_PICTURES = 3 };
extern const page_drawing tuning_pictures[TUNING_PICTURES]; /* of the first group */

/* tuning_page.c: its pictures. False: there is nothing to show. */
bool tuning_draw_landscape(const tuning_group *g, picture *p);
bool tuning_draw_neighbours(const tuning_group *g, picture *p);
bool tuning_draw_candidates(const tuning_group *g, picture *p);
void tuning_group_name(const tuning_group *g, char *words, size_t size);

#endif
