/* The search on made-up landscapes with noise: that it finds the best, with few candidates, and is not
 * fooled. */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "suite.h"
#include "tune/search.h"

/* 5 · 4 · 5 · 3 = 300 points. */
static const tune_space large = {
    4,
    {{"TILE", {0, 32, 64, 128, 256}}, {"RT", {4, 2, 6, 8}}, {"LANES", {4, 2, 3, 6, 8}}, {"DEPTH", {1, 2, 3}}},
    NULL};
static const tune_space small = {1, {{"WG", {0, 16, 32}}}, NULL};

typedef struct landscape {
    double best[TUNE_PARAMETERS]; /* by number of a value */
    double noise;                 /* up to that share is added */
    bool crowded;                 /* the default is within 2 % of all */
    size_t rejected_index;        /* of row 1; SIZE_MAX: none */
    random_state random;
    size_t timings[2][512];
    size_t candidates, stop_after, told;
    tune_result last;
} landscape;

/* A bowl, with a slow plain row in front. */
static double truth(const landscape *l, tune_candidate c) {
    size_t index = c.index;
    double seconds = 1;
    if (c.row == 0)
        return 20;
    if (l->crowded)
        return c.index == 0 ? 1 : 0.985;
    for (size_t p = 0; p < large.count; p++) {
        size_t values = tune_values(&large.parameters[p]);
        seconds += 0.1 * fabs((double)(index % values) - l->best[p]);
        index /= values;
    }
    return seconds;
}

static double evaluate(void *user, tune_candidate c) {
    landscape *l = user;
    l->candidates += l->timings[c.row][c.index]++ == 0;
    if (c.row == 1 && c.index == l->rejected_index)
        return INFINITY;
    return truth(l, c) * (1 + l->noise * random_uniform(&l->random));
}

static clsplat_status report(void *user, const tune_result *so_far) {
    landscape *l = user;
    l->last = *so_far;
    return l->stop_after && l->candidates >= l->stop_after ? CLSPLAT_CANCELLED : CLSPLAT_OK;
}

/* Every candidate once, in the end, with the least of its timings. */
static void tried(void *user, tune_candidate c, double seconds) {
    landscape *l = user;
    bool rejected = c.row == 1 && c.index == l->rejected_index;
    ck_assert_uint_gt(l->timings[c.row][c.index], 0);
    ck_assert_int_eq((bool)isinf(seconds), rejected);
    ck_assert(rejected || (seconds >= truth(l, c) && seconds <= truth(l, c) * (1 + l->noise)));
    ++l->told;
}

static landscape landscape_of(uint64_t seed) {
    return (landscape){
        .best = {3, 2, 1, 2}, .noise = 0.05, .rejected_index = SIZE_MAX, .random = random_seed(seed)};
}

static tune_search search_of(landscape *l) {
    return (tune_search){.rows = 2,
                         .spaces = {&small, &large},
                         .seconds = INFINITY,
                         .candidates = SIZE_MAX,
                         .user = l,
                         .evaluate = evaluate,
                         .listener = l,
                         .report = report,
                         .tried = tried};
}

static tune_result run(const tune_search *s) {
    clsplat *lib = suite_library();
    tune_result result;
    suite_ok(lib, tune_search_run(lib, s, &result));
    ck_assert_uint_eq(((landscape *)s->listener)->told, result.tried);
    clsplat_destroy(&lib);
    return result;
}

START_TEST(finds_the_best_of_a_bowl) {
    landscape l = landscape_of((uint64_t)_i);
    tune_search s = search_of(&l);
    s.seed = (uint64_t)_i;
    tune_result r = run(&s);
    ck_assert_uint_eq(r.best.row, 1);
    ck_assert_double_le(truth(&l, r.best), 1.05);
    ck_assert_uint_le(r.tried, 100);
    ck_assert_uint_eq(r.tried, l.candidates);
    ck_assert_double_ge(r.first, 1.5); /* the default row's */
}
END_TEST

/* Nothing is 3 % faster than the default, so it stays, whatever the noise. */
START_TEST(a_champion_is_not_replaced_for_little) {
    landscape l = landscape_of((uint64_t)_i);
    l.crowded = true;
    l.noise = 0.002;
    tune_search s = search_of(&l);
    tune_result r = run(&s);
    ck_assert_uint_eq(r.best.row, 1);
    ck_assert_uint_eq(r.best.index, 0);
    ck_assert_uint_gt(l.timings[1][0], r.tried); /* it was timed again beside each of the others */
}
END_TEST

START_TEST(known_points_come_first) {
    landscape l = landscape_of(1);
    tune_point point = {{128, 6, 2, 3}};
    tune_candidate known = {1, tune_point_index(&large, &point)};
    tune_search s = search_of(&l);
    s.known = &known;
    s.known_count = 1;
    s.candidates = 1;
    tune_result r = run(&s);
    ck_assert_uint_eq(r.tried, 1);
    ck_assert_uint_eq(r.best.index, known.index);
    ck_assert_double_le(truth(&l, r.best), 1);
}
END_TEST

START_TEST(what_is_rejected_is_left_alone) {
    landscape l = landscape_of(2);
    tune_point best = {{128, 6, 2, 3}};
    l.rejected_index = tune_point_index(&large, &best);
    tune_search s = search_of(&l);
    s.exhaustive = true;
    tune_result r = run(&s);
    ck_assert_uint_ne(r.best.index, l.rejected_index);
    ck_assert_double_le(truth(&l, r.best), 1.15);
    ck_assert_uint_eq(r.rejected, 1);
    ck_assert_uint_eq(l.timings[1][l.rejected_index], 1);
    ck_assert_uint_eq(r.tried, tune_space_size(&large) + tune_space_size(&small));
}
END_TEST

/* The defaults do not run here, but others do. */
START_TEST(goes_on_without_a_default) {
    landscape l = landscape_of(5);
    l.rejected_index = 0;
    tune_search s = search_of(&l);
    s.spaces[0] = NULL;
    tune_result r = run(&s);
    ck_assert_double_le(truth(&l, r.best), 1.05);
    l = landscape_of(5);
    s.spaces[1] = &tune_nothing;
    l.rejected_index = 0;
    r = run(&s);
    ck_assert(isinf(r.seconds));
    ck_assert_uint_eq(r.rejected, 1);
}
END_TEST

static bool only_default(const clsplat_limits *limits, const tune_point *point) {
    return limits->max_work_group > 0 && point->value[0] == 0;
}

START_TEST(what_limits_forbid_is_never_run) {
    landscape l = landscape_of(3);
    tune_space narrow = large;
    narrow.allows = only_default;
    tune_search s = search_of(&l);
    clsplat_limits limits = {.max_work_group = 1};
    s.limits = &limits;
    s.spaces[0] = NULL;
    s.spaces[1] = &narrow;
    s.exhaustive = true;
    tune_result r = run(&s);
    ck_assert_uint_eq(r.tried, 60);
    for (size_t i = 0; i < tune_space_size(&large); i++)
        ck_assert(l.timings[1][i] == 0 || i % 5 == 0);
    ck_assert_uint_eq(l.timings[0][0], 0);
}
END_TEST

START_TEST(stops_when_told) {
    landscape l = landscape_of(4);
    clsplat *lib = suite_library();
    tune_search s = search_of(&l);
    tune_result r;
    l.stop_after = 7;
    ck_assert_int_eq(tune_search_run(lib, &s, &r), CLSPLAT_CANCELLED);
    ck_assert_uint_eq(r.tried, 7);
    ck_assert(isfinite(r.seconds));
    ck_assert_uint_eq(l.last.best.index, r.best.index);
    l = landscape_of(4);
    s = search_of(&l);
    s.seconds = 0; /* one is timed, whatever the budget */
    suite_ok(lib, tune_search_run(lib, &s, &r));
    ck_assert_uint_eq(r.tried, 1);
    ck_assert(isfinite(r.seconds));
    clsplat_destroy(&lib);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, finds_the_best_of_a_bowl, 0, 20);
    tcase_add_loop_test(part, a_champion_is_not_replaced_for_little, 0, 10);
    tcase_add_test(part, known_points_come_first);
    tcase_add_test(part, what_is_rejected_is_left_alone);
    tcase_add_test(part, goes_on_without_a_default);
    tcase_add_test(part, what_limits_forbid_is_never_run);
    tcase_add_test(part, stops_when_told);
}

int main(void) {
    static const suite_part parts[] = {{"search", add_all}};
    return suite_run("search", parts, sizeof parts / sizeof *parts);
}
