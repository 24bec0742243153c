/* An optimiser's step against float64. */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "matrix.h"
#include "op/families.h"
#include "op/layer/optimise.h"

static float *random_numbers(size_t count, double scale, random_state *random) {
    float *numbers = malloc(count * sizeof *numbers);
    for (size_t i = 0; i < count; i++)
        numbers[i] = (float)(scale * random_normal(random));
    return numbers;
}

/* Which row: that for any device, or the last, if the device has room for it. */

static const size_t counts[] = {1, 63, 5000, 70001};
enum { COUNTS = sizeof counts / sizeof *counts };

/* Two tensors' norm, and the factor that cuts it. */
START_TEST(clip) {
    random_state random = random_seed((uint64_t)_i);
    size_t count = counts[_i], parts = op_square_parts(count);
    float *g = random_numbers(count, 3, &random), result[2], *zeros = calloc(2 * parts, sizeof *zeros);
    cl_mem mem = numbers_create(g, count), partials = numbers_create(zeros, 2 * parts),
           out = numbers_create(zeros, 2);
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += 2 * (double)g[i] * (double)g[i];
    for (size_t first = 0; first <= parts; first += parts)
        matrix_run_row(
            &op_square_sums_family,
            &(op_square_sums_args){.g = mem, .partials = partials, .count = count, .first = first});
    for (int limited = 0; limited < 2; limited++) {
        float limit = limited ? 0.25f : 0;
        matrix_run_row(
            &op_clip_factor_family,
            &(op_clip_factor_args){.partials = partials, .result = out, .parts = 2 * parts, .limit = limit});
        numbers_read(out, result, 2);
        double factor = limited ? fmin(1, (double)limit / (sqrt(sum) + 1e-6)) : 1;
        ck_assert_double_le(fabs((double)result[0] - sqrt(sum)), 1e-6 * sqrt(sum));
        ck_assert_double_le(fabs((double)result[1] - factor), 1e-6 * factor);
    }
    clReleaseMemObject(mem);
    clReleaseMemObject(partials);
    clReleaseMemObject(out);
    free(g);
    free(zeros);
}
END_TEST

/* Fails unless the numbers are the reference's. */
static void check_numbers(cl_mem mem, const double *reference, size_t count, const char *what) {
    float *host = malloc(count * sizeof *host);
    numbers_read(mem, host, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabs((double)host[i] - reference[i]) <= 1e-6 * (fabs(reference[i]) + 1e-2),
                      "%s[%zu] is %g, not %g", what, i, (double)host[i], reference[i]);
    free(host);
}

START_TEST(adamw) {
    const double rate = 0.01, decay = 0.1, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
    random_state random = random_seed(40 + (uint64_t)_i);
    size_t count = counts[_i];
    float *g = random_numbers(count, 2, &random), *w = random_numbers(count, 1, &random),
          clip_is[] = {5, 0.5f};
    float *zeros = calloc(count, sizeof *zeros);
    double *weight = calloc(count, sizeof *weight), *m = calloc(count, sizeof *m),
           *v = calloc(count, sizeof *v);
    op_adamw_args args = {.w = numbers_create(w, count),
                          .g = numbers_create(g, count),
                          .m = numbers_create(zeros, count),
                          .v = numbers_create(zeros, count),
                          .clip = numbers_create(clip_is, 2),
                          .count = count,
                          .rate = rate,
                          .decay = decay,
                          .beta1 = beta1,
                          .beta2 = beta2,
                          .epsilon = epsilon};
    for (size_t i = 0; i < count; i++)
        weight[i] = (double)w[i];
    for (args.step = 1; args.step <= 3; args.step++) {
        matrix_run_row(&op_adamw_family, &args);
        double t = (double)args.step;
        for (size_t i = 0; i < count; i++) {
            double gradient = 0.5 * (double)g[i];
            m[i] = beta1 * m[i] + (1 - beta1) * gradient;
            v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
            weight[i] -= rate * decay * weight[i];
            weight[i] -= rate * m[i] / (1 - pow(beta1, t)) / (sqrt(v[i] / (1 - pow(beta2, t))) + epsilon);
        }
    }
    check_numbers(args.w, weight, count, "w");
    check_numbers(args.m, m, count, "m");
    check_numbers(args.v, v, count, "v");
    cl_mem all[] = {args.w, args.g, args.m, args.v, args.clip};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        clReleaseMemObject(all[i]);
    free(g);
    free(w);
    free(zeros);
    free(weight);
    free(m);
    free(v);
}
END_TEST

static void add_tests(TCase *part) {
    tcase_add_loop_test(part, clip, 0, COUNTS);
    tcase_add_loop_test(part, adamw, 0, COUNTS);
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
    static const suite_part parts[] = {{"optimiser", add_plain}, {"optimiser of a GPU", add_last}};
    return suite_run("optimise", parts, sizeof parts / sizeof *parts);
}
