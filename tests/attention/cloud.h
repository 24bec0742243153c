/* Tokens to make splats from: queries and keys of a few heads, in host memory, and the call with few words.
 */
#ifndef CLSPLAT_TESTS_CLOUD_H
#define CLSPLAT_TESTS_CLOUD_H

#include "base/random.h"
#include "suite.h"

/* q [batch,heads,queries,dim], k [batch,kv_heads,keys,dim]; no queries: q is absent. */
typedef struct cloud {
    size_t batch, heads, kv_heads, queries, keys, dim;
    float *q, *k;
} cloud;

/* Fills in q and k with what `token` makes of place i among all numbers of a row; multiples of 2⁻¹⁰, which
 * F32 holds exactly up to ±8192. */
typedef void cloud_token(random_state *r, size_t row, size_t dim, float *token);
void cloud_fill(cloud *c, uint64_t seed, cloud_token *token);
void cloud_free(cloud *c);
size_t cloud_queries(const cloud *c); /* of all heads and batch entries */
size_t cloud_keys(const cloud *c);

/* Tokens around 0 with variance 1; six of BLOBS well apart; all of them one; three different ones. */
enum { CLOUD_BLOBS = 6 };
cloud_token cloud_normal, cloud_blobs, cloud_equal, cloud_three;
/* Two batch entries of four heads on two key heads. */
cloud cloud_grouped(cloud_token *token);

/* Blob b's mean and standard deviation in dimension d. */
double cloud_blob_mean(size_t b, size_t d);
double cloud_blob_deviation(size_t b, size_t d);

/* Methods in turn, with covariances: case i of CLOUD_CASES. */
enum { CLOUD_METHODS = 5, CLOUD_CASES = 3 * CLOUD_METHODS };
clsplat_init cloud_case(int i);

/* Levels of these counts, the finest first. */
typedef struct cloud_levels {
    clsplat_hierarchy hierarchy;
    char *names[3];
    size_t counts[3];
    double weights[3];
} cloud_levels;
const clsplat_hierarchy *cloud_level(cloud_levels *levels, size_t a, size_t b, size_t c);

/* The call as it is; and one that must work. Without LAPACKE the second gives NULL for the methods that need
 * it, after it has looked at the words. */
clsplat_status cloud_init(clsplat_device *device, const cloud *c, clsplat_init init, clsplat_splats **set);
clsplat_splats *cloud_splats(clsplat *lib, clsplat_device *device, const cloud *c, clsplat_init init);

#endif
