/* Splats from data, whatever the method: reproducible, finite, of the right counts, on small devices too. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/cloud.h"
#include "attention/problem.h"
#include "attention/sets.h"
#include "base/half.h"

/* Everything that init promises of a set, apart from where the splats are. */
static void ck_levels(clsplat_splats *set, const clsplat_hierarchy *levels) {
    clsplat_splats_parameters p = clsplat_splats_get(set);
    ck_assert_uint_eq(p.shape.levels, levels->levels);
    for (size_t l = 0; l < levels->levels; l++) {
        ck_assert_str_eq(p.level_names[l], levels->names[l]);
        ck_assert_float_eq_tol(p.level_log_weight[l], logf((float)levels->weights[l]), 1e-6f);
    }
    for (size_t h = 0; h < p.shape.heads; h++) {
        size_t count[3] = {0};
        double share[3] = {0};
        for (size_t s = 0; s < p.shape.count; s++) {
            ck_assert_float_eq(p.log_temperature[h * p.shape.count + s], 0);
            count[p.level[s]]++;
            share[p.level[s]] += exp((double)p.log_amplitude[h * p.shape.count + s]);
        }
        for (size_t l = 0; l < levels->levels; l++) {
            ck_assert_uint_eq(count[l], levels->counts[l]);
            /* A splat without tokens counts as half a token. */
            ck_assert_msg(share[l] > 1 - 1e-5 && share[l] < 1.1, "level %zu has a share of %g", l, share[l]);
        }
    }
}

static bool means_differ(clsplat_splats *a, clsplat_splats *b) {
    clsplat_splats_parameters p = clsplat_splats_get(a), q = clsplat_splats_get(b);
    return memcmp(p.mean, q.mean, p.shape.heads * p.shape.count * p.shape.dim * sizeof *p.mean) != 0;
}

START_TEST(a_seed_gives_the_same_bits) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    cloud_levels levels;
    clsplat_init init = cloud_case(_i);
    init.hierarchy = cloud_level(&levels, 12, 5, 2);
    init.sample = 150;
    init.seed = 7;
    clsplat_splats *first = cloud_splats(s.lib, s.device, &c, init);
    if (first) {
        clsplat_splats *second = cloud_splats(s.lib, s.device, &c, init);
        ck_assert_uint_eq(clsplat_splats_get(first).shape.heads, c.heads);
        ck_levels(first, init.hierarchy);
        suite_ok(s.lib, clsplat_splats_changed(first));
        sets_same(first, second);
        init.seed = 8;
        clsplat_splats *other = cloud_splats(s.lib, s.device, &c, init);
        ck_assert(means_differ(first, other));
        clsplat_splats_destroy(&other);
        clsplat_splats_destroy(&second);
    }
    clsplat_splats_destroy(&first);
    cloud_free(&c);
}
END_TEST

/* All tokens one; three different ones for eight splats; as many splats as tokens; one dimension. */
static const struct {
    cloud_token *token;
    size_t keys, dim, splats;
} poor[] = {
    {cloud_equal, 20, 3, 4}, {cloud_three, 30, 4, 8}, {cloud_normal, 9, 6, 9}, {cloud_normal, 40, 1, 5}};
enum { POOR = sizeof poor / sizeof *poor };

START_TEST(poor_data_gives_finite_splats) {
    problem_stage s = problem_on_stage();
    cloud c = {.batch = 1,
               .heads = 2,
               .kv_heads = 2,
               .keys = poor[_i / CLOUD_CASES].keys,
               .dim = poor[_i / CLOUD_CASES].dim};
    cloud_levels levels;
    clsplat_init init = cloud_case(_i % CLOUD_CASES);
    cloud_fill(&c, 3, poor[_i / CLOUD_CASES].token);
    init.hierarchy = cloud_level(&levels, poor[_i / CLOUD_CASES].splats, 1, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    if (set) {
        clsplat_splats_parameters p = clsplat_splats_get(set);
        suite_ok(s.lib, clsplat_splats_changed(set));
        for (size_t i = 0; i < p.shape.heads * p.shape.count * p.shape.dim; i++)
            if (poor[_i / CLOUD_CASES].token == cloud_equal)
                ck_assert_float_eq_tol(p.mean[i], c.k[i % c.dim], 1e-6f);
    }
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

/* The same numbers as F16, with gaps between the rows, and in front of the first. */
START_TEST(type_and_layout_do_not_matter) {
    enum { GAP = 3, FRONT = 5 };
    problem_stage s = problem_on_stage();
    cloud c = {.batch = 2, .heads = 2, .kv_heads = 2, .keys = 40, .dim = 4};
    cloud_levels levels;
    clsplat_init init = clsplat_init_defaults();
    clsplat_splats *set = NULL;
    cloud_fill(&c, 5, cloud_normal);
    size_t rows = cloud_keys(&c), pitch = c.dim + GAP;
    uint16_t *halves = malloc((rows * pitch + FRONT) * sizeof *halves);
    for (size_t i = 0; i < rows * pitch + FRONT; i++)
        halves[i] = 0x7e00; /* NaN */
    for (size_t i = 0; i < rows * c.dim; i++) {
        uint16_t *half = &halves[FRONT + i / c.dim * pitch + i % c.dim];
        *half = half_to_f16(c.k[i]);
        c.k[i] = half_from_f16(*half);
    }
    init.hierarchy = cloud_level(&levels, 6, 2, 0);
    clsplat_splats *dense = cloud_splats(s.lib, s.device, &c, init);
    clsplat_tensor k = clsplat_tensor_host(CLSPLAT_F16, c.batch, c.heads, c.keys, c.dim, halves);
    k.offset = FRONT;
    k.stride[0] = c.heads * c.keys * pitch, k.stride[1] = c.keys * pitch, k.stride[2] = pitch;
    suite_ok(s.lib, clsplat_splats_init(s.device, init, (clsplat_tensor){0}, k, &set));
    sets_same(dense, set);
    clsplat_splats_destroy(&set);
    clsplat_splats_destroy(&dense);
    free(halves);
    cloud_free(&c);
}
END_TEST

/* A shared set of all heads is the set of one head that has all their tokens. */
START_TEST(shared_means_all_heads) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    cloud_levels levels;
    clsplat_init init = clsplat_init_defaults();
    init.hierarchy = cloud_level(&levels, 9, 3, 0);
    init.shared = true;
    clsplat_splats *shared = cloud_splats(s.lib, s.device, &c, init), *one = NULL;
    init.shared = false;
    clsplat_tensor q = clsplat_tensor_host(CLSPLAT_F32, 1, 1, cloud_queries(&c), c.dim, c.q);
    clsplat_tensor k = clsplat_tensor_host(CLSPLAT_F32, 1, 1, cloud_keys(&c), c.dim, c.k);
    suite_ok(s.lib, clsplat_splats_init(s.device, init, q, k, &one));
    ck_assert_uint_eq(clsplat_splats_get(shared).shape.heads, 1);
    sets_same(shared, one);
    clsplat_splats_destroy(&shared);
    clsplat_splats_destroy(&one);
    cloud_free(&c);
}
END_TEST

/* Every tensor's head lies somewhere else: keys of head g around 100 g, queries of head h around 10 h. */
static void place_by_head(float *x, size_t rows, const cloud *c, size_t heads, float step) {
    for (size_t i = 0; i < rows * c->dim; i++)
        x[i] = step * (float)(i / c->dim / (rows / c->batch / heads) % heads);
}

START_TEST(a_head_has_its_queries_and_its_key_heads_keys) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    cloud_levels levels;
    clsplat_init init = clsplat_init_defaults();
    place_by_head(c.q, cloud_queries(&c), &c, c.heads, 10);
    place_by_head(c.k, cloud_keys(&c), &c, c.kv_heads, 100);
    init.hierarchy = cloud_level(&levels, 1, 0, 0);
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    double queries = (double)(c.batch * c.queries), keys = (double)(c.batch * c.keys);
    for (size_t h = 0; h < c.heads; h++) {
        double expected = (queries * 10 * (double)h + keys * 100 * (double)(h / 2)) / (queries + keys);
        ck_assert_double_eq_tol((double)clsplat_splats_get(set).mean[h * c.dim], expected, 1e-4);
    }
    clsplat_splats_destroy(&set);
    cloud_free(&c);
}
END_TEST

/* Work-groups of 1 and vectors of 4 give the same clusters. */
START_TEST(a_small_device_is_enough) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_blobs);
    cloud_levels levels;
    clsplat_init init = cloud_case(_i);
    clsplat_limits limits = clsplat_device_describe(s.device)->limits, small = limits;
    small.max_work_group = 1;
    small.vector_width_float = 1;
    init.hierarchy = cloud_level(&levels, CLOUD_BLOBS, 1, 0);
    clsplat_splats *large = cloud_splats(s.lib, s.device, &c, init);
    clsplat_device_set_limits(s.device, small);
    clsplat_splats *same = cloud_splats(s.lib, s.device, &c, init);
    clsplat_device_set_limits(s.device, limits);
    if (large) {
        clsplat_splats_parameters p = clsplat_splats_get(large), q = clsplat_splats_get(same);
        for (size_t i = 0; i < p.shape.heads * p.shape.count * p.shape.dim; i++)
            ck_assert_float_eq_tol(p.mean[i], q.mean[i], 1e-4f);
    }
    clsplat_splats_destroy(&large);
    clsplat_splats_destroy(&same);
    cloud_free(&c);
}
END_TEST

typedef struct watched {
    unsigned calls, stop; /* stops at call `stop` */
    double last;
} watched;

static bool watch(void *user, double done) {
    watched *w = user;
    ck_assert_msg(done >= w->last && done <= 1, "%g after %g", done, w->last);
    w->last = done;
    return ++w->calls != w->stop;
}

START_TEST(progress_is_told_and_can_stop) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    cloud_levels levels;
    watched w = {0};
    clsplat_init init = clsplat_init_defaults();
    init.hierarchy = cloud_level(&levels, 9, 3, 0);
    init.progress = watch;
    init.progress_user = &w;
    clsplat_splats *set = cloud_splats(s.lib, s.device, &c, init);
    clsplat_splats_destroy(&set);
    ck_assert_uint_gt(w.calls, 1);
    ck_assert_double_eq(w.last, 1);
    for (unsigned calls = w.calls, stop = 1; stop <= calls; stop++) {
        w = (watched){.stop = stop};
        set = (clsplat_splats *)&w;
        ck_assert_int_eq(cloud_init(s.device, &c, init, &set), CLSPLAT_CANCELLED);
        ck_assert_ptr_null(set);
        ck_assert_uint_eq(w.calls, stop);
    }
    cloud_free(&c);
}
END_TEST

/* Variance √D, ln a = |μ|² / (2√D), whatever the tokens' own variances are. */
START_TEST(splats_that_match_softmax) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    cloud_levels levels;
    clsplat_init init = cloud_case(3 * CLSPLAT_INIT_KMEANS + _i);
    init.match = CLSPLAT_MATCH_SOFTMAX;
    init.hierarchy = cloud_level(&levels, 7, 2, 0);
    clsplat_splats *splats = cloud_splats(s.lib, s.device, &c, init);
    clsplat_splats_parameters p = clsplat_splats_get(splats);
    size_t dim = p.shape.dim, size = splats_covariance_size(&p.shape);
    double variance = sqrt((double)dim);
    for (size_t i = 0; i < p.shape.heads * p.shape.count; i++) {
        double square = 0;
        for (size_t d = 0; d < dim; d++)
            square += pow((double)p.mean[i * dim + d], 2);
        ck_assert_double_eq_tol((double)p.log_amplitude[i], square / (2 * variance), 1e-5 * (1 + square));
        for (size_t d = 0; d < size; d++) {
            double factor = d % (dim + 1) == 0 ? 1 / sqrt(variance) : 0;
            if (p.precision_chol)
                ck_assert_double_eq_tol((double)p.precision_chol[i * size + d], factor, 1e-6);
            else
                ck_assert_double_eq_tol((double)p.log_var[i * size + d], log(variance), 1e-6);
        }
    }
    clsplat_splats_destroy(&splats);
    cloud_free(&c);
}
END_TEST

START_TEST(the_factor_on_variances) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    clsplat_covariance covariance = (clsplat_covariance)_i;
    cloud_levels levels;
    clsplat_init init = cloud_case(3 * CLSPLAT_INIT_KMEANS + _i);
    init.hierarchy = cloud_level(&levels, 7, 1, 0);
    clsplat_splats *plain = cloud_splats(s.lib, s.device, &c, init);
    init.variance_scale = 4;
    clsplat_splats *wide = cloud_splats(s.lib, s.device, &c, init);
    clsplat_splats_parameters p = clsplat_splats_get(plain), q = clsplat_splats_get(wide);
    for (size_t i = 0; i < p.shape.heads * p.shape.count * splats_covariance_size(&p.shape); i++) {
        if (covariance == CLSPLAT_FULL)
            ck_assert_float_eq_tol(q.precision_chol[i], p.precision_chol[i] / 2,
                                   1e-5f * (1 + fabsf(p.precision_chol[i])));
        else
            ck_assert_float_eq_tol(q.log_var[i], p.log_var[i] + logf(4), 1e-5f);
    }
    clsplat_splats_destroy(&plain);
    clsplat_splats_destroy(&wide);
    cloud_free(&c);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, a_seed_gives_the_same_bits, 0, CLOUD_CASES);
    tcase_add_loop_test(part, poor_data_gives_finite_splats, 0, POOR * CLOUD_CASES);
    tcase_add_test(part, type_and_layout_do_not_matter);
    tcase_add_test(part, shared_means_all_heads);
    tcase_add_test(part, a_head_has_its_queries_and_its_key_heads_keys);
    tcase_add_loop_test(part, a_small_device_is_enough, 0, CLOUD_CASES);
    tcase_add_test(part, progress_is_told_and_can_stop);
    tcase_add_loop_test(part, splats_that_match_softmax, 0, 3);
    tcase_add_loop_test(part, the_factor_on_variances, 0, 3);
}

int main(void) {
    static const suite_part parts[] = {{"init", add_all}};
    return suite_run("init", parts, sizeof parts / sizeof *parts);
}
