/* Training as a whole: a folder with a model, a text, and steps until the budget is spent. */
#ifndef CLSPLAT_TRAIN_RUN_H
#define CLSPLAT_TRAIN_RUN_H

#include <clsplat/adapt.h>
#include <jansson.h>

#include "train/checkpoint.h"
#include "train/corpus.h"
#include "train/pass.h"

/* What steps learn: the next token's loss, unless a request has goals of its own. */
typedef struct train_goal {
    const char *name; /* of its loss, for reports */
    double until;     /* steps that end at or before this share of the budget; the last goal's is 1 */
    /* The pass has been brought the windows. Adds to all gradients those of scale · Σ loss over its rows, and
     * leaves that sum, without scale, in *loss. Returns: as the pass. */
    clsplat_status (*learn)(void *user, queue *q, const pass *p, const int32_t *ids, float scale,
                            double *loss);
} train_goal;

/* What a step, or all since the last report, came to. */
typedef struct train_report {
    uint64_t step, steps; /* done, and in all; steps is 0 where the budget is time */
    const char *goal;     /* NULL: the next token */
    double loss;          /* nats a token, or the goal's: the mean since the last report */
    double bits;          /* a byte, of the same; NaN: of a goal */
    double validation;    /* bits a byte of what is held out; NaN: not measured now */
    double rate, norm;    /* the learning rate, and the gradients' norm, of the last step */
    double speed;         /* tokens a second since the last report */
    double seconds, left; /* spent on steps so far, and as far as one can tell still to come */
} train_report;

/* Processes that learn together: each takes its part of every batch, gradients are summed up, and all take
 * the same step. The first of them writes, reports, validates, and says when it is over. */
typedef struct train_team {
    size_t own, count; /* count 0: one process alone, and nothing below is called */
    void *user;
    /* Of every process, the same on all. Collective. Returns: IO. */
    clsplat_status (*sum)(void *user, float *numbers, size_t count);
    clsplat_status (*meet)(void *user, double *numbers, size_t count);
    /* OK if every process says OK. Collective. */
    clsplat_status (*agree)(void *user, clsplat_status status);
} train_team;

typedef struct train_request {
    const char *folder;
    train_team team; /* its count divides the batch */
    const corpus *text, *held_out;
    train_settings settings;
    train_progress progress;
    const train_goal *goals; /* in their order, or NULL */
    void *goal_user;
    bool again;             /* forward is run again in backward, to save memory */
    double report_every;    /* seconds */
    double save_every;      /* seconds; 0: save_steps count */
    size_t save_steps;      /* steps */
    size_t keep;            /* models of the last so many saved steps stay beside the last: train/keep.h */
    size_t validation_most; /* bytes of held_out that are measured */
    /* Called every so often and at the end. */
    void (*report)(void *user, const train_report *report);
    clsplat_adapt_listener *adapted; /* told of every decision about splats; NULL: nobody */
    bool (*stopped)(void *user);     /* asked after every step: training saves and ends */
    void *user;
} train_request;

/* Whether there is enough text, and a part of a batch for every process. Returns: INVALID. */
clsplat_status train_check(clsplat *lib, const train_request *request);

/* Goes on from request->progress, which the trainee must be at. Saves every so often, at the end and when it
 * is stopped, and then returns CANCELLED. A file that cannot be written on the way is a warning; what was
 * saved before stays. Writes: FOLDER/log.jsonl, a line for every report. Returns: NOT_FINITE if the loss
 * becomes so (nothing is saved then), IO, MEMORY, OPENCL, …; the last report is in *last, if it is not NULL.
 * Of a team, collective: the same number of processes on the same devices make the same bits, another number
 * the same windows in the same order. */
clsplat_status train_run(const trainee *t, const train_request *request, train_report *last);

#endif
