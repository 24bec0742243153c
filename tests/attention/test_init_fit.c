/* Whether splats from data are the right ones: clusters recovered, moments as in float64, far from the origin
 * too, and what each method promises. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/cloud.h"
#include "attention/problem.h"
#include "splats/cluster.h"
#include "splats/splats.h"

enum { DIM = 3, TOKENS = 1800 };

/* One head of keys. */
static cloud keys_of(cloud_token *token, size_t count, size_t dim, uint64_t seed) {
    cloud c = {.batch = 1, .heads = 1, .kv_heads = 1, .keys = count, .dim = dim};
    cloud_fill(&c, seed, token);
    return c;
}

static double square(double x) {
    return x * x;
}

static double distance(const float *a, const float *b, size_t dim) {
    double sum = 0;
    for (size_t d = 0; d < dim; d++)
        sum += square((double)a[d] - (double)b[d]);
    return sqrt(sum);
}

/* Which tokens belong to a splat, by blob. */
static void blob_moments(const cloud *c, size_t b, double *mean, double *covariance) {
    double n = 0;
    memset(mean, 0, DIM * sizeof *mean);
    memset(covariance, 0, DIM * DIM * sizeof *covariance);
    for (size_t i = b; i < c->keys; i += CLOUD_BLOBS, n++)
        for (size_t d = 0; d < DIM; d++)
            mean[d] += (double)c->k[i * DIM + d];
    for (size_t d = 0; d < DIM; d++)
        mean[d] /= n;
    for (size_t i = b; i < c->keys; i += CLOUD_BLOBS)
        for (size_t d = 0; d < DIM * DIM; d++)
            covariance[d] += ((double)c->k[i * DIM + d / DIM] - mean[d / DIM]) *
                             ((double)c->k[i * DIM + d % DIM] - mean[d % DIM]) / n;
}

/* The splat nearest to a mean; each is nearest to one blob only. */
static size_t find_splat(const clsplat_splats_parameters *p, const double *mean, unsigned *taken) {
    float at[DIM];
    size_t best = 0;
    for (size_t d = 0; d < DIM; d++)
        at[d] = (float)mean[d];
    for (size_t s = 1; s < p->shape.count; s++)
        if (distance(p->mean + s * DIM, at, DIM) < distance(p->mean + best * DIM, at, DIM))
            best = s;
    ck_assert_msg(!(*taken >> best & 1), "splat %zu stands for two blobs", best);
    *taken |= 1u << best;
    return best;
}

/* (L Lᵀ) Σ must be the identity. */
static void ck_inverse(const float *chol, const double *covariance, double tolerance) {
    for (size_t i = 0; i < DIM; i++)
        for (size_t j = 0; j < DIM; j++) {
            double sum = 0;
            for (size_t e = 0; e < DIM * DIM; e++)
                sum += (double)chol[i * DIM + e % DIM] * (double)chol[e / DIM * DIM + e % DIM] *
                       covariance[e / DIM * DIM + j];
            ck_assert_double_eq_tol(sum, i == j, tolerance);
            ck_assert(j <= i || chol[i * DIM + j] == 0);
        }
}

/* A splat's few tokens are drawn towards the level's variance by one token's worth, a factor by DIM, and
 * the floor adds to a factor's diagonal: up to 3 % here. */
static void ck_variance(const clsplat_splats_parameters *p, size_t s, const double *covariance) {
    double mean_variance = 0;
    for (size_t d = 0; d < DIM; d++)
        mean_variance += covariance[d * DIM + d] / DIM;
    if (p->shape.covariance == CLSPLAT_FULL)
        ck_inverse(p->precision_chol + s * DIM * DIM, covariance, 0.05);
    else if (p->shape.covariance == CLSPLAT_ISOTROPIC)
        ck_assert_double_eq_tol(exp((double)p->log_var[s]), mean_variance, 0.03 * mean_variance);
    for (size_t d = 0; d < DIM && p->shape.covariance == CLSPLAT_DIAGONAL; d++)
        ck_assert_double_eq_tol(exp((double)p->log_var[s * DIM + d]), covariance[d * DIM + d],
                                0.03 * covariance[d * DIM + d]);
}

START_TEST(blobs_are_recovered) {
    static const clsplat_init_method methods[] = {CLSPLAT_INIT_KMEANS, CLSPLAT_INIT_SPECTRAL};
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_blobs, TOKENS, DIM, 11);
    cloud_levels levels;
    unsigned taken = 0;
    clsplat_init init = cloud_case(3 * (int)methods[_i / 3] + _i % 3);
    init.hierarchy = cloud_level(&levels, CLOUD_BLOBS, 0, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    for (size_t b = 0; set && b < CLOUD_BLOBS; b++) {
        double mean[DIM], covariance[DIM * DIM];
        clsplat_splats_parameters p = clsplat_splats_get(set);
        blob_moments(&c, b, mean, covariance);
        size_t at = find_splat(&p, mean, &taken);
        for (size_t d = 0; d < DIM; d++)
            ck_assert_double_eq_tol((double)p.mean[at * DIM + d], mean[d], 1e-5);
        ck_assert_float_eq_tol(p.log_amplitude[at], logf(1.0f / CLOUD_BLOBS), 1e-5f);
        ck_variance(&p, at, covariance);
    }
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

/* 64 away, with a variance near 1: a shift that loses no bit of the tokens. */
START_TEST(far_from_the_origin_nothing_is_lost) {
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_normal, 500, 4, 12);
    cloud_levels levels;
    clsplat_init init = cloud_case(_i);
    init.hierarchy = cloud_level(&levels, 7, 2, 0);
    clsplat_splats *near = cloud_splats(s.lib, s.device, &c, init);
    for (size_t i = 0; i < c.keys * c.dim; i++)
        c.k[i] += i % 2 ? 64 : -64;
    clsplat_splats *far = cloud_splats(s.lib, s.device, &c, init);
    if (near) {
        clsplat_splats_parameters p = clsplat_splats_get(near), q = clsplat_splats_get(far);
        for (size_t i = 0; i < p.shape.count * p.shape.dim; i++)
            ck_assert_double_eq_tol((double)q.mean[i] - (i % 2 ? 64 : -64), (double)p.mean[i], 2e-5);
        for (size_t i = 0; p.log_var && i < p.shape.count * splats_covariance_size(&p.shape); i++)
            ck_assert_double_eq_tol((double)q.log_var[i], (double)p.log_var[i], 1e-4);
        for (size_t i = 0; !p.log_var && i < p.shape.count * splats_covariance_size(&p.shape); i++)
            ck_assert_double_eq_tol((double)q.precision_chol[i], (double)p.precision_chol[i], 1e-3);
    }
    clsplat_splats_destroy(&near);
    clsplat_splats_destroy(&far);
    cloud_free(&c);
}
END_TEST

/* The device's lists and moments against sums in double, of tokens around ±60. */
START_TEST(moments_are_those_of_the_members) {
    enum { SPLATS = 5, COUNT = 403, WIDTH = 21 };
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_normal, COUNT, WIDTH, 13);
    random_state random = random_seed(1);
    cluster_set set;
    float mean[SPLATS * WIDTH], variance[SPLATS * WIDTH];
    for (size_t i = 0; i < (size_t)COUNT * WIDTH; i++)
        c.k[i] += i % 3 ? 60 : -60;
    suite_ok(s.lib, cluster_create(s.device, c.k, COUNT, WIDTH, SPLATS, &set));
    suite_ok(s.lib, cluster_seed(&set, &random, 0, SPLATS));
    suite_ok(s.lib, cluster_assign(&set, SPLATS));
    suite_ok(s.lib, op_fit_moments(&set.queue, &set.fit, SPLATS));
    suite_ok(s.lib, op_fit_get(&set.queue, set.fit.means, 0, SPLATS * WIDTH, mean));
    suite_ok(s.lib, op_fit_get(&set.queue, set.fit.variance, 0, SPLATS * WIDTH, variance));
    for (size_t i = 0; i < SPLATS * WIDTH; i++) {
        double sum = 0, squares = 0, n = 0;
        for (size_t t = 0; t < COUNT; t++)
            if (set.nearest[t] == i / WIDTH)
                sum += (double)c.k[t * WIDTH + i % WIDTH], n++;
        for (size_t t = 0; t < COUNT; t++)
            if (set.nearest[t] == i / WIDTH)
                squares += square((double)c.k[t * WIDTH + i % WIDTH] - sum / n);
        ck_assert_double_eq_tol((double)mean[i], sum / n, 1e-5);
        ck_assert_double_eq_tol((double)variance[i], squares / n, 2e-5 * (1 + squares / n));
    }
    cluster_release(&set);
    cloud_free(&c);
}
END_TEST

/* Every token is with the nearest mean, and its distance is known. */
START_TEST(assignment_is_to_the_nearest) {
    enum { SPLATS = 9, COUNT = 200, WIDTH = 10 };
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_normal, COUNT, WIDTH, 14);
    random_state random = random_seed(2);
    cluster_set set;
    suite_ok(s.lib, cluster_create(s.device, c.k, COUNT, WIDTH, SPLATS, &set));
    suite_ok(s.lib, cluster_seed(&set, &random, 0, SPLATS));
    suite_ok(s.lib, cluster_assign(&set, SPLATS));
    for (size_t t = 0; t < COUNT; t++) {
        double least = INFINITY;
        for (size_t m = 0; m < SPLATS; m++)
            least = fmin(least, distance(c.k + t * WIDTH, c.k + set.picked[m] * WIDTH, WIDTH));
        const float *own = c.k + set.picked[set.nearest[t]] * WIDTH;
        ck_assert_double_eq_tol(distance(c.k + t * WIDTH, own, WIDTH), least, 1e-5);
        ck_assert_double_eq_tol((double)set.distance[t], least * least, 1e-4);
    }
    for (size_t m = 0; m < SPLATS; m++)
        for (uint32_t i = set.begin[m]; i < set.begin[m + 1]; i++)
            ck_assert_uint_eq(set.nearest[set.order[i]], m);
    ck_assert_uint_eq(set.begin[SPLATS], COUNT);
    cluster_release(&set);
    cloud_free(&c);
}
END_TEST

/* The tokens' mean squared distance from the nearest splat of level 0. */
static double spread(const cloud *c, clsplat_splats *set) {
    clsplat_splats_parameters p = clsplat_splats_get(set);
    double sum = 0;
    for (size_t t = 0; t < c->keys; t++) {
        double least = INFINITY;
        for (size_t s = 0; s < p.shape.count; s++)
            least = fmin(least, distance(c->k + t * c->dim, p.mean + s * c->dim, c->dim));
        sum += least * least / (double)c->keys;
    }
    return sum;
}

START_TEST(lloyd_steps_bring_the_means_closer) {
    static const unsigned steps[] = {0, 1, 3, 10};
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_normal, 600, 4, 15);
    cloud_levels levels;
    clsplat_init init = clsplat_init_defaults();
    double last = INFINITY;
    init.hierarchy = cloud_level(&levels, 16, 0, 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        init.lloyd_steps = steps[i];
        clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
        double now = spread(&c, set);
        ck_assert_msg(now < last, "%u steps: %g after %g", steps[i], now, last);
        last = now;
        clsplat_splats_destroy(&set);
    }
    cloud_free(&c);
}
END_TEST

/* How many splats stand on this token. */
static size_t splats_on(const clsplat_splats_parameters *p, const float *token) {
    size_t found = 0;
    for (size_t s = 0; s < p->shape.count; s++)
        found += distance(p->mean + s * p->shape.dim, token, p->shape.dim) < 1e-5;
    return found;
}

START_TEST(random_means_are_different_tokens) {
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_normal, 60, 5, 16);
    cloud_levels levels;
    clsplat_init init = cloud_case(3 * CLSPLAT_INIT_RANDOM);
    size_t found = 0;
    init.hierarchy = cloud_level(&levels, 25, 0, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    for (size_t t = 0; t < c.keys; t++) {
        ck_assert_uint_le(splats_on(&p, c.k + t * c.dim), 1);
        found += splats_on(&p, c.k + t * c.dim);
    }
    ck_assert_uint_eq(found, 25);
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

/* Long in one direction, so that nearly all means lie along it. */
static void needle(random_state *r, size_t row, size_t dim, float *token) {
    double along = 30 * random_normal(r);
    (void)row;
    for (size_t d = 0; d < dim; d++)
        token[d] = (float)(along * (d < 2 ? sqrt(0.5) : 0) + 0.5 * random_normal(r));
}

START_TEST(principal_axes_get_the_means) {
    problem_stage s = problem_on_stage();
    cloud c = keys_of(needle, 1000, 4, 17);
    cloud_levels levels;
    clsplat_init init = cloud_case(3 * CLSPLAT_INIT_PCA + 1);
    size_t far = 0;
    init.hierarchy = cloud_level(&levels, 16, 0, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    for (size_t i = 0; set && i < 16; i++) {
        const float *mean = clsplat_splats_get(set).mean + i * c.dim;
        double along = ((double)mean[0] + (double)mean[1]) * sqrt(0.5);
        double aside = sqrt(0.5 * square((double)mean[0] - (double)mean[1]) + square((double)mean[2]) +
                            square((double)mean[3]));
        far += fabs(along) > 5;
        ck_assert_msg(aside < 3, "splat %zu is %g beside the axis", i, aside);
    }
    ck_assert(!set || far >= 10);
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

/* A ring inside a ring: no two means have their tokens on their sides. */
static void rings(random_state *r, size_t row, size_t dim, float *token) {
    double angle = 6.283185307179586 * random_uniform(r), radius = row % 2 ? 1 : 8;
    for (size_t d = 0; d < dim; d++)
        token[d] = (float)(d == 0 ? radius * cos(angle) : d == 1 ? radius * sin(angle) : 0);
}

START_TEST(spectral_clusters_follow_the_graph) {
    problem_stage s = problem_on_stage();
    cloud c = keys_of(rings, 800, 2, 19);
    cloud_levels levels;
    clsplat_init init = cloud_case(3 * CLSPLAT_INIT_SPECTRAL);
    init.hierarchy = cloud_level(&levels, 2, 0, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    if (set) {
        clsplat_splats_parameters p = clsplat_splats_get(set);
        size_t inner = p.log_var[0] > p.log_var[1];
        ck_assert_float_eq_tol(p.log_amplitude[0], logf(0.5f), 1e-5f);
        ck_assert_float_eq_tol(p.log_amplitude[1], logf(0.5f), 1e-5f);
        ck_assert_float_eq_tol(expf(p.log_var[inner]), 0.5f, 0.1f);
        ck_assert_float_eq_tol(expf(p.log_var[1 - inner]), 32, 1.5f);
    }
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

/* Two tokens far out, and two in a direction of their own: each gets a splat. */
START_TEST(salient_tokens_get_splats) {
    enum { COUNT = 300, WIDTH = 6 };
    static const size_t places[] = {7, 101, 200, 299};
    problem_stage s = problem_on_stage();
    cloud c = keys_of(cloud_normal, COUNT, WIDTH, 18);
    cloud_levels levels;
    clsplat_init init = cloud_case(3 * CLSPLAT_INIT_TOKEN_AWARE + 1);
    for (size_t i = 0; i < COUNT; i++) /* nothing but these two has anything in the last dimension */
        c.k[i * WIDTH + WIDTH - 1] = i == places[2] ? 3 : i == places[3] ? -3 : 0;
    for (size_t d = 0; d < WIDTH - 1; d++) {
        c.k[places[0] * WIDTH + d] *= 40;
        c.k[places[1] * WIDTH + d] *= -30;
        c.k[places[2] * WIDTH + d] = c.k[places[3] * WIDTH + d] = 0;
    }
    init.hierarchy = cloud_level(&levels, 8, 0, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        ck_assert_msg(splats_on(&p, c.k + places[i] * WIDTH) == 1, "token %zu", places[i]);
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

static void add_moments(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, moments_are_those_of_the_members);
    tcase_add_test(part, assignment_is_to_the_nearest);
    tcase_add_loop_test(part, blobs_are_recovered, 0, 6);
    tcase_add_loop_test(part, far_from_the_origin_nothing_is_lost, 0, CLOUD_CASES);
}

static void add_methods(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, lloyd_steps_bring_the_means_closer);
    tcase_add_test(part, random_means_are_different_tokens);
    tcase_add_test(part, principal_axes_get_the_means);
    tcase_add_test(part, spectral_clusters_follow_the_graph);
    tcase_add_test(part, salient_tokens_get_splats);
}

int main(void) {
    static const suite_part parts[] = {{"moments", add_moments}, {"methods", add_methods}};
    return suite_run("init_fit", parts, sizeof parts / sizeof *parts);
}
