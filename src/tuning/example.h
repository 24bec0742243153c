/* An operation, or a call made of several, on made-up numbers: what the tuner, the self-test and `clsplat
 * bench` run. Every buffer lies between guards, and what is computed is NaN before.
 *
 *     example e;
 *     TRY(example_create(device, &example_softmax, &shape, &e));
 *     TRY(example_poison(&e));
 *     TRY(example_run(&e, &e.family->variants[0], NULL, 1, &seconds));
 *     TRY(example_results(&e, &values));
 *     …
 *     example_free(&e);
 *
 * A kind of example is a row: it makes its problem of a shape, and says what work it is. Whoever adds a
 * family to the tuner or to bench adds such a row. */
#ifndef CLSPLAT_TUNING_EXAMPLE_H
#define CLSPLAT_TUNING_EXAMPLE_H

#include <clsplat/splats.h>

#include "attention/gaussian_backward.h"
#include "op/variant.h"

/* gemm: `queries` × `keys` products of `dim` numbers. */
typedef struct example_shape {
    size_t batch, heads, queries, keys, dim, value_dim, splats;
    clsplat_dtype dtype; /* of all tensors but lse */
    clsplat_covariance covariance;
    bool causal; /* the last query sees the last key */
    bool alike;  /* as in models: vectors near a few directions, and two heads on one of keys if their number
                    allows it */
} example_shape;

enum { EXAMPLE_BUFFERS = 12, EXAMPLE_PARTS = 2 };

typedef struct example_buffer {
    op_tensor whole;   /* or, of an array of floats, one row */
    op_tensor *tensor; /* the operation's argument; NULL for an array */
    size_t bytes;      /* with both guards */
    bool result, rows; /* rows: the queries', which example_take leaves the last of */
} example_buffer;

/* A family whose rows may run, and what it decides by whether they fit. */
typedef struct example_part {
    const op_family *family;
    const void *args;
} example_part;

typedef struct example {
    clsplat_device *device;
    const struct example_kind *kind;
    example_shape shape;
    const op_family *family; /* of the first part */
    union {
        op_softmax_args softmax;
        op_softmax_backward_args softmax_backward;
        op_write_args write;
        op_read_args read;
        op_log_density_args log_density;
        op_near_far_args near_far;
        op_near_far_backward_args near_far_backward;
        op_gemm_args gemm;
        gaussian_call gaussian;
        gaussian_gradient gaussian_backward;
    } args;
    example_part parts[EXAMPLE_PARTS];
    union {
        struct {
            op_write_args write;
            op_read_args read;
        } forward;
        struct {
            op_write_backward_args write;
            op_read_backward_args read;
        } backward;
    } fitting;         /* of a call's parts: as far as it decides what fits */
    int32_t *diagonal; /* of args; NULL: there is none, or it stays */
    clsplat_splats *splats;
    const op_splats *ready; /* they on the device */
    op_forest forest;
    example_buffer buffers[EXAMPLE_BUFFERS];
    size_t count;
} example;

typedef struct example_kind {
    clsplat_status (*make)(example *e);
    clsplat_status (*enqueue)(queue *q, const void *args); /* as a call does it, with the rows it chooses;
                                                              NULL: it is its first part */
    work (*work)(const example *e); /* of the rows that are left; NULL: it is part of a call's */
    bool by_key;                    /* its rows are the keys, not the queries */
    bool of_splats;                 /* their sources are splats, not keys */
    bool tolerant;                  /* rows may differ by the tolerance of near-far attention */
    bool product;                   /* of matrices: no attention */
} example_kind;
extern const example_kind example_softmax, example_softmax_backward, example_near_far,
    example_near_far_backward, example_gemm, example_write, example_read, example_log_density,
    example_gaussian, example_gaussian_backward;

/* What may be asked for by name: by `clsplat bench`, and by the tuner, which takes it apart into tasks. */
typedef struct example_operation {
    const char *name; /* "gaussian-full" */
    const example_kind *kind;
    clsplat_covariance covariance;
    size_t tokens, dim, heads; /* of bench, by default: so many queries and keys */
} example_operation;
enum { EXAMPLE_OPERATIONS = 11 };
extern const example_operation example_operations[EXAMPLE_OPERATIONS];

/* Products of rows and sources. */
double example_pairs(const example_kind *kind, const example_shape *shape);
/* A smaller shape of the same kind; false if it cannot be smaller. */
bool example_shrink(const example_kind *kind, example_shape *shape);

/* Ownership: *made is the caller's, for example_free, whatever this returns; it must stay where it is.
 * Blocks. Returns: MEMORY, OPENCL; INVALID for a shape that its kind does not take. */
clsplat_status example_create(clsplat_device *device, const example_kind *kind, const example_shape *shape,
                              example *made);
void example_free(example *e);

/* From here on it is about the last `rows` queries and all keys. */
void example_take(example *e, size_t rows);

/* Runs a row of the first part `times` times. Blocks until it is done; *seconds is for one. */
clsplat_status example_run(example *e, const op_variant *variant, const tune_point *point, size_t times,
                           double *seconds);
/* The same for the rows that calls choose, or those of this name where they fit (NULL: none). */
clsplat_status example_call(example *e, const char *variant, size_t times, double *seconds);
/* Makes the results NaN again. */
clsplat_status example_poison(example *e);
/* The results, one after the other, as floats; of those that queries have, the rows that are left. Not the
 * keys' once rows have been left out. The caller frees *values. Returns: OPENCL if a guard has changed or one
 * is not a number, MEMORY. */
clsplat_status example_results(example *e, float **values);
/* Runs a row into fresh results. */
clsplat_status example_fresh(example *e, const op_variant *variant, const tune_point *point, float **values);
/* The largest of the results' relative errors, |values − reference| / |reference|. */
double example_error(const example *e, const float *values, const float *reference);
/* The numbers of an argument; the caller frees *values. Returns: MEMORY, OPENCL. */
clsplat_status example_read_tensor(example *e, const op_tensor *tensor, float **values);

#endif
