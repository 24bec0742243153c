/* Symmetric matrices in double: eigenvectors (LAPACK), and Cholesky factors. */
#ifndef CLSPLAT_SPLATS_EIGEN_H
#define CLSPLAT_SPLATS_EIGEN_H

#include <stddef.h>

#include "base/log.h"

/* The `wanted` largest eigenvalues of the symmetric matrix a [n,n], descending, with their eigenvectors as
 * rows of vectors [wanted,n]. Signs are fixed: the largest component is positive. Destroys a. Returns:
 * UNSUPPORTED without LAPACKE, MEMORY. */
clsplat_status eigen_largest(clsplat *lib, double *a, size_t n, size_t wanted, double *values,
                             double *vectors);

/* a [n,n] := its inverse's lower Cholesky factor L, with zeros above the diagonal: a⁻¹ = L Lᵀ. False if a is
 * not positive definite. */
bool eigen_precision_factor(double *a, size_t n);

#endif
