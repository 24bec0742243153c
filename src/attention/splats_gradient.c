/* φ = −½ yᵀ Σ⁻¹ y / τ with y = x − μ, so that weights ω of many φ give
 *
 *     dμ = Σ⁻¹ Σωy / τ      d ln σ_d² = ½ Σωy_d² / (σ_d² τ)      dL = −(Σωyyᵀ) L / τ      d ln τ = −Σωφ
 *
 * in float64: a handful of numbers a splat. */
#include "attention/splats_gradient.h"

#include <math.h>
#include <stdlib.h>

#include "splats/splats.h"

/* Where one splat's moments are, and where its gradients go. */
typedef struct site {
    const clsplat_splats_parameters *p;
    const float *sum, *square; /* Σωy [D], and the second moments */
    size_t at;                 /* of the splat, in arrays [Hs,S] */
} site;

/* Returns: what ln τ receives. */
static double finish_widths(const site *s, const clsplat_splats_gradient *g) {
    size_t dim = s->p->shape.dim, size = s->p->shape.covariance == CLSPLAT_ISOTROPIC ? 1 : dim;
    double temperature = (double)s->p->log_temperature[s->at], total = 0;
    for (size_t d = 0; d < size; ++d) {
        double precision = exp(-(double)s->p->log_var[s->at * size + d] - temperature);
        double received = 0.5 * precision * (double)s->square[d];
        if (g->log_var)
            g->log_var[s->at * size + d] = (float)received;
        total += received;
    }
    for (size_t d = 0; g->mean && d < dim; ++d) {
        double precision = exp(-(double)s->p->log_var[s->at * size + (size == 1 ? 0 : d)] - temperature);
        g->mean[s->at * dim + d] = (float)(precision * (double)s->sum[d]);
    }
    return total;
}

static double second_moment(const site *s, size_t a, size_t b) {
    size_t dim = s->p->shape.dim;
    return (double)(a <= b ? s->square[a * dim + b] : s->square[b * dim + a]);
}

/* Row r of (Σωyyᵀ) L, times the precision's 1/τ. Returns: what ln τ receives of it. */
static double finish_factor_row(const site *s, size_t r, double inverse_temperature, float *row) {
    size_t dim = s->p->shape.dim;
    const float *chol = s->p->precision_chol + s->at * dim * dim;
    double total = 0;
    for (size_t c = 0; c < dim; ++c) {
        double received = 0;
        for (size_t e = c; c <= r && e < dim; ++e)
            received -= inverse_temperature * second_moment(s, r, e) * (double)chol[e * dim + c];
        if (row)
            row[c] = (float)received;
        if (c <= r)
            total -= 0.5 * received * (double)chol[r * dim + c];
    }
    return total;
}

static double finish_factor(const site *s, const clsplat_splats_gradient *g, double *along) {
    size_t dim = s->p->shape.dim;
    const float *chol = s->p->precision_chol + s->at * dim * dim;
    double inverse_temperature = exp(-(double)s->p->log_temperature[s->at]), total = 0;
    for (size_t c = 0; c < dim; ++c) { /* Lᵀ Σωy */
        along[c] = 0;
        for (size_t e = c; e < dim; ++e)
            along[c] += (double)chol[e * dim + c] * (double)s->sum[e];
    }
    for (size_t r = 0; r < dim; ++r) {
        double mean = 0;
        for (size_t c = 0; c <= r; ++c)
            mean += (double)chol[r * dim + c] * along[c];
        if (g->mean)
            g->mean[s->at * dim + r] = (float)(inverse_temperature * mean);
        total += finish_factor_row(s, r, inverse_temperature,
                                   g->precision_chol ? g->precision_chol + (s->at * dim + r) * dim : NULL);
    }
    return total;
}

/* The splat's place among those sorted by level, as upload.c sorts them. */
static size_t place_of(const clsplat_splats_parameters *p, size_t splat) {
    size_t before = 0;
    for (size_t s = 0; s < p->shape.count; ++s)
        before += p->level[s] < p->level[splat] || (p->level[s] == p->level[splat] && s < splat);
    return before;
}

clsplat_status splats_gradient_finish(clsplat_splats *splats, const float *moments,
                                      const double *level_gradients, const clsplat_splats_gradient *g) {
    const clsplat_splats_parameters *p = &splats->parameters;
    size_t dim = p->shape.dim, count = p->shape.count, size = 1 + dim + splats_covariance_size(&p->shape);
    double *along = calloc(dim, sizeof *along), *levels = calloc(p->shape.levels, sizeof *levels);
    size_t *place = calloc(count, sizeof *place);
    if (along && levels && place) {
        for (size_t s = 0; s < count; ++s)
            place[s] = place_of(p, s);
        for (size_t at = 0; at < p->shape.heads * count; ++at) {
            const float *own = moments + (at / count * count + place[at % count]) * size;
            site here = {p, own + 1, own + 1 + dim, at};
            double temperature = p->shape.covariance == CLSPLAT_FULL ? finish_factor(&here, g, along)
                                                                     : finish_widths(&here, g);
            if (g->log_temperature)
                g->log_temperature[at] = (float)temperature;
            if (g->log_amplitude)
                g->log_amplitude[at] = own[0];
            levels[p->level[at % count]] += (double)own[0];
        }
        for (size_t l = 0; g->level_log_weight && l < p->shape.levels; ++l)
            g->level_log_weight[l] = (float)(level_gradients ? level_gradients[l] : levels[l]);
    }
    bool done = along && levels && place;
    free(along);
    free(levels);
    free(place);
    return done ? CLSPLAT_OK
                : log_error(splats->lib, CLSPLAT_MEMORY, "no memory for the gradients of %zu splats", count);
}
