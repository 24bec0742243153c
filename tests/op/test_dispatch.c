/* Which row of a table runs: a row that does not build gives way to row 0, once and for all. */
#include "attention/problem.h"
#include "op/choose.h"
#include "op/variant.h"
#include "runtime/device.h"

enum { ROWS = 2 };

/* What the rows did. */
typedef struct record {
    size_t ran[ROWS];
    clsplat_status answers[ROWS];
} record;

static clsplat_status run_row(queue *q, const void *args, size_t row) {
    record *r = *(record *const *)args;
    r->ran[row]++;
    return r->answers[row] == CLSPLAT_OK ? CLSPLAT_OK
                                         : log_error(q->device->lib, r->answers[row], "row %zu", row);
}

static clsplat_status run_plain(queue *q, const void *args) {
    return run_row(q, args, 0);
}

static clsplat_status run_fast(queue *q, const void *args) {
    return run_row(q, args, 1);
}

static void shape_of(const void *args, tune_shape *shape) {
    (void)args;
    *shape = (tune_shape){.type = "F32", .form = "-", .heads = 1, .rows = 1, .sources = 1};
}

static const op_variant variants[ROWS] = {
    {"plain", "counts", op_fits_all, run_plain, NULL, &tune_nothing},
    {"fast", "counts", op_fits_all, run_fast, NULL, &tune_nothing},
};

static void dispatch_twice(record *r, clsplat_status expected) {
    static const op_family family = {"counting", variants, ROWS, shape_of};
    problem_stage stage = problem_on_stage();
    queue q;
    for (int i = 0; i < 2; i++) {
        queue_begin(stage.device, 0, NULL, &q);
        ck_assert_int_eq(op_dispatch(&q, &family, &r), expected);
    }
    stage.device->forget_choices(stage.device);
}

START_TEST(row_that_does_not_build_gives_way) {
    record r = {.answers = {CLSPLAT_OK, CLSPLAT_BUILD}};
    dispatch_twice(&r, CLSPLAT_OK);
    ck_assert_uint_eq(r.ran[1], 1);
    ck_assert_uint_eq(r.ran[0], 2);
}
END_TEST

START_TEST(other_failures_are_passed_on) {
    record r = {.answers = {CLSPLAT_OK, CLSPLAT_MEMORY}};
    dispatch_twice(&r, CLSPLAT_MEMORY);
    ck_assert_uint_eq(r.ran[1], 2);
    ck_assert_uint_eq(r.ran[0], 0);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, row_that_does_not_build_gives_way);
    tcase_add_test(part, other_failures_are_passed_on);
}

int main(void) {
    static const suite_part parts[] = {{"dispatch", add_all}};
    return suite_run("dispatch", parts, sizeof parts / sizeof *parts);
}
