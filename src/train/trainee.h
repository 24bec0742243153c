/* A model that learns: its weights in float32, what they receive, and what the optimiser remembers of that.
 */
#ifndef CLSPLAT_TRAIN_TRAINEE_H
#define CLSPLAT_TRAIN_TRAINEE_H

#include "model/folder.h"
#include "model/model.h"
#include "model/weights_plan.h"
#include "train/settings.h"

/* One buffer of the model: a tensor of its file, or several below each other. One that is frozen has neither
 * gradient nor moments. */
typedef struct train_parameter {
    op_tensor weight, gradient;
    cl_mem first, second; /* AdamW's moments */
    size_t count;         /* numbers */
    double rate;          /* of the learning rate */
    bool decays;          /* it is a matrix */
    const weight_target *parts;
} train_parameter;

typedef struct trainee {
    clsplat_device *device;
    clsplat_model *model;
    clsplat_dtype type;     /* that its passes compute in: F32 after trainee_open, or BF16 */
    model_weights gradient; /* what model->weights receive, tensor by tensor */
    model_folder *files;    /* of the names */
    train_parameter *parameters;
    size_t count;
    cl_mem partials, clip; /* op_clip_factor's */
    size_t parts;
} trainee;

/* Whether models like this one, which is in the folder, are trained. Returns: UNSUPPORTED, naming the folder
 * and what stands in the way. */
clsplat_status trainee_check(clsplat *lib, const char *folder, const model_config *config);

/* How fast the tensor of that name learns, and those in one buffer with it: by so many times the learning
 * rate; with 0 it is frozen. */
typedef double trainee_choice(const void *user, const char *name);

/* Opens the folder's model with moments of 0; weights that learn must be float32. `learns` may be NULL: all
 * do, by the rate. Ownership: the caller's, also after a failure, for trainee_close. Returns: as
 * clsplat_model_open, UNSUPPORTED (a model that is not trained). */
clsplat_status trainee_open(clsplat_device *device, const char *folder, trainee_choice *learns,
                            const void *user, trainee *t);
/* Accepts a zeroed struct. */
void trainee_close(trainee *t);

/* Decides what its passes compute in: before pass_open. */
void trainee_take_type(trainee *t, train_type type);

/* All gradients become 0. Does not block. */
clsplat_status trainee_clear(queue *q, const trainee *t);
/* One step with the gradients that are there; `step` from 1. Does not block. */
clsplat_status trainee_step(queue *q, const trainee *t, const train_settings *settings, double rate,
                            uint64_t step);
/* The norm of all gradients before that step cut it. Blocks. */
clsplat_status trainee_norm(queue *q, const trainee *t, double *norm);

#endif
