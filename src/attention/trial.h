/* Candidates for one operation and shape, tried safely: first on a small problem against row 0, then on the
 * one that is timed against the default row, which has been through the same. */
#ifndef CLSPLAT_ATTENTION_TRIAL_H
#define CLSPLAT_ATTENTION_TRIAL_H

#include "attention/probe.h"

/* What the results of two rows may differ by, relatively. */
double trial_bound(probe_kind kind, clsplat_dtype dtype);

typedef struct trial {
    probe check, timed;
    float *check_reference, *timed_reference;
    double check_seconds, timed_seconds; /* of the default row */
    double bound;                        /* of the relative error */
    size_t times;                        /* runs within one timing */
} trial;

/* Ownership: *made is the caller's, for trial_free, whatever this returns. Blocks. Returns: also what makes
 * row 0 or the default row fail. */
clsplat_status trial_create(clsplat_device *device, probe_kind kind, const probe_shape *shape, trial *made);
void trial_free(trial *t);

bool trial_fits(const trial *t, const op_variant *variant);

/* Blocks. Returns: a failure with words if the candidate is not to be timed. */
clsplat_status trial_verify(trial *t, const op_variant *variant, const tune_point *point, double *error);
clsplat_status trial_time(trial *t, const op_variant *variant, const tune_point *point, double *seconds);

#endif
