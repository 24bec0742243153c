/* Tuning on the device: that what it picks agrees with row 0, is taken by the next call, and is kept; and
 * that calls without records, with other limits or with records that do not fit run all the same. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/choose.h"
#include "op/families.h"
#include "runtime/device.h"
#include "suite.h"
#include "tuning/verify.h"

typedef struct fixture {
    clsplat *lib;
    clsplat_device *device;
    char *folder;
    size_t finished, stop_after;
    clsplat_tune_step last;
} fixture;

static void begin(fixture *f) {
    *f = (fixture){.lib = suite_library(), .folder = suite_folder()};
    ck_assert_int_eq(setenv("XDG_DATA_HOME", f->folder, 1), 0);
    f->device = suite_device(f->lib);
}

static void end(fixture *f) {
    clsplat_device_close(&f->device);
    clsplat_destroy(&f->lib);
    unsetenv("XDG_DATA_HOME");
    suite_remove(f->folder);
}

static bool watch(void *user, const clsplat_tune_step *step) {
    fixture *f = user;
    ck_assert(step->done >= 0 && step->done <= 1);
    ck_assert(!step->finished || isfinite(step->best_seconds));
    f->last = *step;
    f->finished += step->finished;
    return !f->stop_after || step->tried < f->stop_after;
}

static clsplat_tune_options options_of(fixture *f, const char *op) {
    clsplat_tune_options o = clsplat_tune_options_defaults();
    o.op = op;
    o.heads = 2;
    o.queries = o.keys = 256;
    o.dim = o.value_dim = 32;
    o.splats = 64;
    o.seconds = 4;
    o.progress = watch;
    o.progress_user = f;
    return o;
}

static const char *const ops[] = {"softmax",  "gaussian", "gaussian-isotropic", "gaussian-full",
                                  "near-far", "gemm",     "softmax-backward",   "near-far-backward"};
static const size_t tasks[] = {2, 4, 2, 2, 1, 1, 2, 1};

/* Every record that comes out is of a row that agreed with row 0 within the bound, here and now. */
static void check_records(fixture *f, size_t expected) {
    tune_database db = {0};
    suite_ok(f->lib, tune_database_load_user(f->lib, &db));
    ck_assert_uint_eq(db.count, expected);
    for (size_t i = 0; i < db.count; i++) {
        ck_assert(isfinite(db.records[i].seconds) && db.records[i].seconds > 0);
        /* A row of near-far may open another node by a rounding error, within the tolerance. */
        ck_assert_double_le(db.records[i].error, strncmp(db.records[i].op, "near_far", 8) == 0 ? 0.02 : 2e-5);
        tune_device on = tune_device_of(clsplat_device_describe(f->device));
        ck_assert_int_eq(tune_device_match(&db.records[i].on, &on), TUNE_SAME);
    }
    tune_database_free(&db);
}

START_TEST(what_is_found_agrees_and_is_kept) {
    fixture f;
    begin(&f);
    suite_ok(f.lib, clsplat_tune(f.device, options_of(&f, ops[_i])));
    ck_assert_uint_eq(f.finished, tasks[_i]);
    ck_assert_double_eq(f.last.done, 1);
    check_records(&f, tasks[_i]);
    end(&f);
}
END_TEST

/* What runs after a record was put there is what the record says, as long as it fits. */
START_TEST(calls_follow_the_records) {
    fixture f;
    begin(&f);
    example e;
    example_shape shape = {.batch = 1, .heads = 2, .queries = 256, .keys = 256, .dim = 32, .value_dim = 32};
    suite_ok(f.lib, example_create(f.device, &example_softmax, &shape, &e));
    op_choice choice = op_choose(f.device, e.family, &e.args), byhand;
    const clsplat_limits *limits = &clsplat_device_describe(f.device)->limits;

    tune_database db = {0};
    tune_record r = {.op = "softmax",
                     .variant = "plain",
                     .parameters = "WG=16 W=8",
                     .seconds = 1,
                     .source = op_source_hash(&e.family->variants[0]),
                     .on = tune_device_of(clsplat_device_describe(f.device))};
    e.family->shape(&e.args, &r.shape);
    tune_shape_round(&r.shape);
    ck_assert(op_choice_of(e.family, limits, &r, &e.args, &byhand));
    suite_ok(f.lib, tune_database_add(f.lib, &db, &r));
    char path[4096];
    snprintf(path, sizeof path, "%s/given.txt", f.folder);
    suite_ok(f.lib, tune_database_save(f.lib, &db, path));
    suite_ok(f.lib, clsplat_tune_import(f.lib, path));
    tune_database_free(&db);

    ck_assert_uint_eq(op_choose(f.device, e.family, &e.args).row, choice.row); /* not before it looks again */
    clsplat_device_set_limits(f.device, *limits);
    choice = op_choose(f.device, e.family, &e.args);
    ck_assert_uint_eq(choice.row, 0);
    ck_assert_uint_eq(choice.point.value[0], 16);
    ck_assert_uint_eq(choice.point.value[1], 8);

    r.source++; /* another kernel than the one that was timed */
    ck_assert(!op_choice_of(e.family, limits, &r, &e.args, &byhand));
    example_free(&e);
    end(&f);
}
END_TEST

/* Small groups: the candidates that do not fit are not run, and what is found fits. */
START_TEST(limits_bound_the_search) {
    fixture f;
    begin(&f);
    clsplat_limits limits = clsplat_device_describe(f.device)->limits;
    limits.max_work_group = limits.max_work_item_sizes[0] = 16;
    limits.vector_width_float = 1; /* leaves row 0 alone */
    clsplat_device_set_limits(f.device, limits);
    suite_ok(f.lib, clsplat_tune(f.device, options_of(&f, "gemm")));
    ck_assert_uint_eq(f.last.rejected, 0);
    check_records(&f, 1);
    end(&f);
}
END_TEST

START_TEST(a_stopped_run_keeps_what_it_found) {
    fixture f;
    begin(&f);
    f.stop_after = 2;
    ck_assert_int_eq(clsplat_tune(f.device, options_of(&f, "softmax")), CLSPLAT_CANCELLED);
    ck_assert_uint_eq(f.finished, 0);
    check_records(&f, 1);
    end(&f);
}
END_TEST

START_TEST(wrong_options_are_refused) {
    fixture f;
    begin(&f);
    clsplat_tune_options o = options_of(&f, "soft");
    ck_assert_int_eq(clsplat_tune(f.device, o), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(f.lib), "`soft`"));
    o = options_of(&f, "gemm");
    o.dim = 0;
    ck_assert_int_eq(clsplat_tune(f.device, o), CLSPLAT_INVALID);
    o = options_of(&f, "gemm");
    o.seconds = NAN;
    ck_assert_int_eq(clsplat_tune(f.device, o), CLSPLAT_INVALID);
    end(&f);
}
END_TEST

/* A row that writes past its result, leaves a number out, or is wrong is not accepted. */
static clsplat_status beyond(queue *q, const void *args) {
    const op_gemm_args *a = args;
    return queue_fill(q, a->c.mem, 4 * (a->c.offset - 1), 4, 1.0f);
}

static clsplat_status nothing(queue *q, const void *args) {
    (void)q, (void)args;
    return CLSPLAT_OK;
}

static clsplat_status zeros(queue *q, const void *args) {
    const op_gemm_args *a = args;
    return queue_fill(q, a->c.mem, 4 * a->c.offset, 4 * a->c.shape[1] * a->c.stride[1], 0.0f);
}

static const struct bad_row {
    clsplat_status (*run)(queue *q, const void *args);
    const char *words;
} bad_rows[] = {{beyond, "outside of its results"}, {nothing, "not a number"}, {zeros, "off by"}};

START_TEST(bad_rows_are_found_out) {
    fixture f;
    begin(&f);
    verification t;
    double error;
    example_shape shape = {.batch = 1, .heads = 2, .queries = 64, .keys = 64, .dim = 32, .value_dim = 1};
    op_variant bad = {"bad", "none", op_fits_all, bad_rows[_i].run, NULL, &tune_nothing};
    suite_ok(f.lib, verify_create(f.device, &example_gemm, &shape, &t));
    suite_ok(f.lib, verify_row(&t, &op_gemm_family.variants[0], NULL, &error));
    ck_assert_double_le(error, 2e-5);
    ck_assert_int_ne(verify_row(&t, &bad, NULL, &error), CLSPLAT_OK);
    ck_assert_msg(strstr(clsplat_last_error(f.lib), bad_rows[_i].words) != NULL, "%s",
                  clsplat_last_error(f.lib));
    verify_free(&t);
    end(&f);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, what_is_found_agrees_and_is_kept, 0, sizeof ops / sizeof *ops);
    tcase_add_test(part, calls_follow_the_records);
    tcase_add_test(part, limits_bound_the_search);
    tcase_add_test(part, a_stopped_run_keeps_what_it_found);
    tcase_add_test(part, wrong_options_are_refused);
    tcase_add_loop_test(part, bad_rows_are_found_out, 0, sizeof bad_rows / sizeof *bad_rows);
}

int main(void) {
    static const suite_part parts[] = {{"tune", add_all}};
    return suite_run("tune", parts, sizeof parts / sizeof *parts);
}
