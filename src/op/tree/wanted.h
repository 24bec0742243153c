/* Near-far attention over a forest of which a part is elsewhere: what rows would open. */
#ifndef CLSPLAT_OP_TREE_WANTED_H
#define CLSPLAT_OP_TREE_WANTED_H

#include "op/op.h"

/* Every row attends as `forward` says (its own `kept` is not looked at), and then marks what it opens. A node
 * that is not here must have a count of 0, and finite means and values.
 *
 * Shapes: kept [B,H,N,OP_KEPT]; here [B,Hk,chunks], uint: 1 where the nodes below a chunk are; wanted
 * [B,Hk,blocks], uint: of each block of 16 nodes (op_forest's first_block) the bits of those that a row
 * opens, of the levels `top` and 0; set to 0 before. The numbers of `forward` are final if all that is wanted
 * is here. No limit on exact keys. */
typedef struct op_wanted_args {
    op_near_far_args forward;
    cl_mem kept, here, wanted;
    float ease; /* a node is marked from this share of the error on that a row accepts */
} op_wanted_args;
clsplat_status op_wanted(queue *q, const op_wanted_args *args);

#endif
