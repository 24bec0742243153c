/* Candidates for one operation and shape, tried safely: first on a small problem against row 0, then on the
 * one that is timed against the default row, which has been through the same. */
#ifndef CLSPLAT_TUNING_VERIFY_H
#define CLSPLAT_TUNING_VERIFY_H

#include "tuning/example.h"

/* What the results of two rows may differ by, relatively. */
double verify_bound(const example_kind *kind, clsplat_dtype dtype);

typedef struct verification {
    example check, timed;
    float *check_reference, *timed_reference;
    double check_seconds, timed_seconds; /* of the default row */
    double bound;                        /* of the relative error */
    size_t times;                        /* runs within one timing */
} verification;

/* Ownership: *made is the caller's, for verify_free, whatever this returns. Blocks. Returns: also what makes
 * row 0 or the default row fail. */
clsplat_status verify_create(clsplat_device *device, const example_kind *kind, const example_shape *shape,
                             verification *made);
void verify_free(verification *t);

bool verify_fits(const verification *t, const op_variant *variant);

/* Blocks. Returns: a failure with words if the candidate is not to be timed. */
clsplat_status verify_row(verification *t, const op_variant *variant, const tune_point *point, double *error);
clsplat_status verify_time(verification *t, const op_variant *variant, const tune_point *point,
                           double *seconds);

#endif
