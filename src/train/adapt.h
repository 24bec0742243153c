/* Splats that adapt while a model learns, by adaptation.* of its configuration: every so many steps a cycle
 * of model/colony.h in every key head, over keys of windows that have not been learned from yet. What each
 * head's decisions do to the loss of these windows is measured; if it rises they are undone. New
 * splats begin with moments of 0. Hunger is that of one cycle, so that a run that was interrupted goes on
 * with the same bits. */
#ifndef CLSPLAT_TRAIN_ADAPT_H
#define CLSPLAT_TRAIN_ADAPT_H

#include <clsplat/adapt.h>

#include "adapt/population.h"
#include "train/pass.h"

typedef struct train_adapting {
    const trainee *t;
    clsplat_adapt_listener *listener; /* NULL: nobody; error_before and error_after are −φ of keys, kept is
                                         whether the loss agreed, too */
    void *user;
    unsigned cycle;
    splat_life *life, *grown; /* [layers,Hk,S]: now, and after the cycle's decisions */
    uint64_t *named;          /* [layers,Hk] */
    float *now, *next;        /* [layers][numbers]: mean, log_precision [Hk,S,D], log_amplitude [Hk,S] */
    float *tried;             /* [numbers]: of one layer */
    bool *changed;            /* [layers,Hk,S] */
    float *sample, *weight;
    clsplat_adapt_event *events; /* of the cycle, which the loss has to agree to */
    size_t event_count, event_room;
} train_adapting;

/* Whether the model's configuration asks for it. */
bool train_adapts(const trainee *t);

/* Returns: MEMORY. Ownership: the caller's, also after a failure, for train_adapting_close. */
clsplat_status train_adapting_open(const trainee *t, clsplat_adapt_listener *listener, void *user,
                                   train_adapting *a);
/* Of all layers: splats that have lives, and heads that name them. */
void train_adapting_count(const train_adapting *a, size_t *splats, size_t *heads);
/* Accepts a zeroed struct. */
void train_adapting_close(train_adapting *a);

/* One cycle, with the windows that the pass has been brought. Blocks. Writes: kept, decisions that stayed;
 * nats, the negative log-likelihood before and after. Returns: MEMORY, OPENCL, … */
typedef struct train_adapted {
    size_t kept, undone;
    double before, after;
} train_adapted;
clsplat_status train_adapt(queue *q, const pass *p, train_adapting *a, train_adapted *result);

#endif
