/* Which row of a table runs: one that does not build, or asks for too much, gives way to the next below that
 * fits, once and for all. A call may name its row. */
#include "attention/problem.h"
#include "op/choose.h"
#include "op/kernel.h"
#include "op/variant.h"
#include "runtime/device.h"

enum { ROWS = 4 };

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

static clsplat_status run_foreign(queue *q, const void *args) {
    return run_row(q, args, 2);
}

static clsplat_status run_fastest(queue *q, const void *args) {
    return run_row(q, args, 3);
}

static bool fits_nowhere(const clsplat_limits *limits, const void *args) {
    (void)limits, (void)args;
    return false;
}

static void shape_of(const void *args, tune_shape *shape) {
    (void)args;
    *shape = (tune_shape){.type = "F32", .form = "-", .heads = 1, .rows = 1, .sources = 1};
}

static const op_variant variants[ROWS] = {
    {"plain", "counts", op_fits_all, run_plain, NULL, &tune_nothing},
    {"fast", "counts", op_fits_all, run_fast, NULL, &tune_nothing},
    {"foreign", "counts", fits_nowhere, run_foreign, NULL, &tune_nothing},
    {"fastest", "counts", op_fits_all, run_fastest, NULL, &tune_nothing},
};

static const op_family counting = {"counting", variants, ROWS, shape_of};

static void dispatch_twice(record *r, clsplat_status expected) {
    problem_stage stage = problem_on_stage();
    queue q;
    for (int i = 0; i < 2; i++) {
        queue_begin(stage.device, 0, NULL, &q);
        ck_assert_int_eq(op_dispatch(&q, &counting, &r), expected);
    }
    op_forget(stage.device);
}

/* What row 3 answers, and row 1; how often rows 3, 1 and 0 run in two calls then. */
static const struct fall {
    clsplat_status fastest, fast, expected;
    size_t ran[3];
} falls[] = {
    {CLSPLAT_OK, CLSPLAT_OK, CLSPLAT_OK, {2, 0, 0}},
    {CLSPLAT_BUILD, CLSPLAT_OK, CLSPLAT_OK, {1, 2, 0}},
    {CLSPLAT_UNSUPPORTED, CLSPLAT_OK, CLSPLAT_OK, {1, 2, 0}},
    {CLSPLAT_UNSUPPORTED, CLSPLAT_BUILD, CLSPLAT_OK, {1, 1, 2}},
    {CLSPLAT_MEMORY, CLSPLAT_OK, CLSPLAT_MEMORY, {2, 0, 0}},
    {CLSPLAT_BUILD, CLSPLAT_OPENCL, CLSPLAT_OPENCL, {1, 2, 0}},
};

START_TEST(rows_give_way_in_their_order) {
    const struct fall *f = &falls[_i];
    record r = {.answers = {CLSPLAT_OK, f->fast, CLSPLAT_OK, f->fastest}};
    dispatch_twice(&r, f->expected);
    ck_assert_uint_eq(r.ran[3], f->ran[0]);
    ck_assert_uint_eq(r.ran[2], 0);
    ck_assert_uint_eq(r.ran[1], f->ran[1]);
    ck_assert_uint_eq(r.ran[0], f->ran[2]);
}
END_TEST

/* Calls that are open at once on a device, each with what it asks for; of a row that does not fit, or that
 * nobody has, op_choose's. */
START_TEST(calls_choose_for_themselves) {
    static const struct wish {
        const char *variant;
        size_t row;
    } wishes[] = {{"plain", 0}, {NULL, 3}, {"fast", 1}, {"foreign", 3}, {"none", 3}};
    enum { CALLS = sizeof wishes / sizeof *wishes };
    problem_stage stage = problem_on_stage();
    queue calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        queue_begin(stage.device, 0, NULL, &calls[i]);
        calls[i].variant = wishes[i].variant;
    }
    for (int i = 0; i < 3 * CALLS; i++) {
        record counts = {0}, *r = &counts;
        suite_ok(stage.lib, op_dispatch(&calls[i % CALLS], &counting, &r));
        for (size_t row = 0; row < ROWS; row++)
            ck_assert_uint_eq(r->ran[row], row == wishes[i % CALLS].row);
    }
    op_forget(stage.device);
}
END_TEST

/* A row may run another: its own parameters are there again afterwards. */
static const tune_space inner_space = {1, {{"INNER", {5, 6}}}, NULL},
                        outer_space = {1, {{"OUTER", {7, 8}}}, NULL};

static clsplat_status run_inner(queue *q, const void *args) {
    uint32_t *const *seen = args;
    (*seen)[0] = tuned_value(q, &inner_space, 0);
    return CLSPLAT_OK;
}

static clsplat_status run_outer(queue *q, const void *args) {
    static const op_variant inner = {"inner", "tells", op_fits_all, run_inner, NULL, &inner_space};
    uint32_t *const *seen = args;
    clsplat_status status = op_run(q, &inner, NULL, args);
    (*seen)[1] = tuned_value(q, &outer_space, 0);
    return status;
}

START_TEST(a_row_within_a_row) {
    static const op_variant outer = {"outer", "tells", op_fits_all, run_outer, NULL, &outer_space};
    problem_stage stage = problem_on_stage();
    uint32_t values[2] = {0}, *seen = values;
    queue q;
    queue_begin(stage.device, 0, NULL, &q);
    suite_ok(stage.lib, op_run(&q, &outer, &(tune_point){{8}}, &seen));
    ck_assert_uint_eq(seen[0], 5);
    ck_assert_uint_eq(seen[1], 8);
    ck_assert_ptr_null(q.tuned);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, calls_choose_for_themselves);
    tcase_add_test(part, a_row_within_a_row);
    tcase_add_loop_test(part, rows_give_way_in_their_order, 0, sizeof falls / sizeof *falls);
}

int main(void) {
    static const suite_part parts[] = {{"dispatch", add_all}};
    return suite_run("dispatch", parts, sizeof parts / sizeof *parts);
}
