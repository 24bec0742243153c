/* Spectral initialisation: clusters of the normalised affinity graph of landmarks.
 * Source: Ng, Jordan and Weiss 2001; Zelnik-Manor and Perona 2004 for the local scales. */
#include <math.h>
#include <stdlib.h>

#include "splats/eigen.h"
#include "splats/seed.h"

/* Landmarks, and the neighbours that set a landmark's scale. */
enum { LANDMARKS = 512, LANDMARK_LIMIT = 2048, SCALE_NEIGHBOURS = 10 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double squared_distance(const float *a, const float *b, size_t dim) {
    double square = 0;
    for (size_t d = 0; d < dim; ++d) {
        double t = (double)a[d] - (double)b[d];
        square += t * t;
    }
    return square;
}

/* The distance to the tenth nearest of n: a landmark's own scale. `row` holds squared distances. */
static double local_scale(const double *row, size_t n, double *sorted) {
    for (size_t i = 0; i < n; ++i)
        sorted[i] = row[i];
    qsort(sorted, n, sizeof *sorted, by_value);
    return sqrt(sorted[n > SCALE_NEIGHBOURS ? SCALE_NEIGHBOURS : n - 1]);
}

/* D^−½ A D^−½ with A_ij = exp(−|x_i − x_j|² / (σ_i σ_j)), no token being its own neighbour. */
static void normalised_affinity(const float *landmarks, size_t n, size_t dim, double *a, double *scale,
                                double *degree) {
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < n; ++j)
            a[i * n + j] = squared_distance(landmarks + i * dim, landmarks + j * dim, dim);
    for (size_t i = 0; i < n; ++i)
        scale[i] = local_scale(a + i * n, n, degree);
    for (size_t i = 0; i < n; ++i) {
        degree[i] = 0;
        for (size_t j = 0; j < n; ++j) {
            double width = scale[i] * scale[j], square = a[i * n + j];
            a[i * n + j] = i == j ? 0 : width > 0 ? exp(-square / width) : square > 0 ? 0 : 1;
            degree[i] += a[i * n + j];
        }
    }
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < n; ++j)
            a[i * n + j] /= sqrt(fmax(degree[i] * degree[j], 1e-300));
}

/* Landmark i's coordinates in the leading eigenvectors, scaled to length 1. */
static void embed(const double *vectors, size_t n, size_t splats, float *rows) {
    for (size_t i = 0; i < n; ++i) {
        double square = 0;
        for (size_t s = 0; s < splats; ++s)
            square += vectors[s * n + i] * vectors[s * n + i];
        for (size_t s = 0; s < splats; ++s)
            rows[i * splats + s] = (float)(square > 0 ? vectors[s * n + i] / sqrt(square) : 0);
    }
}

/* What it is computed with: n landmarks, rows that say where they are in the eigenvectors. */
typedef struct spectrum {
    size_t n;
    size_t *chosen;
    float *landmarks, *rows;
    double *affinity, *scale, *degree, *values, *vectors;
} spectrum;

static void spectrum_free(spectrum *s) {
    free(s->chosen);
    free(s->landmarks);
    free(s->rows);
    free(s->affinity);
    free(s->scale);
    free(s->degree);
    free(s->values);
    free(s->vectors);
}

static bool spectrum_allocate(spectrum *s, size_t n, size_t dim, size_t splats) {
    *s = (spectrum){.n = n,
                    .chosen = malloc(n * sizeof *s->chosen),
                    .landmarks = malloc(n * dim * sizeof *s->landmarks),
                    .rows = malloc(n * splats * sizeof *s->rows),
                    .affinity = malloc(n * n * sizeof *s->affinity),
                    .scale = malloc(n * sizeof *s->scale),
                    .degree = malloc(n * sizeof *s->degree),
                    .values = malloc(splats * sizeof *s->values),
                    .vectors = malloc(splats * n * sizeof *s->vectors)};
    return s->chosen && s->landmarks && s->rows && s->affinity && s->scale && s->degree && s->values &&
           s->vectors;
}

/* Tokens follow their nearest landmark. A cluster without landmarks keeps one of them as its mean. */
static clsplat_status follow_landmarks(cluster_set *set, const spectrum *s, const uint32_t *label,
                                       size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = set->fit.dim, count = set->fit.count;
    cluster_set near = {0};
    TRY(cluster_create(set->queue.device, set->tokens, count, dim, s->n, &near));
    TRY(op_fit_put(&near.queue, near.fit.means, 0, s->n * dim, s->landmarks));
    TRY(cluster_assign(&near, s->n));
    for (size_t i = 0; i < count; ++i)
        set->nearest[i] = label[near.nearest[i]];
    TRY(op_fit_put(&set->queue, set->fit.means, 0, splats * dim, s->landmarks));
    TRY(cluster_group(set, splats));
    TRY(op_fit_moments(&set->queue, &set->fit, splats));
fail:
    cluster_release(&near);
    return status;
}

static clsplat_status label_landmarks(cluster_set *set, spectrum *s, random_state *random, size_t splats,
                                      unsigned steps) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = set->queue.device;
    cluster_set embedded = {0};
    normalised_affinity(s->landmarks, s->n, set->fit.dim, s->affinity, s->scale, s->degree);
    TRY(eigen_largest(device->lib, s->affinity, s->n, splats, s->values, s->vectors));
    embed(s->vectors, s->n, splats, s->rows);
    TRY(cluster_create(device, s->rows, s->n, splats, splats, &embedded));
    TRY(seed_kmeans(&embedded, random, 0, splats, steps));
    TRY(cluster_assign(&embedded, splats));
    TRY(follow_landmarks(set, s, embedded.nearest, splats));
fail:
    cluster_release(&embedded);
    return status;
}

clsplat_status seed_spectral(cluster_set *set, random_state *random, size_t splats, unsigned steps) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = set->queue.device->lib;
    size_t dim = set->fit.dim, wanted = 2 * splats > LANDMARKS ? 2 * splats : LANDMARKS;
    size_t n = wanted > LANDMARK_LIMIT ? LANDMARK_LIMIT : wanted;
    spectrum s = {0};
    n = n < set->fit.count ? n : set->fit.count;
    if (splats > n)
        return log_error(
            lib, CLSPLAT_INVALID,
            "spectral initialisation makes at most %zu splats a level here, not %zu; choose k-means", n,
            splats);
    if (!spectrum_allocate(&s, n, dim, splats)) {
        status = log_error(lib, CLSPLAT_MEMORY, "no memory for the affinities of %zu tokens", n);
        goto fail;
    }
    random_sample(random, set->fit.count, n, s.chosen);
    for (size_t i = 0; i < n * dim; ++i)
        s.landmarks[i] = set->tokens[s.chosen[i / dim] * dim + i % dim];
    TRY(label_landmarks(set, &s, random, splats, steps));
fail:
    spectrum_free(&s);
    return status;
}
