/* Metrics of a set on a layer: see the definitions in clsplat/metrics.h. */
#include <clsplat/metrics.h>
#include <math.h>
#include <stdlib.h>

#include "adapt/herd.h"
#include "adapt/pairs.h"
#include "base/sized.h"

static const double covered_from = -2.302585; /* ln 0.1 */

void clsplat_measure_defaults_sized(clsplat_measure *defaults) {
    clsplat_measure own = {.scale = NAN, .sample = 1024, .pairs = 32};
    sized_write(&own, sizeof own, defaults);
}

void clsplat_metrics_free(clsplat_metrics *m) {
    for (size_t i = 0; m->head && i < m->heads; ++i) {
        free(m->head[i].use);
        free(m->head[i].leave_one_out);
        free(m->head[i].level_share);
        free(m->head[i].flow);
    }
    free(m->head);
    *m = (clsplat_metrics){0};
}

static clsplat_status allocate(clsplat *lib, clsplat_metrics *m) {
    m->head = calloc(m->heads, sizeof *m->head);
    for (size_t i = 0; m->head && i < m->heads; ++i) {
        clsplat_head_metrics *head = &m->head[i];
        head->use = calloc(m->splats, sizeof *head->use);
        head->leave_one_out = calloc(m->splats, sizeof *head->leave_one_out);
        head->level_share = calloc(m->levels, sizeof *head->level_share);
        head->flow = calloc(m->levels * m->levels, sizeof *head->flow);
        if (!head->use || !head->leave_one_out || !head->level_share || !head->flow)
            return log_error(lib, CLSPLAT_MEMORY, "no memory for the metrics of %zu splats", m->splats);
    }
    return m->head ? CLSPLAT_OK
                   : log_error(lib, CLSPLAT_MEMORY, "no memory for the metrics of %zu heads", m->heads);
}

/* Means of what rows give. */
typedef struct mean {
    double sum, square, count;
} mean;

static void mean_add(mean *m, double x) {
    m->sum += x;
    m->square += x * x;
    m->count += 1;
}

/* All rows: nothing is left to chance. */
static clsplat_estimate mean_take(const mean *m, bool all, double bias) {
    if (!(m->count > 0))
        return (clsplat_estimate){0};
    double value = m->sum / m->count, variance = fmax(m->square / m->count - value * value, 0);
    double error = m->count > 1 ? 2 * sqrt(variance / (m->count - 1)) : INFINITY;
    return (clsplat_estimate){value, all ? 0 : error + bias};
}

typedef struct measuring {
    const herd *h;
    clsplat_metrics *m;
    size_t head;
    double *share; /* [S]: of one row */
    bool all;      /* every row is looked at */
} measuring;

/* r of a row of a query head. False: it sees no key. */
static bool take_shares(const measuring *c, size_t q, size_t t) {
    const herd *h = c->h;
    size_t rows = h->layer->rows;
    double total = 0;
    if (!(h->lse[q * rows + t] > -INFINITY))
        return false;
    for (size_t s = 0; s < h->people.count; ++s) {
        double log_weight = (double)h->log_weight[(q * h->people.capacity + s) * rows + t];
        c->share[s] = exp(log_weight - h->lse[q * rows + t]);
        total += c->share[s];
    }
    for (size_t s = 0; s < h->people.count; ++s) /* what float32 makes of a sum of 1 */
        c->share[s] /= total;
    return true;
}

static double information(double x, double of) {
    return x > 0 ? x * log(x / of) : 0;
}

/* First the means of r over the rows; then what each row says beside them. */
static void measure_use(const measuring *c) {
    const herd *h = c->h;
    clsplat_head_metrics *to = &c->m->head[c->head];
    size_t rows = h->layer->rows, splats = h->people.count;
    double count = 0;
    for (size_t q = 0; q < h->layer->batch * h->layer->heads; ++q)
        for (size_t t = 0; t < rows && herd_serves(h, c->head, q); ++t) {
            if (!take_shares(c, q, t))
                continue;
            count += 1;
            for (size_t s = 0; s < splats; ++s) {
                to->use[s] += c->share[s];
                to->leave_one_out[s] -= log1p(-fmin(c->share[s], 1 - 1e-12));
            }
        }
    for (size_t s = 0; s < splats && count > 0; ++s) {
        to->use[s] /= count;
        to->leave_one_out[s] /= count;
        to->level_share[h->people.level[s]] += to->use[s];
    }
}

static void measure_entropies(const measuring *c) {
    const herd *h = c->h;
    clsplat_head_metrics *to = &c->m->head[c->head];
    size_t rows = h->layer->rows, splats = h->people.count;
    mean use = {0}, mutual = {0};
    double spread =
        0; /* Σ_s Var r(s) / u_s: what a mean over n rows has twice n times too little entropy by */
    for (size_t q = 0; q < h->layer->batch * h->layer->heads; ++q)
        for (size_t t = 0; t < rows && herd_serves(h, c->head, q); ++t) {
            double cross = 0, divergence = 0;
            if (!take_shares(c, q, t))
                continue;
            for (size_t s = 0; s < splats; ++s) {
                double u = to->use[s], r = c->share[s];
                if (!(u > 0))
                    continue;
                cross -= r * log(u);
                divergence += information(r, u);
                spread += (r - u) * (r - u) / u;
            }
            mean_add(&use, cross);
            mean_add(&mutual, divergence);
        }
    double bias = use.count > 0 ? 0.5 * spread / use.count / use.count : 0;
    to->use_entropy = mean_take(&use, c->all, bias);
    to->mutual_information = mean_take(&mutual, c->all, bias);
    to->effective_splats.value = exp(to->use_entropy.value);
    to->effective_splats.error = to->effective_splats.value * expm1(to->use_entropy.error);
}

static void measure_coverage(const measuring *c, const herd_look *look) {
    const herd *h = c->h;
    clsplat_head_metrics *to = &c->m->head[c->head];
    double keys = 0;
    for (size_t i = 0; i < h->layer->batch * h->state_heads * h->tokens; ++i) {
        if (look->nearest[i] == SIZE_MAX)
            continue;
        double reach = (double)look->reach[i];
        to->worst_coverage = keys > 0 ? fmin(to->worst_coverage, reach) : reach;
        to->mean_coverage += reach;
        to->covered += reach > covered_from;
        keys += 1;
    }
    to->mean_coverage /= fmax(keys, 1);
    to->covered /= fmax(keys, 1);
}

/* The mutual information of two levels, from the joint shares [S,S] of their splats. */
static double joint_information(const herd *h, const double *joint, size_t from, size_t to, double *sums) {
    const population *p = &h->people;
    double *rows = sums, *columns = sums + p->count, total = 0, result = 0;
    for (size_t s = 0; s < p->count; ++s)
        rows[s] = columns[s] = 0;
    for (size_t s = 0; s < p->count; ++s)
        for (size_t t = 0; t < p->count && (size_t)p->level[s] == from; ++t)
            if ((size_t)p->level[t] == to) {
                rows[s] += joint[s * p->count + t];
                columns[t] += joint[s * p->count + t];
                total += joint[s * p->count + t];
            }
    for (size_t s = 0; s < p->count; ++s)
        for (size_t t = 0; t < p->count && (size_t)p->level[s] == from; ++t)
            if ((size_t)p->level[t] == to && joint[s * p->count + t] > 0)
                result += joint[s * p->count + t] / total *
                          log(joint[s * p->count + t] * total / rows[s] / columns[t]);
    return fmax(result, 0);
}

/* Every level's shares of a row on their own. Splats of a level that is not used by the row count 0. */
static void normalise_levels(const measuring *c, double *sums) {
    const population *p = &c->h->people;
    for (size_t l = 0; l < p->levels; ++l)
        sums[l] = 0;
    for (size_t s = 0; s < p->count; ++s)
        sums[p->level[s]] += c->share[s];
    for (size_t s = 0; s < p->count; ++s)
        c->share[s] = sums[p->level[s]] > 0 ? c->share[s] / sums[p->level[s]] : 0;
}

static clsplat_status measure_flow(const measuring *c) {
    const herd *h = c->h;
    const population *p = &h->people;
    size_t rows = h->layer->rows, levels = p->levels;
    if (levels < 2)
        return CLSPLAT_OK;
    double *joint = calloc(p->count * p->count, sizeof *joint),
           *sums = malloc((2 * p->count + levels) * sizeof *sums);
    for (size_t q = 0; joint && sums && q < h->layer->batch * h->layer->heads; ++q)
        for (size_t t = 0; t < rows && herd_serves(h, c->head, q); ++t) {
            if (!take_shares(c, q, t))
                continue;
            normalise_levels(c, sums);
            for (size_t a = 0; a < p->count; ++a)
                for (size_t b = 0; b < p->count && c->share[a] > 0; ++b)
                    joint[a * p->count + b] += p->level[a] < p->level[b] ? c->share[a] * c->share[b] : 0;
        }
    for (size_t a = 0; joint && sums && a < levels; ++a)
        for (size_t b = a + 1; b < levels; ++b) {
            double flow = joint_information(h, joint, a, b, sums);
            c->m->head[c->head].flow[a * levels + b] = c->m->head[c->head].flow[b * levels + a] = flow;
        }
    bool done = joint && sums;
    free(joint);
    free(sums);
    return done ? CLSPLAT_OK
                : log_error(h->layer->device->lib, CLSPLAT_MEMORY,
                            "no memory for the flow between %zu splats", p->count);
}

static void measure_pairs(const measuring *c, const pair_row *rows, bool all) {
    const herd *h = c->h;
    clsplat_head_metrics *to = &c->m->head[c->head];
    mean entropy = {0}, form = {0}, divergence = {0}, shannon = {0};
    for (size_t i = 0; i < h->layer->batch * h->layer->heads * c->m->pair_rows; ++i) {
        if (!rows[i].seen || !herd_serves(h, c->head, i / c->m->pair_rows))
            continue;
        mean_add(&entropy, rows[i].attention_entropy);
        mean_add(&form, rows[i].form_entropy);
        mean_add(&divergence, rows[i].kullback_leibler);
        mean_add(&shannon, rows[i].jensen_shannon);
    }
    to->attention_entropy = mean_take(&entropy, all, 0);
    to->splat_form_entropy = mean_take(&form, all, 0);
    to->kullback_leibler = mean_take(&divergence, all, 0);
    to->jensen_shannon = mean_take(&shannon, all, 0);
}

static clsplat_status measure_head(const measuring *c, const pair_row *rows, bool all_pairs) {
    clsplat_status status = CLSPLAT_OK;
    herd_look look = {0};
    measure_use(c);
    measure_entropies(c);
    TRY(herd_look_at(c->h, c->head, &look));
    measure_coverage(c, &look);
    TRY(measure_flow(c));
    measure_pairs(c, rows, all_pairs);
    c->m->head[c->head].output_error = herd_error(c->h, c->head);
fail:
    herd_look_free(&look);
    return status;
}

static clsplat_status measure_all(herd *h, clsplat_splats *splats, size_t pairs, clsplat_metrics *m) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = h->layer;
    size_t spacing = (l->rows + pairs - 1) / pairs, queries = l->batch * l->heads;
    m->pair_rows = (l->rows + spacing - 1) / spacing;
    double *share = malloc(m->splats * sizeof *share);
    pair_row *rows = calloc(queries * m->pair_rows, sizeof *rows);
    if (!share || !rows) {
        status =
            log_error(l->device->lib, CLSPLAT_MEMORY, "no memory for the metrics of %zu rows", m->pair_rows);
        goto fail;
    }
    TRY(pairs_measure(l, splats, m->pair_rows, spacing, rows));
    for (size_t head = 0; head < m->heads; ++head) {
        measuring c = {.h = h, .m = m, .head = head, .share = share, .all = l->step == 1};
        TRY(measure_head(&c, rows, c.all && spacing == 1));
    }
fail:
    free(rows);
    free(share);
    return status;
}

clsplat_status clsplat_splats_measure_sized(clsplat_device *device, const clsplat_measure *measure_given,
                                            const clsplat_attention_tensors *tensors_given,
                                            clsplat_splats *splats, clsplat_metrics *metrics) {
    clsplat_measure measure = clsplat_measure_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    clsplat_adapt how = clsplat_adapt_defaults();
    layer l = {0};
    herd h = {0};
    *metrics = (clsplat_metrics){0};
    TRY(SIZED_READ(device->lib, measure, measure_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    if (measure.sample == 0 || measure.pairs == 0)
        return log_error(device->lib, CLSPLAT_INVALID, "%s is 0; it is at least 1",
                         measure.sample ? "pairs" : "sample");
    TRY(clsplat_splats_changed(splats));
    TRY(layer_open(device, &tensors, measure.causal, measure.scale, measure.sample, &l));
    TRY(layer_check_set(&l, splats));
    TRY(herd_open(&l, &how, splats, &h));
    TRY(herd_measure(&h));
    metrics->heads = h.people.heads;
    metrics->splats = h.people.count;
    metrics->levels = h.people.levels;
    metrics->rows = l.rows;
    TRY(allocate(device->lib, metrics));
    TRY(measure_all(&h, splats, measure.pairs, metrics));
fail:
    herd_close(&h);
    layer_close(&l);
    if (status != CLSPLAT_OK)
        clsplat_metrics_free(metrics);
    return status;
}
