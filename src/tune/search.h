/* The search for the fastest point of a few spaces. It sees nothing but a callback that times one candidate.
 *
 * What is known already goes first, then the default of every row, a few random points, and from the best of
 * each promising row a descent: one parameter at a time over all its values, until no change helps. A
 * candidate takes the champion's place only if it is more than TUNE_MARGIN faster twice in a row, each time
 * by the minimum of several timings taken in turns with the champion's. */
#ifndef CLSPLAT_TUNE_SEARCH_H
#define CLSPLAT_TUNE_SEARCH_H

#include "base/log.h"
#include "tune/space.h"

#define TUNE_MARGIN 0.03

/* A point of the space of a row of an operation's table. */
typedef struct tune_candidate {
    size_t row, index;
} tune_candidate;

typedef struct tune_result {
    tune_candidate best;
    double seconds; /* of the best; INFINITY: there is none yet */
    double first;   /* of the first candidate that could be timed */
    size_t tried, rejected;
} tune_result;

enum { TUNE_ROWS = 16 };

typedef struct tune_search {
    size_t rows;                         /* at most TUNE_ROWS */
    const tune_space *spaces[TUNE_ROWS]; /* NULL: the row is left out */
    const clsplat_limits *limits;
    const tune_candidate *known;
    size_t known_count;
    double seconds;    /* no new candidate after that long, once there is a champion */
    size_t candidates; /* and no more than this many */
    bool exhaustive;   /* every point in the end, as far as the two allow */
    uint64_t seed;
    void *user; /* of evaluate */
    /* One timing of a candidate in seconds; INFINITY rejects it for good. */
    double (*evaluate)(void *user, tune_candidate candidate);
    /* Before each candidate, and in the end; a failure stops the search. */
    void *listener; /* of report */
    clsplat_status (*report)(void *listener, const tune_result *so_far);
    /* In the end, however it ends, of each candidate: the least of its timings; INFINITY: it was rejected.
     * NULL: nobody listens. */
    void (*tried)(void *listener, tune_candidate candidate, double seconds);
} tune_search;

/* Returns: MEMORY, or what `report` returned; *result is what was found so far, in any case. */
clsplat_status tune_search_run(clsplat *lib, const tune_search *search, tune_result *result);

#endif
