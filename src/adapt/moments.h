/* One splat as numbers on the host, and what two of them keep of one.
 *
 * A splat is an array of doubles: mean [D], log-variances [1 or D] or the factor [D,D] of the precision, ln
 * a, ln τ. As a mass it is a, with mean μ and covariance τΣ. */
#ifndef CLSPLAT_ADAPT_MOMENTS_H
#define CLSPLAT_ADAPT_MOMENTS_H

#include <clsplat/splats.h>

typedef struct splat_form {
    clsplat_covariance covariance;
    size_t dim, size, numbers; /* size: of the covariance; numbers: of the whole splat */
} splat_form;
splat_form splat_form_of(const clsplat_splats_shape *shape);

/* Places within a splat. */
static inline double *splat_covariance(const splat_form *form, double *splat) {
    return splat + form->dim;
}
static inline double *splat_log_amplitude(const splat_form *form, double *splat) {
    return splat + form->dim + form->size;
}
static inline double *splat_log_temperature(const splat_form *form, double *splat) {
    return splat + form->dim + form->size + 1;
}

/* τΣ of dimension d. Full covariances: use moments_covariance. */
double splat_variance(const splat_form *form, const double *splat, size_t d);

/* τΣ [D,D]; `room` [D,D] is overwritten. */
void moments_covariance(const splat_form *form, const double *splat, double *room, double *covariance);

/* Mitosis by `delta` [D]: amplitude a/2 each, means μ ± δ, and the covariance left over, τΣ − δδᵀ (diagonal
 * sets: its diagonal; isotropic ones: a D-th of its trace). False: δ is as wide as the splat. `room` [D]. */
bool moments_split(const splat_form *form, const double *parent, const double *delta, double *room, double *a,
                   double *b);

/* Merge: amplitudes add, mean and second moment (as far as the kind of covariance has it) are those of the
 * two; the temperature is the heavier one's. False: without a Cholesky factor. `room` [3,D,D] for full
 * covariances. */
bool moments_merge(const splat_form *form, const double *a, const double *b, double *room, double *merged);

/* Bhattacharyya distance of the two Gaussians, of their diagonals for full covariances; scale-free, 0 for
 * twins. `va`, `vb` are their variances [D]. Source: Bhattacharyya 1943. */
double moments_distance(size_t dim, const double *mean_a, const double *va, const double *mean_b,
                        const double *vb);

#endif
