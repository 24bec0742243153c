/* A closer look at what chosen queries attend to: the exact weights of their keys, and how far near-far
 * attention is from that. For pictures, afterwards; nothing of it is needed to compute attention. */
#ifndef CLSPLAT_REPORT_LOOK_H
#define CLSPLAT_REPORT_LOOK_H

#include "op/op.h"

/* Parts of the keys, all as long, whose weights are summed up. */
enum { LOOK_BLOCKS = 32, LOOK_TOP_MOST = 32 };

/* How one query of one head went through the trees: a number for each node that it looked at, in the order of
 * its walk. */
typedef struct look_walk {
    float accepted; /* of a node's error, relative to the output */
    uint32_t highest, count;
    uint32_t opened, keys; /* nodes opened, and keys taken one by one below them */
    uint16_t *nodes;       /* look_walk.c has the code */
} look_walk;

/* One query of one head. */
typedef struct look_row {
    uint32_t visible, exact;     /* keys that it may see, and those attended one by one */
    float expected, actual;      /* errors of its output, relative to its norm; 0 with exact attention */
    float size;                  /* Σ out², exactly */
    float own, apart;            /* shares of the weight: of its own chunk's keys, of earlier keys apart */
    float entropy;               /* of the weights, in bits */
    float blocks[LOOK_BLOCKS];   /* shares of block j: keys [j·M/BLOCKS, (j+1)·M/BLOCKS), rounded up */
    uint32_t key[LOOK_TOP_MOST]; /* the strongest, falling */
    float weight[LOOK_TOP_MOST];
} look_row;

typedef struct look {
    size_t layers, heads, kv_heads, count, keys; /* count: queries of each head */
    size_t top;                                  /* of each row's strongest keys */
    size_t chunk;                                /* of near-far; 0: exact attention */
    bool causal;
    uint32_t *positions; /* [count]: the last key that each query sees, rising; or what it is called by */
    look_row *rows;      /* [layers][heads][count] */
    uint8_t *apart;      /* [layers][kv_heads][keys]: whether a key stands apart */
    /* Near-far: the queries whose walks are kept, those that tell most first, and the trees' shape. */
    size_t walked, levels, top_level, sizes[OP_FOREST_LEVELS]; /* keys under a node of each level */
    uint32_t *walked_queries;                                  /* [walked] */
    look_walk *walks; /* [layers][heads][walked]; without nodes where a layer has a window */
} look;

/* Ownership: *l is the caller's, to be given to look_free; positions are copied. Returns: MEMORY. */
clsplat_status look_create(clsplat *lib, look shape, const uint32_t *positions, look *l);
void look_free(look *l);
look_row *look_at(const look *l, size_t layer, size_t head, size_t query);
look_walk *look_walk_at(const look *l, size_t layer, size_t head, size_t walk);

/* A layer's tensors, on the device. Shapes: q [1,H,count,D], the chosen ones; k [1,Hk,keys,D], v
 * [1,Hk,keys,Dv], key_bias [1,Hk,keys,1], absent or with its numbers also at bias. */
typedef struct look_source {
    op_tensor q, k, v, key_bias;
    const float *bias;
    float scale, tolerance;
    size_t sparse_topk, window; /* window: keys that a query sees at most; 0: all */
    clsplat_dtype trees;        /* how trees keep keys and values */
} look_source;

/* Fills in a layer's rows. Blocks. Returns: MEMORY, BUILD, OPENCL. */
clsplat_status look_layer(clsplat_device *device, look *l, size_t layer, const look_source *source);

/* What is left of a layer's, or one head's rows: errors as ‖difference‖ / ‖exact‖ over all of them. */
typedef struct look_sum {
    double expected, actual, visible, exact, own, apart, entropy;
} look_sum;
look_sum look_sum_up(const look *l, size_t layer, size_t first_head, size_t heads);

/* look_walk.c: which queries walk, of how many heads in all; and one of them in all heads of a layer.
 * `args`: of it alone. Blocks. Returns: MEMORY, BUILD, OPENCL. */
clsplat_status look_walk_choose(clsplat *lib, look *l);
clsplat_status look_walk_query(queue *q, look *l, size_t layer, size_t walk, const op_near_far_args *args);

/* Walks a walk again:
 *
 *     for (walk_reader r = walk_begin(l, walk, position); walk_next(&r);)
 *         … r.node …                                                        */
typedef struct walk_node {
    size_t level, first, keys; /* keys [first, first + keys) of its chunks, in their trees' order */
    bool opened;
    double most,
        error; /* relative to the output: what may hide in it, and what it costs to leave it closed */
} walk_node;
typedef struct walk_reader {
    const look *l;
    const look_walk *walk;
    size_t covered, at, root_level, root, root_end, level, g;
    bool begun;
    walk_node node;
} walk_reader;
walk_reader walk_begin(const look *l, const look_walk *walk, size_t position);
bool walk_next(walk_reader *r);

/* look_weigh.c: scores [keys] of the row's first `visible` keys become its shares, entropy and strongest
 * keys; those before `first` are not seen. `apart` [keys] may be NULL. */
void look_weigh(const look *l, float *scores, size_t first, size_t own, const uint8_t *apart, look_row *row);

#endif
