/* What a model that imitates another is told: errors against float64, gradients against differences of these.
 */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "op/layer/imitate.h"

typedef struct shape {
    size_t rows, columns;
    clsplat_dtype type, goal;
} shape;

// clang-format off
static const shape shapes[] = {
    {1, 1, CLSPLAT_F32, CLSPLAT_F32}, {70, 24, CLSPLAT_F32, CLSPLAT_F32}, {3, 700, CLSPLAT_F32, CLSPLAT_BF16},
    {9, 64, CLSPLAT_BF16, CLSPLAT_BF16}, {5, 257, CLSPLAT_F32, CLSPLAT_F16},
};
// clang-format on
enum { SHAPES = sizeof shapes / sizeof *shapes, FIRST = 2 };

typedef double measure(size_t count, const double *x, const double *goal);

/* scale times the central difference for every number of a row. */
static void differences(measure *f, size_t count, double *x, const double *goal, double scale, double *dx) {
    const double step = 1e-5;
    for (size_t i = 0; i < count; i++) {
        double was = x[i];
        x[i] = was + step;
        double above = f(count, x, goal);
        x[i] = was - step;
        dx[i] = scale * (above - f(count, x, goal)) / (2 * step);
        x[i] = was;
    }
}

/* Row 1 of the goal, if there is one, is 0 throughout; errors before `first` stay. */
static void judge(const op_family *family, measure *f, shape s, unsigned seed) {
    random_state random = random_seed(seed);
    const double scale = 0.25;
    matrix x = matrix_random(s.type, 1, s.rows, s.columns, &random),
           drawn = matrix_random(s.goal, 1, s.rows, s.columns, &random);
    for (size_t i = 0; s.rows > 1 && i < s.columns; i++)
        drawn.values[s.columns + i] = 0;
    matrix goal = matrix_of(s.goal, (size_t[]){1, 1, s.rows, s.columns}, drawn.values);
    double *dx = calloc(s.rows * s.columns, sizeof *dx), *expected = calloc(s.rows, sizeof *expected);
    float *errors = calloc(s.rows + FIRST, sizeof *errors);
    matrix_upload(&goal, problem_on_stage().device);
    for (size_t i = 0; i < s.rows + FIRST; i++)
        errors[i] = NAN;
    for (size_t i = 0; i < s.rows; i++) {
        expected[i] = f(s.columns, x.values + i * s.columns, goal.values + i * s.columns);
        differences(f, s.columns, x.values + i * s.columns, goal.values + i * s.columns, scale,
                    dx + i * s.columns);
    }
    cl_mem error = numbers_create(errors, s.rows + FIRST);
    op_imitate_args args = {.x = x.t, .goal = goal.t, .error = error, .first = FIRST, .scale = (float)scale};
    matrix_run_row(family, &args);
    matrix_check(&x, problem_on_stage().device, dx, 4e-6, family->name);
    numbers_read(error, errors, s.rows + FIRST);
    ck_assert(isnan(errors[0]) && isnan(errors[FIRST - 1]));
    for (size_t i = 0; i < s.rows; i++)
        ck_assert_msg(fabs((double)errors[FIRST + i] - expected[i]) <= 2e-6 * fmax(1, expected[i]),
                      "%s: row %zu has error %g, not %g", family->name, i, (double)errors[FIRST + i],
                      expected[i]);
    clReleaseMemObject(error);
    matrix *all[] = {&x, &drawn, &goal};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
    free(dx);
    free(expected);
    free(errors);
}

START_TEST(relative_error) {
    judge(&op_relative_error_family, naive_relative_error, shapes[_i], 300 + (unsigned)_i);
}
END_TEST

START_TEST(divergence) {
    judge(&op_divergence_family, naive_divergence, shapes[_i], 400 + (unsigned)_i);
}
END_TEST

/* Logits that are far apart, and the same everywhere: no overflow, and a divergence of 0. */
START_TEST(extremes) {
    enum { COUNT = 300 };
    double x[2 * COUNT], goal[2 * COUNT], dx[2 * COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        x[i] = goal[i] = i % 7 == 0 ? 8192 : -8192;
        x[COUNT + i] = 4096;
        goal[COUNT + i] = -4096;
        dx[i] = dx[COUNT + i] = 0;
    }
    const size_t dims[4] = {1, 1, 2, COUNT};
    matrix a = matrix_of(CLSPLAT_F32, dims, x), b = matrix_of(CLSPLAT_F32, dims, goal);
    float errors[2] = {NAN, NAN};
    matrix_upload(&a, problem_on_stage().device);
    matrix_upload(&b, problem_on_stage().device);
    cl_mem error = numbers_create(errors, 2);
    matrix_run_row(&op_divergence_family,
                   &(op_imitate_args){.x = a.t, .goal = b.t, .error = error, .scale = 1});
    matrix_check(&a, problem_on_stage().device, dx, 1e-6, "extremes");
    numbers_read(error, errors, 2);
    ck_assert_double_eq_tol((double)errors[0], 0, 1e-6);
    ck_assert_double_eq_tol((double)errors[1], 0, 1e-6);
    clReleaseMemObject(error);
    matrix_free(&a);
    matrix_free(&b);
}
END_TEST

static void add_tests(TCase *part) {
    tcase_add_loop_test(part, relative_error, 0, SHAPES);
    tcase_add_loop_test(part, divergence, 0, SHAPES);
    tcase_add_test(part, extremes);
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
    static const suite_part parts[] = {{"imitation", add_plain}, {"imitation on a GPU", add_last}};
    return suite_run("imitate", parts, sizeof parts / sizeof *parts);
}
