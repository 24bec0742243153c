#include "matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "compare.h"
#include "op/rows.h"
#include "runtime/device.h"

enum { GUARD = 48, GAP = 5 };

size_t matrix_count(const matrix *m) {
    return m->t.shape[0] * m->t.shape[1] * m->t.shape[2] * m->t.shape[3];
}

static size_t place(const matrix *m, size_t i) {
    const op_tensor *t = &m->t;
    size_t column = i % t->shape[3], row = i / t->shape[3] % t->shape[2];
    size_t head = i / t->shape[3] / t->shape[2] % t->shape[1],
           batch = i / t->shape[3] / t->shape[2] / t->shape[1];
    return t->offset + batch * t->stride[0] + head * t->stride[1] + row * t->stride[2] + column;
}

static matrix create(clsplat_dtype dtype, const size_t shape[4]) {
    size_t gap = shape[3] % 16 == 0  ? 16
                 : shape[3] % 8 == 0 ? 8
                                     : GAP; /* as vectors and matrix units want it */
    size_t pitch = shape[3] + gap, head = shape[2] * pitch;
    matrix m = {.t = {.dtype = dtype,
                      .shape = {shape[0], shape[1], shape[2], shape[3]},
                      .offset = GUARD,
                      .stride = {shape[1] * head, head, pitch}},
                .elements = shape[0] * shape[1] * head + 2 * GUARD};
    m.bytes = malloc(m.elements * clsplat_dtype_size(dtype));
    memset(m.bytes, 0xFF, m.elements * clsplat_dtype_size(dtype));
    m.values = calloc(matrix_count(&m) + 1, sizeof *m.values);
    return m;
}

static void set(matrix *m, size_t i, double value) {
    stored_set(m->t.dtype, m->bytes, place(m, i), value);
    m->values[i] = stored_get(m->t.dtype, m->bytes, place(m, i));
}

matrix matrix_create(clsplat_dtype dtype, const size_t shape[4], random_state *random) {
    matrix m = create(dtype, shape);
    for (size_t i = 0; random && i < matrix_count(&m); i++)
        set(&m, i, random_normal(random));
    return m;
}

matrix matrix_of(clsplat_dtype dtype, const size_t shape[4], const double *values) {
    matrix m = create(dtype, shape);
    for (size_t i = 0; i < matrix_count(&m); i++)
        set(&m, i, values[i]);
    return m;
}

void matrix_upload(matrix *m, clsplat_device *device) {
    cl_int code = CL_SUCCESS;
    m->t.mem = clCreateBuffer(clsplat_device_context(device), CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR,
                              m->elements * clsplat_dtype_size(m->t.dtype), m->bytes, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
}

void matrix_free(matrix *m) {
    if (m->t.mem)
        clReleaseMemObject(m->t.mem);
    free(m->bytes);
    free(m->values);
}

void matrix_download(matrix *m, clsplat_device *device, const char *row) {
    size_t size = clsplat_dtype_size(m->t.dtype), count = matrix_count(m);
    ck_assert_int_eq(clEnqueueReadBuffer(clsplat_device_queue(device), m->t.mem, CL_TRUE, 0,
                                         m->elements * size, m->bytes, 0, NULL, NULL),
                     CL_SUCCESS);
    for (size_t i = 0; i < count; i++) {
        m->values[i] = stored_get(m->t.dtype, m->bytes, place(m, i));
        memset(m->bytes + place(m, i) * size, 0xFF, size);
    }
    for (size_t i = 0; i < m->elements * size; i++)
        ck_assert_msg(m->bytes[i] == (char)0xFF, "%s: wrote to byte %zu, outside of the result", row, i);
}

void matrix_check(matrix *m, clsplat_device *device, const double *reference, double allowed,
                  const char *row) {
    static const double stored[] = {[CLSPLAT_F32] = 0, [CLSPLAT_F16] = 1e-3, [CLSPLAT_BF16] = 5e-3};
    matrix_download(m, device, row);
    double error = compare_norm(m->values, reference, matrix_count(m));
    ck_assert_msg(error < fmax(allowed, stored[m->t.dtype]), "%s: the result is off by %.1e", row, error);
}

void matrix_run(const op_family *family, size_t row, const void *args) {
    problem_stage stage = problem_on_stage();
    queue q;
    queue_begin(stage.device, 0, NULL, &q);
    suite_ok(stage.lib, op_run(&q, &family->variants[row], NULL, args));
    rows_ran(family, row);
    suite_ok(stage.lib, clsplat_device_finish(stage.device));
}

bool matrix_fits(const op_family *family, size_t row, const void *args) {
    return family->variants[row].fits(&problem_on_stage().device->info.limits, args);
}

matrix matrix_random(clsplat_dtype type, size_t heads, size_t rows, size_t columns, random_state *random) {
    matrix m = matrix_create(type, (size_t[]){1, heads, rows, columns}, random);
    matrix_upload(&m, problem_on_stage().device);
    return m;
}

cl_mem numbers_create(const void *host, size_t count) {
    cl_int code = CL_SUCCESS;
    cl_mem mem = clCreateBuffer(clsplat_device_context(problem_on_stage().device),
                                CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, 4 * count, (void *)host, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    return mem;
}

void numbers_read(cl_mem mem, void *host, size_t count) {
    ck_assert_int_eq(clEnqueueReadBuffer(clsplat_device_queue(problem_on_stage().device), mem, CL_TRUE, 0,
                                         4 * count, host, 0, NULL, NULL),
                     CL_SUCCESS);
}

cl_mem numbers_of(const double *values, size_t count) {
    float *floats = malloc((count + 1) * sizeof *floats);
    for (size_t i = 0; i < count; i++)
        floats[i] = values ? (float)values[i] : NAN;
    cl_mem mem = numbers_create(floats, count);
    free(floats);
    return mem;
}

double *numbers_doubles(cl_mem mem, size_t count) {
    float *floats = malloc((count + 1) * sizeof *floats);
    double *values = malloc((count + 1) * sizeof *values);
    numbers_read(mem, floats, count);
    for (size_t i = 0; i < count; i++)
        values[i] = (double)floats[i];
    free(floats);
    return values;
}

op_tensor numbers_tensor(const size_t n[4], const double *values) {
    return (op_tensor){.mem = numbers_of(values, n[0] * n[1] * n[2] * n[3]),
                       .dtype = CLSPLAT_F32,
                       .shape = {n[0], n[1], n[2], n[3]},
                       .stride = {n[1] * n[2] * n[3], n[2] * n[3], n[3]}};
}

static void disguise(void) {
    clsplat_device *device = problem_on_stage().device;
    clsplat_limits limits = clsplat_device_describe(device)->limits;
    limits.local_memory = 48 << 10;
    clsplat_device_set_limits(device, limits);
}

void matrix_add_disguise(TCase *part) {
    tcase_add_unchecked_fixture(part, disguise, NULL);
}

static bool last;

void matrix_run_row(const op_family *family, const void *args) {
    size_t row = last ? family->count - 1 : 0;
    matrix_run(family, matrix_fits(family, row, args) ? row : 0, args);
}

static void take_last(void) {
    last = true;
}

void matrix_add_last(TCase *part) {
    matrix_add_disguise(part);
    tcase_add_unchecked_fixture(part, take_last, NULL);
}
