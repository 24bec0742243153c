#include "attention/gradient.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "compare.h"

static const char *const tensor_names[] = {"dq", "dk", "dv", "dkey_bias"};
static const char *const splat_names[] = {"dmean", "dlog_var or dprecision_chol", "dlog_amplitude",
                                          "dlog_temperature", "dlevel_log_weight"};

static void count_splats(gradient *g) {
    clsplat_splats_shape s = clsplat_splats_get(g->p->splats).shape;
    size_t all = s.heads * s.count, width = s.covariance == CLSPLAT_ISOTROPIC  ? 1
                                            : s.covariance == CLSPLAT_DIAGONAL ? s.dim
                                                                               : s.dim * s.dim;
    size_t counts[] = {all * s.dim, all * width, all, all, s.levels};
    for (size_t i = 0; i < GRADIENT_SPLATS; i++) {
        g->counts[i] = counts[i];
        g->splats[i] = malloc((counts[i] + 1) * sizeof(float));
    }
}

gradient gradient_create(problem *p, uint64_t seed) {
    gradient g = {.p = p};
    const problem_spec *s = &p->spec;
    size_t b = s->batch, h = s->heads, hk = s->kv_heads, n = s->queries, m = s->keys;
    random_state r = random_seed(seed);
    g.dout = problem_tensor_of(s->q, s->layout, (const size_t[4]){b, h, n, s->value_dim});
    for (size_t i = 0; i < b * h * n * s->value_dim; i++) {
        size_t row = i / s->value_dim, head = row / n;
        problem_set(&g.dout, head / h, head % h, row % n, i % s->value_dim, random_normal(&r));
    }
    problem_tensor *t = g.results;
    t[GRADIENT_DQ] = problem_tensor_of(s->out, s->layout, (const size_t[4]){b, h, n, s->dim});
    t[GRADIENT_DK] = problem_tensor_of(s->out, s->layout, (const size_t[4]){b, hk, m, s->dim});
    t[GRADIENT_DV] = problem_tensor_of(s->out, s->layout, (const size_t[4]){b, hk, m, s->value_dim});
    t[GRADIENT_DBIAS] = problem_tensor_of(s->out, s->layout, (const size_t[4]){b, hk, m, 1});
    if (p->splats)
        count_splats(&g);
    return g;
}

void gradient_free(gradient *g) {
    free(g->dout.bytes);
    for (size_t i = 0; i < GRADIENT_TENSORS; i++)
        free(g->results[i].bytes);
    for (size_t i = 0; i < GRADIENT_SPLATS; i++)
        free(g->splats[i]);
}

clsplat_status gradient_attend(gradient *g, clsplat_device *device) {
    for (size_t i = 0; i < GRADIENT_TENSORS; i++)
        problem_poison(&g->results[i]);
    for (size_t i = 0; i < GRADIENT_SPLATS; i++)
        if (g->splats[i])
            memset(g->splats[i], 0xFF, (g->counts[i] + 1) * sizeof(float));
    clsplat_attention_gradients views = {.dout = g->dout.view,
                                         .dq = g->results[GRADIENT_DQ].view,
                                         .dk = g->results[GRADIENT_DK].view,
                                         .dv = g->results[GRADIENT_DV].view,
                                         .dkey_bias = g->results[GRADIENT_DBIAS].view};
    bool full = g->p->spec.covariance == CLSPLAT_FULL;
    views.splats = (clsplat_splats_gradient){.mean = g->splats[0],
                                             .log_var = full ? NULL : g->splats[1],
                                             .precision_chol = full ? g->splats[1] : NULL,
                                             .log_amplitude = g->splats[2],
                                             .log_temperature = g->splats[3],
                                             .level_log_weight = g->splats[4]};
    clsplat_status status = problem_attend(g->p, device);
    return status == CLSPLAT_OK ? clsplat_attend_backward(device, g->p->attention, problem_views(g->p), views)
                                : status;
}

/* The reference, its arrays in the order of the results. */
typedef struct reference {
    naive_gradients n;
    double *tensors[GRADIENT_TENSORS], *splats[GRADIENT_SPLATS];
} reference;

static reference expect(gradient *g) {
    problem *p = g->p;
    reference r = {0};
    double *dout = problem_dense(&g->dout), *inputs[4];
    for (size_t i = 0; i < 4; i++)
        inputs[i] = problem_dense(&p->tensors[PROBLEM_Q + i]);
    for (size_t i = 0; i < GRADIENT_TENSORS; i++) {
        const size_t *n = g->results[i].view.shape;
        r.tensors[i] = calloc(n[0] * n[1] * n[2] * n[3], sizeof(double));
    }
    for (size_t i = 0; i < GRADIENT_SPLATS; i++)
        r.splats[i] = calloc(g->counts[i] + 1, sizeof(double));
    r.n = (naive_gradients){dout,
                            r.tensors[0],
                            r.tensors[1],
                            r.tensors[2],
                            r.tensors[3],
                            r.splats[0],
                            r.splats[1],
                            r.splats[2],
                            r.splats[3],
                            r.splats[4],
                            0,
                            0};
    problem_expect(p);
    naive_tensors t = p->reference;
    t.q = inputs[0];
    t.k = inputs[1];
    t.v = inputs[2];
    t.key_bias = inputs[3];
    if (p->splats) {
        clsplat_splats_parameters s = clsplat_splats_get(p->splats);
        naive_gaussian_backward(&t, &s, p->spec.mixing, &r.n);
    } else {
        float scale = p->attention.scale;
        naive_softmax_backward(&t, isnan(scale) ? 1 / sqrt((double)p->spec.dim) : (double)scale, &r.n);
    }
    for (size_t i = 0; i < 4; i++)
        free(inputs[i]);
    free(dout);
    return r;
}

/* Rounding of float32, of what out, lse and the results are stored in, and of log-weights as large as the
 * largest lse. */
static double tolerance(const problem *p) {
    double stored = p->spec.out == CLSPLAT_F32 ? 1e-5 : p->spec.out == CLSPLAT_F16 ? 2e-3 : 1.6e-2;
    return stored + ldexp(p->largest, -22);
}

/* A gradient that cancels, or is 0, is as exact as what it is the sum of. */
static void compare(const gradient *g, const reference *r, const char *name, const double *a, const double *b,
                    size_t count) {
    char words[400];
    double difference = 0, norm = 0, allowed = tolerance(g->p);
    for (size_t i = 0; i < count; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    double floor = 0.05 * allowed * r->n.activity * fmax(1, r->n.steepness);
    problem_describe(&g->p->spec, words, sizeof words);
    if (getenv("CLSPLAT_TEST_VERBOSE"))
        fprintf(stderr, "%s: %s %.1e of %.1e, floor %.1e, allowed %.1e\n", words, name,
                sqrt(difference / norm), sqrt(norm), floor, allowed);
    ck_assert_msg(sqrt(difference) <= allowed * sqrt(norm) + floor,
                  "%s: %s is off by %.2e (norm %.2e, floor %.1e, allowed %.1e)", words, name,
                  sqrt(difference), sqrt(norm), floor, allowed);
}

/* Only ratios of amplitudes matter: a head's gradients add up to 0. */
static void check_amplitudes(const gradient *g) {
    clsplat_splats_shape s = clsplat_splats_get(g->p->splats).shape;
    for (size_t h = 0; h < s.heads; h++) {
        double sum = 0, magnitude = 0;
        for (size_t i = h * s.count; i < (h + 1) * s.count; i++) {
            sum += (double)g->splats[2][i];
            magnitude += fabs((double)g->splats[2][i]);
        }
        ck_assert_msg(fabs(sum) <= 1e-4 * magnitude + 1e-4,
                      "amplitude gradients of head %zu add up to %.2e of %.2e", h, sum, magnitude);
    }
}

void gradient_check(gradient *g) {
    reference r = expect(g);
    for (size_t i = 0; i < GRADIENT_TENSORS; i++) {
        const size_t *n = g->results[i].view.shape;
        double *a = problem_dense(&g->results[i]);
        compare(g, &r, tensor_names[i], a, r.tensors[i], n[0] * n[1] * n[2] * n[3]);
        ck_assert_msg(problem_spoilt(&g->results[i]) == 0, "wrote beside %s", tensor_names[i]);
        free(a);
        free(r.tensors[i]);
    }
    for (size_t i = 0; i < GRADIENT_SPLATS; i++) {
        double *a = malloc((g->counts[i] + 1) * sizeof *a);
        for (size_t j = 0; g->splats[i] && j < g->counts[i]; j++)
            a[j] = (double)g->splats[i][j];
        if (g->splats[i]) {
            compare(g, &r, splat_names[i], a, r.splats[i], g->counts[i]);
            ck_assert_msg(isnan(g->splats[i][g->counts[i]]), "wrote behind %s", splat_names[i]);
        }
        free(a);
        free(r.splats[i]);
    }
    if (g->p->splats)
        check_amplitudes(g);
}

void gradient_solve(const problem_spec *spec, uint64_t seed) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, spec, seed);
    gradient g = gradient_create(&p, seed + 1);
    suite_ok(s.lib, gradient_attend(&g, s.device));
    gradient_check(&g);
    gradient_free(&g);
    problem_free(&p);
}

unsigned char *gradient_bytes(const gradient *g, size_t *count) {
    *count = 0;
    for (size_t i = 0; i < GRADIENT_TENSORS; i++)
        *count += problem_bytes(&g->results[i]);
    for (size_t i = 0; i < GRADIENT_SPLATS; i++)
        *count += g->splats[i] ? g->counts[i] * sizeof(float) : 0;
    unsigned char *bytes = malloc(*count), *next = bytes;
    for (size_t i = 0; i < GRADIENT_TENSORS; next += problem_bytes(&g->results[i++]))
        memcpy(next, g->results[i].bytes, problem_bytes(&g->results[i]));
    for (size_t i = 0; i < GRADIENT_SPLATS && g->splats[i]; next += g->counts[i++] * sizeof(float))
        memcpy(next, g->splats[i], g->counts[i] * sizeof(float));
    return bytes;
}
