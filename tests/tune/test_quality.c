/* How good the tuner is, measured: against an exhaustive search, and on a device that was never tuned.
 * Minutes long, and for a machine that does nothing else: with CLSPLAT_TEST_TIER=long only. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/choose.h"
#include "runtime/device.h"
#include "suite.h"
#include "tuning/task.h"

static const struct subject {
    const char *name;
    const example_kind *kind;
} subjects[] = {{"softmax", &example_softmax}, {"write", &example_write}, {"read", &example_read}};

static const example_shape shape = {
    1, 4, 2048, 2048, 64, 64, 256, CLSPLAT_F32, CLSPLAT_DIAGONAL, .causal = false, .alike = false};
static const double normal_seconds = 54; /* what --budget normal has for one of eleven tasks */
enum { ROUNDS = 15 };

typedef struct fixture {
    clsplat *lib;
    clsplat_device *device;
    char *folder;
    tune_journal journal;
    tune_database none;
    tuning_task task;
    tune_search search;
} fixture;

static clsplat_status go_on(void *listener, const tune_result *so_far) {
    (void)listener, (void)so_far;
    return CLSPLAT_OK;
}

static void begin(fixture *f, int subject) {
    char path[4096];
    text left;
    *f = (fixture){.lib = suite_library(), .folder = suite_folder()};
    ck_assert_int_eq(setenv("XDG_DATA_HOME", f->folder, 1), 0);
    f->device = suite_device(f->lib);
    snprintf(path, sizeof path, "%s/trying.txt", f->folder);
    suite_ok(f->lib, tune_journal_open(f->lib, path, &f->journal, &left));
    f->task = (tuning_task){
        .device = f->device, .words = subjects[subject].name, .journal = &f->journal, .db = &f->none};
    f->search = (tune_search){
        .limits = &clsplat_device_describe(f->device)->limits, .candidates = SIZE_MAX, .report = go_on};
    suite_ok(f->lib, task_open(&f->task, subjects[subject].kind, &shape, &f->search));
}

static void end(fixture *f) {
    task_close(&f->task);
    tune_journal_close(&f->journal);
    clsplat_device_close(&f->device);
    clsplat_destroy(&f->lib);
    unsetenv("XDG_DATA_HOME");
    suite_remove(f->folder);
}

static double seconds_of(fixture *f, size_t row, const tune_point *point) {
    double seconds;
    suite_ok(f->lib,
             verify_time(&f->task.verified, &f->task.verified.timed.family->variants[row], point, &seconds));
    return seconds;
}

/* How much slower a is than b, both timed in turns. */
static double ratio(fixture *f, op_choice a, op_choice b) {
    double first = INFINITY, second = INFINITY;
    if (a.row == b.row && memcmp(&a.point, &b.point, sizeof a.point) == 0)
        return 1;
    for (int i = 0; i < ROUNDS; i++) {
        first = fmin(first, seconds_of(f, a.row, &a.point));
        second = fmin(second, seconds_of(f, b.row, &b.point));
    }
    return first / second;
}

static op_choice search(fixture *f, double seconds, bool exhaustive, tune_result *r) {
    f->search.seconds = seconds;
    f->search.exhaustive = exhaustive;
    suite_ok(f->lib, tune_search_run(f->lib, &f->search, r));
    const op_variant *v = &f->task.verified.timed.family->variants[r->best.row];
    return (op_choice){r->best.row, tune_point_at(v->space, r->best.index)};
}

static void tell(const fixture *f, const char *what, op_choice c) {
    const op_variant *v = &f->task.verified.timed.family->variants[c.row];
    text words = {0};
    tune_point_write(v->space, &c.point, &words);
    printf("  %s: %s %s\n", what, v->name, words.data);
    text_free(&words);
}

START_TEST(normal_is_near_exhaustive) {
    fixture f;
    tune_result normal, full;
    begin(&f, _i);
    op_choice quick = search(&f, normal_seconds, false, &normal);
    op_choice best = search(&f, INFINITY, true, &full);
    double slower = ratio(&f, quick, best);
    printf("%s: %zu candidates instead of %zu, %.3f of the time of the best\n", subjects[_i].name,
           normal.tried, full.tried, slower);
    tell(&f, "normal", quick);
    tell(&f, "exhaustive", best);
    ck_assert_double_le(slower, 1.05);
    end(&f);
}
END_TEST

/* The limits of other devices of the kind, for which there are no records but those the library ships. */
START_TEST(untuned_is_within_twice) {
    static const struct {
        uint32_t units, group, width;
    } others[] = {{64, 1024, 8}, {8, 4096, 16}, {2, 128, 8}};
    fixture f;
    tune_result r;
    begin(&f, _i);
    op_choice best = search(&f, normal_seconds, false, &r);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        clsplat_limits limits = clsplat_device_describe(f.device)->limits;
        limits.compute_units = others[i].units;
        limits.max_work_group = limits.max_work_item_sizes[0] = others[i].group;
        limits.vector_width_float = others[i].width;
        clsplat_device_set_limits(f.device, limits);
        example *e = &f.task.verified.timed;
        op_choice untuned = op_choose(f.device, e->family, &e->args);
        double slower = ratio(&f, untuned, best);
        printf("%s on %u units with groups of %u and vectors of %u: %.2f of the time of the tuned\n",
               subjects[_i].name, others[i].units, others[i].group, others[i].width, slower);
        ck_assert_double_le(slower, 2);
    }
    end(&f);
}
END_TEST

static void add_all(TCase *part) {
    int count = sizeof subjects / sizeof *subjects;
    tcase_add_loop_test(part, normal_is_near_exhaustive, 0, count);
    tcase_add_loop_test(part, untuned_is_within_twice, 0, count);
}

int main(void) {
    static const suite_part parts[] = {{"quality", add_all}};
    if (suite_tier_wanted() != SUITE_LONG) {
        suite_skipped("quality of tuning",
                      "it takes minutes of a quiet machine; CLSPLAT_TEST_TIER=long measures it");
        return EXIT_SUCCESS;
    }
    return suite_run("quality", parts, sizeof parts / sizeof *parts);
}
