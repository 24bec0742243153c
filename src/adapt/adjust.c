#include "adapt/adjust.h"

#include <clsplat/attention.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct adjusting {
    herd *h;
    size_t numbers; /* of the parameters of a head, [count][form.numbers] */
    double *start, *best, *first, *second, *best_square, *rate; /* [heads][numbers] and [heads] */
    unsigned *steps;                                            /* [heads]: since the moments were 0 */
    float *out, *lse, *dout, *dq, *dk, *dv;
    clsplat_splats_gradient gradient;
    float *gradients; /* what it points to */
} adjusting;

static void adjust_free(adjusting *a) {
    free(a->start);
    free(a->best);
    free(a->first);
    free(a->second);
    free(a->best_square);
    free(a->rate);
    free(a->steps);
    free(a->out);
    free(a->lse);
    free(a->dout);
    free(a->dq);
    free(a->dk);
    free(a->dv);
    free(a->gradients);
}

static clsplat_status adjust_open(herd *h, adjusting *a) {
    const layer *l = h->layer;
    const population *p = &h->people;
    size_t heads = p->heads, splats = heads * p->count, queries = l->batch * l->heads * l->queries;
    size_t keys = l->batch * l->kv_heads * l->keys;
    *a = (adjusting){.h = h, .numbers = p->count * p->form.numbers};
    a->start = calloc(heads * a->numbers, sizeof *a->start);
    a->best = calloc(heads * a->numbers, sizeof *a->best);
    a->first = calloc(heads * a->numbers, sizeof *a->first);
    a->second = calloc(heads * a->numbers, sizeof *a->second);
    a->best_square = calloc(heads, sizeof *a->best_square);
    a->rate = calloc(heads, sizeof *a->rate);
    a->steps = calloc(heads, sizeof *a->steps);
    a->out = malloc(queries * l->value_dim * sizeof *a->out);
    a->lse = malloc(queries * sizeof *a->lse);
    a->dout = calloc(queries * l->value_dim, sizeof *a->dout);
    a->dq = malloc(queries * l->dim * sizeof *a->dq);
    a->dk = malloc(keys * l->dim * sizeof *a->dk);
    a->dv = malloc(keys * l->value_dim * sizeof *a->dv);
    a->gradients = calloc(splats * (p->form.dim + p->form.size + 1), sizeof *a->gradients);
    if (!a->start || !a->best || !a->first || !a->second || !a->best_square || !a->rate || !a->steps ||
        !a->out || !a->lse || !a->dout || !a->dq || !a->dk || !a->dv || !a->gradients)
        return log_error(l->device->lib, CLSPLAT_MEMORY,
                         "no memory for gradients of %zu queries and %zu splats", queries, splats);
    float *covariance = a->gradients + splats * p->form.dim;
    a->gradient =
        (clsplat_splats_gradient){.mean = a->gradients, .log_amplitude = covariance + splats * p->form.size};
    *(p->form.covariance == CLSPLAT_FULL ? &a->gradient.precision_chol : &a->gradient.log_var) = covariance;
    for (size_t head = 0; head < heads; ++head) {
        memcpy(a->start + head * a->numbers, population_splat(p, head, 0), a->numbers * sizeof *a->start);
        a->best_square[head] = INFINITY;
        a->rate[head] = h->how->rate;
    }
    return CLSPLAT_OK;
}

static clsplat_attention_tensors tensors_of(const adjusting *a) {
    const layer *l = a->h->layer;
    size_t b = l->batch, q = l->heads, k = l->kv_heads;
    clsplat_attention_tensors t = {

        .q = clsplat_tensor_host(CLSPLAT_F32, b, q, l->queries, l->dim, l->q),
        .k = clsplat_tensor_host(CLSPLAT_F32, b, k, l->keys, l->dim, l->k),
        .v = clsplat_tensor_host(CLSPLAT_F32, b, k, l->keys, l->value_dim, l->v),
        .out = clsplat_tensor_host(CLSPLAT_F32, b, q, l->queries, l->value_dim, a->out),
        .lse = clsplat_tensor_host(CLSPLAT_F32, b, q, l->queries, 1, a->lse)};
    if (l->key_bias)
        t.key_bias = clsplat_tensor_host(CLSPLAT_F32, b, k, l->keys, 1, l->key_bias);
    return t;
}

/* The looked-at rows of the whole attention become the herd's, and dout the gradient of Σ_heads error². */
static void look_back(adjusting *a) {
    herd *h = a->h;
    const layer *l = h->layer;
    for (size_t q = 0; q < l->batch * l->heads; ++q) {
        double norm = herd_norm(h, h->people.heads == 1 ? 0 : q % l->heads);
        for (size_t t = 0; t < l->rows; ++t) {
            size_t row = q * l->queries + l->first_row + t * l->step, at = q * l->rows + t;
            h->lse[at] = (double)a->lse[row];
            for (size_t d = 0; d < l->value_dim; ++d) {
                double out = (double)a->out[row * l->value_dim + d];
                double apart = out - (double)l->target[at * l->value_dim + d];
                h->out[at * l->value_dim + d] = out;
                a->dout[row * l->value_dim + d] = (float)(2 * apart / norm);
            }
            h->row_square[at] = herd_row_square(h, at);
        }
    }
}

/* Whole attention of the population, and with `back` what its parameters receive. */
static clsplat_status evaluate(adjusting *a, float *rows_out, float *rows_lse, bool back) {
    clsplat_status status = CLSPLAT_OK;
    herd *h = a->h;
    layer *l = h->layer;
    clsplat_splats *set = NULL;
    clsplat_attention_tensors t = tensors_of(a);
    clsplat_attention how = clsplat_attention_defaults();
    clsplat_attention_gradients g = {.splats = a->gradient};
    TRY(population_set(&h->people, l->device->lib, h->like, &set));
    TRY(layer_attend(l, set, rows_out, rows_lse));
    TRY(layer_download(l, a->out, a->lse));
    look_back(a);
    if (back) {
        how.method = CLSPLAT_SPLATS;
        how.splats = set;
        how.causal = l->causal;
        g.dout = t.out, g.dout.host = a->dout;
        g.dq = t.q, g.dq.host = a->dq;
        g.dk = t.k, g.dk.host = a->dk;
        g.dv = t.v, g.dv.host = a->dv;
        TRY(clsplat_attend_backward(l->device, how, t, g));
    }
fail:
    clsplat_splats_destroy(&set);
    return status;
}

/* What a parameter's step is measured in: a mean's in widths, a factor's in its row's diagonal, logarithms
 * in 1. */
static double unit_of(const splat_form *form, const double *splat, size_t i) {
    size_t dim = form->dim;
    if (form->covariance == CLSPLAT_FULL) {
        size_t d = i < dim ? i : i < dim + form->size ? (i - dim) / dim : dim;
        double diagonal = d < dim ? fabs(splat[dim + d * (dim + 1)]) : 1;
        return i < dim ? 1 / fmax(diagonal, 1e-12) : diagonal;
    }
    return i < dim ? sqrt(splat_variance(form, splat, i)) : 1;
}

static double gradient_of(const adjusting *a, size_t splat, size_t i) {
    const splat_form *form = &a->h->people.form;
    const float *covariance = a->gradients + a->h->people.heads * a->h->people.count * form->dim;
    if (i < form->dim)
        return (double)a->gradient.mean[splat * form->dim + i];
    if (i < form->dim + form->size)
        return (double)covariance[splat * form->size + i - form->dim];
    return i == form->dim + form->size ? (double)a->gradient.log_amplitude[splat] : 0;
}

static void step_head(adjusting *a, size_t head) {
    const population *p = &a->h->people;
    double t = (double)++a->steps[head], bias1 = 1 - pow(0.9, t), bias2 = 1 - pow(0.99, t);
    for (size_t c = 0; c < p->count; ++c) {
        double *splat = population_splat(p, head, c);
        for (size_t i = 0; i < p->form.numbers; ++i) {
            size_t at = head * a->numbers + c * p->form.numbers + i;
            double unit = unit_of(&p->form, splat, i), g = gradient_of(a, head * p->count + c, i) * unit;
            a->first[at] = 0.9 * a->first[at] + 0.1 * g;
            a->second[at] = 0.99 * a->second[at] + 0.01 * g * g;
            splat[i] -= a->rate[head] * unit * a->first[at] / bias1 / (sqrt(a->second[at] / bias2) + 1e-12);
        }
    }
}

static void restore(adjusting *a, size_t head) {
    memcpy(population_splat(&a->h->people, head, 0), a->best + head * a->numbers,
           a->numbers * sizeof *a->best);
}

/* Keeps what is best. A head that has got worse by a twentieth begins again from there with half the rate.
 * Returns: whether it did. */
static bool judge_head(adjusting *a, size_t head) {
    double square = herd_square(a->h, head);
    if (square < a->best_square[head]) {
        a->best_square[head] = square;
        memcpy(a->best + head * a->numbers, population_splat(&a->h->people, head, 0),
               a->numbers * sizeof *a->best);
        return false;
    }
    if (square < 1.1 * a->best_square[head])
        return false;
    restore(a, head);
    a->rate[head] /= 2;
    a->steps[head] = 0;
    memset(a->first + head * a->numbers, 0, a->numbers * sizeof *a->first);
    memset(a->second + head * a->numbers, 0, a->numbers * sizeof *a->second);
    return true;
}

static bool report(const herd *h, unsigned step, unsigned steps) {
    const clsplat_adapt *how = h->how;
    double each = 1 / (double)how->cycles;
    return !how->progress ||
           how->progress(how->progress_user,
                         fmin(((double)h->cycle - 0.5 + 0.5 * (double)step / (double)steps) * each, 1));
}

/* How far means are from where they began, in their widths then: root mean square over splats. */
static double moved(const adjusting *a) {
    const population *p = &a->h->people;
    double sum = 0;
    for (size_t i = 0; i < p->heads * p->count; ++i) {
        const double *from = a->start + i * p->form.numbers;
        const double *to = population_splat(p, i / p->count, i % p->count);
        double square = 0, width = 0;
        for (size_t d = 0; d < p->form.dim; ++d) {
            square += (to[d] - from[d]) * (to[d] - from[d]);
            width += p->form.covariance == CLSPLAT_FULL
                         ? 1 / fmax(from[p->form.dim + d * (p->form.dim + 1)] *
                                        from[p->form.dim + d * (p->form.dim + 1)],
                                    1e-30)
                         : splat_variance(&p->form, from, d);
        }
        sum += square / width * (double)p->form.dim;
    }
    return sqrt(sum / (double)(p->heads * p->count * p->form.dim));
}

clsplat_status adjust(herd *h, unsigned steps) {
    clsplat_status status = CLSPLAT_OK;
    const layer *l = h->layer;
    adjusting a;
    size_t rows = l->batch * l->heads * l->rows;
    float *out = malloc(rows * l->value_dim * sizeof *out), *lse = malloc(rows * sizeof *lse);
    double before = herd_layer_error(h), after = 0, norm = 0;
    TRY(adjust_open(h, &a));
    if (!out || !lse) {
        status = log_error(l->device->lib, CLSPLAT_MEMORY, "no memory for the outputs of %zu rows", rows);
        goto fail;
    }
    for (unsigned step = 0; step <= steps; ++step) {
        TRY(evaluate(&a, out, lse, step < steps));
        for (size_t head = 0; head < h->people.heads; ++head)
            if (!judge_head(&a, head) && step < steps)
                step_head(&a, head);
        if (!report(h, step, steps)) {
            status = log_error(l->device->lib, CLSPLAT_CANCELLED, "stopped by the caller");
            goto fail;
        }
    }
    for (size_t head = 0; head < h->people.heads; ++head) {
        restore(&a, head);
        after += a.best_square[head];
        norm += herd_norm(h, head);
    }
    after = sqrt(after / norm);
    herd_tell(h, (clsplat_adapt_event){.decision = CLSPLAT_ADJUST,
                                       .moved = moved(&a),
                                       .error_before = before,
                                       .error_after = after,
                                       .kept = after < before});
fail:
    adjust_free(&a);
    free(out);
    free(lse);
    return status;
}
