/* A splat set to look at: where its splats are on the two principal axes of their means, and which belong
 * together. */
#ifndef CLSPLAT_REPORT_SPLATS_STORY_H
#define CLSPLAT_REPORT_SPLATS_STORY_H

#include <clsplat/splats.h>
#include <jansson.h>

#include "report/page.h"

/* One splat of one head. */
typedef struct splat_view {
    double x, y; /* its mean on the axes */
    double wide,
        high; /* half axes of the ellipse of one deviation, its temperature included, and the wide one's */
    double angle;       /* angle */
    double share;       /* of the head's amplitude */
    double temperature; /* τ */
    double width;       /* root of the mean variance of a dimension */
    size_t parent;      /* the splat of the next coarser level whose mean is nearest; SIZE_MAX: none */
} splat_view;

typedef struct splats_story {
    char *title;
    clsplat_splats_parameters p; /* of a set that must outlive the story */
    splat_view *views;           /* [Hs][S] */
    double *explained;           /* [Hs]: of the variance of the means, what the axes show */
} splats_story;

/* Returns: MEMORY. Ownership: the story is the caller's, to be given to splats_story_free. */
clsplat_status splats_story_create(clsplat *lib, clsplat_splats *splats, const char *title, splats_story *s);
void splats_story_free(splats_story *s);
splat_view *splats_story_at(const splats_story *s, size_t head, size_t splat);
/* What the level adds up to, over all heads. */
typedef struct splat_level {
    size_t count;
    double weight, share, width, temperature; /* share: of the amplitude, times the weight, of all levels */
} splat_level;
splat_level splats_story_level(const splats_story *s, size_t level);

void splats_story_page(const void *story, text *to);
json_t *splats_story_json(const void *story);
enum { SPLATS_PICTURES = 3 };
extern const page_drawing splats_pictures[SPLATS_PICTURES];

#endif
