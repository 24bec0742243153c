/* Metrics against their definitions, pair by pair in float64; and how often a sample is within what it says.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/layers.h"
#include "attention/problem.h"

/* All rows of one head of the set, dense. */
typedef struct dense {
    const layer_data *d;
    clsplat_splats_parameters p;
    size_t rows, splats, levels;
    double entropy, form, divergence, shannon; /* means */
    double *shares;                            /* [rows][S] */
} dense;

static double logit(const layer_data *d, size_t head, size_t i, size_t j, const double **key, double *bias) {
    const naive_shape *s = &d->is.shape;
    size_t kv = head / s->heads * s->kv_heads + head % s->heads / (s->heads / s->kv_heads);
    const double *q = d->naive.q + (head * s->queries + i) * s->dim;
    double sum = 0;
    *key = d->naive.k + (kv * s->keys + j) * s->dim;
    *bias = d->naive.key_bias ? d->naive.key_bias[kv * s->keys + j] : 0;
    for (size_t c = 0; c < s->dim; c++)
        sum += q[c] * (*key)[c];
    return sum / sqrt((double)s->dim) + *bias;
}

static double xlogx(double x, double over) {
    return x > 0 ? x * log(x / over) : 0;
}

/* One row: false if it sees nothing. Exponentials as they are: the layers are small. */
static bool add_row(dense *to, size_t head, size_t set, size_t i) {
    const naive_shape *s = &to->d->is.shape;
    const double *q = to->d->naive.q + (head * s->queries + i) * s->dim, *key;
    double p[128], g[128], sum_p = 0, sum_g = 0, bias, *share = to->shares + to->rows * to->splats;
    size_t count = 0;
    memset(share, 0, to->splats * sizeof *share);
    for (size_t j = 0; j < s->keys && (!to->d->is.causal || j + s->queries <= i + s->keys); j++, count++) {
        p[j] = exp(logit(to->d, head, i, j, &key, &bias));
        g[j] = 0;
        for (size_t n = 0; n < to->splats; n++) {
            double term =
                exp((double)to->p.level_log_weight[to->p.level[n]] +
                    (double)to->p.log_amplitude[set * to->splats + n] + naive_log_density(&to->p, set, n, q) +
                    naive_log_density(&to->p, set, n, key) + bias);
            g[j] += term;
            share[n] += term;
        }
        sum_p += p[j];
        sum_g += g[j];
    }
    if (!(sum_p > 0))
        return false;
    for (size_t n = 0; n < to->splats; n++)
        share[n] /= sum_g;
    for (size_t j = 0; j < count; j++) {
        double a = p[j] / sum_p, b = g[j] / sum_g, m = 0.5 * (a + b);
        to->entropy -= xlogx(a, 1);
        to->form -= xlogx(b, 1);
        to->divergence += a > 0 ? a * log(a / b) : 0;
        to->shannon += 0.5 * (xlogx(a, m) + xlogx(b, m));
    }
    to->rows++;
    return true;
}

static dense dense_of(const layer_data *d, clsplat_splats *set, size_t set_head) {
    const naive_shape *s = &d->is.shape;
    dense to = {.d = d, .p = clsplat_splats_get(set)};
    to.splats = to.p.shape.count;
    to.levels = to.p.shape.levels;
    to.shares = calloc(s->batch * s->heads * s->queries * to.splats, sizeof *to.shares);
    for (size_t head = 0; head < s->batch * s->heads; head++)
        for (size_t i = 0; i < s->queries; i++)
            if (to.p.shape.heads == 1 || head % s->heads == set_head)
                add_row(&to, head, set_head, i);
    to.entropy /= (double)to.rows, to.form /= (double)to.rows;
    to.divergence /= (double)to.rows, to.shannon /= (double)to.rows;
    return to;
}

static void use_of(const dense *e, double *use, double *left_out) {
    for (size_t s = 0; s < e->splats; s++) {
        use[s] = left_out[s] = 0;
        for (size_t i = 0; i < e->rows; i++) {
            use[s] += e->shares[i * e->splats + s] / (double)e->rows;
            left_out[s] -= log(1 - e->shares[i * e->splats + s]) / (double)e->rows;
        }
    }
}

static double mutual_of(const dense *e, const double *use) {
    double sum = 0;
    for (size_t i = 0; i < e->rows * e->splats; i++)
        sum += use[i % e->splats] > 0 ? xlogx(e->shares[i], use[i % e->splats]) / (double)e->rows : 0;
    return sum;
}

/* Σ c ln(c / (c_s c_t)) of two levels, from its definition. */
static double flow_of(const dense *e, int32_t a, int32_t b) {
    double joint[16][16] = {{0}}, rows[16] = {0}, columns[16] = {0}, sum = 0;
    for (size_t i = 0; i < e->rows; i++) {
        const double *share = e->shares + i * e->splats;
        double of[2] = {0};
        for (size_t s = 0; s < e->splats; s++) {
            of[0] += e->p.level[s] == a ? share[s] : 0;
            of[1] += e->p.level[s] == b ? share[s] : 0;
        }
        for (size_t s = 0; s < e->splats; s++)
            for (size_t t = 0; t < e->splats; t++)
                if (e->p.level[s] == a && e->p.level[t] == b)
                    joint[s][t] += share[s] / of[0] * share[t] / of[1] / (double)e->rows;
    }
    for (size_t s = 0; s < e->splats; s++)
        for (size_t t = 0; t < e->splats; t++)
            rows[s] += joint[s][t], columns[t] += joint[s][t];
    for (size_t s = 0; s < e->splats; s++)
        for (size_t t = 0; t < e->splats; t++)
            sum += joint[s][t] > 0 ? joint[s][t] * log(joint[s][t] / rows[s] / columns[t]) : 0;
    return sum;
}

/* The best φ of all keys (fewer than HERD_TOKENS): all are looked at. */
static double coverage_of(const layer_data *d, clsplat_splats *set, size_t set_head, double *worst) {
    const naive_shape *s = &d->is.shape;
    clsplat_splats_parameters p = clsplat_splats_get(set);
    double sum = 0, count = 0;
    *worst = 0;
    for (size_t kv = 0; kv < s->batch * s->kv_heads; kv++)
        for (size_t j = 0; j < s->keys; j++) {
            double best = -INFINITY;
            if (p.shape.heads > 1 && kv % s->kv_heads != set_head / (s->heads / s->kv_heads))
                continue;
            if (d->naive.key_bias && d->naive.key_bias[kv * s->keys + j] == -INFINITY)
                continue;
            for (size_t n = 0; n < p.shape.count; n++)
                best =
                    fmax(best, naive_log_density(&p, set_head, n, d->naive.k + (kv * s->keys + j) * s->dim));
            sum += best, count++;
            *worst = fmin(*worst, best);
        }
    return sum / count;
}

static void ck_estimate(clsplat_estimate e, double expected, const char *what) {
    ck_assert_msg(fabs(e.value - expected) <= 1e-4 * (1 + fabs(expected)), "%s: %.7g, expected %.7g", what,
                  e.value, expected);
    ck_assert_msg(e.error == 0, "%s: all rows, and an error of %g", what, e.error);
}

START_TEST(metrics_are_as_defined) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 21);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_measure how = clsplat_measure_defaults();
    clsplat_metrics m;
    how.causal = d.is.causal;
    how.pairs = 500;
    suite_ok(stage.lib, clsplat_splats_measure(stage.device, how, d.tensors, set, &m));
    for (size_t head = 0; head < m.heads; head++) {
        const clsplat_head_metrics *h = &m.head[head];
        dense e = dense_of(&d, set, head);
        double use[16], left_out[16], share[3] = {0}, entropy = 0, worst;
        use_of(&e, use, left_out);
        for (size_t s = 0; s < m.splats; s++) {
            ck_assert_double_eq_tol(h->use[s], use[s], 1e-4);
            ck_assert_double_eq_tol(h->leave_one_out[s], left_out[s], 1e-4 * (1 + left_out[s]));
            share[e.p.level[s]] += use[s];
            entropy -= xlogx(use[s], 1);
        }
        for (size_t l = 0; l < m.levels; l++)
            ck_assert_double_eq_tol(h->level_share[l], share[l], 1e-4);
        for (size_t a = 0; a < m.levels; a++)
            for (size_t b = 0; b < m.levels; b++)
                ck_assert_double_eq_tol(h->flow[a * m.levels + b],
                                        a == b ? 0 : flow_of(&e, (int32_t)a, (int32_t)b), 1e-4);
        ck_estimate(h->attention_entropy, e.entropy, "attention entropy");
        ck_estimate(h->splat_form_entropy, e.form, "splat form");
        ck_estimate(h->kullback_leibler, e.divergence, "Kullback-Leibler");
        ck_estimate(h->jensen_shannon, e.shannon, "Jensen-Shannon");
        ck_estimate(h->use_entropy, entropy, "use entropy");
        ck_estimate(h->effective_splats, exp(entropy), "effective splats");
        ck_estimate(h->mutual_information, mutual_of(&e, use), "mutual information");
        ck_assert_double_eq_tol(h->mean_coverage, coverage_of(&d, set, head, &worst),
                                1e-4 * (1 + fabs(worst)));
        ck_assert_double_eq_tol(h->worst_coverage, worst, 1e-4 * (1 + fabs(worst)));
        ck_assert(h->jensen_shannon.value >= 0 && h->jensen_shannon.value <= log(2) &&
                  h->mutual_information.value >= 0);
        free(e.shares);
    }
    clsplat_metrics_free(&m);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

/* Estimates of 100 samples, each of another layer: within their error in 95. */
START_TEST(samples_keep_their_word) {
    enum { RUNS = 100, ESTIMATES = 7 };
    problem_stage stage = problem_on_stage();
    size_t within[ESTIMATES] = {0};
    for (uint64_t run = 0; run < RUNS; run++) {
        layer_case c = {{1, 1, 1, 120, 120, 6, 4}, true, false, false, CLSPLAT_DIAGONAL, 2, 5};
        layer_data d = layer_make(&c, 1000 + run);
        clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
        clsplat_measure how = clsplat_measure_defaults();
        clsplat_metrics all, some;
        how.causal = true;
        how.pairs = 500;
        suite_ok(stage.lib, clsplat_splats_measure(stage.device, how, d.tensors, set, &all));
        how.sample = 24;
        suite_ok(stage.lib, clsplat_splats_measure(stage.device, how, d.tensors, set, &some));
        const clsplat_head_metrics *a = all.head, *s = some.head;
        const clsplat_estimate truth[] = {a->attention_entropy, a->splat_form_entropy, a->kullback_leibler,
                                          a->jensen_shannon,    a->use_entropy,        a->effective_splats,
                                          a->mutual_information};
        const clsplat_estimate guess[] = {s->attention_entropy, s->splat_form_entropy, s->kullback_leibler,
                                          s->jensen_shannon,    s->use_entropy,        s->effective_splats,
                                          s->mutual_information};
        for (size_t i = 0; i < ESTIMATES; i++)
            within[i] += fabs(guess[i].value - truth[i].value) <= guess[i].error;
        clsplat_metrics_free(&some);
        clsplat_metrics_free(&all);
        clsplat_splats_destroy(&set);
        layer_free(&d);
    }
    for (size_t i = 0; i < ESTIMATES; i++)
        ck_assert_msg(within[i] >= 95, "estimate %zu: within its error in %zu of %d", i, within[i], RUNS);
}
END_TEST

/* The shares that were asked for are measured then; and weights by error never raise it. */
START_TEST(levels_are_balanced) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[_i], 41);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_measure how = clsplat_measure_defaults();
    const double wanted[] = {0.2, 0.5, 0.3};
    double error[2], total = 0;
    clsplat_metrics m;
    how.causal = d.is.causal;
    suite_ok(stage.lib, clsplat_splats_balance(stage.device, how, d.tensors, set, wanted, error));
    suite_ok(stage.lib, clsplat_splats_measure(stage.device, how, d.tensors, set, &m));
    for (size_t l = 0; l < m.levels; l++)
        total += wanted[l];
    for (size_t l = 0; l < m.levels; l++) {
        double mean = 0;
        for (size_t h = 0; h < m.heads; h++)
            mean += m.head[h].level_share[l] / (double)m.heads;
        ck_assert_double_eq_tol(mean, wanted[l] / total, 1e-3);
    }
    clsplat_metrics_free(&m);
    ck_assert_double_eq_tol(layer_error(stage.device, &d, set, 1), error[1], 1e-4);
    suite_ok(stage.lib, clsplat_splats_balance(stage.device, how, d.tensors, set, NULL, error));
    ck_assert_double_le(error[1], error[0]);
    ck_assert_double_eq_tol(layer_error(stage.device, &d, set, 1), error[1], 1e-4);
    clsplat_splats_get(set).level_log_weight[0] += 8;
    suite_ok(stage.lib, clsplat_splats_balance(stage.device, how, d.tensors, set, NULL, error));
    if (d.is.levels > 1)
        ck_assert_double_lt(error[1], 0.9999 * error[0]);
    ck_assert_int_eq(clsplat_splats_balance(stage.device, how, d.tensors, set, (double[]){0, 1, 1}, NULL),
                     CLSPLAT_INVALID);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

START_TEST(what_metrics_refuse) {
    problem_stage stage = problem_on_stage();
    layer_data d = layer_make(&layer_cases[0], 1);
    clsplat_splats *set = layer_splats(stage.lib, stage.device, &d);
    clsplat_measure how = clsplat_measure_defaults();
    clsplat_metrics m;
    how.pairs = 0;
    ck_assert_int_eq(clsplat_splats_measure(stage.device, how, d.tensors, set, &m), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(stage.lib), "pairs is 0"));
    ck_assert_ptr_null(m.head);
    how.pairs = 3;
    d.tensors.k.shape[3]--;
    ck_assert_int_eq(clsplat_splats_measure(stage.device, how, d.tensors, set, &m), CLSPLAT_SHAPE);
    clsplat_metrics_free(&m);
    clsplat_splats_destroy(&set);
    layer_free(&d);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, metrics_are_as_defined, 0, LAYER_CASES);
    tcase_add_loop_test(part, levels_are_balanced, 0, LAYER_CASES);
    tcase_add_test(part, samples_keep_their_word);
    tcase_add_test(part, what_metrics_refuse);
}

int main(void) {
    static const suite_part parts[] = {{"metrics", add_all}};
    return suite_run("metrics", parts, sizeof parts / sizeof *parts);
}
