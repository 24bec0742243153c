/* Gradients of a layer's operations against float64: of norms and activations as differences of the forward
 * reference, of the others from their definition. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "op/layer/layer_backward.h"

#define F32 CLSPLAT_F32
#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16

typedef struct shape {
    size_t heads, rows, columns;
    clsplat_dtype type;
} shape;

// clang-format off
static const shape shapes[] = {
    {1, 1, 1, F32}, {2, 70, 24, F32}, {1, 3, 333, F32}, {3, 300, 10, F32}, {1, 9, 64, BF16},
};
// clang-format on
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Which row: that for any device, or the last, if the device has room for it. */

/* Adds to what was there: 1. */
static cl_mem ones(size_t count) {
    float *host = malloc(count * sizeof *host);
    for (size_t i = 0; i < count; i++)
        host[i] = 1;
    cl_mem mem = numbers_create(host, count);
    free(host);
    return mem;
}

/* Fails unless the array is 1 more than the reference, relative to the largest number. */
static void check_sums(cl_mem mem, const double *reference, size_t count, const char *what) {
    float *host = malloc(count * sizeof *host);
    double largest = 1;
    numbers_read(mem, host, count);
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(reference[i]));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabs((double)host[i] - 1 - reference[i]) <= 4e-6 * largest, "%s[%zu] is %g, not %g",
                      what, i, (double)host[i] - 1, reference[i]);
    free(host);
    clReleaseMemObject(mem);
}

typedef struct norm_case {
    size_t columns;
    bool centred;
    const double *weight, *dout;
} norm_case;

/* Σ out · dout of a row: what the gradients are of. */
static double norm_value(const norm_case *c, const double *x, double *out) {
    static const double none[512];
    double sum = 0;
    if (c->centred)
        naive_layer_norm(c->columns, (double)1e-5f, x, c->weight, none, out);
    else
        naive_norm(c->columns, (double)1e-5f, x, c->weight, out);
    for (size_t d = 0; d < c->columns; d++)
        sum += out[d] * c->dout[d];
    return sum;
}

/* One row's dx by differences, and its part of dweight and dshift. */
static void norm_row(const norm_case *c, const double *x, double *dx, double *dweight, double *dshift) {
    double *moved = malloc(c->columns * sizeof *moved), *out = malloc(c->columns * sizeof *out);
    memcpy(moved, x, c->columns * sizeof *moved);
    for (size_t d = 0; d < c->columns; d++) {
        double step = 1e-4;
        moved[d] = x[d] + step;
        double above = norm_value(c, moved, out);
        moved[d] = x[d] - step;
        double below = norm_value(c, moved, out);
        moved[d] = x[d];
        dx[d] = (above - below) / (2 * step);
    }
    norm_value(c, x, out);
    for (size_t d = 0; d < c->columns; d++) {
        dweight[d] += c->dout[d] * out[d] / c->weight[d];
        dshift[d] += c->dout[d];
    }
    free(moved);
    free(out);
}

START_TEST(norm) {
    const shape *s = &shapes[_i / 2];
    clsplat_device *device = problem_on_stage().device;
    random_state random = random_seed(1 + (uint64_t)_i);
    size_t rows = s->heads * s->rows, columns = s->columns;
    matrix x = matrix_random(s->type, s->heads, s->rows, columns, &random);
    matrix dout = matrix_random(s->type, s->heads, s->rows, columns, &random);
    matrix weight = matrix_random(F32, 1, 1, columns, &random);
    matrix dx = matrix_random(F32, s->heads, s->rows, columns, &random);
    matrix again = matrix_random(CLSPLAT_BF16, s->heads, s->rows, columns, NULL);
    matrix out = matrix_random(F32, s->heads, s->rows, columns, NULL);
    double *reference = calloc(rows * columns, sizeof(double)), *sums = calloc(2 * columns, sizeof(double));
    double *made = calloc(rows * columns, sizeof(double));
    cl_mem dweight = ones(columns), dshift = ones(columns), stats = ones(2 * rows);
    bool centred = _i % 2, add = _i % 4 == 0;
    op_norm_backward_args args = {.x = x.t,
                                  .weight = weight.t,
                                  .dout = dout.t,
                                  .dx = dx.t,
                                  .dx_again = _i % 3 ? again.t : (op_tensor){0},
                                  .out = _i % 3 ? out.t : (op_tensor){0},
                                  .dweight = dweight,
                                  .dshift = centred ? dshift : NULL,
                                  .stats = stats,
                                  .epsilon = 1e-5f,
                                  .centred = centred,
                                  .add = add};
    for (size_t i = 0; i < rows; i++) {
        norm_case c = {columns, centred, weight.values, dout.values + i * columns};
        norm_row(&c, x.values + i * columns, reference + i * columns, sums, sums + columns);
        norm_value(&c, x.values + i * columns, made + i * columns);
    }
    for (size_t i = 0; add && i < rows * columns; i++)
        reference[i] += dx.values[i];
    matrix_run_row(&op_norm_backward_family, &args);
    if (columns > 1) /* of one column nothing is left but rounding */
        matrix_check(&dx, device, reference, 1e-5, "dx");
    if (columns > 1 && args.out.mem) {
        matrix_check(&again, device, reference, 1e-5, "dx once more");
        matrix_check(&out, device, made, 1e-5, "out");
    }
    check_sums(dweight, sums, columns, "dweight");
    if (centred)
        check_sums(dshift, sums + columns, columns, "dshift");
    else
        clReleaseMemObject(dshift);
    clReleaseMemObject(stats);
    matrix *all[] = {&x, &dout, &weight, &dx, &again, &out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
    free(made);
    free(reference);
    free(sums);
}
END_TEST

static void activate_by(int i, clsplat_dtype type, size_t columns, double allowed) {
    enum { ROWS = 20 };
    const double cap = 3, step = 1e-5;
    int f = i / 2;
    bool gated = i % 2;
    size_t wide = gated ? 2 * columns : columns;
    random_state random = random_seed(50 + (uint64_t)i);
    matrix x = matrix_random(type, 2, ROWS, wide, &random), bias = matrix_random(F32, 1, 1, wide, &random);
    matrix dout = matrix_random(type, 2, ROWS, columns, &random),
           dx = matrix_random(type, 2, ROWS, wide, NULL);
    matrix out = matrix_random(type, 2, ROWS, columns, NULL);
    double *made = calloc(2 * ROWS * columns, sizeof(double));
    double *reference = calloc(2 * ROWS * wide, sizeof(double));
    for (size_t n = 0; n < 2 * ROWS * columns; n++) {
        size_t row = n / columns, d = n % columns;
        double y = x.values[row * wide + d] + bias.values[d];
        double u = gated ? x.values[row * wide + columns + d] + bias.values[columns + d] : 1;
        double slope = (naive_activate((naive_activation)f, cap, y + step) -
                        naive_activate((naive_activation)f, cap, y - step)) /
                       (2 * step);
        if (f == NAIVE_RELU) /* differences know nothing of its kink */
            slope = y > 0;
        reference[row * wide + d] = slope * u * dout.values[n];
        if (gated)
            reference[row * wide + columns + d] =
                naive_activate((naive_activation)f, cap, y) * dout.values[n];
        made[n] = u * naive_activate((naive_activation)f, cap, y);
    }
    op_activate_backward_args args = {.x = x.t,
                                      .bias = bias.t,
                                      .dout = dout.t,
                                      .dx = dx.t,
                                      .out = i % 3 ? out.t : (op_tensor){0},
                                      .activation = (op_activation)f,
                                      .gated = gated,
                                      .cap = (float)cap};
    matrix_run_row(&op_activate_backward_family, &args);
    matrix_check(&dx, problem_on_stage().device, reference, allowed, "dx");
    if (args.out.mem)
        matrix_check(&out, problem_on_stage().device, made, allowed, "out");
    matrix *all[] = {&x, &bias, &dout, &dx, &out};
    for (size_t m = 0; m < sizeof all / sizeof *all; m++)
        matrix_free(all[m]);
    free(made);
    free(reference);
}

/* Columns that end within a vector, and whole vectors. */
START_TEST(activate) {
    activate_by(_i, F32, 37, 2e-6);
    activate_by(_i, _i % 3 ? CLSPLAT_BF16 : F32, 48, 2e-6);
}
END_TEST

/* Tokens that repeat, from the second number on. */
START_TEST(embed) {
    enum { ROWS = 100, COLUMNS = 13, VOCABULARY = 7 };
    random_state random = random_seed(80);
    matrix dout = matrix_random(F32, 1, ROWS, COLUMNS, &random);
    double sums[VOCABULARY * COLUMNS] = {0};
    int32_t ids[ROWS + 1] = {1000};
    for (size_t i = 0; i < ROWS; i++) {
        ids[i + 1] = (int32_t)random_below(&random, VOCABULARY - 1);
        for (size_t d = 0; d < COLUMNS; d++)
            sums[(size_t)ids[i + 1] * COLUMNS + d] += 0.5 * dout.values[i * COLUMNS + d];
    }
    cl_mem table = ones(VOCABULARY * COLUMNS), tokens = numbers_create(ids, ROWS + 1);
    op_embed_backward_args args = {
        .ids = tokens, .dtable = table, .first = 1, .vocabulary = VOCABULARY, .dout = dout.t, .scale = 0.5f};
    matrix_run_row(&op_embed_backward_family, &args);
    check_sums(table, sums, VOCABULARY * COLUMNS, "dtable");
    clReleaseMemObject(tokens);
    matrix_free(&dout);
}
END_TEST

/* The loss too; the third row does not count. */
START_TEST(cross_entropy) {
    enum { ROWS = 10, COUNT = 700 };
    random_state random = random_seed(90);
    matrix logits = matrix_random(F32, 1, ROWS, COUNT, &random);
    double *reference = calloc(ROWS * COUNT, sizeof(double));
    int32_t targets[ROWS];
    float likelihood[ROWS];
    double expected[ROWS];
    bool greedy;
    for (size_t i = 0; i < ROWS; i++) {
        targets[i] = i == 2 ? -1 : (int32_t)random_below(&random, COUNT);
        expected[i] = i == 2 ? 0 : naive_score(COUNT, logits.values + i * COUNT, (size_t)targets[i], &greedy);
        for (size_t v = 0; i != 2 && v < COUNT; v++)
            reference[i * COUNT + v] =
                0.25 *
                (exp(naive_score(COUNT, logits.values + i * COUNT, v, &greedy)) - ((int32_t)v == targets[i]));
    }
    cl_mem tokens = numbers_create(targets, ROWS), scores = ones(ROWS);
    op_cross_entropy_args args = {
        .logits = logits.t, .targets = tokens, .log_likelihood = scores, .scale = 0.25f};
    matrix_run_row(&op_cross_entropy_family, &args);
    matrix_check(&logits, problem_on_stage().device, reference, 2e-6, "logits");
    numbers_read(scores, likelihood, ROWS);
    for (size_t i = 0; i < ROWS; i++)
        ck_assert_double_eq_tol((double)likelihood[i], expected[i], 1e-5);
    clReleaseMemObject(tokens);
    clReleaseMemObject(scores);
    matrix_free(&logits);
    free(reference);
}
END_TEST

/* Turning back what was turned is the same as the transposed rotation: by the position's negative. */
START_TEST(turn_back) {
    enum { HEADS = 3, ROWS = 20, DIM = 32 }; /* halves of whole vectors */
    random_state random = random_seed(95);
    matrix dout = matrix_random(F32, HEADS, ROWS, DIM, &random),
           dx = matrix_random(F32, HEADS, ROWS, DIM, NULL);
    double frequencies[DIM / 2], reference[HEADS * ROWS * DIM];
    float turn[ROWS * DIM];
    for (size_t d = 0; d < DIM / 2; d++)
        frequencies[d] = 1 / (1.0 + (double)d);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t d = 0; d < DIM / 2; d++) {
            turn[i * DIM + d] = (float)(1.5 * cos((double)i * frequencies[d]));
            turn[i * DIM + DIM / 2 + d] = (float)(1.5 * sin((double)i * frequencies[d]));
        }
    for (size_t i = 0; i < (size_t)HEADS * ROWS; i++)
        naive_rope(DIM, -(double)(i % ROWS), frequencies, 1.5, dout.values + i * DIM, reference + i * DIM);
    cl_mem turns = numbers_create(turn, (size_t)ROWS * DIM);
    op_turn_back_args args = {.dout = dout.t, .dx = dx.t, .turn = turns};
    matrix_run_row(&op_turn_back_family, &args);
    matrix_check(&dx, problem_on_stage().device, reference, 1e-6, "dx");
    clReleaseMemObject(turns);
    matrix_free(&dout);
    matrix_free(&dx);
}
END_TEST

START_TEST(transpose_and_sums) {
    const shape *s = &shapes[_i];
    random_state random = random_seed(99);
    matrix x = matrix_random(s->type, s->heads, s->rows, s->columns, &random);
    matrix out = matrix_random(s->type, s->heads, s->columns, s->rows, NULL);
    double *reference = calloc(matrix_count(&x), sizeof(double)), *sums = calloc(s->columns, sizeof(double));
    for (size_t i = 0; i < matrix_count(&x); i++) {
        size_t h = i / s->columns / s->rows, row = i / s->columns % s->rows, d = i % s->columns;
        reference[(h * s->columns + d) * s->rows + row] = x.values[i];
        sums[d] += x.values[i];
    }
    cl_mem total = ones(s->columns);
    matrix_run_row(&op_transpose_family, &(op_transpose_args){.x = x.t, .out = out.t});
    matrix_check(&out, problem_on_stage().device, reference, 1e-9, "out");
    matrix_run_row(&op_column_sums_family, &(op_column_sums_args){.x = x.t, .sums = total});
    check_sums(total, sums, s->columns, "sums");
    matrix_free(&x);
    matrix_free(&out);
    free(reference);
    free(sums);
}
END_TEST

static void add_tests(TCase *part) {
    tcase_add_loop_test(part, norm, 0, 2 * SHAPES);
    tcase_add_loop_test(part, activate, 0, 14);
    tcase_add_test(part, embed);
    tcase_add_test(part, cross_entropy);
    tcase_add_test(part, turn_back);
    tcase_add_loop_test(part, transpose_and_sums, 0, SHAPES);
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
    static const suite_part parts[] = {{"layers backward", add_plain},
                                       {"layers backward of a GPU", add_last}};
    return suite_run("layer_backward", parts, sizeof parts / sizeof *parts);
}
