#include "adapt/moments.h"

#include <math.h>
#include <string.h>

#include "splats/eigen.h"
#include "splats/splats.h"

splat_form splat_form_of(const clsplat_splats_shape *shape) {
    size_t size = splats_covariance_size(shape);
    return (splat_form){shape->covariance, shape->dim, size, shape->dim + size + 2};
}

static double temperature_of(const splat_form *form, const double *splat) {
    return exp(splat[form->dim + form->size + 1]);
}

double splat_variance(const splat_form *form, const double *splat, size_t d) {
    const double *covariance = splat + form->dim;
    return exp(covariance[form->covariance == CLSPLAT_DIAGONAL ? d : 0]) * temperature_of(form, splat);
}

/* room = L⁻¹, of a lower triangular L [D,D]. */
static void invert_factor(size_t dim, const double *chol, double *room) {
    memset(room, 0, dim * dim * sizeof *room);
    for (size_t c = 0; c < dim; ++c) {
        room[c * dim + c] = 1 / chol[c * dim + c];
        for (size_t r = c + 1; r < dim; ++r) {
            double sum = 0;
            for (size_t i = c; i < r; ++i)
                sum += chol[r * dim + i] * room[i * dim + c];
            room[r * dim + c] = -sum / chol[r * dim + r];
        }
    }
}

void moments_covariance(const splat_form *form, const double *splat, double *room, double *covariance) {
    size_t dim = form->dim;
    memset(covariance, 0, dim * dim * sizeof *covariance);
    if (form->covariance != CLSPLAT_FULL) {
        for (size_t d = 0; d < dim; ++d)
            covariance[d * dim + d] = splat_variance(form, splat, d);
        return;
    }
    invert_factor(dim, splat + dim, room);
    for (size_t a = 0; a < dim; ++a) /* Σ = L⁻ᵀ L⁻¹ */
        for (size_t b = 0; b <= a; ++b) {
            double sum = 0;
            for (size_t i = a; i < dim; ++i)
                sum += room[i * dim + a] * room[i * dim + b];
            covariance[a * dim + b] = covariance[b * dim + a] = sum * temperature_of(form, splat);
        }
}

/* L Lᵀ += x xᵀ; destroys x. Source: Gill, Golub, Murray and Saunders 1974. */
static void raise_factor(size_t dim, double *chol, double *x) {
    for (size_t i = 0; i < dim; ++i) {
        double diagonal = chol[i * dim + i], r = hypot(diagonal, x[i]), c = r / diagonal, s = x[i] / diagonal;
        chol[i * dim + i] = r;
        for (size_t e = i + 1; e < dim; ++e) {
            chol[e * dim + i] = (chol[e * dim + i] + s * x[e]) / c;
            x[e] = c * x[e] - s * chol[e * dim + i];
        }
    }
}

/* What is left of a pair's share beyond which a child would be a needle. */
static const double narrowest = 0.01;

/* Full: (τΣ − δδᵀ)⁻¹ = P + Pδ (Pδ)ᵀ / (1 − δᵀPδ) with P = L Lᵀ / τ (Sherman and Morrison 1950). */
static bool split_factor(const splat_form *form, const double *delta, double *room, double *child) {
    size_t dim = form->dim;
    double *chol = child + dim, temperature = temperature_of(form, child), across = 0;
    memset(room, 0, dim * sizeof *room);
    for (size_t c = 0; c < dim; ++c) {
        double along = 0; /* (Lᵀδ)_c */
        for (size_t e = c; e < dim; ++e)
            along += chol[e * dim + c] * delta[e];
        across += along * along / temperature;
        for (size_t e = c; e < dim; ++e)
            room[e] += chol[e * dim + c] * along;
    }
    if (across > 1 - narrowest)
        return false;
    for (size_t d = 0; d < dim; ++d)
        room[d] /= sqrt(temperature * (1 - across)); /* τ x xᵀ with x = Pδ / √(1 − δᵀPδ) */
    raise_factor(dim, chol, room);
    return true;
}

static bool split_widths(const splat_form *form, const double *delta, double *child) {
    double *log_var = child + form->dim, square = 0;
    for (size_t d = 0; d < form->dim; ++d) {
        double variance = splat_variance(form, child, d), left = variance - delta[d] * delta[d];
        square += delta[d] * delta[d];
        if (form->covariance == CLSPLAT_ISOTROPIC)
            continue;
        if (left < narrowest * variance)
            return false;
        log_var[d] += log(left / variance);
    }
    if (form->covariance == CLSPLAT_ISOTROPIC) {
        double variance = splat_variance(form, child, 0), left = variance - square / (double)form->dim;
        if (left < narrowest * variance)
            return false;
        log_var[0] += log(left / variance);
    }
    return true;
}

bool moments_split(const splat_form *form, const double *parent, const double *delta, double *room, double *a,
                   double *b) {
    memcpy(a, parent, form->numbers * sizeof *a);
    if (form->covariance == CLSPLAT_FULL ? !split_factor(form, delta, room, a)
                                         : !split_widths(form, delta, a))
        return false;
    *splat_log_amplitude(form, a) -= log(2);
    memcpy(b, a, form->numbers * sizeof *b);
    for (size_t d = 0; d < form->dim; ++d) {
        a[d] += delta[d];
        b[d] -= delta[d];
    }
    return true;
}

static bool merge_factors(const splat_form *form, const double *a, const double *b, double share,
                          double *room, double *merged) {
    size_t dim = form->dim, square = dim * dim;
    double *ca = room + square, *cb = room + 2 * square, *chol = merged + dim;
    moments_covariance(form, a, room, ca);
    moments_covariance(form, b, room, cb);
    for (size_t d = 0; d < dim; ++d)
        for (size_t e = 0; e < dim; ++e)
            room[d * dim + e] = (share * ca[d * dim + e] + (1 - share) * cb[d * dim + e] +
                                 share * (1 - share) * (a[d] - b[d]) * (a[e] - b[e])) /
                                temperature_of(form, merged);
    if (!eigen_precision_factor(room, dim))
        return false;
    memcpy(chol, room, square * sizeof *chol);
    return true;
}

bool moments_merge(const splat_form *form, const double *a, const double *b, double *room, double *merged) {
    size_t dim = form->dim, at = dim + form->size;
    double share = 1 / (1 + exp(b[at] - a[at])), widest = 0; /* a's of the mass of both */
    memcpy(merged, share >= 0.5 ? a : b, form->numbers * sizeof *merged);
    *splat_log_amplitude(form, merged) = share >= 0.5 ? a[at] - log(share) : b[at] - log(1 - share);
    if (form->covariance == CLSPLAT_FULL && !merge_factors(form, a, b, share, room, merged))
        return false;
    for (size_t d = 0; d < dim; ++d) {
        double between = share * (1 - share) * (a[d] - b[d]) * (a[d] - b[d]);
        if (form->covariance != CLSPLAT_FULL) {
            double variance = share * splat_variance(form, a, d) + (1 - share) * splat_variance(form, b, d);
            widest += (variance + between) / (double)dim;
            if (form->covariance == CLSPLAT_DIAGONAL)
                merged[dim + d] = log(variance + between) - merged[at + 1];
        }
        merged[d] = share * a[d] + (1 - share) * b[d];
    }
    if (form->covariance == CLSPLAT_ISOTROPIC)
        merged[dim] = log(widest) - merged[at + 1];
    return true;
}

double moments_distance(size_t dim, const double *mean_a, const double *va, const double *mean_b,
                        const double *vb) {
    double sum = 0, ratio = 1; /* Π mean² / (va vb): one logarithm for many dimensions */
    for (size_t d = 0; d < dim; ++d) {
        double mean = 0.5 * (va[d] + vb[d]), apart = mean_a[d] - mean_b[d];
        sum += 0.125 * apart * apart / mean;
        ratio *= mean / va[d] * (mean / vb[d]);
        if (ratio > 1e100) {
            sum += 0.25 * log(ratio);
            ratio = 1;
        }
    }
    return sum + 0.25 * log(ratio);
}
