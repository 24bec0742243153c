/* The splats of one key head of a splat layer, and how they adapt to keys that were seen, without a target:
 * what is raised is the coverage of the keys.
 *
 *     coverage of key j    c_j = max_s φ_s(y_j), 0 at the middle of a splat     error of the head    −Σ_j w_j
 * c_j
 *
 * A decision frees a place (a death, or a merge of the nearest pair) and fills it (a birth at a key that is
 * covered worst, or the mitosis of a splat that covers its keys badly); it is made if the error falls by more
 * than least_gain of itself, and the number of splats stays. Amplitudes: of a birth that of the nearest
 * splat; a merge adds, a mitosis halves. Nothing is drawn: the same keys give the same bits.
 *
 * Splats are as in adapt/moments.h, diagonal, ln τ = 0. Threads: any, one at a time per colony. */
#ifndef CLSPLAT_MODEL_COLONY_H
#define CLSPLAT_MODEL_COLONY_H

#include <clsplat/adapt.h>

#include "adapt/population.h"
#include "model/config.h"

enum {
    COLONY_BIRTHS = 4,               /* that are weighed for a decision */
    COLONY_FRESH = COLONY_BIRTHS + 3 /* and two children, and what a merge becomes */
};

typedef struct colony {
    clsplat *lib;
    splat_form form;
    size_t splats, samples;
    const float *features; /* of key j: [y, y²] at j·pitch; the caller's */
    size_t pitch;
    const float *weight;                          /* [samples], sum 1; the caller's */
    size_t recent;                                /* samples from which on keys are new ones */
    double *splat;                                /* [S][form.numbers] */
    splat_life *life;                             /* [S] */
    uint64_t *named;                              /* numbers given so far; the caller's */
    bool *changed;                                /* [S] */
    float *reach;                                 /* [S][samples]: φ */
    float *best, *second;                         /* [samples] */
    size_t *nearest;                              /* [samples] */
    double *use, *entropy, *leave_one_out, *cost; /* [S] */
    float *share;                                 /* [S]: of one key */
    float *g;                                     /* [2·D]: one splat's features */
    float *fresh;                                 /* [COLONY_FRESH][samples]: φ of what might come */
} colony;

/* Room for the colony; splat and life are the caller's to fill in. Returns: MEMORY. Ownership: the caller's,
 * also after a failure, for colony_close. */
clsplat_status colony_open(clsplat *lib, size_t splats, size_t dim, size_t samples, colony *c);
void colony_close(colony *c);

/* From and to the parameters of a head: mean, log_precision [S,D], log_amplitude [S]. */
void colony_take(colony *c, const float *mean, const float *log_precision, const float *log_amplitude);
void colony_give(const colony *c, float *mean, float *log_precision, float *log_amplitude);

/* One cycle. `like` has the event's layer, head and cycle; the listener may be NULL. Writes: *made, decisions
 * that were kept; before and after, the head's error. */
typedef struct colony_result {
    size_t made;
    double before, after;               /* error */
    double recent_before, recent_after; /* mean c of the new keys */
} colony_result;
colony_result colony_adapt(colony *c, const model_adaptation *how, const clsplat_adapt_event *like,
                           clsplat_adapt_listener *listener, void *user);

/* −Σ w c of the keys, after everything has been measured. */
double colony_error(colony *c);

/* Within the floor. φ of a splat at all keys; best, second and nearest from reach; −Σ w best; use, entropy
 * and leave_one_out from reach. */
double *colony_splat(const colony *c, size_t s);
void colony_log_density(const colony *c, const double *splat, float *reach);
void colony_find_best(colony *c);
double colony_error_now(const colony *c);
void colony_find_use(colony *c);

#endif
