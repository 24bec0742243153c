/* Blocks of host tensors on the device: densely packed copies in workspaces. */
#ifndef CLSPLAT_ATTENTION_STAGE_H
#define CLSPLAT_ATTENTION_STAGE_H

#include "op/op.h"

/* A box of a tensor: where it begins and how much of it, in batch entries, heads and rows. */
typedef struct stage_box {
    size_t begin[3], count[3];
} stage_box;

/* Copies the box of a host tensor into the slot; an absent tensor stays absent. Blocks. */
clsplat_status stage_in(queue *q, workspace_slot slot, const clsplat_tensor *host, stage_box box,
                        op_tensor *staged);

/* A block for the box of a result: of float32, or of the counts of an I32 tensor. */
clsplat_status stage_result(clsplat_device *device, workspace_slot slot, const clsplat_tensor *host,
                            stage_box box, op_tensor *staged);

/* Copies a result block to its place in the host tensor, in that tensor's type. Nothing for an
 * absent tensor. Blocks. */
clsplat_status stage_out(queue *q, const op_tensor *staged, const clsplat_tensor *host, stage_box box);

/* Sets the box of a host tensor to one value. Nothing for an absent tensor. */
void stage_fill(const clsplat_tensor *host, stage_box box, float value);

#endif
