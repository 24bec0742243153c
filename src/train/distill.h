/* Layers fitted to another model's. A student begins as its teacher with the attention of some layers
 * replaced, and learns by train_run: at first what these layers' heads gave, each layer on what the teacher
 * feeds it, then the teacher's distribution of the next token. The teacher stays as it is.
 *
 *     MODEL                 the teacher: a folder of weights
 *     DIR                   the student: a folder that is trained in, and
 *     DIR/distill.json      which layers are replaced, what learns, and what was measured before */
#ifndef CLSPLAT_TRAIN_DISTILL_H
#define CLSPLAT_TRAIN_DISTILL_H

#include "train/run.h"

/* Splats of the layers that are replaced; these layers' q, k and v, too; everything, in the second part. */
typedef enum distill_learning { DISTILL_SPLATS, DISTILL_PROJECTIONS, DISTILL_ALL } distill_learning;

/* What is asked for; 0 and NULL: not said. */
typedef struct distill_change {
    const char *kinds;  /* as "splat,near_far": layer i becomes of the kind i, from the beginning again where
                           there are more layers */
    const char *layers; /* as "0,2-4"; NULL: all */
    size_t splats, chunk, window;
    double tolerance; /* below 0: not said */
} distill_change;

typedef struct distill_plan {
    const char *model, *folder;
    distill_learning learns;
    double heads; /* share of the budget in which heads' outputs are learned */
    size_t layers, count;
    bool *replaced;       /* [layers], count of them */
    double *before;       /* [count]: errors of heads before the first step */
    double teacher, held; /* bits a byte of the teacher, and bytes at most that they are of */
} distill_plan;

/* The learning of that name: splats, projections or all. Returns: whether there is one. */
bool distill_learning_named(const char *name, distill_learning *learns);

/* Makes DIR, with the teacher's weights and new splats, and fills the plan's layers. Nothing is written
 * before all is known to suit. Returns: IO, FORMAT, UNSUPPORTED, INVALID, MEMORY. */
clsplat_status distill_create(clsplat *lib, const distill_change *change, const train_settings *settings,
                              distill_plan *plan);
/* DIR/distill.json. Returns: IO, FORMAT, MEMORY. */
clsplat_status distill_save(clsplat *lib, const distill_plan *plan);
clsplat_status distill_load(clsplat *lib, distill_plan *plan);
bool distill_is_there(const char *folder);
/* Takes a student away that distill_create has made, and the folder if that was all. */
void distill_discard(const distill_plan *plan);
/* Accepts a zeroed struct. */
void distill_plan_free(distill_plan *plan);

/* Teacher and student on a device. */
typedef struct distillation {
    const distill_plan *plan;
    trainee teacher, student;
    pass lesson;         /* the teacher's */
    train_goal goals[2]; /* for train_request, with this as their user */
    cl_mem errors;       /* [count,rows] */
    float *host;         /* the same */
    size_t rows;
} distillation;

/* Ownership: the caller's, also after a failure, for distill_close. Returns: as trainee_open, pass_open;
 * INVALID if the model is of another shape than the folder's. */
clsplat_status distill_open(clsplat_device *device, const distill_plan *plan, const train_settings *settings,
                            distillation *d);
/* Accepts a zeroed struct. */
void distill_close(distillation *d);

/* Gives the splats of layers that are replaced a place, at keys of the first windows, and as much of the
 * attention as the keys have that they stand for. Blocks. Returns: MEMORY, OPENCL. */
clsplat_status distill_begin(distillation *d, const train_request *request);

/* Within the floor. The student's heads of every layer that is replaced beside the teacher's, on the windows
 * that the student's pass has been brought: sum [count], over rows, of |student − teacher|² / |teacher|².
 * Unless scale is 0 the gradients of scale times the sums' mean are added. */
clsplat_status distill_heads(distillation *d, queue *q, const pass *p, const int32_t *ids, float scale,
                             double *sums);

/* What the layers are worth, in bits a byte of a text that nothing was learned from. */
typedef struct distill_layer {
    size_t layer;
    double
        error; /* of heads' outputs on what the teacher feeds them: √ of the mean of the squares, relative */
    double alone;   /* the teacher with this layer replaced */
    double without; /* the teacher with nothing in the place of this layer's attention */
} distill_layer;
typedef struct distill_worth {
    double teacher, student; /* the student has all of them replaced */
    size_t bytes;            /* that were measured */
    distill_layer *layers;   /* [count] */
} distill_worth;

/* With layers NULL, errors and the teacher's bits alone go into `worth`, else all. Stops with CANCELLED when
 * asked to. Blocks. Returns: INVALID (not a window of text), NOT_FINITE (the teacher's bits, or an
 * error), MEMORY, OPENCL, CANCELLED. */
clsplat_status distill_measure(distillation *d, const train_request *request, bool all, distill_worth *worth);
void distill_worth_free(distill_worth *worth);

#endif
