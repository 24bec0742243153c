/* Splats from data are refused in words where they cannot be made. */
#include <math.h>
#include <string.h>

#include "attention/cloud.h"
#include "attention/problem.h"

static void ck_words(const problem_stage *s, const char *word) {
    const char *words = clsplat_last_error(s->lib);
    ck_assert_msg(strstr(words, word) != NULL, "\"%s\" does not name %s", words, word);
}

/* One bad number in k or q. */
START_TEST(numbers_must_be_finite) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    cloud_levels levels;
    clsplat_splats *set = NULL;
    clsplat_init init = clsplat_init_defaults();
    init.hierarchy = cloud_level(&levels, 3, 0, 0);
    for (int i = 0; i < 6; i++) {
        float *at = i < 3 ? &c.q[cloud_queries(&c) * c.dim - 1] : &c.k[17], kept = *at;
        *at = bad[i % 3];
        ck_assert_int_eq(cloud_init(s.device, &c, init, &set), CLSPLAT_INVALID);
        ck_assert_ptr_null(set);
        ck_words(&s, i < 3 ? "q holds" : "k holds");
        *at = kept;
    }
    cloud_free(&c);
}
END_TEST

/* A call that works, to be broken in one place. */
typedef struct call {
    clsplat_init init;
    cloud_levels levels;
    clsplat_tensor q, k;
} call;

static void no_keys(call *c) {
    c->k.host = NULL;
}
static void other_batch(call *c) {
    c->q.shape[0] = 1;
}
static void other_columns(call *c) {
    c->q.shape[3] = 4;
}
static void no_multiple(call *c) {
    c->q.shape[1] = 3;
}
static void no_rows(call *c) {
    c->k.shape[2] = 0;
}
static void many_splats(call *c) {
    c->levels.counts[1] = 221;
}
static void small_sample(call *c) {
    c->init.sample = 5;
}
static void no_sample(call *c) {
    c->init.sample = 0;
}
static void no_variance(call *c) {
    c->init.variance_scale = 0;
}
static void nan_variance(call *c) {
    c->init.variance_scale = NAN;
}
static void no_such_method(call *c) {
    c->init.method = (clsplat_init_method)9;
}
static void no_such_covariance(call *c) {
    c->init.covariance = (clsplat_covariance)9;
}
static void no_such_type(call *c) {
    c->k.dtype = (clsplat_dtype)9;
}
static void empty_level(call *c) {
    c->levels.counts[0] = 0;
}
static void no_levels(call *c) {
    c->levels.hierarchy.levels = 0;
}
static void no_weight(call *c) {
    c->levels.weights[1] = 0;
}
static void no_name(call *c) {
    c->levels.names[1] = NULL;
}

static const struct {
    void (*make)(call *c);
    clsplat_status status;
    const char *word;
} mistakes[] = {
    {no_keys, CLSPLAT_INVALID, "k"},
    {other_batch, CLSPLAT_SHAPE, "q"},
    {other_columns, CLSPLAT_SHAPE, "q"},
    {no_multiple, CLSPLAT_SHAPE, "heads"},
    {no_rows, CLSPLAT_SHAPE, "k"},
    {many_splats, CLSPLAT_INVALID, "Middle"},
    {small_sample, CLSPLAT_INVALID, "Fine"},
    {no_sample, CLSPLAT_INVALID, "sample"},
    {no_variance, CLSPLAT_INVALID, "variance_scale"},
    {nan_variance, CLSPLAT_INVALID, "variance_scale"},
    {no_such_method, CLSPLAT_INVALID, "method"},
    {no_such_covariance, CLSPLAT_INVALID, "covariance"},
    {no_such_type, CLSPLAT_INVALID, "type"},
    {empty_level, CLSPLAT_INVALID, "Fine"},
    {no_levels, CLSPLAT_INVALID, "level"},
    {no_weight, CLSPLAT_INVALID, "weight"},
    {no_name, CLSPLAT_INVALID, "name"},
};

START_TEST(a_mistake_is_named) {
    problem_stage s = problem_on_stage();
    cloud c = cloud_grouped(cloud_normal);
    clsplat_splats *set = (clsplat_splats *)&c;
    call broken = {.init = clsplat_init_defaults()};
    broken.q = clsplat_tensor_host(CLSPLAT_F32, c.batch, c.heads, c.queries, c.dim, c.q);
    broken.k = clsplat_tensor_host(CLSPLAT_F32, c.batch, c.kv_heads, c.keys, c.dim, c.k);
    broken.init.hierarchy = cloud_level(&broken.levels, 9, 3, 0);
    mistakes[_i].make(&broken);
    clsplat_status status = clsplat_splats_init(s.device, broken.init, broken.q, broken.k, &set);
    ck_assert_msg(status == mistakes[_i].status, "mistake %d: %s", _i, clsplat_status_text(status));
    ck_assert_ptr_null(set);
    ck_words(&s, mistakes[_i].word);
    cloud_free(&c);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, numbers_must_be_finite);
    tcase_add_loop_test(part, a_mistake_is_named, 0, sizeof mistakes / sizeof *mistakes);
}

int main(void) {
    static const suite_part parts[] = {{"errors", add_all}};
    return suite_run("init_errors", parts, sizeof parts / sizeof *parts);
}
