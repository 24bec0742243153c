/* Clusters of a sample of tokens: k-means++ seeding, Lloyd steps, and who belongs where. */
#ifndef CLSPLAT_SPLATS_CLUSTER_H
#define CLSPLAT_SPLATS_CLUSTER_H

#include "base/random.h"
#include "op/splat/fit.h"

/* A sample on the device, and its clusters on the host. */
typedef struct cluster_set {
    queue queue;
    op_fit fit;
    const float *tokens; /* [count,dim]; the caller's */
    uint32_t *nearest;   /* [count] */
    float *distance;     /* [count], squared */
    uint32_t *order;     /* [count]: tokens cluster by cluster */
    uint32_t *begin;     /* [splats+1] */
    size_t *picked;      /* [splats]: tokens chosen as means */
} cluster_set;

/* For up to `splats` clusters of count tokens. Blocks. Returns: INVALID, MEMORY, OPENCL. */
clsplat_status cluster_create(clsplat_device *device, const float *tokens, size_t count, size_t dim,
                              size_t splats, cluster_set *set);
void cluster_release(cluster_set *set);

/* Makes the tokens picked[first … last − 1] the means of these numbers. */
clsplat_status cluster_take_picked(cluster_set *set, size_t first, size_t last);

/* k-means++: picks the means first … last − 1, each a token drawn with a probability proportional to its
 * squared distance from the means before it; uniformly where all tokens coincide with means. */
clsplat_status cluster_seed(cluster_set *set, random_state *random, size_t first, size_t last);

/* Makes order and begin of `nearest`, whose numbers are below `splats`, here and on the device. */
clsplat_status cluster_group(cluster_set *set, size_t splats);

/* Assigns every token to the nearest of `splats` means, and groups them. */
clsplat_status cluster_assign(cluster_set *set, size_t splats);

/* Lloyd steps on the means fixed … splats − 1. A mean without tokens moves to the token farthest from its
 * own. */
clsplat_status cluster_refine(cluster_set *set, size_t fixed, size_t splats, unsigned steps);

#endif
