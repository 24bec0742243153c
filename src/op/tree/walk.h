/* Near-far attention looked at from inside: for pictures, afterwards. */
#ifndef CLSPLAT_OP_TREE_WALK_H
#define CLSPLAT_OP_TREE_WALK_H

#include "op/op.h"

enum { OP_TOLD = 3 };

/* Every row attends as `forward` says, by the plain variant, and tells of each node that it looks at, in the
 * order of its walk (from the highest roots down, depth first): the error that leaving it closed costs,
 * relative to the output; the most that it may cost, below 0 if the row opened the node; its keys.
 *
 * Shapes: kept [B,H,N,OP_KEPT]: see cl/tree/near_far_args.clh, its third number is what a row accepts; counts
 * [B,H,N,2], uint: nodes looked at, and the level of the highest roots; told [B,H,N,most,OP_TOLD]: the first
 * `most` of them. */
typedef struct op_walk_args {
    op_near_far_args forward; /* its own `kept` is not looked at */
    size_t most;
    cl_mem kept, counts, told;
} op_walk_args;
clsplat_status op_walk(queue *q, const op_walk_args *args);

#endif
