/* Attention over the keys of the largest scores, every row of its table, against float64. */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "op/families.h"
#include "op/matrix.h"

typedef struct topk_case {
    size_t batch, heads, kv_heads, queries, keys, dim, value_dim;
    bool causal;
    size_t keep, block;
} topk_case;

static const topk_case cases[] = {
    {1, 1, 1, 1, 1, 1, 1, false, 1, 1},       {2, 4, 2, 9, 50, 8, 8, false, 7, 1},
    {1, 2, 1, 33, 70, 5, 7, true, 12, 1},     {1, 2, 2, 20, 20, 16, 3, true, 100, 1},
    {1, 1, 1, 12, 5, 8, 8, true, 2, 1},       {1, 2, 1, 40, 90, 16, 16, true, 32, 8},
    {2, 2, 2, 17, 33, 20, 32, false, 16, 16}, {1, 1, 1, 70, 70, 64, 64, true, 3, 8},
};
enum { CASES = sizeof cases / sizeof *cases };

/* q, k and v. */
static double *expected(const topk_case *c, const matrix in[3]) {
    double *out = malloc(c->batch * c->heads * c->queries * c->value_dim * sizeof *out);
    naive_tensors t = {.shape = {c->batch, c->heads, c->kv_heads, c->queries, c->keys, c->dim, c->value_dim},
                       .causal = c->causal,
                       .q = in[0].values,
                       .k = in[1].values,
                       .v = in[2].values,
                       .out = out};
    naive_topk(&t, 0.3, c->keep, c->block);
    return out;
}

static void check(const topk_case *c, size_t row, const matrix in[3], const double *reference) {
    clsplat_device *device = problem_on_stage().device;
    matrix out = matrix_create(CLSPLAT_F32, (size_t[]){c->batch, c->heads, c->queries, c->value_dim}, NULL);
    matrix_upload(&out, device);
    op_topk_args args = {.q = in[0].t,
                         .k = in[1].t,
                         .v = in[2].t,
                         .out = out.t,
                         .scale = 0.3F,
                         .diagonal = c->causal ? (int32_t)c->keys - (int32_t)c->queries : OP_SEES_ALL,
                         .keep = c->keep,
                         .block = c->block};
    args.scores = numbers_of(NULL, op_topk_scores(&args));
    matrix_run(&op_topk_family, row, &args);
    matrix_check(&out, device, reference, 1e-5, op_topk_family.variants[row].name);
    clReleaseMemObject(args.scores);
    matrix_free(&out);
}

START_TEST(topk) {
    const topk_case *c = &cases[_i];
    random_state random = random_seed((uint64_t)_i + 1);
    const size_t shapes[3][4] = {{c->batch, c->heads, c->queries, c->dim},
                                 {c->batch, c->kv_heads, c->keys, c->dim},
                                 {c->batch, c->kv_heads, c->keys, c->value_dim}};
    matrix in[3];
    for (int t = 0; t < 3; t++) {
        in[t] = matrix_create(CLSPLAT_F32, shapes[t], &random);
        matrix_upload(&in[t], problem_on_stage().device);
    }
    double *reference = expected(c, in);
    for (size_t row = 0; row < op_topk_family.count; row++)
        check(c, row, in, reference);
    for (int t = 0; t < 3; t++)
        matrix_free(&in[t]);
    free(reference);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, topk, 0, CASES);
}

int main(void) {
    static const suite_part parts[] = {{"topk", add_all}};
    return suite_run("topk", parts, sizeof parts / sizeof *parts);
}
