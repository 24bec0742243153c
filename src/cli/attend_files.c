#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "cli/attend.h"

/* Finds all four and makes sure that they fit each other, from their headers alone. */
static clsplat_status find_inputs(clsplat *lib, attend_problem *p) {
    clsplat_status status = CLSPLAT_OK;
    TRY(input_find(lib, p->file, "q", 4, &p->q));
    TRY(input_find(lib, p->file, "k", 4, &p->k));
    TRY(input_find(lib, p->file, "v", 4, &p->v));
    TRY(input_find_optional(lib, p->file, "key_bias", 3, &p->key_bias));
    TRY(input_match(lib, &p->k, &p->q, INPUT_BATCH));
    TRY(input_match(lib, &p->k, &p->q, INPUT_COLUMNS));
    TRY(input_match_heads(lib, &p->q, &p->k));
    for (int d = INPUT_BATCH; d <= INPUT_ROWS; ++d) {
        TRY(input_match(lib, &p->v, &p->k, d));
        if (p->key_bias.entry)
            TRY(input_match(lib, &p->key_bias, &p->k, d));
    }
fail:
    return status;
}

static clsplat_status load_splats(clsplat *lib, const attend_request *r, attend_problem *p) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *q = p->q.tensor.shape;
    if (!r->splats)
        return CLSPLAT_OK;
    TRY(clsplat_splats_load(lib, r->splats, &p->splats));
    clsplat_splats_shape s = clsplat_splats_get(p->splats).shape;
    if (s.dim != q[INPUT_COLUMNS])
        return log_error(lib, CLSPLAT_SHAPE,
                         "%s: tensor 'mean' has %zu columns, but q of %s has %zu; they must be equal",
                         r->splats, s.dim, r->input, q[INPUT_COLUMNS]);
    if (s.heads != 1 && s.heads != q[INPUT_HEADS])
        return log_error(lib, CLSPLAT_SHAPE,
                         "%s: tensor 'mean' has %zu heads; it must have 1 or, as q of %s, %zu", r->splats,
                         s.heads, r->input, q[INPUT_HEADS]);
fail:
    return status;
}

clsplat_status attend_make_results(clsplat *lib, const attend_request *r, attend_problem *p) {
    const size_t *q = p->q.tensor.shape;
    uint64_t rows = q[0] * q[1] * q[2], numbers;
    if (!__builtin_mul_overflow(rows, p->v.tensor.shape[3], &numbers) &&
        numbers <= SIZE_MAX / sizeof(float)) {
        p->out = calloc(numbers, sizeof(float));
        p->lse = calloc(rows, sizeof(float));
        if (r->near_far) {
            p->exact_keys = calloc(rows, sizeof(int32_t));
            p->error_estimate = calloc(rows, sizeof(float));
        }
    }
    if (!p->out || !p->lse || (r->near_far && (!p->exact_keys || !p->error_estimate)))
        return log_error(lib, CLSPLAT_MEMORY,
                         "%s: there is no memory for tensor 'out', [%zu, %zu, %zu, %zu] in F32", r->input,
                         q[0], q[1], q[2], p->v.tensor.shape[3]);
    return CLSPLAT_OK;
}

clsplat_status attend_find(clsplat *lib, const attend_request *request, attend_problem *problem) {
    clsplat_status status = CLSPLAT_OK;
    TRY(safetensors_open(lib, request->input, &problem->file));
    TRY(find_inputs(lib, problem));
    TRY(load_splats(lib, request, problem));
fail:
    return status;
}

clsplat_attention_tensors attend_tensors(const attend_problem *p) {
    const size_t *q = p->q.tensor.shape;
    clsplat_attention_tensors tensors = {
        .q = p->q.tensor,
        .k = p->k.tensor,
        .v = p->v.tensor,
        .key_bias = p->key_bias.tensor,
        .out = clsplat_tensor_host(CLSPLAT_F32, q[0], q[1], q[2], p->v.tensor.shape[3], p->out),
        .lse = clsplat_tensor_host(CLSPLAT_F32, q[0], q[1], q[2], 1, p->lse)};
    if (p->exact_keys) {
        tensors.exact_keys = clsplat_tensor_host(CLSPLAT_I32, q[0], q[1], q[2], 1, p->exact_keys);
        tensors.error_estimate = clsplat_tensor_host(CLSPLAT_F32, q[0], q[1], q[2], 1, p->error_estimate);
    }
    return tensors;
}

clsplat_status attend_load(clsplat *lib, const attend_request *request, attend_problem *problem) {
    clsplat_status status = CLSPLAT_OK;
    TRY(attend_find(lib, request, problem));
    TRY(attend_make_results(lib, request, problem));
    if (request->grad)
        TRY(attend_grad_find(lib, request, problem));
    TRY(input_read_finite(lib, &problem->q, false));
    TRY(input_read_finite(lib, &problem->k, false));
    TRY(input_read_finite(lib, &problem->v, false));
    TRY(input_read_finite(lib, &problem->key_bias, true));
    if (request->grad)
        TRY(attend_grad_read(lib, problem));
fail:
    return status;
}

/* lse is −inf where a row sees no key. */
clsplat_status attend_check_result(clsplat *lib, const attend_request *request,
                                   const attend_problem *problem) {
    const size_t *q = problem->q.tensor.shape;
    size_t rows = q[0] * q[1] * q[2], columns = problem->v.tensor.shape[3];
    for (size_t i = 0; i < rows; ++i) {
        bool good = !isnan(problem->lse[i]) && problem->lse[i] != INFINITY;
        for (size_t d = 0; good && d < columns; ++d)
            good = isfinite(problem->out[i * columns + d]);
        if (!good)
            return log_error(lib, CLSPLAT_NOT_FINITE,
                             "%s: the result is not finite at [%zu, %zu, %zu]: products of 'q' and 'k' or "
                             "sums over 'v' exceed "
                             "float32; scale them down",
                             request->input, i / q[2] / q[1], i / q[2] % q[1],
                             input_row(&problem->q, i % q[2]));
    }
    return CLSPLAT_OK;
}

clsplat_status attend_save(clsplat *lib, const attend_request *request, const attend_problem *problem) {
    const size_t *q = problem->q.tensor.shape;
    safetensors_output tensors[4 + ATTEND_GRADIENTS] = {
        {"out", "F32", 4, {q[0], q[1], q[2], problem->v.tensor.shape[3]}, problem->out},
        {"lse", "F32", 3, {q[0], q[1], q[2]}, problem->lse},
        {"exact_keys", "I32", 3, {q[0], q[1], q[2]}, problem->exact_keys},
        {"error_estimate", "F32", 3, {q[0], q[1], q[2]}, problem->error_estimate},
    };
    size_t count = request->near_far ? 4 : 2;
    if (request->grad)
        count += attend_grad_list(problem, tensors + count);
    return safetensors_save(lib, request->output, tensors, count, NULL, 0);
}

void attend_free(attend_problem *problem) {
    attend_grad_free(problem);
    clsplat_splats_destroy(&problem->splats);
    free(problem->out);
    free(problem->lse);
    free(problem->exact_keys);
    free(problem->error_estimate);
    input_free(&problem->q);
    input_free(&problem->k);
    input_free(&problem->v);
    input_free(&problem->key_bias);
    safetensors_close(&problem->file);
}
