#include "splats/eigen.h"

#include <math.h>
#include <stdlib.h>

#ifdef CLSPLAT_LAPACKE
#include <dlfcn.h>
#include <lapacke.h>

/* LAPACKE is loaded when it is needed, since OpenBLAS, which may be behind it, keeps a core busy for a tenth
 * of a second as it is loaded; what it has started stays. */
#define LIBRARY "liblapacke.so.3"
typedef __typeof__(LAPACKE_dsyevr) dsyevr;

/* LAPACK leaves the sign of an eigenvector to chance. */
static void fix_sign(double *v, size_t n) {
    size_t largest = 0;
    for (size_t i = 1; i < n; ++i)
        if (fabs(v[i]) > fabs(v[largest]))
            largest = i;
    for (size_t i = 0; v[largest] < 0 && i < n; ++i)
        v[i] = i == largest ? v[i] : -v[i];
    v[largest] = fabs(v[largest]);
}

clsplat_status eigen_largest(clsplat *lib, double *a, size_t n, size_t wanted, double *values,
                             double *vectors) {
    clsplat_status status = CLSPLAT_OK;
    lapack_int order = (lapack_int)n, found = 0, count = (lapack_int)wanted;
    double *w = malloc(n * sizeof *w), *z = malloc(n * wanted * sizeof *z);
    lapack_int *support = malloc(2 * n * sizeof *support);
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    dsyevr *solve = NULL;
    if (library)
        *(void **)&solve = dlsym(library, "LAPACKE_dsyevr"); /* POSIX's way around ISO C */
    if (!w || !z || !support) {
        status = log_error(lib, CLSPLAT_MEMORY, "no memory for the eigenvectors of a %zu × %zu matrix", n, n);
        goto fail;
    }
    if (!solve) {
        status = log_error(lib, CLSPLAT_UNSUPPORTED,
                           "PCA and spectral initialisation need " LIBRARY
                           " (Debian: liblapacke): %s; or choose k-means",
                           dlerror());
        goto fail;
    }
    lapack_int info = solve(LAPACK_COL_MAJOR, 'V', 'I', 'L', order, a, order, 0, 0, order - count + 1, order,
                            0, &found, w, z, order, support);
    if (info != 0 || found != count) {
        status = log_error(lib, CLSPLAT_MEMORY, "LAPACK found no eigenvectors (dsyevr: %d)", (int)info);
        goto fail;
    }
    for (size_t i = 0; i < wanted; ++i) {
        values[i] = w[wanted - 1 - i];
        for (size_t d = 0; d < n; ++d)
            vectors[i * n + d] = z[(wanted - 1 - i) * n + d];
        fix_sign(vectors + i * n, n);
    }
fail:
    if (library)
        dlclose(library);
    free(support);
    free(z);
    free(w);
    return status;
}
#else
clsplat_status eigen_largest(clsplat *lib, double *a, size_t n, size_t wanted, double *values,
                             double *vectors) {
    (void)a, (void)n, (void)wanted, (void)values, (void)vectors;
    return log_error(
        lib, CLSPLAT_UNSUPPORTED,
        "PCA and spectral initialisation need LAPACKE, which this library was built without; build it "
        "with -Dlapacke=enabled, or choose k-means");
}
#endif

/* The lower factor of a, in place; what is above the diagonal becomes 0. */
static bool cholesky(double *a, size_t n) {
    for (size_t j = 0; j < n; ++j) {
        for (size_t k = 0; k < j; ++k)
            for (size_t i = j; i < n; ++i)
                a[i * n + j] -= a[i * n + k] * a[j * n + k];
        if (!(a[j * n + j] > 0))
            return false;
        double root = sqrt(a[j * n + j]);
        for (size_t i = j; i < n; ++i)
            a[i * n + j] /= root;
        for (size_t i = 0; i < j; ++i)
            a[i * n + j] = 0;
    }
    return true;
}

static void swap(double *a, double *b) {
    double t = *a;
    *a = *b;
    *b = t;
}

/* With the order of rows and columns reversed, a = G Gᵀ gives a = U Uᵀ with U upper triangular, and L = U⁻ᵀ
 * is lower triangular with L Lᵀ = (U Uᵀ)⁻¹. */
bool eigen_precision_factor(double *a, size_t n) {
    for (size_t i = 0; i < n * n / 2; ++i)
        swap(&a[i], &a[n * n - 1 - i]);
    if (!cholesky(a, n))
        return false;
    for (size_t i = 0; i < n * n / 2; ++i)
        swap(&a[i], &a[n * n - 1 - i]);
    /* Row i of a is now U's; column j of U⁻¹ by back substitution, kept below the diagonal as row j of L. */
    for (size_t j = 0; j < n; ++j) {
        double pivot = 1 / a[j * n + j];
        for (size_t i = j; i-- > 0;) {
            double sum = a[i * n + j] * pivot;
            for (size_t k = i + 1; k < j; ++k)
                sum += a[i * n + k] * a[j * n + k];
            a[j * n + i] = -sum / a[i * n + i];
        }
    }
    for (size_t j = 0; j < n; ++j) {
        a[j * n + j] = 1 / a[j * n + j];
        for (size_t i = j + 1; i < n; ++i)
            a[j * n + i] = 0;
    }
    return true;
}
