#include "attention/cloud.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t cloud_queries(const cloud *c) {
    return c->batch * c->heads * c->queries;
}

size_t cloud_keys(const cloud *c) {
    return c->batch * c->kv_heads * c->keys;
}

static float *fill_rows(random_state *r, size_t rows, size_t dim, cloud_token *token) {
    float *x = malloc((rows * dim + 1) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < rows; i++)
        token(r, i, dim, x + i * dim);
    for (size_t i = 0; i < rows * dim; i++)
        x[i] = roundf(x[i] * 1024) / 1024;
    return x;
}

void cloud_fill(cloud *c, uint64_t seed, cloud_token *token) {
    random_state r = random_seed(seed);
    c->q = c->queries ? fill_rows(&r, cloud_queries(c), c->dim, token) : NULL;
    c->k = fill_rows(&r, cloud_keys(c), c->dim, token);
}

void cloud_free(cloud *c) {
    free(c->q);
    free(c->k);
}

void cloud_normal(random_state *r, size_t row, size_t dim, float *token) {
    (void)row;
    for (size_t d = 0; d < dim; d++)
        token[d] = (float)random_normal(r);
}

/* The corners of a simplex, and its centre's opposite. */
double cloud_blob_mean(size_t b, size_t d) {
    static const double places[CLOUD_BLOBS][3] = {{0, 0, 0},   {20, 0, 3},  {0, 18, -4},
                                                  {-3, 2, 22}, {-17, 5, 1}, {4, -19, 2}};
    return places[b][d % 3];
}

double cloud_blob_deviation(size_t b, size_t d) {
    return 0.7 + 0.1 * (double)b + 0.2 * (double)(d % 3);
}

void cloud_blobs(random_state *r, size_t row, size_t dim, float *token) {
    size_t b = row % CLOUD_BLOBS;
    for (size_t d = 0; d < dim; d++)
        token[d] = (float)(cloud_blob_mean(b, d) + cloud_blob_deviation(b, d) * random_normal(r));
}

void cloud_equal(random_state *r, size_t row, size_t dim, float *token) {
    (void)r, (void)row;
    for (size_t d = 0; d < dim; d++)
        token[d] = 1.5f - (float)d;
}

void cloud_three(random_state *r, size_t row, size_t dim, float *token) {
    (void)r;
    for (size_t d = 0; d < dim; d++)
        token[d] = (float)(row % 3 * (d + 1));
}

cloud cloud_grouped(cloud_token *token) {
    cloud c = {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 60, .keys = 50, .dim = 5};
    cloud_fill(&c, 1, token);
    return c;
}

clsplat_init cloud_case(int i) {
    clsplat_init init = clsplat_init_defaults();
    init.method = (clsplat_init_method)(i / 3);
    init.covariance = (clsplat_covariance)(i % 3);
    return init;
}

const clsplat_hierarchy *cloud_level(cloud_levels *levels, size_t a, size_t b, size_t c) {
    *levels = (cloud_levels){.names = {(char *)"Fine", (char *)"Middle", (char *)"Coarse"},
                             .counts = {a, b, c},
                             .weights = {0.5, 0.3, 0.2}};
    levels->hierarchy = (clsplat_hierarchy){.levels = c   ? 3
                                                      : b ? 2
                                                          : 1,
                                            .names = levels->names,
                                            .counts = levels->counts,
                                            .weights = levels->weights};
    return &levels->hierarchy;
}

clsplat_status cloud_init(clsplat_device *device, const cloud *c, clsplat_init init, clsplat_splats **set) {
    clsplat_tensor q = {0}, k;
    if (c->q)
        q = clsplat_tensor_host(CLSPLAT_F32, c->batch, c->heads, c->queries, c->dim, c->q);
    k = clsplat_tensor_host(CLSPLAT_F32, c->batch, c->kv_heads, c->keys, c->dim, c->k);
    return clsplat_splats_init(device, init, q, k, set);
}

clsplat_splats *cloud_splats(clsplat *lib, clsplat_device *device, const cloud *c, clsplat_init init) {
    clsplat_splats *set = NULL;
    clsplat_status status = cloud_init(device, c, init, &set);
    bool optional = init.method == CLSPLAT_INIT_PCA || init.method == CLSPLAT_INIT_SPECTRAL;
    if (status == CLSPLAT_UNSUPPORTED && optional) {
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "-Dlapacke=enabled"));
        suite_skipped("PCA and spectral initialisation", "this build has no LAPACKE");
        return NULL;
    }
    suite_ok(lib, status);
    return set;
}
