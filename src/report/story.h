/* What a report tells of a run: filled by the command, written as a page or as pictures. */
#ifndef CLSPLAT_REPORT_STORY_H
#define CLSPLAT_REPORT_STORY_H

#include <clsplat/device.h>
#include <jansson.h>

#include "picture/picture.h"
#include "report/look.h"
#include "report/page.h"

enum { STORY_PARTS = 6 };

typedef struct story {
    char *title, *what; /* of any kind */
    look look;
    const char *layer_word; /* "layer", or "batch entry" */
    float tolerance;
    /* The text, if there is one: token i is words [starts[i], starts[i+1]). */
    text words;
    size_t *starts;       /* [tokens + 1] */
    float *surprise;      /* [tokens]: in bits, of each token after those before it; NULL: unknown */
    double bits_per_byte; /* NaN: unknown */
    /* What the run cost. */
    double seconds, look_seconds, kernel_seconds;
    double visible, exact; /* keys, over all of its rows; 0: unknown */
    clsplat_profile_row *kernels;
    size_t kernel_count;
    struct {
        const char *name;
        uint64_t bytes;
    } memory[STORY_PARTS]; /* until a part without a name */
    uint64_t peak;
    char device[256];
} story;

/* Accepts a zeroed story. */
void story_free(story *s);

/* The page. */
void story_page(const void *of, text *to);
/* The numbers of the page. NULL without memory. */
json_t *story_json(const void *of);
/* data.c: what the page's script reads, as JSON. */
void story_data(const story *s, text *to);
/* Of how many queries it has the walks. */
size_t story_walks(const look *l);
/* walk_story.c: the page's part about walks, its picture, and its numbers. */
void story_add_walks(const story *s, text *to);
bool story_draw_walk(const void *of, picture *p);
json_t *story_walks_json(const look *l);

/* Of a story. */
enum { STORY_PICTURES = 8 };
extern const page_drawing story_pictures[STORY_PICTURES];

#endif
