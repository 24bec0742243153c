#include "attention/selftest.h"

#include <math.h>
#include <stdlib.h>

#include "attention/trial.h"
#include "runtime/quirks.h"

typedef struct selftest_case {
    const char *op, *problem;
    probe_kind kind;
    size_t queries, keys, dim;
    clsplat_covariance covariance;
    clsplat_dtype dtype;
} selftest_case;

/* Sizes that no tile divides; few queries over many keys, and few rows of a product, have rows of their own.
 */
static const selftest_case cases[] = {
    {"softmax", "all", PROBE_SOFTMAX, 75, 261, 64, 0, CLSPLAT_F32},
    {"softmax", "causal", PROBE_SOFTMAX_CAUSAL, 75, 261, 64, 0, CLSPLAT_F32},
    {"softmax", "causal", PROBE_SOFTMAX_CAUSAL, 75, 261, 64, 0, CLSPLAT_F16},
    {"softmax", "causal", PROBE_SOFTMAX_CAUSAL, 75, 261, 64, 0, CLSPLAT_BF16},
    {"softmax", "one query", PROBE_SOFTMAX, 1, 2047, 64, 0, CLSPLAT_F32},
    {"write", "diagonal", PROBE_WRITE, 261, 261, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"write", "isotropic", PROBE_WRITE, 261, 261, 64, CLSPLAT_ISOTROPIC, CLSPLAT_BF16},
    {"read", "diagonal", PROBE_READ, 261, 261, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"read", "isotropic", PROBE_READ, 261, 261, 64, CLSPLAT_ISOTROPIC, CLSPLAT_BF16},
    {"read", "causal", PROBE_READ_CAUSAL, 129, 129, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"respond", "diagonal", PROBE_RESPOND, 75, 75, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"near-far", "causal", PROBE_NEAR_FAR, 33, 1021, 64, 0, CLSPLAT_F32},
    {"gemm", "a matrix", PROBE_GEMM, 75, 130, 64, 0, CLSPLAT_F32},
    {"gemm", "a matrix", PROBE_GEMM, 75, 130, 64, 0, CLSPLAT_BF16},
    {"gemm", "few rows", PROBE_GEMM, 3, 130, 64, 0, CLSPLAT_F32},
};
enum { CASES = sizeof cases / sizeof *cases };

/* The numbers of a tensor of F32 in the probe's buffers; the caller frees them. */
static clsplat_status read_tensor(const probe *p, const op_tensor *t, float **numbers) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes = sizeof(float) * t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
    queue q;
    *numbers = malloc(bytes);
    if (!*numbers)
        return log_error(p->device->lib, CLSPLAT_MEMORY, "no memory for %zu bytes", bytes);
    queue_begin(p->device, 0, NULL, &q);
    TRY(queue_download(&q, (queue_copy){.mem = t->mem,
                                        .mem_offset = sizeof(float) * t->offset,
                                        .host = *numbers,
                                        .row = bytes,
                                        .rows = 1}));
fail:
    return status;
}

/* out of one query over the keys that it sees. Source: op/op.h. */
static void host_row(const op_softmax_args *a, const float *q, const float *k, const float *v, size_t seen,
                     double *out) {
    size_t dim = a->q.shape[3], value_dim = a->v.shape[3];
    double top = -INFINITY, mass = 0;
    for (size_t c = 0; c < value_dim; ++c)
        out[c] = 0;
    for (size_t j = 0; j < seen; ++j) {
        double logit = 0;
        for (size_t d = 0; d < dim; ++d)
            logit += (double)a->scale * (double)q[d] * (double)k[j * dim + d];
        double shrink = logit > top ? exp(top - logit) : 1, weight = logit > top ? 1 : exp(logit - top);
        top = fmax(top, logit);
        mass = mass * shrink + weight;
        for (size_t c = 0; c < value_dim; ++c)
            out[c] = out[c] * shrink + weight * (double)v[j * value_dim + c];
    }
    for (size_t c = 0; c < value_dim; ++c)
        out[c] /= mass;
}

/* How far the first results, out, are from the host's softmax; heads are not shared. */
static clsplat_status host_error(const probe *p, const float *values, double *error) {
    enum { VALUES = 128 };
    clsplat_status status = CLSPLAT_OK;
    const op_softmax_args *a = &p->args.softmax;
    size_t queries = a->q.shape[2], keys = a->k.shape[2], dim = a->q.shape[3], value_dim = a->v.shape[3];
    float *q = NULL, *k = NULL, *v = NULL;
    double wrong = 0, norm = 0, out[VALUES];
    TRY(read_tensor(p, &a->q, &q));
    TRY(read_tensor(p, &a->k, &k));
    TRY(read_tensor(p, &a->v, &v));
    for (size_t i = 0; i < a->q.shape[0] * a->q.shape[1] * queries && value_dim <= VALUES; ++i) {
        size_t head = i / queries, row = i % queries;
        size_t seen = a->diagonal == OP_SEES_ALL ? keys : row + (size_t)a->diagonal + 1;
        host_row(a, q + i * dim, k + head * keys * dim, v + head * keys * value_dim, seen, out);
        for (size_t c = 0; c < value_dim; ++c) {
            double difference = (double)values[i * value_dim + c] - out[c];
            wrong += difference * difference;
            norm += out[c] * out[c];
        }
    }
    *error = sqrt(wrong / norm);
fail:
    free(q);
    free(k);
    free(v);
    return status;
}

/* Runs a row into fresh results. */
static clsplat_status run_fresh(probe *p, const op_variant *variant, float **values) {
    clsplat_status status = CLSPLAT_OK;
    double seconds;
    TRY(probe_poison(p));
    TRY(probe_run(p, variant, NULL, 1, &seconds));
    TRY(probe_results(p, values));
fail:
    return status;
}

clsplat_status selftest_rows(probe *p, selftest_result result, bool host, selftest_listener *listener,
                             void *user) {
    clsplat_status status = CLSPLAT_OK;
    float *reference = NULL, *values = NULL;
    TRY(run_fresh(p, &p->family->variants[0], &reference));
    result.error = NAN;
    if (host)
        TRY(host_error(p, reference, &result.error));
    for (size_t row = 0; row < p->family->count; ++row) {
        const op_variant *variant = &p->family->variants[row];
        clsplat_status ran = CLSPLAT_OK;
        if (row > 0 && !variant->fits(&p->device->info.limits, &p->args))
            continue;
        if (row > 0 && (ran = run_fresh(p, variant, &values)) == CLSPLAT_OK)
            result.error = probe_error(p, values, reference);
        result.variant = variant->name;
        result.why = ran != CLSPLAT_OK             ? clsplat_last_error(p->device->lib)
                     : result.error > result.bound ? "its results are wrong"
                                                   : NULL;
        free(values);
        values = NULL;
        TRY(listener(user, &result));
    }
fail:
    free(values);
    free(reference);
    return status;
}

clsplat_status selftest_run(clsplat_device *device, selftest_listener *listener, void *user) {
    static const char *const types[] = {
        [CLSPLAT_F32] = "f32", [CLSPLAT_F16] = "f16", [CLSPLAT_BF16] = "bf16"};
    clsplat_status status = CLSPLAT_OK;
    probe p = {0};
    for (size_t i = 0; i < CASES; ++i) {
        const selftest_case *c = &cases[i];
        probe_shape shape = {1, 2, c->queries, c->keys, c->dim, c->dim, 80, c->dtype, c->covariance};
        selftest_result result = {.op = c->op,
                                  .problem = c->problem,
                                  .type = types[c->dtype],
                                  .bound = trial_bound(c->kind, c->dtype),
                                  .done = (double)(i + 1) / CASES};
        if (c->kind == PROBE_NEAR_FAR && device->quirks & QUIRK_LOOP_LIMIT)
            continue;
        bool softmax = c->kind == PROBE_SOFTMAX || c->kind == PROBE_SOFTMAX_CAUSAL;
        TRY(probe_create(device, c->kind, &shape, &p));
        TRY(selftest_rows(&p, result, softmax && c->dtype == CLSPLAT_F32, listener, user));
        probe_free(&p);
    }
fail:
    probe_free(&p);
    return status;
}
