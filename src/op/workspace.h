/* The slots of a device's workspaces, by name. */
#ifndef CLSPLAT_OP_WORKSPACE_H
#define CLSPLAT_OP_WORKSPACE_H

#include <assert.h>

#include "runtime/device.h"

/* Where a workspace of an operation lives between calls. A slot grows to the largest request and is
 * reused; the order of calls on one device (see queue.h) keeps two users of a slot apart. */
enum {
    WORKSPACE_STATE_LSE,
    WORKSPACE_STATE_VALUE,
    WORKSPACE_CARRY,
    WORKSPACE_PART_LSE,
    WORKSPACE_PART_VALUE,
    WORKSPACE_PACKED_MEAN,
    WORKSPACE_PACKED_VALUE,
    WORKSPACE_PACKED_TERM,
    WORKSPACE_QUERY_LOG_DENSITY,
    WORKSPACE_KEY_LOG_DENSITY,
    WORKSPACE_NODE_MEANS,
    WORKSPACE_NODE_VALUES,
    WORKSPACE_NODE_VARIANCES,
    WORKSPACE_NODE_NUMBERS,
    WORKSPACE_Q,
    WORKSPACE_K,
    WORKSPACE_V,
    WORKSPACE_BIAS,
    WORKSPACE_OUT,
    WORKSPACE_LSE,
    WORKSPACE_EXACT_KEYS,
    WORKSPACE_ERROR_ESTIMATE,
    WORKSPACE_DOUT, /* the backward pass: its tensors, the states of dout, and what rows and keys weigh */
    WORKSPACE_DQ,
    WORKSPACE_DK,
    WORKSPACE_DV,
    WORKSPACE_DBIAS,
    WORKSPACE_GRAD_STATS,
    WORKSPACE_GRAD_WEIGHTS,
    WORKSPACE_GRAD_PART_LSE,
    WORKSPACE_GRAD_PART_VALUE,
    WORKSPACE_GRAD_STATE_LSE,
    WORKSPACE_GRAD_STATE_VALUE,
    WORKSPACE_GRAD_CARRY,
    WORKSPACE_GRAD_MOMENTS,
    WORKSPACE_GRAD_PART_MOMENTS,
    WORKSPACE_GRAD_LEVELS,
    WORKSPACE_GEMM_A,
    WORKSPACE_GEMM_B,
    WORKSPACE_BACK, /* of near and far, and the slots after it: op/tree/near_far_backward.h */
    WORKSPACE_BACK_LAST = WORKSPACE_BACK + 21,
    WORKSPACE_FOREST, /* and the slots after it: an op_forest's buffers */
    WORKSPACE_FOREST_LAST = WORKSPACE_FOREST + 8,
    WORKSPACE_USED
};
static_assert((int)WORKSPACE_USED <= (int)WORKSPACE_SLOTS, "a device has too few slots");

#endif
