/* What the rows of softmax's gradients share. */
#ifndef CLSPLAT_OP_SOFTMAX_SOFTMAX_BACKWARD_H
#define CLSPLAT_OP_SOFTMAX_SOFTMAX_BACKWARD_H

#include "op/backward.h"
#include "op/kernel.h"

/* Products of D and of Dv columns per pair, of which the forward pass has one each. */
work softmax_backward_work(const op_softmax_backward_args *a, double keys, double values);
void softmax_backward_options(kernel_options *o, const op_softmax_backward_args *a);
/* What the kernels that go over pairs begin with. */
void softmax_backward_inputs(launch *l, const kernel_options *o, const op_softmax_backward_args *a);
/* And end with: dk, dv and, if it is wanted, dbias. */
void softmax_backward_results(launch *l, const kernel_options *o, const op_softmax_backward_args *a);

/* GPUs: tiles in local memory, of any vendor; NVIDIA's matrix units; Hopper's own instructions for them. */
bool softmax_backward_local_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_backward_local_run(queue *q, const void *args);
bool softmax_backward_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_backward_mma_run(queue *q, const void *args);
bool softmax_backward_wgmma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_backward_wgmma_run(queue *q, const void *args);
extern const tune_space softmax_backward_wgmma_space;

#endif
