/* Near-far attention of one call: a forest in workspaces, and what op_near_far is told of the call. */
#ifndef CLSPLAT_ATTENTION_NEAR_FAR_H
#define CLSPLAT_ATTENTION_NEAR_FAR_H

#include "attention/attend.h"
#include "op/tree/forest.h"

/* Gathers all keys. The forest is the device's until the next one is planted. */
clsplat_status near_far_plant(queue *q, const attend_call *call, op_tensor k, op_tensor v, op_tensor key_bias,
                              op_forest *forest);

/* Whether the forest of all heads fits the device beside the call's tensors. */
bool near_far_fits(const clsplat_limits *limits, const attend_call *call);

/* Whether what the backward pass of so many batch entries and key heads needs fits the device's allocations;
 * adds its bytes to the total. */
bool near_far_backward_fits(const clsplat_limits *limits, const attend_call *call, size_t batch,
                            size_t kv_heads, double *total);

/* Everything but the tensors. */
op_near_far_args near_far_args(const attend_call *call, const op_forest *forest);

/* Whether these go together; chooses the chunk where it is 0, for so many keys. Returns: INVALID. */
clsplat_status near_far_choose(const clsplat_device *device, float tolerance, size_t sparse_topk, size_t keys,
                               size_t *chunk);

/* Whether the device can walk through trees. Returns: UNSUPPORTED. */
clsplat_status near_far_check_device(const clsplat_device *device);

/* Whether the device can do it and the call's parameters make sense together; chooses the chunk. Returns:
 * UNSUPPORTED, INVALID. */
clsplat_status near_far_check(const clsplat_device *device, attend_call *call);

#endif
