/* The forest of near-far attention as one of several ranks has it: the trees of its own chunks, the nodes of
 * whole chunks and above of all, and of the others' lower nodes and keys what its rows have opened.
 *
 * What is there lies where one process would have it, on the device and in a copy on the host; the rest is 0,
 * so that a node that is not there has no keys. */
#ifndef CLSPLAT_PARALLEL_FAR_H
#define CLSPLAT_PARALLEL_FAR_H

#include "op/op.h"
#include "op/tree/forest.h"
#include "parallel/ranks.h"

/* What passes between ranks, in units that have a number each: of a chunk (head · chunks + chunk) the list of
 * its keys that stand apart, its node, and all nodes below it; of a key that stands apart (head · room +
 * place); of the keys of a leaf (head · leaves + leaf). */
typedef enum far_kind { FAR_LISTS, FAR_CHUNKS, FAR_BELOW, FAR_APART, FAR_KEYS } far_kind;

typedef struct far_list {
    uint32_t *units;
    size_t count, room;
} far_list;

typedef struct far_forest {
    ranks_call *call;
    op_forest f; /* its buffers are the device's */
    char *host[FOREST_BUFFERS];
    size_t bytes[FOREST_BUFFERS];
    int *owner;         /* of each chunk */
    cl_uint *here;      /* [B·Hk, chunks]: 1 where the nodes below are */
    char *keys_here;    /* [B·Hk, leaves] */
    far_list *out, *in; /* for each rank and from it */
} far_forest;

/* Of `f`, sized and without buffers, for keys of the whole sequence. Returns: MEMORY. */
clsplat_status far_open(ranks_call *c, queue *q, const op_forest *f, far_forest *forest);
void far_close(far_forest *forest);

/* One of its buffers, or all, between host and device. Blocks. */
enum {
    FAR_NODE_BUFFERS = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6,
    FAR_ALL_BUFFERS = (1 << FOREST_BUFFERS) - 1,
    FAR_APART_BUFFER = 1 << 8
};
clsplat_status far_bring_down(queue *q, far_forest *forest, unsigned which);
clsplat_status far_bring_up(queue *q, far_forest *forest, unsigned which);

/* Every rank's lists, or chunks' nodes, or keys apart, to all others, between the copies on the hosts.
 * Collective. */
clsplat_status far_tell_all(far_forest *forest, far_kind kind);

/* Asks the owners for what is wanted (as op_wanted marks it) and not here, and takes it into the copy on the
 * host. `missing`: whether there was any. The second is collective. */
clsplat_status far_miss(far_forest *forest, const cl_uint *wanted, bool *missing);
clsplat_status far_fetch(far_forest *forest);

/* The covariances of the runs that this rank's rows go by, from the sums of its own runs: those of the runs
 * before a piece of the sequence come as one sum from whoever has the piece. On the host. Collective. */
clsplat_status far_average(far_forest *forest);

#endif
