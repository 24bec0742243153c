/* What the rows of near-far attention share. */
#ifndef CLSPLAT_OP_TREE_NEAR_FAR_H
#define CLSPLAT_OP_TREE_NEAR_FAR_H

#include "op/tree/forest_kernel.h"

/* What it does if nothing is opened beside the own chunk: what is opened only the device knows. */
work near_far_work(const op_near_far_args *args);

/* Query heads of a key head. */
size_t near_far_group(const op_near_far_args *args);
/* Heads of a GPU's tile of `rows` rows, of one key head: consecutive tokens of one head open more alike than
 * heads do, and so one, unless there are fewer tokens than rows. */
size_t near_far_share(const op_near_far_args *args, size_t rows);
/* Tiles of `span` positions, a power of two: they begin at multiples of it in the positions of keys. */
size_t near_far_tiles(const op_near_far_args *args, size_t span);

/* Definitions of all rows, and their arguments in the order of the kernels. */
void options_near_far(kernel_options *o, const op_near_far_args *args);
void launch_near_far(launch *l, const kernel_options *o, const op_near_far_args *args);
/* The same without the results, and these alone. */
void launch_near_far_inputs(launch *l, const kernel_options *o, const op_near_far_args *args);
void launch_near_far_results(launch *l, const kernel_options *o, const op_near_far_args *args);

/* Tiles of rows that share loads, in local memory; no limit on exact keys. */
bool near_far_local_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_local_run(queue *q, const void *args);
/* The same with its products on AMD's and Intel's matrix units. */
bool near_far_units_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_units_run(queue *q, const void *args);

/* Tiles of rows that share loads, on a CPU. */
extern const tune_space near_far_wide_space;
bool near_far_wide_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_wide_run(queue *q, const void *args);

/* Few rows, as in decoding: their roots are split over work-items, and the states merged. */
bool near_far_split_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_split_run(queue *q, const void *args);

/* Tiles of rows that share what they open, on NVIDIA's matrix units; no limit on exact keys. */
bool near_far_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_mma_run(queue *q, const void *args);
bool near_far_wgmma_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_wgmma_run(queue *q, const void *args);

#endif
