#include "tuning/selftest.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/quirks.h"
#include "tuning/verify.h"

typedef struct selftest_case {
    const char *op, *problem;
    const example_kind *kind;
    bool causal;
    size_t queries, keys, dim;
    clsplat_covariance covariance;
    clsplat_dtype dtype;
} selftest_case;

/* Sizes that no tile divides; few queries over many keys, and few rows of a product, have rows of their own.
 */
static const selftest_case cases[] = {
    {"softmax", "all", &example_softmax, false, 75, 261, 64, 0, CLSPLAT_F32},
    {"softmax", "causal", &example_softmax, true, 75, 261, 64, 0, CLSPLAT_F32},
    {"softmax", "causal", &example_softmax, true, 75, 261, 64, 0, CLSPLAT_F16},
    {"softmax", "causal", &example_softmax, true, 75, 261, 64, 0, CLSPLAT_BF16},
    {"softmax", "one query", &example_softmax, false, 1, 2047, 64, 0, CLSPLAT_F32},
    {"write", "diagonal", &example_write, false, 261, 261, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"write", "isotropic", &example_write, false, 261, 261, 64, CLSPLAT_ISOTROPIC, CLSPLAT_BF16},
    {"read", "diagonal", &example_read, false, 261, 261, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"read", "isotropic", &example_read, false, 261, 261, 64, CLSPLAT_ISOTROPIC, CLSPLAT_BF16},
    {"read", "causal", &example_read, true, 129, 129, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"log_density", "diagonal", &example_log_density, false, 75, 75, 64, CLSPLAT_DIAGONAL, CLSPLAT_F32},
    {"near-far", "causal", &example_near_far, true, 33, 1021, 64, 0, CLSPLAT_F32},
    {"near-far-backward", "causal", &example_near_far_backward, true, 33, 509, 64, 0, CLSPLAT_F32},
    {"softmax-backward", "causal", &example_softmax_backward, true, 75, 261, 64, 0, CLSPLAT_F32},
    {"gemm", "a matrix", &example_gemm, false, 75, 130, 64, 0, CLSPLAT_F32},
    {"gemm", "a matrix", &example_gemm, false, 75, 130, 64, 0, CLSPLAT_BF16},
    {"gemm", "few rows", &example_gemm, false, 3, 130, 64, 0, CLSPLAT_F32},
};
enum { CASES = sizeof cases / sizeof *cases };

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
static clsplat_status host_error(example *e, const float *values, double *error) {
    enum { VALUES = 128 };
    clsplat_status status = CLSPLAT_OK;
    const op_softmax_args *a = &e->args.softmax;
    size_t queries = a->q.shape[2], keys = a->k.shape[2], dim = a->q.shape[3], value_dim = a->v.shape[3];
    float *q = NULL, *k = NULL, *v = NULL;
    double wrong = 0, norm = 0, out[VALUES];
    TRY(example_read_tensor(e, &a->q, &q));
    TRY(example_read_tensor(e, &a->k, &k));
    TRY(example_read_tensor(e, &a->v, &v));
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

clsplat_status selftest_rows(example *e, selftest_result result, bool host, selftest_listener *listener,
                             void *user) {
    clsplat_status status = CLSPLAT_OK;
    float *reference = NULL, *values = NULL;
    TRY(example_fresh(e, &e->family->variants[0], NULL, &reference));
    result.error = NAN;
    if (host)
        TRY(host_error(e, reference, &result.error));
    for (size_t row = 0; row < e->family->count; ++row) {
        const op_variant *variant = &e->family->variants[row];
        clsplat_status ran = CLSPLAT_OK;
        if (row > 0 && !variant->fits(&e->device->info.limits, &e->args))
            continue;
        if (row > 0 && (ran = example_fresh(e, variant, NULL, &values)) == CLSPLAT_OK)
            result.error = example_error(e, values, reference);
        result.variant = variant->name;
        result.why = ran != CLSPLAT_OK             ? clsplat_last_error(e->device->lib)
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
    example e = {0};
    for (size_t i = 0; i < CASES; ++i) {
        const selftest_case *c = &cases[i];
        example_shape shape = {1,  2,        c->queries,    c->keys,   c->dim,           c->dim,
                               80, c->dtype, c->covariance, c->causal, c->kind->tolerant};
        selftest_result result = {.op = c->op,
                                  .problem = c->problem,
                                  .type = types[c->dtype],
                                  .bound = verify_bound(c->kind, c->dtype),
                                  .done = (double)(i + 1) / CASES};
        if (c->kind->tolerant && device->quirks & QUIRK_LOOP_LIMIT)
            continue;
        bool softmax = c->kind == &example_softmax;
        TRY(example_create(device, c->kind, &shape, &e));
        TRY(selftest_rows(&e, result, softmax && c->dtype == CLSPLAT_F32, listener, user));
        example_free(&e);
    }
fail:
    example_free(&e);
    return status;
}
