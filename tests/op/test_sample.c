/* Scores of tokens and draws from logits, every row of their tables that fits, against float64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "op/rows.h"

typedef struct score_case {
    size_t rows, count;
    double scale;
    bool ties;
} score_case;
static const score_case scores[] = {
    {1, 1, 1, false}, {5, 7, 1, true}, {70, 256, 5, false}, {3, 1000, 30, false}, {2, 33, 1, true}};
enum { SCORES = sizeof scores / sizeof *scores, SCORE_FIRST = 2 };

/* Logits; with ties two of every row are the largest. */
static matrix score_logits(const score_case *c, random_state *random) {
    double *values = malloc(c->rows * c->count * sizeof *values);
    for (size_t i = 0; i < c->rows * c->count; i++)
        values[i] = (double)(float)(c->scale * random_normal(random));
    for (size_t i = 0; c->ties && i < c->rows; i++)
        values[i * c->count + 2] = values[i * c->count + c->count - 1] = 9;
    matrix m = matrix_of(CLSPLAT_F32, (size_t[]){1, 1, c->rows, c->count}, values);
    matrix_upload(&m, problem_on_stage().device);
    free(values);
    return m;
}

START_TEST(score) {
    const score_case *c = &scores[_i];
    random_state random = random_seed((uint64_t)_i);
    matrix logits = score_logits(c, &random);
    size_t all = SCORE_FIRST + c->rows;
    int32_t *targets = calloc(all, sizeof *targets), *greedy = calloc(all, sizeof *greedy);
    float *found = calloc(all, sizeof *found);
    for (size_t i = 0; i < c->rows; i++)
        targets[SCORE_FIRST + i] =
            c->ties ? (i % 2 ? 2 : (int32_t)c->count - 1) : (int32_t)random_below(&random, c->count);
    for (size_t row = 0; row < op_score_family.count; row++) {
        cl_mem mems[] = {numbers_create(targets, all), numbers_create(found, all),
                         numbers_create(greedy, all)};
        op_score_args args = {logits.t, mems[0], mems[1], mems[2], SCORE_FIRST};
        if (matrix_fits(&op_score_family, row, &args)) {
            matrix_run(&op_score_family, row, &args);
            numbers_read(mems[1], found, all);
            numbers_read(mems[2], greedy, all);
            for (size_t i = 0; i < c->rows; i++) {
                bool best;
                double expected = naive_score(c->count, logits.values + i * c->count,
                                              (size_t)targets[SCORE_FIRST + i], &best);
                ck_assert_msg(fabs(found[SCORE_FIRST + i] - expected) < 2e-6 + 3e-7 * fabs(expected),
                              "row %zu: %g instead of %g", i, (double)found[SCORE_FIRST + i], expected);
                ck_assert_int_eq(greedy[SCORE_FIRST + i], best);
            }
            ck_assert(found[0] == 0 && found[1] == 0 && greedy[0] == 0);
        }
        for (int i = 0; i < 3; i++)
            clReleaseMemObject(mems[i]);
        memset(found, 0, all * sizeof *found);
        memset(greedy, 0, all * sizeof *greedy);
    }
    free(targets);
    free(greedy);
    free(found);
    matrix_free(&logits);
}
END_TEST

typedef struct sample_case {
    size_t count;
    double scale;
    float temperature;
    size_t top_k;
    float top_p;
} sample_case;
static const sample_case samples[] = {
    {1, 1, 1, 0, 1},         {7, 1, 1, 0, 1},           {256, 2, 0.7f, 0, 1},    {256, 2, 1, 5, 1},
    {256, 2, 1.3f, 0, 0.5f}, {1000, 3, 0.8f, 40, 0.9f}, {10000, 1, 1, 0, 0.25f}, {300, 1, 1, 1, 1},
    {300, 1, 1, 0, 1e-6f},   {300, 1, 1, 1000, 0.999f}};
enum { SAMPLES = sizeof samples / sizeof *samples, DRAWS = 64 };

/* The draw u must be the token whose share of the cumulative probability holds u; next to a border, its
 * neighbours. */
START_TEST(sample) {
    const sample_case *c = &samples[_i];
    random_state random = random_seed((uint64_t)_i);
    score_case spec = {1, c->count, c->scale, false};
    matrix logits = score_logits(&spec, &random);
    double *probability = calloc(2 * c->count, sizeof *probability);
    naive_sampling sampling = {(double)c->temperature, c->top_k, (double)c->top_p};
    naive_sample(c->count, logits.values, &sampling, probability);
    cl_mem token = numbers_create(&(int32_t){-1}, 1);
    for (size_t i = 0; i < DRAWS; i++) {
        double draw = (double)(float)((double)i / DRAWS), before = 0;
        int32_t drawn = -1;
        op_sample_args args = {logits.t, c->temperature, c->top_k, c->top_p, (float)draw, token};
        matrix_run(&op_sample_family, 0, &args);
        numbers_read(token, &drawn, 1);
        ck_assert(drawn >= 0 && (size_t)drawn < c->count);
        ck_assert_msg(probability[drawn] > 0, "token %d is not among those kept", drawn);
        for (int32_t v = 0; v < drawn; v++)
            before += probability[v];
        ck_assert_msg(before - 1e-5 <= draw && draw <= before + probability[drawn] + 1e-5,
                      "draw %g is token %d, whose share is [%g, %g]", draw, drawn, before,
                      before + probability[drawn]);
    }
    clReleaseMemObject(token);
    free(probability);
    matrix_free(&logits);
}
END_TEST

static int32_t drawn_from(const matrix *logits, cl_mem token, op_sample_args args) {
    int32_t drawn = 7;
    args.logits = logits->t;
    args.token = token;
    matrix_run(&op_sample_family, 0, &args);
    numbers_read(token, &drawn, 1);
    return drawn;
}

/* The first of the largest, whatever the filters, and −inf beside it changes nothing; no token follows from
 * NaN, +inf or nothing but −inf. */
START_TEST(sample_greedy) {
    double values[200];
    for (size_t i = 0; i < 200; i++)
        values[i] = i % 3 == 0 ? -INFINITY : -(double)i;
    values[77] = values[150] = 3;
    matrix logits = matrix_of(CLSPLAT_F32, (size_t[]){1, 1, 1, 200}, values);
    cl_mem token = numbers_create(&(int32_t){-1}, 1);
    static const op_sample_args args[] = {{.temperature = 0, .top_p = 1},
                                          {.temperature = 0, .top_k = 3, .top_p = 0.5f, .draw = 0.9f},
                                          {.temperature = 1e-3f, .top_p = 0.4f, .draw = 0.3f},
                                          {.temperature = 1, .top_k = 1, .top_p = 1, .draw = 0.2f}};
    static const double wrong[] = {NAN, INFINITY, -INFINITY};
    matrix_upload(&logits, problem_on_stage().device);
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        ck_assert_int_eq(drawn_from(&logits, token, args[i]), 77);
    matrix_free(&logits);
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        for (size_t i = 0; i < 200 && wrong[w] < 0; i++)
            values[i] = -INFINITY;
        values[w == 0 ? 199 : 40] = wrong[w];
        logits = matrix_of(CLSPLAT_F32, (size_t[]){1, 1, 1, 200}, values);
        matrix_upload(&logits, problem_on_stage().device);
        for (size_t i = 0; i < sizeof args / sizeof *args; i++)
            ck_assert_int_eq(drawn_from(&logits, token, args[i]), -1);
        matrix_free(&logits);
        values[199] = -5;
    }
    clReleaseMemObject(token);
}
END_TEST

static void add_all(TCase *part) {
    static const op_family *const families[] = {&op_score_family, &op_sample_family, NULL};
    problem_add_stage(part);
    rows_begin(part);
    tcase_add_loop_test(part, score, 0, SCORES);
    tcase_add_loop_test(part, sample, 0, SAMPLES);
    tcase_add_test(part, sample_greedy);
    rows_end(part, families);
}

static void add_disguised(TCase *part) {
    add_all(part);
    matrix_add_disguise(part);
}

int main(void) {
    static const suite_part parts[] = {{"sample", add_all}, {"sample as on a GPU", add_disguised}};
    return suite_run("sample", parts, sizeof parts / sizeof *parts);
}
