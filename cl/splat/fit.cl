/* Fit: what initialising splats asks of a sample of tokens.
 *
 *     nearest      the mean nearest to each token, and its squared distance
 *     closer       the least squared distance to the means so far, one mean more (k-means++)
 *     moments      mean and variance of each cluster's tokens
 *     covariance   covariance matrix of each cluster's tokens
 *
 * Shapes: tokens [N,D], means [S,D], variance [S,D], covariance [S,D,D]; `order` lists the tokens
 * cluster by cluster, those of cluster s at begin[s] … begin[s+1] − 1.
 * Work: a work-item a token, or a cluster and dimension (pair). No local memory, no barrier; sums run in
 * the order of the list, so that a seed gives the same bits every time. Variances are taken around the mean
 * just computed: nothing cancels far from the origin. */
#include "shared/tensor.clh"

#ifndef D
#define D 64
#endif

static inline float squared_distance(global const float *a, global const float *b) {
    floatW lanes = (floatW)(0.0f);
    uint d = 0;
    for (; d + W <= D; d += W) {
        floatW t = LOADW(F32, a, d) - LOADW(F32, b, d);
        lanes = MAD(t, t, lanes);
    }
    float total = SUM(lanes);
    for (; d < D; ++d) {
        float t = a[d] - b[d];
        total = MAD(t, t, total);
    }
    return total;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void fit_nearest(uint count, uint splats,
                                                                        global const float *tokens,
                                                                        global const float *means, global uint *nearest,
                                                                        global float *distance) {
    uint i = get_global_id(0);
    if (i >= count)
        return;
    float least = INFINITY;
    uint best = 0;
    for (uint s = 0; s < splats; ++s) {
        float x = squared_distance(tokens + i * D, means + s * D);
        if (x < least) {
            least = x;
            best = s;
        }
    }
    nearest[i] = best;
    distance[i] = least;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void fit_closer(uint count, uint splat, uint first,
                                                                       global const float *tokens,
                                                                       global const float *means,
                                                                       global float *distance) {
    uint i = get_global_id(0);
    if (i >= count)
        return;
    float x = squared_distance(tokens + i * D, means + splat * D);
    distance[i] = first ? x : fmin(distance[i], x);
}

/* A cluster without tokens keeps its mean, and has no variance. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void fit_moments(global const float *tokens,
                                                                        global const uint *order,
                                                                        global const uint *begin, global float *means,
                                                                        global float *variance) {
    uint d = get_global_id(0), s = get_global_id(1);
    if (d >= D)
        return;
    uint first = begin[s], last = begin[s + 1];
    float mean = means[s * D + d], sum = 0.0f;
    if (first < last) {
        float base = tokens[order[first] * D + d]; /* sums stay small: distances from one of the tokens */
        for (uint i = first; i < last; ++i)
            sum += tokens[order[i] * D + d] - base;
        mean = base + sum / (float)(last - first);
    }
    sum = 0.0f;
    for (uint i = first; i < last; ++i) {
        float t = tokens[order[i] * D + d] - mean;
        sum = MAD(t, t, sum);
    }
    means[s * D + d] = mean;
    variance[s * D + d] = first < last ? sum / (float)(last - first) : 0.0f;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
fit_covariance(global const float *tokens, global const uint *order, global const uint *begin,
               global const float *means, global float *covariance) {
    uint e = get_global_id(0), d = get_global_id(1), s = get_global_id(2);
    if (e >= D)
        return;
    uint first = begin[s], last = begin[s + 1];
    float sum = 0.0f;
    for (uint i = first; i < last; ++i) {
        global const float *x = tokens + order[i] * D;
        sum = MAD(x[d] - means[s * D + d], x[e] - means[s * D + e], sum);
    }
    covariance[(s * D + d) * D + e] = first < last ? sum / (float)(last - first) : 0.0f;
}
