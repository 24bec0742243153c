/* What splats know of keys, between a device and the host. */
#ifndef CLSPLAT_ATTENTION_CARRY_H
#define CLSPLAT_ATTENTION_CARRY_H

#include "attention/attend.h"
#include "attention/gaussian.h"
#include "attention/stage.h"

/* The states of the heads in the box, which gaussian_accumulate left on the device, to their place in
 * call->carry. Blocks. */
clsplat_status carry_down(queue *q, const gaussian_call *block, const attend_call *call, stage_box by_key);
/* From there to where gaussian_query and gaussian_causal (with begin false) look for them; a block that has
 * had no keys learns how many heads and columns they have. Blocks. */
clsplat_status carry_up(queue *q, gaussian_call *block, const attend_call *call, stage_box by_key);

#endif
