/* Statistics of a sample of tokens under a set of means, for initialising splats: see cl/splat/fit.cl. */
#ifndef CLSPLAT_OP_SPLAT_FIT_H
#define CLSPLAT_OP_SPLAT_FIT_H

#include "runtime/queue.h"

/* Tokens [count,dim] and room for up to `splats` clusters, all on the device, float32. */
typedef struct op_fit {
    size_t count, dim, splats;
    cl_mem tokens;
    cl_mem means, variance; /* [splats,dim] */
    cl_mem nearest;         /* [count] uint */
    cl_mem distance;        /* [count], squared */
    cl_mem order;           /* [count] uint: tokens cluster by cluster */
    cl_mem begin;           /* [splats+1] uint: where a cluster begins in order */
} op_fit;

/* The buffers, with the tokens copied. Ownership: the caller's, for op_fit_release. Blocks.
 * Returns: INVALID if the sample is too large for 32-bit indices. */
clsplat_status op_fit_create(queue *q, const float *tokens, size_t count, size_t dim, size_t splats,
                             op_fit *fit);
void op_fit_release(clsplat_device *device, op_fit *fit);

/* nearest and distance of every token among the first `splats` means. */
clsplat_status op_fit_nearest(queue *q, const op_fit *fit, size_t splats);
/* distance = the smaller of itself (unless `first`) and that to mean `splat`. */
clsplat_status op_fit_closer(queue *q, const op_fit *fit, size_t splat, bool first);
/* means and variance of the first `splats` clusters from order and begin. */
clsplat_status op_fit_moments(queue *q, const op_fit *fit, size_t splats);
/* The covariance of each cluster around its mean, [splats,dim,dim].
 * Returns: INVALID if that is too large for 32-bit indices. */
clsplat_status op_fit_covariance(queue *q, const op_fit *fit, size_t splats, cl_mem covariance);

/* Between one of the buffers and host memory, `count` 4-byte elements from element `first`. Both block. */
clsplat_status op_fit_put(queue *q, cl_mem mem, size_t first, size_t count, const void *host);
clsplat_status op_fit_get(queue *q, cl_mem mem, size_t first, size_t count, void *host);

#endif
