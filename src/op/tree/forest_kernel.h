/* A forest as kernels see it (cl/tree/forest.clh). */
#ifndef CLSPLAT_OP_TREE_FOREST_KERNEL_H
#define CLSPLAT_OP_TREE_FOREST_KERNEL_H

#include "op/kernel.h"
#include "op/tree/forest.h"

/* D, DV, LEAF, CHUNK, TOP and FOREST_TYPE. */
void options_forest(kernel_options *o, const op_forest *forest);

/* Its numbers: levels, chunks, room for keys apart, first blocks. */
void launch_forest_shape(launch *l, const op_forest *forest);
/* Its arrays: keys, values, biases; means, variances, mean_values, stats. Covariances are for those who need
 * them. */
void launch_forest_keys(launch *l, const op_forest *forest);
void launch_forest_nodes(launch *l, const op_forest *forest);

#endif
