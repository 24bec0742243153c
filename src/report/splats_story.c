#include "report/splats_story.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

splat_view *splats_story_at(const splats_story *s, size_t head, size_t splat) {
    return &s->views[head * s->p.shape.count + splat];
}

void splats_story_free(splats_story *s) {
    free(s->title);
    free(s->views);
    free(s->explained);
    *s = (splats_story){0};
}

static const float *mean_of(const splats_story *s, size_t head, size_t splat) {
    return s->p.mean + (head * s->p.shape.count + splat) * s->p.shape.dim;
}

/* Shares of the amplitude, temperatures. */
static void weigh(splats_story *s, size_t head) {
    size_t count = s->p.shape.count;
    const float *amplitude = s->p.log_amplitude + head * count;
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < count; ++i)
        most = fmax(most, (double)amplitude[i]);
    for (size_t i = 0; i < count; ++i)
        sum += exp((double)amplitude[i] - most);
    for (size_t i = 0; i < count; ++i) {
        splat_view *v = splats_story_at(s, head, i);
        v->share = exp((double)amplitude[i] - most) / sum;
        v->temperature = exp((double)s->p.log_temperature[head * count + i]);
    }
}

/* u = Σ share (mean − centre) ((mean − centre)·u), without what lies along `other`. Returns: its length. */
static double spread_along(const splats_story *s, size_t head, const double *centre, const double *other,
                           double *u, double *next) {
    size_t dim = s->p.shape.dim;
    double length = 0, along = 0;
    memset(next, 0, dim * sizeof *next);
    for (size_t i = 0; i < s->p.shape.count; ++i) {
        const float *mean = mean_of(s, head, i);
        double dot = 0;
        for (size_t d = 0; d < dim; ++d)
            dot += ((double)mean[d] - centre[d]) * u[d];
        dot *= splats_story_at(s, head, i)->share;
        for (size_t d = 0; d < dim; ++d)
            next[d] += dot * ((double)mean[d] - centre[d]);
    }
    for (size_t d = 0; other && d < dim; ++d)
        along += next[d] * other[d];
    for (size_t d = 0; d < dim; ++d) {
        next[d] -= other ? along * other[d] : 0;
        length += next[d] * next[d];
    }
    length = sqrt(length);
    for (size_t d = 0; d < dim && length > 0; ++d)
        u[d] = next[d] / length;
    return length;
}

/* The two axes along which the means differ most, by the power method. Returns: the share of the variance
 * there. */
static double find_axes(const splats_story *s, size_t head, double *centre, double *axes, double *next) {
    enum { STEPS = 60 };
    size_t dim = s->p.shape.dim;
    double whole = 0, shown = 0;
    memset(centre, 0, dim * sizeof *centre);
    for (size_t i = 0; i < s->p.shape.count; ++i)
        for (size_t d = 0; d < dim; ++d)
            centre[d] += splats_story_at(s, head, i)->share * (double)mean_of(s, head, i)[d];
    for (size_t i = 0; i < s->p.shape.count; ++i)
        for (size_t d = 0; d < dim; ++d) {
            double x = (double)mean_of(s, head, i)[d] - centre[d];
            whole += splats_story_at(s, head, i)->share * x * x;
        }
    for (size_t axis = 0; axis < 2; ++axis) {
        double *u = axes + axis * dim, length = 0;
        for (size_t d = 0; d < dim; ++d)
            u[d] = 1.0 / (double)(d + 1 + axis) * (d % (axis + 2) ? -1 : 1);
        for (int step = 0; step < STEPS; ++step)
            length = spread_along(s, head, centre, axis ? axes : NULL, u, next);
        shown += length;
        if (length == 0) /* nothing differs: any direction */
            for (size_t d = 0; d < dim; ++d)
                u[d] = d == axis % dim;
    }
    return whole > 0 ? fmin(shown / whole, 1) : 1;
}

/* uᵀ Σ w for two directions; with full covariance Σ⁻¹ = L Lᵀ, so that it is the product of L⁻¹u and L⁻¹w,
 * which stand in `solved`. */
static double covariance(const splats_story *s, size_t head, size_t splat, const double *u, const double *w,
                         const double *solved_u, const double *solved_w) {
    size_t dim = s->p.shape.dim, at = head * s->p.shape.count + splat;
    double sum = 0;
    for (size_t d = 0; d < dim; ++d) {
        if (s->p.shape.covariance == CLSPLAT_FULL)
            sum += solved_u[d] * solved_w[d];
        else if (s->p.shape.covariance == CLSPLAT_DIAGONAL)
            sum += u[d] * w[d] * exp((double)s->p.log_var[at * dim + d]);
        else
            sum += u[d] * w[d] * exp((double)s->p.log_var[at]);
    }
    return sum;
}

static void solve(const splats_story *s, size_t head, size_t splat, const double *u, double *solved) {
    size_t dim = s->p.shape.dim;
    const float *factor = s->p.precision_chol + (head * s->p.shape.count + splat) * dim * dim;
    for (size_t i = 0; i < dim; ++i) {
        double sum = u[i];
        for (size_t j = 0; j < i; ++j)
            sum -= (double)factor[i * dim + j] * solved[j];
        solved[i] = sum / (double)factor[i * dim + i];
    }
}

static void project(splats_story *s, size_t head, size_t splat, const double *centre, const double *axes,
                    double *solved) {
    size_t dim = s->p.shape.dim;
    splat_view *v = splats_story_at(s, head, splat);
    for (size_t axis = 0; axis < 2; ++axis) {
        double dot = 0;
        for (size_t d = 0; d < dim; ++d)
            dot += ((double)mean_of(s, head, splat)[d] - centre[d]) * axes[axis * dim + d];
        *(axis ? &v->y : &v->x) = dot;
        if (s->p.shape.covariance == CLSPLAT_FULL)
            solve(s, head, splat, axes + axis * dim, solved + axis * dim);
    }
    double xx = covariance(s, head, splat, axes, axes, solved, solved),
           xy = covariance(s, head, splat, axes, axes + dim, solved, solved + dim),
           yy = covariance(s, head, splat, axes + dim, axes + dim, solved + dim, solved + dim);
    double middle = (xx + yy) / 2, half = hypot((xx - yy) / 2, xy);
    v->wide = sqrt(v->temperature * (middle + half));
    v->high = sqrt(v->temperature * fmax(middle - half, 0));
    v->angle = 0.5 * atan2(2 * xy, xx - yy);
    v->width = sqrt(middle);
}

static void find_parent(splats_story *s, size_t head, size_t splat) {
    double nearest = INFINITY;
    splat_view *v = splats_story_at(s, head, splat);
    v->parent = SIZE_MAX;
    for (size_t i = 0; i < s->p.shape.count; ++i) {
        double distance = 0;
        if (s->p.level[i] != s->p.level[splat] + 1)
            continue;
        for (size_t d = 0; d < s->p.shape.dim; ++d)
            distance += pow((double)mean_of(s, head, i)[d] - (double)mean_of(s, head, splat)[d], 2);
        if (distance < nearest) {
            nearest = distance;
            v->parent = i;
        }
    }
}

clsplat_status splats_story_create(clsplat *lib, clsplat_splats *splats, const char *title, splats_story *s) {
    *s = (splats_story){.title = text_copy(title), .p = clsplat_splats_get(splats)};
    clsplat_splats_shape shape = s->p.shape;
    double *work = malloc(6 * shape.dim * sizeof *work), *axes = work + shape.dim;
    s->views = calloc(shape.heads * shape.count, sizeof *s->views);
    s->explained = calloc(shape.heads, sizeof *s->explained);
    bool good = work && s->views && s->explained && s->title;
    for (size_t head = 0; good && head < shape.heads; ++head) {
        weigh(s, head);
        s->explained[head] = find_axes(s, head, work, axes, work + 3 * shape.dim);
        for (size_t i = 0; i < shape.count; ++i) {
            project(s, head, i, work, axes, work + 4 * shape.dim);
            find_parent(s, head, i);
        }
    }
    free(work);
    return good ? CLSPLAT_OK
                : log_error(lib, CLSPLAT_MEMORY, "%s: there is no memory to look at %zu splats", title,
                            shape.count);
}

splat_level splats_story_level(const splats_story *s, size_t level) {
    splat_level sum = {.weight = exp((double)s->p.level_log_weight[level])};
    double whole = 0, heads = (double)s->p.shape.heads;
    for (size_t i = 0; i < s->p.shape.heads * s->p.shape.count; ++i) {
        size_t splat = i % s->p.shape.count, of = (size_t)s->p.level[splat];
        whole += s->views[i].share * exp((double)s->p.level_log_weight[of]);
        if (of != level)
            continue;
        sum.count += i < s->p.shape.count;
        sum.share += s->views[i].share * sum.weight;
        sum.width += s->views[i].width / heads;
        sum.temperature += s->views[i].temperature / heads;
    }
    sum.share = whole > 0 ? sum.share / whole : 0;
    sum.width = sum.count ? sum.width / (double)sum.count : 0;
    sum.temperature = sum.count ? sum.temperature / (double)sum.count : 0;
    return sum;
}
