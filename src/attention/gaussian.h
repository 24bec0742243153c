/* Gaussian attention of tensors on the device, out of the operations write, scan, log_density and read. */
#ifndef CLSPLAT_ATTENTION_GAUSSIAN_H
#define CLSPLAT_ATTENTION_GAUSSIAN_H

#include "op/op.h"

typedef struct gaussian_call {
    const op_splats *splats;
    clsplat_mixing mixing;
    int32_t diagonal; /* OP_SEES_ALL: not causal */
    op_tensor q, k, v, key_bias, out, lse;
} gaussian_call;

/* Everything at once; the heads are cut into blocks whose workspaces fit the device. */
clsplat_status gaussian_enqueue(queue *q, const gaussian_call *call);

/* The pieces, for callers that bring the tokens block by block. All blocks of a sequence must have the
 * same batch and heads, few enough for gaussian_heads_fit. `begin` starts a sequence anew. */
bool gaussian_heads_fit(const clsplat_limits *limits, const gaussian_call *call, size_t batch,
                        size_t kv_heads);
/* Segments that the keys are written in: enough to occupy the device. */
size_t gaussian_segments(const clsplat_limits *limits, const gaussian_call *call);
/* Adds the keys of a block to what the splats know. */
clsplat_status gaussian_accumulate(queue *q, const gaussian_call *call, bool begin);
/* The outputs of a block of queries from what the splats know after the last gaussian_accumulate. */
clsplat_status gaussian_query(queue *q, const gaussian_call *call);
/* Both, in causal order. All blocks but the last have a multiple of GAUSSIAN_CHUNK keys; call->diagonal
 * counts within the block, and the queries see their last key in it. */
clsplat_status gaussian_causal(queue *q, const gaussian_call *call, bool begin);

/* What the backward pass (gaussian_backward.c) is made of, too.
 *
 * Hw: the states of a shared set do not depend on the query head. */
size_t gaussian_state_heads(const gaussian_call *call);
/* How many units of `bytes` fit a workspace, at least 1. */
size_t gaussian_units(const clsplat_limits *limits, double bytes);
/* Room for the states of so many segments, of their parts or of all. */
clsplat_status gaussian_take_state(clsplat_device *device, const gaussian_call *call, bool parts,
                                   size_t segments, op_state *state);
clsplat_status gaussian_scan(queue *q, const gaussian_call *call, bool begin, bool exclusive, op_state part);
/* φ of all rows, in the slot. */
clsplat_status gaussian_log_density(queue *q, const op_splats *splats, workspace_slot slot, size_t heads,
                                    op_tensor x, cl_mem *log_density);

/* Keys whose pairs with queries are formed one by one. A chunk costs a splat state to write and to read per
 * splat, and half a chunk of exponentials per query and splat: 32 balances them at Dv = 64. */
enum { GAUSSIAN_CHUNK = 32 };

/* The part of a call for some batch entries and key heads, with their query heads and splats. */
typedef struct head_block {
    size_t batch_begin, batch, kv_begin, kv_heads;
} head_block;

#endif
