/* Near-far layers in a pass: the trees of all windows' keys, which forward grows, and what its rows decided
 * by.
 */
#ifndef CLSPLAT_TRAIN_TREES_H
#define CLSPLAT_TRAIN_TREES_H

#include "op/backward.h"
#include "train/pass.h"

typedef struct pass_trees {
    op_forest forest;
    cl_mem kept; /* what its gradient goes by: */
    bool noted;  /* notes of the forward pass, or what a row decided by */
    size_t bytes;
} pass_trees;

/* Returns: INVALID (a chunk that does not fit), UNSUPPORTED (a device that cannot), MEMORY. Ownership: the
 * caller's, also after a failure. */
clsplat_status pass_trees_open(const pass *p, pass_trees **trees);
void pass_trees_close(const pass *p, pass_trees **trees);

/* As op_softmax with pass_attention, and op_softmax_backward with these arguments, through the trees. */
clsplat_status pass_trees_attend(queue *q, const pass *p, size_t layer);
clsplat_status pass_trees_back(queue *q, const pass *p, size_t layer, const op_softmax_backward_args *args);

#endif
