/* What the rows of softmax attention share. */
#ifndef CLSPLAT_OP_SOFTMAX_H
#define CLSPLAT_OP_SOFTMAX_H

#include "op/kernel.h"

work softmax_work(const op_softmax_args *args);

/* The definitions of a call's shapes and tensors. */
void softmax_options(kernel_options *o, const op_softmax_args *args);

/* All rows but the split ones take the same arguments; they differ in the source, and in how many queries a
 * work-group has. `o` holds the group's size and the row's own definitions. */
clsplat_status softmax_launch(queue *q, const op_softmax_args *args, kernel_options *o, const char *source,
                              const char *kernel, size_t queries_per_group);

/* Few queries over many keys on a CPU: the keys are split over work-items, and the states of the parts merged
 * in their order. */
bool softmax_split_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_split_run(queue *q, const void *args);

/* The same for GPUs. */
bool softmax_few_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_few_run(queue *q, const void *args);

/* GPUs: tiles in local memory, of any vendor; NVIDIA's matrix units; Hopper's own instructions for them. */
bool softmax_local_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_local_run(queue *q, const void *args);
bool softmax_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_mma_run(queue *q, const void *args);
bool softmax_wgmma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_wgmma_run(queue *q, const void *args);

#endif
