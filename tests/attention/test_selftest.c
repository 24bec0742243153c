/* The self-test: rows that are right pass, one that is broken on purpose is found, and so is a row 0 that is.
 */
#include <math.h>
#include <string.h>

#include "attention/problem.h"
#include "op/families.h"
#include "tuning/selftest.h"
#include "tuning/verify.h"

typedef struct tally {
    size_t right, wrong;
    const char *last_wrong;
} tally;

static clsplat_status count_result(void *user, const selftest_result *r) {
    tally *t = user;
    *(r->why ? &t->wrong : &t->right) += 1;
    if (r->why)
        t->last_wrong = r->variant;
    return CLSPLAT_OK;
}

/* A row whose logits are a tenth of a per cent too large. */
static clsplat_status run_broken(queue *q, const void *args) {
    op_softmax_args a = *(const op_softmax_args *)args;
    a.scale *= 1.001f;
    return op_softmax_family.variants[0].run(q, &a);
}

static clsplat_status run_failing(queue *q, const void *args) {
    (void)args;
    return log_error(q->device->lib, CLSPLAT_BUILD, "it does not build");
}

static clsplat_status run_plain(queue *q, const void *args) {
    return op_softmax_family.variants[0].run(q, args);
}

static tally test_rows(const op_variant *rows, size_t count) {
    static const example_shape shape = {
        1, 2, 20, 50, 16, 16, 0, CLSPLAT_F32, CLSPLAT_DIAGONAL, .causal = true, .alike = false};
    problem_stage s = problem_on_stage();
    op_family family = {"softmax", rows, count, op_softmax_family.shape};
    selftest_result result = {.op = "softmax",
                              .problem = "causal",
                              .type = "f32",
                              .bound = verify_bound(&example_softmax, CLSPLAT_F32)};
    tally t = {0};
    example e;
    suite_ok(s.lib, example_create(s.device, &example_softmax, &shape, &e));
    e.family = &family;
    suite_ok(s.lib, selftest_rows(&e, result, true, count_result, &t));
    example_free(&e);
    return t;
}

START_TEST(a_broken_row_is_found) {
    const op_variant *plain = &op_softmax_family.variants[0];
    const op_variant rows[] = {
        *plain,
        {"good", "", op_fits_all, run_plain, NULL, &tune_nothing},
        {"broken", "", op_fits_all, run_broken, NULL, &tune_nothing},
        {"good too", "", op_fits_all, run_plain, NULL, &tune_nothing},
    };
    tally t = test_rows(rows, 4);
    ck_assert_uint_eq(t.right, 3);
    ck_assert_uint_eq(t.wrong, 1);
    ck_assert_str_eq(t.last_wrong, "broken");
}
END_TEST

START_TEST(a_row_that_fails_is_found) {
    const op_variant rows[] = {op_softmax_family.variants[0],
                               {"failing", "", op_fits_all, run_failing, NULL, &tune_nothing}};
    tally t = test_rows(rows, 2);
    ck_assert_uint_eq(t.wrong, 1);
    ck_assert_str_eq(t.last_wrong, "failing");
}
END_TEST

/* The host tells, since all rows agree. */
START_TEST(a_broken_row_0_is_found) {
    const op_variant rows[] = {{"plain", "", op_fits_all, run_broken, NULL, &tune_nothing}};
    tally t = test_rows(rows, 1);
    ck_assert_uint_eq(t.wrong, 1);
    ck_assert_str_eq(t.last_wrong, "plain");
}
END_TEST

START_TEST(every_row_is_right_here) {
    problem_stage s = problem_on_stage();
    tally t = {0};
    suite_ok(s.lib, selftest_run(s.device, count_result, &t));
    ck_assert_msg(t.wrong == 0, "%s: %s", t.last_wrong, clsplat_last_error(s.lib));
    ck_assert_uint_ge(t.right, 15);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, a_broken_row_is_found);
    tcase_add_test(part, a_row_that_fails_is_found);
    tcase_add_test(part, a_broken_row_0_is_found);
    tcase_add_test(part, every_row_is_right_here);
}

int main(void) {
    static const suite_part parts[] = {{"selftest", add_all}};
    return suite_run("selftest", parts, sizeof parts / sizeof *parts);
}
