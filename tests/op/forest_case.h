/* A problem with its forest on the device, for tests of the operations on forests. */
#ifndef CLSPLAT_TESTS_FOREST_CASE_H
#define CLSPLAT_TESTS_FOREST_CASE_H

#include "attention/problem.h"
#include "op/families.h"
#include "op/tree/forest.h"

/* What is different from one case to the next beside the problem. */
typedef struct far_spec {
    problem_spec problem;
    size_t chunk, steps; /* chunks gathered at a time; 0: all at once */

} far_spec;

typedef struct forest_case {
    far_spec spec;
    problem p;
    clsplat_device *device;
    op_tensor t[PROBLEM_TENSORS], exact, estimate;
    double *host[PROBLEM_TENSORS]; /* dense doubles */
    op_forest forest;
    /* Of the forest, as they lie. */
    double *keys, *values, *biases, *means, *variances, *mean_values, *stats, *covariances;
    uint32_t *apart;
} forest_case;

/* Opens on the stage's device; results are NaN. */
forest_case forest_case_create(const far_spec *spec, uint64_t seed);
void forest_case_free(forest_case *b);

/* Runs a row of a table, unless it says that it does not fit. */
bool forest_case_run(forest_case *b, const op_family *family, size_t row, const void *args);
/* A forest of which nothing is gathered, in memory that was NaN everywhere. */
void forest_case_poison(forest_case *b);
/* Gathers with a row of the table, into memory that is NaN everywhere, and reads the forest. */
bool forest_case_gather(forest_case *b, size_t row);
/* Head `head` of B·Hk in tree order; keys is the caller's to free. */
/* Numbers of a head in `apart`: before each chunk how many stand apart, then each chunk's list. */
size_t forest_case_apart(const forest_case *b);
naive_forest forest_case_head(const forest_case *b, size_t head, double **keys);

size_t forest_case_count(const op_tensor *t);
void *forest_case_bytes(forest_case *b, cl_mem mem, size_t bytes);
double *forest_case_floats(forest_case *b, cl_mem mem, size_t count);

#endif
