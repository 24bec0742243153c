/* Splats from data: a sample of each head's tokens, clustered level by level. */
#include <math.h>
#include <stdlib.h>

#include "base/sized.h"
#include "runtime/buffer.h"
#include "splats/eigen.h"
#include "splats/seed.h"
#include "splats/splats.h"
#include "splats/tokens.h"

void clsplat_init_defaults_sized(clsplat_init *defaults) {
    clsplat_init own = {.method = CLSPLAT_INIT_KMEANS,
                        .covariance = CLSPLAT_DIAGONAL,
                        .lloyd_steps = 10,
                        .sample = 65536,
                        .variance_scale = 1};
    sized_write(&own, sizeof own, defaults);
}

/* One call: where the tokens are and what they become. */
typedef struct init_call {
    clsplat_device *device;
    const clsplat_init *init;
    const clsplat_hierarchy *levels;
    token_source source;
    clsplat_splats_parameters out;
} init_call;

/* Subtracts the sample's mean, which goes to centre [dim]. */
static void centre_tokens(float *tokens, size_t count, size_t dim, double *centre) {
    for (size_t d = 0; d < dim; ++d) {
        centre[d] = 0;
        for (size_t i = 0; i < count; ++i)
            centre[d] += (double)tokens[i * dim + d];
        centre[d] /= (double)count;
    }
    for (size_t i = 0; i < count * dim; ++i)
        tokens[i] = (float)((double)tokens[i] - centre[i % dim]);
}

/* The level's variance within clusters, per dimension: what a splat of few tokens is drawn towards. */
static void level_variance(const cluster_set *set, const float *variance, size_t splats, double *mean) {
    for (size_t d = 0; d < set->fit.dim; ++d) {
        mean[d] = 0;
        for (size_t s = 0; s < splats; ++s)
            mean[d] += (double)(set->begin[s + 1] - set->begin[s]) * (double)variance[s * set->fit.dim + d];
        mean[d] /= (double)set->fit.count;
    }
}

/* The smallest variance worth having: relative to the sample's, and above 0 even if all tokens are one. */
static double smallest_variance(const cluster_set *set) {
    double square = 0;
    size_t numbers = set->fit.count * set->fit.dim;
    for (size_t i = 0; i < numbers; ++i)
        square += (double)set->tokens[i] * (double)set->tokens[i];
    return 1e-4 * square / (double)numbers + 1e-8;
}

/* Cluster statistics on their way to parameters. A cluster of n tokens counts n, and the level's mean
 * variance counts as much as `prior` tokens. */
typedef struct level_fit {
    const init_call *call;
    cluster_set *set;
    size_t head, first, splats; /* the level's splats are first … first + splats − 1 of the set */
    const double *centre;
    float *means, *variance, *covariance; /* covariance only for full ones */
    double *typical, *matrix;
    double least;
} level_fit;

static double members(const level_fit *f, size_t s) {
    return (double)(f->set->begin[s + 1] - f->set->begin[s]);
}

static double shrunk(const level_fit *f, size_t s, size_t d, double prior) {
    size_t dim = f->set->fit.dim;
    double n = members(f, s), own = (double)f->variance[s * dim + d];
    return (fmax((n * own + prior * f->typical[d]) / (n + prior), f->least)) * f->call->init->variance_scale;
}

static clsplat_status write_factor(const level_fit *f, size_t s, float *chol) {
    size_t dim = f->set->fit.dim;
    double n = members(f, s), prior = (double)dim, scale = f->call->init->variance_scale;
    for (size_t d = 0; d < dim; ++d)
        for (size_t e = 0; e < dim; ++e)
            f->matrix[d * dim + e] =
                d == e ? shrunk(f, s, d, prior) + f->least * scale
                       : scale * n / (n + prior) * (double)f->covariance[(s * dim + d) * dim + e];
    if (!eigen_precision_factor(f->matrix, dim))
        return log_error(f->call->device->lib, CLSPLAT_INVALID,
                         "the covariance of splat %zu has no Cholesky factor", f->first + s);
    for (size_t i = 0; i < dim * dim; ++i)
        chol[i] = (float)f->matrix[i];
    return CLSPLAT_OK;
}

/* CLSPLAT_MATCH_SOFTMAX: variance √D, and the amplitude that makes up for the keys' norms. */
static void match_softmax(const clsplat_splats_parameters *out, size_t at, double variance_scale) {
    size_t dim = out->shape.dim, size = splats_covariance_size(&out->shape);
    double variance = sqrt((double)dim) * variance_scale, square = 0;
    for (size_t d = 0; d < dim; ++d) {
        double mean = (double)out->mean[at * dim + d];
        square += mean * mean;
        if (out->shape.covariance == CLSPLAT_FULL)
            out->precision_chol[at * size + d * dim + d] = (float)(1 / sqrt(variance));
    }
    for (size_t i = 0; out->log_var && i < size; ++i)
        out->log_var[at * size + i] = (float)log(variance);
    out->log_amplitude[at] = (float)(square / (2 * variance));
}

static clsplat_status write_splat(const level_fit *f, size_t s) {
    const clsplat_splats_parameters *out = &f->call->out;
    size_t dim = f->set->fit.dim, at = f->head * out->shape.count + f->first + s;
    size_t size = splats_covariance_size(&out->shape);
    for (size_t d = 0; d < dim; ++d)
        out->mean[at * dim + d] = (float)((double)f->means[s * dim + d] + f->centre[d]);
    out->log_amplitude[at] = (float)log(fmax(members(f, s), 0.5) / (double)f->set->fit.count);
    out->log_temperature[at] = 0;
    if (f->call->init->match == CLSPLAT_MATCH_SOFTMAX) {
        match_softmax(out, at, f->call->init->variance_scale);
        return CLSPLAT_OK;
    }
    if (out->shape.covariance == CLSPLAT_FULL)
        return write_factor(f, s, out->precision_chol + at * size);
    double sum = 0;
    for (size_t d = 0; d < dim; ++d) {
        double variance = shrunk(f, s, d, 1);
        sum += variance;
        if (out->shape.covariance == CLSPLAT_DIAGONAL)
            out->log_var[at * dim + d] = (float)log(variance);
    }
    if (out->shape.covariance == CLSPLAT_ISOTROPIC)
        out->log_var[at] = (float)log(sum / (double)dim);
    return CLSPLAT_OK;
}

/* The means are where the method put them; moments moves them to the middle of their tokens. */
static clsplat_status take_statistics(level_fit *f) {
    clsplat_status status = CLSPLAT_OK;
    cluster_set *set = f->set;
    size_t dim = set->fit.dim, square = f->splats * dim * dim;
    cl_mem covariance = NULL;
    TRY(op_fit_get(&set->queue, set->fit.means, 0, f->splats * dim, f->means));
    TRY(op_fit_moments(&set->queue, &set->fit, f->splats));
    TRY(op_fit_get(&set->queue, set->fit.variance, 0, f->splats * dim, f->variance));
    if (f->covariance) {
        TRY(buffer_create(set->queue.device, 4 * square, &covariance));
        TRY(op_fit_covariance(&set->queue, &set->fit, f->splats, covariance));
        TRY(op_fit_get(&set->queue, covariance, 0, square, f->covariance));
    }
    level_variance(set, f->variance, f->splats, f->typical);
fail:
    buffer_release(set->queue.device, 4 * square, &covariance);
    return status;
}

static clsplat_status fit_level(const init_call *c, cluster_set *set, size_t head, size_t level,
                                const double *centre) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = set->fit.dim, splats = c->levels->counts[level], first = 0;
    bool full = c->init->covariance == CLSPLAT_FULL;
    for (size_t l = 0; l < level; ++l)
        first += c->levels->counts[l];
    level_fit f = {.call = c,
                   .set = set,
                   .head = head,
                   .first = first,
                   .splats = splats,
                   .centre = centre,
                   .means = malloc(splats * dim * sizeof(float)),
                   .variance = malloc(splats * dim * sizeof(float)),
                   .covariance = full ? malloc(splats * dim * dim * sizeof(float)) : NULL,
                   .typical = malloc(dim * sizeof(double)),
                   .matrix = malloc(dim * dim * sizeof(double)),
                   .least = smallest_variance(set)};
    if (!f.means || !f.variance || (full && !f.covariance) || !f.typical || !f.matrix) {
        status = log_error(c->device->lib, CLSPLAT_MEMORY, "no memory for %zu splats", splats);
        goto fail;
    }
    random_state random = random_stream(c->init->seed ^ 0x5eed, head * c->levels->levels + level);
    TRY(seed_clusters(set, c->init, &random, splats));
    TRY(take_statistics(&f));
    for (size_t s = 0; s < splats; ++s)
        TRY(write_splat(&f, s));
fail:
    free(f.means);
    free(f.variance);
    free(f.covariance);
    free(f.typical);
    free(f.matrix);
    return status;
}

static size_t most_splats(const clsplat_hierarchy *levels) {
    size_t most = 0;
    for (size_t l = 0; l < levels->levels; ++l)
        most = levels->counts[l] > most ? levels->counts[l] : most;
    return most;
}

static clsplat_status fit_head(const init_call *c, size_t head, size_t count, float *tokens, double *centre) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_init *init = c->init;
    clsplat *lib = c->device->lib;
    size_t dim = c->out.shape.dim;
    cluster_set set = {0};
    random_state random = random_stream(init->seed, head);
    TRY(tokens_sample(lib, &c->source, head, &random, count, tokens));
    centre_tokens(tokens, count, dim, centre);
    TRY(cluster_create(c->device, tokens, count, dim, most_splats(c->levels), &set));
    for (size_t l = 0; l < c->levels->levels; ++l) {
        TRY(fit_level(c, &set, head, l, centre));
        double done =
            ((double)head + (double)(l + 1) / (double)c->levels->levels) / (double)c->out.shape.heads;
        if (init->progress && !init->progress(init->progress_user, done)) {
            status = log_error(lib, CLSPLAT_CANCELLED, "stopped by the caller");
            goto fail;
        }
    }
fail:
    cluster_release(&set);
    return status;
}

static clsplat_status fit_heads(const init_call *c) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = c->out.shape.dim, all = tokens_count(&c->source);
    size_t count = all < c->init->sample ? all : c->init->sample;
    float *tokens = NULL;
    double *centre = NULL;
    for (size_t l = 0; l < c->levels->levels; ++l)
        if (c->levels->counts[l] > count)
            return log_error(c->device->lib, CLSPLAT_INVALID,
                             "level '%s' wants %zu splats, but there are %zu tokens to make them from",
                             c->levels->names[l], c->levels->counts[l], count);
    tokens = malloc(count * dim * sizeof *tokens);
    centre = malloc(dim * sizeof *centre);
    if (!tokens || !centre) {
        status = log_error(c->device->lib, CLSPLAT_MEMORY, "no memory for a sample of %zu tokens", count);
        goto fail;
    }
    for (size_t h = 0; h < c->out.shape.heads; ++h)
        TRY(fit_head(c, h, count, tokens, centre));
fail:
    free(centre);
    free(tokens);
    return status;
}

static clsplat_status check_init(clsplat *lib, const clsplat_init *init, const clsplat_hierarchy *levels) {
    if (!(init->variance_scale > 0) || !isfinite(init->variance_scale))
        return log_error(lib, CLSPLAT_INVALID, "variance_scale is %g; it must be a finite number above 0",
                         (double)init->variance_scale);
    if (init->match != CLSPLAT_MATCH_TOKENS && init->match != CLSPLAT_MATCH_SOFTMAX)
        return log_error(lib, CLSPLAT_INVALID, "there is nothing %d to match", (int)init->match);
    if (init->sample == 0)
        return log_error(lib, CLSPLAT_INVALID, "sample is 0; at least 1 token must be looked at");
    if (levels->levels == 0)
        return log_error(lib, CLSPLAT_INVALID, "the hierarchy has no levels; it needs at least 1");
    for (size_t l = 0; l < levels->levels; ++l) {
        const char *name = levels->names[l];
        if (!name || !*name)
            return log_error(lib, CLSPLAT_INVALID, "level %zu of the hierarchy has no name", l);
        if (levels->counts[l] == 0)
            return log_error(lib, CLSPLAT_INVALID, "level '%s' has 0 splats; it needs at least 1", name);
        if (!(levels->weights[l] > 0) || !isfinite(levels->weights[l]))
            return log_error(lib, CLSPLAT_INVALID,
                             "level '%s' has weight %g; it must be a finite number above 0", name,
                             levels->weights[l]);
    }
    return CLSPLAT_OK;
}

static clsplat_status describe_levels(const clsplat_hierarchy *h, clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_parameters p = clsplat_splats_get(set);
    for (size_t l = 0, s = 0; l < h->levels; ++l) {
        TRY(clsplat_splats_set_level_name(set, l, h->names[l]));
        p.level_log_weight[l] = (float)log(h->weights[l]);
        for (size_t end = s + h->counts[l]; s < end; ++s)
            p.level[s] = (int32_t)l;
    }
fail:
    return status;
}

clsplat_status clsplat_splats_init_sized(clsplat_device *device, const clsplat_init *init_given,
                                         clsplat_tensor q, clsplat_tensor k, clsplat_splats **splats) {
    clsplat_init init = clsplat_init_defaults();
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = device->lib;
    clsplat_hierarchy usual = {0};
    clsplat_splats *set = NULL;
    *splats = NULL;
    TRY(SIZED_READ(lib, init, init_given));
    if (!init.hierarchy) {
        TRY(clsplat_hierarchy_default(lib, &usual));
        init.hierarchy = &usual;
    }
    init_call c = {.device = device, .init = &init, .levels = init.hierarchy};
    TRY(check_init(lib, &init, c.levels));
    TRY(tokens_open(lib, q, k, init.shared, &c.source));
    c.source.keys_only = init.match == CLSPLAT_MATCH_SOFTMAX;
    clsplat_splats_shape shape = {init.covariance, tokens_heads(&c.source), 0, k.shape[3], c.levels->levels};
    for (size_t l = 0; l < c.levels->levels; ++l)
        shape.count += c.levels->counts[l];
    TRY(clsplat_splats_create(lib, shape, &set));
    TRY(describe_levels(c.levels, set));
    c.out = clsplat_splats_get(set);
    TRY(fit_heads(&c));
    TRY(clsplat_splats_changed(set));
    *splats = set;
    set = NULL;
fail:
    clsplat_splats_destroy(&set);
    clsplat_hierarchy_free(&usual);
    return status;
}
