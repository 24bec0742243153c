/* The gradients of Gaussian attention of tensors on the device, out of the operations of op/backward.h. */
#ifndef CLSPLAT_ATTENTION_GAUSSIAN_BACKWARD_H
#define CLSPLAT_ATTENTION_GAUSSIAN_BACKWARD_H

#include "attention/gaussian.h"
#include "op/backward.h"

typedef struct gaussian_gradient {
    gaussian_call call; /* out and lse are not needed */
    op_tensor dout, dq, dk, dv, dkey_bias;
    cl_mem moments;         /* of the whole set, [Hs,S,op_moments_size]: added to */
    cl_mem level_gradients; /* [B,H,L] of these heads: added to, per level; else untouched */
} gaussian_gradient;

/* All heads and tokens of the call, whose batch and heads must be few enough for gaussian_backward_fits. */
clsplat_status gaussian_backward(queue *q, const gaussian_gradient *gradient);
bool gaussian_backward_fits(const clsplat_limits *limits, const gaussian_call *call, size_t batch,
                            size_t kv_heads);

#endif
