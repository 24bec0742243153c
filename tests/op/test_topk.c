/* Attention over the keys of the largest scores, every row of its table, against float64. */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "base/random.h"
#include "compare.h"
#include "op/families.h"
#include "op/op.h"
#include "runtime/device.h"

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

static float *random_numbers(random_state *random, size_t count) {
    float *x = malloc(count * sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)random_normal(random);
    return x;
}

static cl_mem upload(clsplat_device *device, const float *x, size_t count) {
    cl_int code;
    cl_mem mem = clCreateBuffer(clsplat_device_context(device), CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR,
                                count * sizeof *x, (void *)(uintptr_t)x, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    return mem;
}

static op_tensor dense(cl_mem mem, size_t batch, size_t heads, size_t rows, size_t columns) {
    return (op_tensor){.mem = mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {batch, heads, rows, columns},
                       .stride = {heads * rows * columns, rows * columns, columns}};
}

/* Of arrays q, k, v; NaN where results go. */
static double *expected(const topk_case *c, float *const host[3], const size_t counts[3]) {
    double *in[3], *out = malloc(counts[0] / c->dim * c->value_dim * sizeof *out);
    for (int t = 0; t < 3; t++) {
        in[t] = malloc(counts[t] * sizeof **in);
        for (size_t i = 0; i < counts[t]; i++)
            in[t][i] = (double)host[t][i];
    }
    naive_tensors t = {.shape = {c->batch, c->heads, c->kv_heads, c->queries, c->keys, c->dim, c->value_dim},
                       .causal = c->causal,
                       .q = in[0],
                       .k = in[1],
                       .v = in[2],
                       .out = out};
    naive_topk(&t, 0.3, c->keep, c->block);
    for (int i = 0; i < 3; i++)
        free(in[i]);
    return out;
}

static void check(const topk_case *c, size_t row, problem_stage stage, float *const host[3],
                  const size_t counts[3]) {
    size_t results = counts[0] / c->dim * c->value_dim;
    float *got = malloc(results * sizeof *got);
    for (size_t i = 0; i < results; i++)
        got[i] = NAN;
    op_topk_args args = {
        .q = dense(upload(stage.device, host[0], counts[0]), c->batch, c->heads, c->queries, c->dim),
        .k = dense(upload(stage.device, host[1], counts[1]), c->batch, c->kv_heads, c->keys, c->dim),
        .v = dense(upload(stage.device, host[2], counts[2]), c->batch, c->kv_heads, c->keys, c->value_dim),
        .out = dense(upload(stage.device, got, results), c->batch, c->heads, c->queries, c->value_dim),
        .scale = 0.3F,
        .diagonal = c->causal ? (int32_t)c->keys - (int32_t)c->queries : OP_SEES_ALL,
        .keep = c->keep,
        .block = c->block};
    float *scratch = calloc(op_topk_scores(&args), sizeof *scratch);
    args.scores = upload(stage.device, scratch, op_topk_scores(&args));
    queue q;
    queue_begin(stage.device, 0, NULL, &q);
    suite_ok(stage.lib, op_run(&q, &op_topk_family.variants[row], NULL, &args));
    suite_ok(stage.lib, clsplat_device_finish(stage.device));
    ck_assert_int_eq(clEnqueueReadBuffer(clsplat_device_queue(stage.device), args.out.mem, CL_TRUE, 0,
                                         results * sizeof *got, got, 0, NULL, NULL),
                     CL_SUCCESS);
    double *wide = malloc(results * sizeof *wide), *reference = expected(c, host, counts);
    for (size_t i = 0; i < results; i++)
        wide[i] = (double)got[i];
    double error = compare_norm(wide, reference, results);
    cl_mem mems[] = {args.q.mem, args.k.mem, args.v.mem, args.out.mem, args.scores};
    for (size_t i = 0; i < sizeof mems / sizeof *mems; i++)
        clReleaseMemObject(mems[i]);
    free(got);
    free(wide);
    free(reference);
    free(scratch);
    ck_assert_msg(error < 1e-5, "row %zu is off by %.1e", row, error);
}

START_TEST(topk) {
    const topk_case *c = &cases[_i];
    random_state random = random_seed((uint64_t)_i + 1);
    size_t rows = c->batch * c->kv_heads * c->keys;
    size_t counts[3] = {c->batch * c->heads * c->queries * c->dim, rows * c->dim, rows * c->value_dim};
    float *host[3];
    for (int t = 0; t < 3; t++)
        host[t] = random_numbers(&random, counts[t]);
    for (size_t row = 0; row < op_topk_family.count; row++)
        check(c, row, problem_on_stage(), host, counts);
    for (int t = 0; t < 3; t++)
        free(host[t]);
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
