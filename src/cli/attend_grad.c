/* `clsplat attend --grad`: what goes in beside the rest, and what comes out. */
#include <stdlib.h>

#include "cli/attend.h"

/* One result: its name, where its numbers are, and its shape. */
typedef struct result {
    const char *name;
    float **numbers;
    size_t rank, shape[4];
} result;

/* All that this problem has. */
static size_t results_of(attend_problem *p, result results[ATTEND_GRADIENTS]) {
    attend_gradients *g = &p->grad;
    const size_t *q = p->q.tensor.shape, *k = p->k.tensor.shape, *v = p->v.tensor.shape;
    size_t count = 0;
    results[count++] = (result){"dq", &g->dq, 4, {q[0], q[1], q[2], q[3]}};
    results[count++] = (result){"dk", &g->dk, 4, {k[0], k[1], k[2], k[3]}};
    results[count++] = (result){"dv", &g->dv, 4, {v[0], v[1], v[2], v[3]}};
    if (p->key_bias.entry)
        results[count++] = (result){"dkey_bias", &g->dkey_bias, 3, {k[0], k[1], k[2]}};
    if (!p->splats)
        return count;
    clsplat_splats_shape s = clsplat_splats_get(p->splats).shape;
    size_t widths = s.covariance == CLSPLAT_ISOTROPIC ? 1 : s.dim;
    results[count++] = (result){"dmean", &g->splats.mean, 3, {s.heads, s.count, s.dim}};
    if (s.covariance == CLSPLAT_FULL)
        results[count++] =
            (result){"dprecision_chol", &g->splats.precision_chol, 4, {s.heads, s.count, s.dim, s.dim}};
    else
        results[count++] = (result){"dlog_var", &g->splats.log_var, 3, {s.heads, s.count, widths}};
    results[count++] = (result){"dlog_amplitude", &g->splats.log_amplitude, 2, {s.heads, s.count}};
    results[count++] = (result){"dlog_temperature", &g->splats.log_temperature, 2, {s.heads, s.count}};
    results[count++] = (result){"dlevel_log_weight", &g->splats.level_log_weight, 1, {s.levels}};
    return count;
}

clsplat_status attend_grad_find(clsplat *lib, const attend_request *request, attend_problem *p) {
    clsplat_status status = CLSPLAT_OK;
    result results[ATTEND_GRADIENTS];
    size_t count = results_of(p, results);
    TRY(input_find(lib, p->file, "dout", 4, &p->grad.dout));
    for (int d = INPUT_BATCH; d <= INPUT_ROWS; ++d)
        TRY(input_match(lib, &p->grad.dout, &p->q, d));
    TRY(input_match(lib, &p->grad.dout, &p->v, INPUT_COLUMNS));
    for (size_t i = 0; i < count; ++i) {
        size_t numbers = sizeof(float);
        bool large = false;
        for (size_t d = 0; d < results[i].rank; ++d)
            large = __builtin_mul_overflow(numbers, results[i].shape[d], &numbers) || large;
        *results[i].numbers = large ? NULL : calloc(numbers, 1);
        if (!*results[i].numbers)
            return log_error(lib, CLSPLAT_MEMORY, "%s: there is no memory for tensor '%s' in F32",
                             request->input, results[i].name);
    }
fail:
    return status;
}

clsplat_status attend_grad_read(clsplat *lib, attend_problem *p) {
    return input_read_finite(lib, &p->grad.dout, false);
}

static clsplat_tensor view_of(const input *of, size_t columns, float *numbers) {
    const size_t *n = of->tensor.shape;
    return clsplat_tensor_host(CLSPLAT_F32, n[0], n[1], n[2], columns, numbers);
}

clsplat_attention_gradients attend_grad_views(const attend_problem *p) {
    const attend_gradients *g = &p->grad;
    clsplat_attention_gradients views = {.dout = g->dout.tensor, .splats = g->splats};
    views.dq = view_of(&p->q, p->q.tensor.shape[3], g->dq);
    views.dk = view_of(&p->k, p->k.tensor.shape[3], g->dk);
    views.dv = view_of(&p->v, p->v.tensor.shape[3], g->dv);
    if (g->dkey_bias)
        views.dkey_bias = view_of(&p->k, 1, g->dkey_bias);
    return views;
}

size_t attend_grad_list(const attend_problem *problem, safetensors_output *tensors) {
    attend_problem copy = *problem;
    result results[ATTEND_GRADIENTS];
    size_t count = results_of(&copy, results);
    for (size_t i = 0; i < count; ++i) {
        tensors[i] = (safetensors_output){.name = results[i].name, .dtype = "F32", .rank = results[i].rank};
        tensors[i].data = *results[i].numbers;
        for (size_t d = 0; d < results[i].rank; ++d)
            tensors[i].shape[d] = results[i].shape[d];
    }
    return count;
}

void attend_grad_free(attend_problem *p) {
    attend_gradients *g = &p->grad;
    float *all[] = {g->dq,
                    g->dk,
                    g->dv,
                    g->dkey_bias,
                    g->splats.mean,
                    g->splats.log_var,
                    g->splats.precision_chol,
                    g->splats.log_amplitude,
                    g->splats.log_temperature,
                    g->splats.level_log_weight};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
    *g = (attend_gradients){.dout = g->dout};
    input_free(&g->dout);
}
