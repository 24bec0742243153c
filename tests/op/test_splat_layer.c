/* What a splat layer has beside attention, against float64. */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "matrix.h"
#include "op/families.h"
#include "op/splat/splat_layer.h"

#define F32 CLSPLAT_F32
#define BF16 CLSPLAT_BF16

/* Features of normalised tokens, and what tokens receive from them, by differences of a sum over features. */
START_TEST(token_features) {
    enum { COLUMNS = 24, ROWS = 7, HEADS = 2 };
    clsplat_dtype type = _i ? BF16 : F32;
    random_state random = random_seed(7);
    matrix x = matrix_random(type, HEADS, ROWS, COLUMNS, &random),
           dx = matrix_random(type, HEADS, ROWS, COLUMNS, &random);
    matrix f = matrix_random(F32, HEADS, ROWS, 2 * COLUMNS, NULL);
    matrix df = matrix_random(F32, HEADS, ROWS, 2 * COLUMNS, &random);
    double *features = calloc(2 * matrix_count(&x), sizeof(double)),
           *received = calloc(matrix_count(&x), sizeof(double));
    for (size_t i = 0; i < (size_t)HEADS * ROWS; i++) {
        const double *row = x.values + i * COLUMNS, *d = df.values + i * 2 * COLUMNS;
        double square = 0, along = 0, gain[COLUMNS];
        for (size_t c = 0; c < COLUMNS; c++)
            square += row[c] * row[c];
        double inverse = 1 / sqrt(square / COLUMNS + 1e-5);
        for (size_t c = 0; c < COLUMNS; c++) {
            double y = row[c] * inverse;
            features[i * 2 * COLUMNS + c] = y;
            features[i * 2 * COLUMNS + COLUMNS + c] = y * y;
            gain[c] = d[c] + 2 * y * d[COLUMNS + c];
            along += gain[c] * y;
        }
        for (size_t c = 0; c < COLUMNS; c++)
            received[i * COLUMNS + c] = dx.values[i * COLUMNS + c] +
                                        inverse * (gain[c] - features[i * 2 * COLUMNS + c] * along / COLUMNS);
    }
    matrix_run_row(&op_token_features_family, &(op_token_features_args){.x = x.t, .f = f.t});
    matrix_check(&f, problem_on_stage().device, features, 1e-6, "f");
    matrix_run_row(&op_token_features_backward_family,
                   &(op_token_features_backward_args){.x = x.t, .f = f.t, .df = df.t, .dx = dx.t});
    matrix_check(&dx, problem_on_stage().device, received, 1e-5, "dx");
    matrix *all[] = {&x, &dx, &f, &df};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
    free(features);
    free(received);
}
END_TEST

/* Texts of several tokens, of one, and one alone; runs that end within a text, and one that has nothing. */
static const struct shift_case {
    size_t rows, columns, length, runs;
    clsplat_dtype type;
} shift_cases[] = {{13, 20, 5, 3, F32}, {6, 7, 1, 2, F32}, {9, 70, 9, 4, BF16}, {1, 3, 4, 1, F32}};
enum { SHIFT_CASES = sizeof shift_cases / sizeof *shift_cases };

/* out, dx and parts, of x and dout [rows,columns]. */
static void shift_naive(const struct shift_case *s, const double *x, const double *dout, const double *mix,
                        double *out, double *dx, double *parts) {
    size_t run = (s->rows + s->runs - 1) / s->runs;
    for (size_t i = 0; i < s->rows; i++)
        for (size_t c = 0; c < s->columns; c++) {
            size_t at = i * s->columns + c, above = at - s->columns;
            double d = dout[at];
            out[at] = x[at];
            dx[at] += d;
            if (i % s->length == 0)
                continue;
            out[at] += mix[c] * (x[above] - x[at]);
            dx[at] -= mix[c] * d;
            dx[above] += mix[c] * d;
            parts[i / run * s->columns + c] += d * (x[above] - x[at]);
        }
}

START_TEST(token_shift) {
    const struct shift_case *s = &shift_cases[_i];
    random_state random = random_seed(21);
    size_t count = s->rows * s->columns, sums = s->runs * s->columns;
    matrix x = matrix_random(s->type, 1, s->rows, s->columns, &random),
           dout = matrix_random(s->type, 1, s->rows, s->columns, &random),
           mix = matrix_random(F32, 1, 1, s->columns, &random),
           out = matrix_random(s->type, 1, s->rows, s->columns, NULL),
           dx = matrix_random(s->type, 1, s->rows, s->columns, NULL);
    double *shifted = calloc(count, sizeof(double)), *received = calloc(count, sizeof(double)),
           *parts = calloc(sums, sizeof(double));
    cl_mem weights = numbers_of(mix.values, s->columns), left = numbers_of(NULL, sums);
    shift_naive(s, x.values, dout.values, mix.values, shifted, received, parts);
    matrix_run_row(&op_token_shift_family,
                   &(op_token_shift_args){.x = x.t, .out = out.t, .mix = weights, .length = s->length});
    matrix_check(&out, problem_on_stage().device, shifted, 1e-6, "out");
    matrix_run_row(&op_token_shift_backward_family, &(op_token_shift_backward_args){.x = x.t,
                                                                                    .dout = dout.t,
                                                                                    .dx = dx.t,
                                                                                    .mix = weights,
                                                                                    .parts = left,
                                                                                    .length = s->length,
                                                                                    .runs = s->runs});
    matrix_check(&dx, problem_on_stage().device, received, 1e-6, "dx");
    double *found = numbers_doubles(left, sums);
    for (size_t i = 0; i < sums; i++)
        ck_assert_msg(fabs(found[i] - parts[i]) <= 1e-5, "part %zu is %g, not %g", i, found[i], parts[i]);
    matrix *all[] = {&x, &dout, &mix, &out, &dx};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
    clReleaseMemObject(weights);
    clReleaseMemObject(left);
    free(shifted);
    free(received);
    free(parts);
    free(found);
}
END_TEST

/* The rows of a text come in two halves. */
START_TEST(token_shift_in_halves) {
    enum { ROWS = 8, COLUMNS = 12, FIRST = 3 };
    random_state random = random_seed(22);
    matrix x = matrix_random(F32, 1, ROWS, COLUMNS, &random),
           mix = matrix_random(F32, 1, 1, COLUMNS, &random),
           whole = matrix_random(F32, 1, ROWS, COLUMNS, NULL),
           halves = matrix_random(F32, 1, ROWS, COLUMNS, NULL);
    cl_mem weights = numbers_of(mix.values, COLUMNS);
    op_token_shift_args args = {.x = x.t, .out = whole.t, .mix = weights, .length = ROWS};
    matrix_run_row(&op_token_shift_family, &args);
    matrix_download(&whole, problem_on_stage().device, "whole");
    for (size_t first = 0; first < ROWS; first += FIRST) {
        size_t count = first + FIRST < ROWS ? FIRST : ROWS - first;
        args = (op_token_shift_args){.x = op_slice(x.t, 2, first, count),
                                     .out = op_slice(halves.t, 2, first, count),
                                     .mix = weights,
                                     .first = first,
                                     .length = first + count};
        matrix_run_row(&op_token_shift_family, &args);
    }
    matrix_check(&halves, problem_on_stage().device, whole.values, 1e-9, "halves");
    matrix *all[] = {&x, &mix, &whole, &halves};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
    clReleaseMemObject(weights);
}
END_TEST

static void add_tests(TCase *part) {
    tcase_add_loop_test(part, token_features, 0, 2);
    tcase_add_loop_test(part, token_shift, 0, SHIFT_CASES);
    tcase_add_test(part, token_shift_in_halves);
}

static void add_plain(TCase *part) {
    problem_add_stage(part);
    add_tests(part);
}

static void add_last(TCase *part) {
    problem_add_stage(part);
    matrix_add_last(part);
    add_tests(part);
}

int main(void) {
    static const suite_part parts[] = {{"splat layers", add_plain}, {"splat layers of a GPU", add_last}};
    return suite_run("splat_layer", parts, sizeof parts / sizeof *parts);
}
