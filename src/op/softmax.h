/* What the rows of softmax attention share. */
#ifndef CLSPLAT_OP_SOFTMAX_H
#define CLSPLAT_OP_SOFTMAX_H

#include "op/op.h"

work softmax_work(const op_softmax_args *args);

/* Few queries over many keys on a CPU: the keys are split over work-items, and the states of the parts merged
 * in their order. */
bool softmax_split_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_split_run(queue *q, const void *args);

#endif
