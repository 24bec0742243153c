/* How results are compared with their float64 reference, and the three storage types as doubles. */
#ifndef CLSPLAT_TESTS_COMPARE_H
#define CLSPLAT_TESTS_COMPARE_H

#include <clsplat/tensor.h>

/* Element `at` of an array of stored numbers, and how a number is stored there. */
double stored_get(clsplat_dtype dtype, const void *array, size_t at);
void stored_set(clsplat_dtype dtype, void *array, size_t at, double value);

/* ‖a − r‖ / ‖r‖; the largest |a| if r is 0 everywhere; infinity for a NaN. */
double compare_norm(const double *a, const double *r, size_t count);
/* max |a − r| / max(1, rms(r)) where r is finite; infinity for a NaN or if −inf is not exactly where r has
 * it. */
double compare_lse(const double *a, const double *r, size_t count);

#endif
