/* Forests (op.h) made and sized: which levels they have, and their buffers.
 *
 *     op_forest forest = forest_shape(&like, keys, 0);
 *     TRY(forest_create(device, &forest));
 *     TRY(forest_clear(queue, &forest));
 *     …
 *     forest_release(device, &forest);
 *
 * or, with buffers of the caller's own, forest_sizes and the cl_mem set by hand. */
#ifndef CLSPLAT_OP_TREE_FOREST_H
#define CLSPLAT_OP_TREE_FOREST_H

#include "op/op.h"

enum { FOREST_BUFFERS = 9, FOREST_LEAF_MOST = 16, FOREST_APART_FIRST = 4 };

/* The library's choice of a chunk: 256, or 32 for up to 16,384 keys on a CPU and 4,096 elsewhere: it takes
 * a third of the keys for the same error, and more nodes. Less where sparse_topk allows no more. */
size_t forest_chunk(const clsplat_limits *limits, size_t keys, size_t sparse_topk);

/* The most keys of a chunk that stand apart, beside the first few of the first chunk; 0: none do. */
size_t forest_apart_each(const op_forest *forest);
/* Slots of a head for all keys that may stand apart, after those of its chunks. */
size_t forest_apart_room(const op_forest *forest);

/* Keys under a node of the level. */
size_t forest_size(const op_forest *forest, size_t level);

/* The levels of a forest for up to `keys` keys in chunks of `chunk`; no buffers yet. With a limit on exact
 * keys only so many chunks may set keys apart as it has room for. Shapes: k [B,Hk,·,D], v [B,Hk,·,Dv], which
 * also give the storage type. */
op_forest forest_shape(const op_tensor *k, const op_tensor *v, size_t keys, size_t chunk, size_t sparse_topk);

/* Bytes of keys, values, biases, means, variances, mean_values, stats, covariances and apart, and where each
 * of them is in the struct. */
void forest_sizes(const op_forest *forest, size_t bytes[FOREST_BUFFERS]);
cl_mem *forest_buffer(op_forest *forest, int which);

/* Mean values, keys and values apart, and their counts, of 0 everywhere: kernels read whole blocks, and what
 * nobody has written yet must be finite there; of fewer keys than a chunk nothing is ever gathered. To be
 * called before the first op_gather. */
clsplat_status forest_clear(queue *q, const op_forest *forest);

/* Ownership: the caller's, until forest_release, which accepts a forest without buffers. Returns: MEMORY. */
clsplat_status forest_create(clsplat_device *device, op_forest *forest);
void forest_release(clsplat_device *device, op_forest *forest);

#endif
