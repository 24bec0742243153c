/* What the rows of softmax attention share. */
#ifndef CLSPLAT_OP_SOFTMAX_SOFTMAX_H
#define CLSPLAT_OP_SOFTMAX_SOFTMAX_H

#include "op/kernel.h"

work softmax_work(const op_softmax_args *args);

/* The definitions of a call's shapes and tensors. */
void softmax_options(kernel_options *o, const op_softmax_args *args);

/* All rows but the two that cut the keys take the same arguments; they differ in the source, and in how many
 * queries a work-group has. `o` holds the group's size and the row's own definitions. */
clsplat_status softmax_launch(queue *q, const op_softmax_args *args, kernel_options *o, const char *source,
                              const char *kernel, size_t queries_per_group);

/* Few queries over many keys: the keys are cut into `splits` ranges of `share` keys each, the last perhaps
 * shorter; a row's kernel leaves a state of each range for each of the `rows` = N·H/Hk that share a key head,
 * and the states are merged in the order of the ranges. */
typedef struct softmax_parts {
    size_t rows, share, splits;
} softmax_parts;
/* So many ranges per compute unit, within bounds on the keys of a range. */
softmax_parts softmax_cut(const clsplat_limits *limits, const op_softmax_args *args, size_t ranges,
                          size_t shortest, size_t longest);
/* Whether there is a key, and room for the states. */
bool softmax_parts_fit(const op_softmax_args *args, const softmax_parts *parts);
/* `o` holds the group's size and the row's own definitions. */
clsplat_status softmax_parts_run(queue *q, const op_softmax_args *args, kernel_options *o, const char *source,
                                 const char *kernel, const softmax_parts *parts);

/* The rows that do so: for CPUs, and for GPUs. */
bool softmax_split_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_split_run(queue *q, const void *args);
bool softmax_few_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_few_run(queue *q, const void *args);

/* GPUs: tiles in local memory, of any vendor; AMD's and Intel's matrix units; NVIDIA's matrix units; Hopper's
 * own instructions for them. */
bool softmax_local_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_local_run(queue *q, const void *args);
bool softmax_units_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_units_run(queue *q, const void *args);
bool softmax_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_mma_run(queue *q, const void *args);
bool softmax_wgmma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_wgmma_run(queue *q, const void *args);

#endif
