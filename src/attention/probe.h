/* One operation on made-up numbers, for tuning: what it writes lies between guards, and is NaN before it
 * runs. */
#ifndef CLSPLAT_ATTENTION_PROBE_H
#define CLSPLAT_ATTENTION_PROBE_H

#include <clsplat/splats.h>

#include "op/op.h"
#include "op/variant.h"

typedef enum probe_kind {
    PROBE_SOFTMAX,
    PROBE_SOFTMAX_CAUSAL,
    PROBE_WRITE,
    PROBE_READ,
    PROBE_RESPOND,
    PROBE_READ_CAUSAL,
    PROBE_NEAR_FAR,
    PROBE_GEMM
} probe_kind;

/* gemm: `queries` × `keys` products of `dim` numbers. near-far: causal, two heads on one of keys if their
 * number allows it, and as far as it goes by default. */
typedef struct probe_shape {
    size_t batch, heads, queries, keys, dim, value_dim, splats;
    clsplat_dtype dtype;
    clsplat_covariance covariance;
} probe_shape;

/* Products of rows and sources. */
double probe_pairs(probe_kind kind, const probe_shape *shape);
/* A smaller shape of the same kind; false if it cannot be smaller. */
bool probe_shrink(probe_kind kind, probe_shape *shape);

enum { PROBE_BUFFERS = 8, PROBE_RESULTS = 2 };

typedef struct probe_buffer {
    cl_mem mem;
    clsplat_dtype dtype;
    size_t before, count; /* elements of the guard in front, and of the numbers */
    size_t bytes;         /* with both guards */
    bool result;
    float least, most; /* of the numbers, unless it is a result */
    size_t columns,
        wide; /* of so many columns the first ones are wide, the others an eighth of that; 0: all */
} probe_buffer;

typedef struct probe {
    clsplat_device *device;
    const op_family *family;
    union {
        op_softmax_args softmax;
        op_write_args write;
        op_read_args read;
        op_respond_args respond;
        op_near_far_args near_far;
        op_gemm_args gemm;
    } args;
    clsplat_splats *splats;
    op_forest forest;
    probe_buffer buffers[PROBE_BUFFERS];
    size_t count;
} probe;

/* Ownership: *made is the caller's, for probe_free, whatever this returns. Blocks. Returns: MEMORY, OPENCL.
 */
clsplat_status probe_create(clsplat_device *device, probe_kind kind, const probe_shape *shape, probe *made);
void probe_free(probe *p);

/* Runs a row `times` times. Blocks until it is done; *seconds is for one. */
clsplat_status probe_run(probe *p, const op_variant *variant, const tune_point *point, size_t times,
                         double *seconds);
/* Makes the results NaN again. */
clsplat_status probe_poison(probe *p);
/* All results, one after the other, as floats; the caller frees *values. Returns: OPENCL if a guard has
 * changed or a number is not finite, MEMORY. */
clsplat_status probe_results(probe *p, float **values);
/* The largest of the results' relative errors, |values − reference| / |reference|. */
double probe_error(const probe *p, const float *values, const float *reference);

#endif
