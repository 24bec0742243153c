#include "op/forest_case.h"

#include <math.h>
#include <stdlib.h>

#include "op/matrix.h"
#include "runtime/device.h"

size_t forest_case_count(const op_tensor *t) {
    return t->shape[0] * t->stride[0];
}

void *forest_case_bytes(forest_case *b, cl_mem mem, size_t bytes) {
    void *read = malloc(bytes);
    suite_ok(b->p.lib, clsplat_device_finish(b->device));
    ck_assert_int_eq(
        clEnqueueReadBuffer(clsplat_device_queue(b->device), mem, CL_TRUE, 0, bytes, read, 0, NULL, NULL),
        CL_SUCCESS);
    return read;
}

double *forest_case_floats(forest_case *b, cl_mem mem, size_t count) {
    suite_ok(b->p.lib, clsplat_device_finish(b->device));
    return numbers_doubles(mem, count);
}

static void upload(forest_case *b, int which) {
    b->host[which] = problem_dense(&b->p.tensors[which]);
    if (b->host[which])
        b->t[which] = numbers_tensor(b->p.tensors[which].view.shape, b->host[which]);
}

forest_case forest_case_create(const far_spec *spec, uint64_t seed) {
    problem_stage stage = problem_on_stage();
    forest_case b = {
        .spec = *spec, .p = problem_create(stage.lib, &spec->problem, seed), .device = stage.device};
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        upload(&b, i);
    const size_t rows[] = {b.p.spec.batch, b.p.spec.heads, b.p.spec.queries, 1};
    b.exact = numbers_tensor(rows, NULL);
    b.estimate = numbers_tensor(rows, NULL);
    b.forest = forest_shape(&b.t[PROBLEM_K], &b.t[PROBLEM_V], b.p.spec.keys, b.spec.chunk, 0);
    suite_ok(stage.lib, forest_create(b.device, &b.forest));
    return b;
}

static void forget_forest(forest_case *b) {
    double **all[] = {&b->keys,      &b->values,      &b->biases, &b->means,
                      &b->variances, &b->mean_values, &b->stats,  &b->covariances};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(*all[i]);
        *all[i] = NULL;
    }
    free(b->apart);
    b->apart = NULL;
}

void forest_case_free(forest_case *b) {
    forget_forest(b);
    forest_release(b->device, &b->forest);
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        if (b->t[i].mem)
            clReleaseMemObject(b->t[i].mem);
        free(b->host[i]);
    }
    clReleaseMemObject(b->exact.mem);
    clReleaseMemObject(b->estimate.mem);
    problem_free(&b->p);
}

bool forest_case_run(forest_case *b, const op_family *family, size_t row, const void *args) {
    const op_variant *variant = &family->variants[row];
    if (!variant->fits(&clsplat_device_describe(b->device)->limits, args))
        return false;
    queue q;
    queue_begin(b->device, 0, NULL, &q);
    suite_ok(b->p.lib, op_run(&q, variant, NULL, args));
    return true;
}

void forest_case_poison(forest_case *b) {
    size_t bytes[FOREST_BUFFERS];
    queue q;
    forest_sizes(&b->forest, bytes);
    queue_begin(b->device, 0, NULL, &q);
    for (int i = 0; i < FOREST_BUFFERS; i++)
        suite_ok(b->p.lib, queue_fill(&q, *forest_buffer(&b->forest, i), 0, bytes[i], NAN));
    suite_ok(b->p.lib, forest_clear(&q, &b->forest));
}

bool forest_case_gather(forest_case *b, size_t row) {
    size_t bytes[FOREST_BUFFERS], keys = b->p.spec.keys,
                                  step = b->spec.steps ? b->spec.steps * b->spec.chunk : keys;
    double **to[] = {&b->keys,      &b->values,      &b->biases, &b->means,
                     &b->variances, &b->mean_values, &b->stats,  &b->covariances};
    forest_sizes(&b->forest, bytes);
    forest_case_poison(b);
    for (size_t begin = 0; begin < keys; begin += step) {
        size_t count = begin + step < keys ? step : keys - begin;
        op_gather_args args = {.forest = &b->forest,
                               .first_chunk = begin / b->spec.chunk,
                               .k = op_slice(b->t[PROBLEM_K], 2, begin, count),
                               .v = op_slice(b->t[PROBLEM_V], 2, begin, count),
                               .key_bias = op_slice(b->t[PROBLEM_BIAS], 2, begin, count)};
        if (!forest_case_run(b, &op_gather_family, row, &args))
            return false;
    }
    forget_forest(b);
    for (size_t i = 0; i < sizeof to / sizeof *to; i++)
        *to[i] = forest_case_floats(b, *forest_buffer(&b->forest, (int)i), bytes[i] / sizeof(float));
    b->apart = forest_case_bytes(b, b->forest.apart, bytes[FOREST_BUFFERS - 1]);
    return true;
}

size_t forest_case_apart(const forest_case *b) {
    size_t bytes[FOREST_BUFFERS];
    forest_sizes(&b->forest, bytes);
    return bytes[FOREST_BUFFERS - 1] / sizeof(uint32_t) / (b->forest.batch * b->forest.heads);
}

naive_forest forest_case_head(const forest_case *b, size_t head, double **keys) {
    const op_forest *f = &b->forest;
    size_t slots = f->chunks * f->chunk, all = slots + forest_apart_room(f);
    *keys = malloc(all * f->dim * sizeof **keys);
    for (size_t s = 0; s < all; s++)
        for (size_t d = 0; d < f->dim; d++)
            (*keys)[s * f->dim + d] = b->keys[(head * all + s - s % 16) * f->dim + d * 16 + s % 16];
    return (naive_forest){.dim = f->dim,
                          .value_dim = f->value_dim,
                          .leaf = f->leaf,
                          .chunk = f->chunk,
                          .top = f->top,
                          .levels = f->levels,
                          .slots = slots,
                          .keys = *keys,
                          .values = b->values + head * all * f->value_dim,
                          .biases = b->biases + head * all};
}
