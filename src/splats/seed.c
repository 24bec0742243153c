#include "splats/seed.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/buffer.h"
#include "splats/eigen.h"

static clsplat_status no_memory(const cluster_set *set) {
    return log_error(set->queue.device->lib, CLSPLAT_MEMORY, "no memory to initialise %zu splats",
                     set->fit.splats);
}

static clsplat_status seed_random(cluster_set *set, random_state *random, size_t splats) {
    random_sample(random, set->fit.count, splats, set->picked);
    return cluster_take_picked(set, 0, splats);
}

clsplat_status seed_kmeans(cluster_set *set, random_state *random, size_t fixed, size_t splats,
                           unsigned steps) {
    clsplat_status status = CLSPLAT_OK;
    TRY(cluster_seed(set, random, fixed, splats));
    TRY(cluster_refine(set, fixed, splats, steps));
fail:
    return status;
}

/* A token and how much it stands out. */
typedef struct ranked {
    double score;
    size_t token;
} ranked;

static int by_score(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* Tokens are centred: their norm is the distance from the sample's mean. */
static double norm_of(const cluster_set *set, size_t token) {
    double square = 0;
    for (size_t d = 0; d < set->fit.dim; ++d) {
        double x = (double)set->tokens[token * set->fit.dim + d];
        square += x * x;
    }
    return sqrt(square);
}

/* The mean of all tokens' squared cosines to a token is xᵀ M x / |x|² with M = Σ y yᵀ / |y|² / N: a rare
 * direction has little of it. */
static bool rank_directions(const cluster_set *set, ranked *rank) {
    size_t dim = set->fit.dim;
    double *m = calloc(dim * dim, sizeof *m);
    if (!m)
        return false;
    for (size_t i = 0; i < set->fit.count; ++i) {
        const float *x = set->tokens + i * dim;
        double norm = norm_of(set, i), weight = norm > 0 ? 1 / (norm * norm * (double)set->fit.count) : 0;
        for (size_t a = 0; a < dim; ++a)
            for (size_t b = 0; b < dim; ++b)
                m[a * dim + b] += weight * (double)x[a] * (double)x[b];
    }
    for (size_t i = 0; i < set->fit.count; ++i) {
        const float *x = set->tokens + i * dim;
        double norm = norm_of(set, i), share = 0;
        for (size_t a = 0; a < dim; ++a)
            for (size_t b = 0; b < dim; ++b)
                share += (double)x[a] * m[a * dim + b] * (double)x[b];
        rank[i] = (ranked){norm > 0 ? -share / (norm * norm) : -1, i};
    }
    free(m);
    return true;
}

static bool is_picked(const cluster_set *set, size_t token, size_t picked) {
    for (size_t s = 0; s < picked; ++s)
        if (set->picked[s] == token)
            return true;
    return false;
}

/* Half of the means are salient tokens, which stay: as many of high norm as of rare direction. */
static clsplat_status seed_token_aware(cluster_set *set, random_state *random, size_t splats,
                                       unsigned steps) {
    clsplat_status status = CLSPLAT_OK;
    size_t salient = splats / 2, picked = 0, count = set->fit.count;
    ranked *rank = malloc(count * sizeof *rank);
    if (!rank)
        return no_memory(set);
    for (size_t i = 0; i < count; ++i)
        rank[i] = (ranked){norm_of(set, i), i};
    qsort(rank, count, sizeof *rank, by_score);
    for (; picked < salient - salient / 2; ++picked)
        set->picked[picked] = rank[picked].token;
    if (!rank_directions(set, rank)) {
        status = no_memory(set);
        goto fail;
    }
    qsort(rank, count, sizeof *rank, by_score);
    for (size_t i = 0; picked < salient && i < count; ++i)
        if (!is_picked(set, rank[i].token, picked))
            set->picked[picked++] = rank[i].token;
    TRY(cluster_take_picked(set, 0, salient));
    TRY(seed_kmeans(set, random, salient, splats, steps));
fail:
    free(rank);
    return status;
}

/* The covariance matrix of all tokens, in double, from the device. */
static clsplat_status sample_covariance(cluster_set *set, double *covariance) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = set->fit.dim;
    cl_mem mem = NULL;
    float *host = calloc(dim * dim, sizeof *host);
    if (!host)
        return no_memory(set);
    TRY(buffer_create(set->queue.device, 4 * dim * dim, &mem));
    TRY(op_fit_put(&set->queue, set->fit.means, 0, dim, host)); /* the sample's mean is 0: it is centred */
    TRY(cluster_assign(set, 1));
    TRY(op_fit_covariance(&set->queue, &set->fit, 1, mem));
    TRY(op_fit_get(&set->queue, mem, 0, dim * dim, host));
    for (size_t i = 0; i < dim * dim; ++i)
        covariance[i] = (double)host[i];
fail:
    buffer_release(set->queue.device, 4 * dim * dim, &mem);
    free(host);
    return status;
}

/* How many splats an axis gets: in proportion to its standard deviation, by largest remainders. */
static void share_axes(const double *variance, size_t axes, size_t splats, ranked *rest, size_t *counts) {
    double total = 0;
    size_t given = 0;
    for (size_t a = 0; a < axes; ++a)
        total += sqrt(fmax(variance[a], 0));
    for (size_t a = 0; a < axes; ++a) {
        double share = total > 0 ? sqrt(fmax(variance[a], 0)) / total * (double)splats : 0;
        counts[a] = (size_t)share;
        rest[a] = (ranked){share - floor(share), a};
        given += counts[a];
    }
    qsort(rest, axes, sizeof *rest, by_score);
    for (size_t a = 0; given < splats; a = (a + 1) % axes, ++given)
        ++counts[rest[a].token];
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* `count` means along an axis, at the quantiles (i + ½) / count of the tokens' projections. */
static void place_on_axis(const cluster_set *set, const double *axis, size_t count, double *projection,
                          float *means) {
    size_t dim = set->fit.dim, tokens = set->fit.count;
    for (size_t i = 0; i < tokens; ++i) {
        projection[i] = 0;
        for (size_t d = 0; d < dim; ++d)
            projection[i] += axis[d] * (double)set->tokens[i * dim + d];
    }
    qsort(projection, tokens, sizeof *projection, by_value);
    for (size_t s = 0; s < count; ++s) {
        double at = projection[(size_t)(((double)s + 0.5) / (double)count * (double)tokens)];
        for (size_t d = 0; d < dim; ++d)
            means[s * dim + d] = (float)(at * axis[d]);
    }
}

static clsplat_status seed_pca(cluster_set *set, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = set->fit.dim, done = 0;
    double *covariance = malloc(dim * dim * sizeof *covariance), *axes = malloc(dim * dim * sizeof *axes);
    double *variance = malloc(dim * sizeof *variance),
           *projection = malloc(set->fit.count * sizeof *projection);
    ranked *rest = malloc(dim * sizeof *rest);
    size_t *counts = malloc(dim * sizeof *counts);
    float *means = malloc(splats * dim * sizeof *means);
    if (!covariance || !axes || !variance || !projection || !rest || !counts || !means) {
        status = no_memory(set);
        goto fail;
    }
    TRY(sample_covariance(set, covariance));
    TRY(eigen_largest(set->queue.device->lib, covariance, dim, dim, variance, axes));
    share_axes(variance, dim, splats, rest, counts);
    for (size_t a = 0; a < dim; done += counts[a++])
        if (counts[a])
            place_on_axis(set, axes + a * dim, counts[a], projection, means + done * dim);
    TRY(op_fit_put(&set->queue, set->fit.means, 0, splats * dim, means));
fail:
    free(means);
    free(counts);
    free(rest);
    free(projection);
    free(variance);
    free(axes);
    free(covariance);
    return status;
}

static clsplat_status place_means(cluster_set *set, const clsplat_init *init, random_state *random,
                                  size_t splats) {
    switch (init->method) {
    case CLSPLAT_INIT_RANDOM:
        return seed_random(set, random, splats);
    case CLSPLAT_INIT_KMEANS:
        return seed_kmeans(set, random, 0, splats, init->lloyd_steps);
    case CLSPLAT_INIT_PCA:
        return seed_pca(set, splats);
    case CLSPLAT_INIT_TOKEN_AWARE:
        return seed_token_aware(set, random, splats, init->lloyd_steps);
    case CLSPLAT_INIT_SPECTRAL: /* has clusters of its own shape: seed_spectral */
        break;
    }
    return log_error(set->queue.device->lib, CLSPLAT_INVALID, "there is no initialisation method %d",
                     (int)init->method);
}

clsplat_status seed_clusters(cluster_set *set, const clsplat_init *init, random_state *random,
                             size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    if (init->method == CLSPLAT_INIT_SPECTRAL)
        return seed_spectral(set, random, splats, init->lloyd_steps);
    TRY(place_means(set, init, random, splats));
    TRY(cluster_assign(set, splats));
fail:
    return status;
}
