/* What the rows of softmax attention's gradient share. */
#ifndef CLSPLAT_OP_SOFTMAX_SOFTMAX_BACKWARD_H
#define CLSPLAT_OP_SOFTMAX_SOFTMAX_BACKWARD_H

#include "op/backward.h"
#include "op/kernel.h"

/* Of so many products of D and of Dv columns per pair, of which the forward pass has one each. */
work softmax_backward_work(const op_softmax_backward_args *args, double keys, double values);

/* The definitions of a call's shapes and tensors. */
void softmax_backward_options(kernel_options *o, const op_softmax_backward_args *args);

/* GPUs of any vendor: tiles in local memory, any storage types. */
bool softmax_backward_local_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_backward_local_run(queue *q, const void *args);

/* NVIDIA's matrix units: 16-bit types, no bias. */
bool softmax_backward_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status softmax_backward_mma_run(queue *q, const void *args);

#endif
