/* Gradients of near-far attention, every row of the table, against differences of the float64 reference with
 * the same opened set: along random directions, and number by number where that is quick.
 *
 * The set is what a row of op_near_far says that it decided by, or notes. Of the former, rows in which a
 * decision was close take no part: their dout is 0. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "op/families.h"
#include "op/far_gradient.h"
#include "op/kernel.h"

// clang-format off
static const gradient_spec specs[] = {
    {{{.queries = 24, .keys = 40, .dim = 2, .value_dim = 3, .causal = true, .bias = BIAS_RANDOM}, 16, 0}, 0.3F, 0},
    {{{.queries = 40, .keys = 150, .dim = 8, .value_dim = 8, .causal = true}, 16, 0}, 0.3F, 0},
    {{{.queries = 40, .keys = 150, .dim = 8, .value_dim = 5, .causal = true, .bias = BIAS_RANDOM}, 16, 0}, INFINITY, 0},
    {{{.batch = 2, .heads = 4, .kv_heads = 2, .queries = 70, .keys = 200, .dim = 16, .value_dim = 32, .causal = true,
       .bias = BIAS_HOLES}, 32, 0}, 0.2F, 0},
    {{{.heads = 2, .kv_heads = 1, .queries = 33, .keys = 300, .dim = 16, .value_dim = 16, .bias = BIAS_RANDOM}, 64, 0}, 0.3F, 0},
    {{{.heads = 2, .kv_heads = 1, .queries = 90, .keys = 400, .dim = 16, .value_dim = 16, .causal = true}, 64, 0}, 0.1F, 0},
    {{{.heads = 3, .kv_heads = 1, .queries = 60, .keys = 60, .dim = 5, .value_dim = 7, .causal = true}, 16, 0}, 0.5F, 0},
    {{{.queries = 60, .keys = 40, .dim = 16, .value_dim = 16, .causal = true, .bias = BIAS_FRONT}, 16, 0}, 0.1F, 0},
    {{{.queries = 30, .keys = 200, .dim = 16, .value_dim = 16, .causal = true}, 32, 0}, 0.01F, 60},
    {{{.batch = 2, .queries = 9, .keys = 90, .dim = 16, .value_dim = 16, .causal = true, .bias = BIAS_ALL}, 16, 0}, 0.2F, 0},
    {{{.queries = 30, .keys = 100, .dim = 16, .value_dim = 16, .causal = true, .data = DATA_IDENTICAL}, 16, 0}, 0.2F, 0},
    {{{.heads = 2, .kv_heads = 1, .queries = 20, .keys = 700, .dim = 16, .value_dim = 16, .causal = true, .bias = BIAS_RANDOM}, 256, 0}, 0.1F, 0},
    {{{.queries = 40, .keys = 600, .dim = 20, .value_dim = 8}, 128, 0}, 0.1F, 0},
    /* Enough chunks to start above them. */
    {{{.queries = 3, .keys = 70000, .dim = 16, .value_dim = 16, .causal = true, .tier = SUITE_LONG}, 16, 0}, 0.2F, 0},
    /* Columns of values in strips. */
    {{{.queries = 40, .keys = 150, .dim = 8, .value_dim = 96, .causal = true}, 16, 0}, 0.3F, 0},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs };

static const char *const names[PARTS] = {"dq", "dk", "dv", "dkey_bias"};

static double norm_of(const double *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

/* Along some random directions, or each number by itself. */
static void check_part(head_view *h, int part, bool each, const char *words) {
    enum { DIRECTIONS = 5 };
    size_t count = h->count[part], turns = each ? count : DIRECTIONS;
    double *g = head_result(h, part), *direction = malloc((count + 1) * sizeof *direction), wrong = 0,
           norm = norm_of(g, count);
    random_state random = random_stream(5, (uint64_t)part);
    for (size_t turn = 0; turn < turns; turn++) {
        double along = 0;
        for (size_t i = 0; i < count; i++)
            direction[i] = each ? (i == turn) : random_normal(&random);
        for (size_t i = 0; i < count; i++)
            along += g[i] * direction[i];
        wrong += pow(along - head_difference(h, part, direction), 2);
    }
    wrong = sqrt(each ? wrong : wrong / (double)turns);
    if (getenv("CLSPLAT_TEST_VERBOSE"))
        fprintf(stderr, "%s: %s of head %zu is off by %.1e of %.1e\n", words, names[part], h->head, wrong,
                norm);
    ck_assert_msg(wrong <= 1e-4 * norm + 3e-5, "%s: %s of head %zu is off by %.1e of %.1e", words,
                  names[part], h->head, wrong, norm);
    free(g);
    free(direction);
}

/* Whether a row must take the case, and not leave it to row 0. */
static bool row_fits_surely(const char *row, const back_case *c, const gradient_spec *spec) {
    const clsplat_limits *limits = &c->b.device->info.limits;
    const op_forest *f = &c->b.forest;
    if (strcmp(row, "local") == 0)
        return limits->local_memory > 0 && limits->max_work_group >= 32 && f->chunk == 16 * f->leaf &&
               f->chunks < 4096;
    if (strcmp(row, "wide") == 0)
        return limits_are_wide(limits) && !spec->sparse_topk && f->dim % 16 == 0 && f->value_dim % 16 == 0;
    return true;
}

START_TEST(gradients) {
    const gradient_spec *spec = &specs[_i];
    back_case c = back_create(spec, (uint64_t)_i);
    const problem_spec *s = &c.b.p.spec;
    size_t heads = s->batch * s->kv_heads, opened = 0;
    char words[400];
    head_view *views = malloc(heads * sizeof *views);
    ck_assert(forest_case_gather(&c.b, 0));
    back_decide(&c, spec);
    for (size_t head = 0; head < heads; head++) {
        views[head] = head_create(&c, head);
        opened += head_judge(&views[head], &c, spec->tolerance);
    }
    for (size_t row = 0; row < op_near_far_backward_family.count; row++) {
        if (strcmp(op_near_far_backward_family.variants[row].name, "local") == 0)
            continue; /* goes by notes */
        if (!back_run(&c, spec, row)) {
            ck_assert(!row_fits_surely(op_near_far_backward_family.variants[row].name, &c, spec));
            continue;
        }
        problem_describe(&c.b.p.spec, words, sizeof words);
        if (getenv("CLSPLAT_TEST_VERBOSE"))
            fprintf(stderr, "%s: %zu nodes open\n", op_near_far_backward_family.variants[row].name, opened);
        for (size_t head = 0; head < heads; head++)
            for (int part = 0; part < PARTS; part++)
                check_part(&views[head], part, views[head].count[part] < 200, words);
    }
    for (size_t head = 0; head < heads; head++)
        head_free(&views[head]);
    free(views);
    back_free(&c);
}
END_TEST

/* The row in local memory, by what rows of op_near_far note. */
START_TEST(noted) {
    const gradient_spec *spec = &specs[_i];
    back_case c = back_create(spec, (uint64_t)_i);
    const problem_spec *s = &c.b.p.spec;
    size_t row = 0;
    char words[400];
    ck_assert(forest_case_gather(&c.b, 0));
    problem_describe(&c.b.p.spec, words, sizeof words);
    while (strcmp(op_near_far_backward_family.variants[row].name, "local") != 0)
        row++;
    bool sure = row_fits_surely("local", &c, spec);
    for (size_t forward = 0; forward < op_near_far_family.count; forward++) {
        const char *name = op_near_far_family.variants[forward].name;
        if (!sure || !back_note(&c, spec, forward)) {
            ck_assert(!sure || strcmp(name, "plain") != 0);
            ck_assert(!sure || spec->sparse_topk || c.b.forest.chunk < 32 || strcmp(name, "local") != 0);
            continue;
        }
        ck_assert(back_run(&c, spec, row));
        for (size_t head = 0; head < s->batch * s->kv_heads; head++) {
            head_view view = head_create(&c, head);
            size_t opened = head_take(&view, &c);
            if (getenv("CLSPLAT_TEST_VERBOSE"))
                fprintf(stderr, "notes of %s: %zu chunks open\n", name, opened);
            for (int part = 0; part < PARTS; part++)
                check_part(&view, part, view.count[part] < 200, words);
            head_free(&view);
        }
    }
    back_free(&c);
}
END_TEST

/* Longer ones than the tier wants come last. */
static void add_all(TCase *part) {
    int count = SPECS;
    while (count > 0 && specs[count - 1].far.problem.tier > suite_tier_wanted())
        count--;
    problem_add_stage(part);
    tcase_add_loop_test(part, gradients, 0, count);
    tcase_add_loop_test(part, noted, 0, count);
}

int main(void) {
    static const suite_part parts[] = {{"near_far_backward", add_all}};
    return suite_run("near_far_backward", parts, sizeof parts / sizeof *parts);
}
