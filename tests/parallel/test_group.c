/* Several devices on one attention: handles of one device, each in a thread, against the float64 reference.
 */
#include <clsplat/group.h>
#include <string.h>

#include "attention/problem.h"
#include "base/text.h"

// clang-format off
static const problem_spec specs[] = {
    {.heads = 4, .kv_heads = 2, .queries = 300, .keys = 333, .dim = 16, .value_dim = 24, .causal = true},
    {.batch = 2, .heads = 2, .queries = 130, .keys = 70, .dim = 16, .value_dim = 16, .bias = BIAS_HOLES},
    {.heads = 2, .queries = 200, .keys = 90, .dim = 16, .value_dim = 16, .causal = true, .layout = LAYOUT_TOKENS},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 70, .keys = 90, .dim = 16, .value_dim = 16, .splats = 9,
     .levels = 2, .covariance = CLSPLAT_DIAGONAL},
    {.heads = 4, .queries = 70, .keys = 90, .dim = 16, .value_dim = 16, .splats = 5, .causal = true,
     .covariance = CLSPLAT_FULL},
    {.heads = 2, .queries = 90, .keys = 90, .dim = 16, .value_dim = 16, .causal = true, .near_far = true,
     .chunk = 16},
    {.queries = 1, .keys = 7, .dim = 3, .value_dim = 5},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs };

/* As the device that the environment asks for, so many times. */
static clsplat_group *open_group(clsplat *lib, size_t count) {
    text names = {0};
    clsplat_group *group = NULL;
    clsplat_device *device = suite_device(lib);
    for (size_t i = 0; i < count; ++i)
        text_add(&names, "%s%s", i > 0 ? "," : "", clsplat_device_describe(device)->platform);
    clsplat_device_close(&device);
    suite_ok(lib, clsplat_group_open(lib, names.data, &group));
    text_free(&names);
    ck_assert_uint_eq(clsplat_group_count(group), count);
    return group;
}

static void check_shares(const clsplat_group *group) {
    double sum = 0;
    for (size_t i = 0; i < clsplat_group_count(group); ++i)
        sum += clsplat_group_share_of(group, i).share;
    ck_assert_double_eq_tol(sum, 1, 1e-9);
}

START_TEST(all_devices_together_are_right) {
    clsplat *lib = suite_library();
    clsplat_group *group = open_group(lib, 2 + (size_t)_i % 2);
    problem p = problem_create(lib, &specs[_i], 3);
    problem_expect(&p);
    for (int i = 0; i < 2; ++i) {
        problem_poison(&p.tensors[PROBLEM_OUT]);
        problem_poison(&p.tensors[PROBLEM_LSE]);
        suite_ok(lib, clsplat_group_attend(group, p.attention, problem_views(&p)));
        problem_check(&p);
        check_shares(group);
    }
    problem_free(&p);
    clsplat_group_close(&group);
    clsplat_destroy(&lib);
}
END_TEST

static bool refuse(void *user, double done) {
    (void)user, (void)done;
    return false;
}

START_TEST(stopped_and_refused) {
    clsplat *lib = suite_library();
    clsplat_group *group = NULL;
    const char *bad[] = {"no such device,cpu", "cpu,", ","};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        ck_assert_int_eq(clsplat_group_open(lib, bad[i], &group), CLSPLAT_NO_DEVICE);
        ck_assert_ptr_null(group);
        ck_assert(clsplat_last_error(lib)[0]);
    }
    ck_assert(clsplat_group_named("all") && clsplat_group_named("0,1"));
    ck_assert(!clsplat_group_named("0") && !clsplat_group_named("") && !clsplat_group_named(NULL));
    group = open_group(lib, 2);
    problem p = problem_create(lib, &specs[0], 3);
    clsplat_attention attention = p.attention;
    clsplat_attention_tensors wrong = problem_views(&p);
    wrong.k.shape[3]++;
    ck_assert_int_eq(clsplat_group_attend(group, attention, wrong), CLSPLAT_SHAPE);
    ck_assert(strstr(clsplat_last_error(lib), "k has shape"));
    attention.progress = refuse;
    clsplat_status status = clsplat_group_attend(group, attention, problem_views(&p));
    ck_assert(status == CLSPLAT_CANCELLED || status == CLSPLAT_OK); /* it may have been done by then */
    suite_ok(lib, clsplat_group_attend(group, p.attention, problem_views(&p)));
    problem_expect(&p);
    problem_check(&p);
    problem_free(&p);
    clsplat_group_close(&group);
    clsplat_destroy(&lib);
}
END_TEST

static void add_group(TCase *part) {
    tcase_add_loop_test(part, all_devices_together_are_right, 0, SPECS);
    tcase_add_test(part, stopped_and_refused);
}

int main(void) {
    static const suite_part parts[] = {{"group", add_group}};
    return suite_run("group", parts, sizeof parts / sizeof *parts);
}
