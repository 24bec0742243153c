/* The gradients of all processes, summed up behind the pass back: a layer's while the device is at the layers
 * before it. */
#ifndef CLSPLAT_TRAIN_GRADIENTS_H
#define CLSPLAT_TRAIN_GRADIENTS_H

#include "train/pass.h"
#include "train/run.h"

typedef struct train_gradients {
    const trainee *t;
    const train_team *team;
    float *numbers;        /* of all parameters that learn */
    struct gradient *list; /* [count] in the order in which they are summed up */
    size_t count, begun, summed;
    clsplat_status mine; /* what went wrong here: the sums go on, since the others are at them */
} train_gradients;

/* Ownership: *g is the caller's, also after a failure, for train_gradients_close. Returns: MEMORY. */
clsplat_status train_gradients_open(const trainee *t, const train_team *team, train_gradients *g);
void train_gradients_close(queue *q, train_gradients *g); /* accepts a zeroed struct */

/* After each layer of the pass back that makes them whole; `user`: the train_gradients. Collective. Returns:
 * IO. */
pass_visitor train_gradients_follow;
/* The rest, and all to the device. `mine`: how the pass went here. Collective. Returns: as of the first
 * process that failed. Blocks. */
clsplat_status train_gradients_finish(queue *q, train_gradients *g, clsplat_status mine);

#endif
