/* Tensors in buffers for the tests of operations: random numbers with NaN in everything that is not an
 * element, so that reading or writing elsewhere shows. */
#ifndef CLSPLAT_TESTS_MATRIX_H
#define CLSPLAT_TESTS_MATRIX_H

#include <check.h>

#include "base/random.h"
#include "op/op.h"
#include "op/variant.h"

/* A tensor with a guard in front and behind, and a gap behind every row. */
typedef struct matrix {
    op_tensor t;
    size_t elements;
    char *bytes; /* NaN, whatever the type, where there is no element */
    double *values;
} matrix;

/* Random numbers as the type stores them; without `random` NaN, as a result begins. */
matrix matrix_create(clsplat_dtype dtype, const size_t shape[4], random_state *random);
/* Numbers that are already there. */
matrix matrix_of(clsplat_dtype dtype, const size_t shape[4], const double *values);
size_t matrix_count(const matrix *m);
void matrix_upload(matrix *m, clsplat_device *device);
/* Reads the buffer back into `values`; fails if anything around the elements was written. */
void matrix_download(matrix *m, clsplat_device *device, const char *row);
void matrix_free(matrix *m);

/* Fails unless the elements are the reference's, up to the error that float32 is allowed, or what the type
 * loses, and nothing around them was written. */
void matrix_check(matrix *m, clsplat_device *device, const double *reference, double allowed,
                  const char *row);

/* The same [1,heads,rows,columns], uploaded, on the stage (attention/problem.h). */
matrix matrix_random(clsplat_dtype type, size_t heads, size_t rows, size_t columns, random_state *random);

/* Arrays of 4-byte numbers on the stage. */
cl_mem numbers_create(const void *host, size_t count);
void numbers_read(cl_mem mem, void *host, size_t count);
/* The same as doubles; NaN for no values. What is read is the caller's to free. */
cl_mem numbers_of(const double *values, size_t count);
double *numbers_doubles(cl_mem mem, size_t count);
/* A dense tensor of such numbers. */
op_tensor numbers_tensor(const size_t shape[4], const double *values);

/* From here on the stage's device claims local memory of its own, so that rows for GPUs run on a CPU, too;
 * for parts that have the stage. */
void matrix_add_disguise(TCase *part);

/* Runs a row of a family on the stage and waits for it; and whether it fits. */
void matrix_run(const op_family *family, size_t row, const void *args);
bool matrix_fits(const op_family *family, size_t row, const void *args);

/* The same for row 0, or, in parts with matrix_add_last, on a device in disguise for the last row where it
 * fits. */
void matrix_run_row(const op_family *family, const void *args);
void matrix_add_last(TCase *part);

#endif
