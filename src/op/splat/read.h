/* What the rows of the read share. */
#ifndef CLSPLAT_OP_SPLAT_READ_H
#define CLSPLAT_OP_SPLAT_READ_H

#include "op/kernel.h"

work read_work(const op_read_args *args);

/* NVIDIA's matrix units, and Hopper's own instructions for them. */
bool read_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status read_mma_run(queue *q, const void *args);
bool read_wgmma_fits(const clsplat_limits *limits, const void *args);
clsplat_status read_wgmma_run(queue *q, const void *args);

#endif
