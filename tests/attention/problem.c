#include "attention/problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem_data.h"
#include "compare.h"

enum { GUARD = 64 }; /* elements before and after a tensor */

size_t problem_bytes(const problem_tensor *t) {
    return t->elements * clsplat_dtype_size(t->view.dtype);
}

size_t problem_place(const problem_tensor *t, size_t b, size_t h, size_t row, size_t column) {
    const size_t *stride = t->view.stride;
    return GUARD + b * stride[0] + h * stride[1] + row * stride[2] + column;
}

double problem_get(const problem_tensor *t, size_t b, size_t h, size_t row, size_t column) {
    return stored_get(t->view.dtype, t->bytes, problem_place(t, b, h, row, column));
}

void problem_set(problem_tensor *t, size_t b, size_t h, size_t row, size_t column, double value) {
    stored_set(t->view.dtype, t->bytes, problem_place(t, b, h, row, column), value);
}

void problem_poison(problem_tensor *t) {
    if (t->bytes)
        memset(t->bytes, 0xFF, problem_bytes(t));
}

problem_tensor problem_tensor_of(clsplat_dtype dtype, problem_layout layout, const size_t shape[4]) {
    problem_tensor t = {.view = {.dtype = dtype}};
    memcpy(t.view.shape, shape, sizeof t.view.shape);
    size_t heads = shape[1], rows = shape[2], columns = shape[3], gap = layout == LAYOUT_TOKENS ? 3 : 0;
    size_t token = heads * columns + gap;
    bool dense = layout == LAYOUT_DENSE;
    t.view.stride[0] = dense ? heads * rows * columns : rows * token;
    t.view.stride[1] = dense ? rows * columns : columns;
    t.view.stride[2] = dense ? columns : token;
    t.elements = shape[0] * t.view.stride[0] + 2 * GUARD;
    t.bytes = malloc(problem_bytes(&t));
    t.view.host = (char *)t.bytes + GUARD * clsplat_dtype_size(dtype);
    problem_poison(&t);
    return t;
}

static problem_spec completed(const problem_spec *spec) {
    problem_spec s = *spec;
    s.batch = s.batch ? s.batch : 1;
    s.heads = s.heads ? s.heads : 1;
    s.kv_heads = s.kv_heads ? s.kv_heads : s.heads;
    s.levels = s.levels ? s.levels : 1;
    return s;
}

static void create_tensors(problem *p) {
    const problem_spec *s = &p->spec;
    size_t b = s->batch, h = s->heads, hk = s->kv_heads, n = s->queries, m = s->keys;
    problem_tensor *t = p->tensors;
    t[PROBLEM_Q] = problem_tensor_of(s->q, s->layout, (const size_t[4]){b, h, n, s->dim});
    t[PROBLEM_K] = problem_tensor_of(s->k, s->layout, (const size_t[4]){b, hk, m, s->dim});
    t[PROBLEM_V] = problem_tensor_of(s->v, s->layout, (const size_t[4]){b, hk, m, s->value_dim});
    if (s->bias != BIAS_NONE)
        t[PROBLEM_BIAS] = problem_tensor_of(s->key_bias, s->layout, (const size_t[4]){b, hk, m, 1});
    t[PROBLEM_OUT] = problem_tensor_of(s->out, s->layout, (const size_t[4]){b, h, n, s->value_dim});
    t[PROBLEM_LSE] = problem_tensor_of(s->lse, s->layout, (const size_t[4]){b, h, n, 1});
    p->reference = (naive_tensors){.shape = {b, h, hk, n, m, s->dim, s->value_dim},
                                   .causal = s->causal,
                                   .window = s->window,
                                   .out = calloc(b * h * n * s->value_dim, sizeof(double)),
                                   .lse = calloc(b * h * n, sizeof(double))};
}

problem problem_create(clsplat *lib, const problem_spec *spec, uint64_t seed) {
    problem p = {.spec = completed(spec), .lib = lib, .attention = clsplat_attention_defaults()};
    create_tensors(&p);
    if (spec->splats) {
        clsplat_splats_shape shape = {spec->covariance, spec->shared ? 1 : p.spec.heads, spec->splats,
                                      spec->dim, p.spec.levels};
        suite_ok(lib, clsplat_splats_create(lib, shape, &p.splats));
    }
    p.attention.splats = p.splats;
    p.attention.mixing = spec->mixing;
    p.attention.causal = spec->causal;
    p.attention.method = spec->splats     ? CLSPLAT_SPLATS
                         : spec->near_far ? CLSPLAT_NEAR_FAR
                         : spec->window   ? CLSPLAT_WINDOW
                                          : CLSPLAT_SOFTMAX;
    p.attention.window = spec->window;
    p.attention.tolerance = spec->tolerance;
    p.attention.sparse_topk = spec->sparse_topk;
    p.attention.chunk = spec->chunk;
    p.attention.variant = spec->variant;
    if (spec->scale != 0)
        p.attention.scale = spec->scale;
    problem_fill(&p, seed);
    return p;
}

void problem_free(problem *p) {
    for (size_t i = 0; i < PROBLEM_TENSORS; i++)
        free(p->tensors[i].bytes);
    free(p->reference.out);
    free(p->reference.lse);
    clsplat_splats_destroy(&p->splats);
}

clsplat_attention_tensors problem_views(const problem *p) {
    const problem_tensor *t = p->tensors;
    return (clsplat_attention_tensors){.q = t[PROBLEM_Q].view,
                                       .k = t[PROBLEM_K].view,
                                       .v = t[PROBLEM_V].view,
                                       .key_bias = t[PROBLEM_BIAS].view,
                                       .out = t[PROBLEM_OUT].view,
                                       .lse = t[PROBLEM_LSE].view};
}

clsplat_status problem_attend(problem *p, clsplat_device *device) {
    problem_poison(&p->tensors[PROBLEM_OUT]);
    problem_poison(&p->tensors[PROBLEM_LSE]);
    return clsplat_attend(device, p->attention, problem_views(p));
}

/* The same tensor in a buffer: the whole allocation is copied, so the offset is that of the guard. */
static clsplat_tensor uploaded(const problem_tensor *t, cl_context context) {
    clsplat_tensor view = t->view;
    if (!t->bytes)
        return view;
    cl_int code = CL_SUCCESS;
    view.host = NULL;
    view.offset = GUARD;
    view.buffer =
        clCreateBuffer(context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, problem_bytes(t), t->bytes, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    return view;
}

static void download(const problem_tensor *t, clsplat_tensor view, cl_command_queue queue) {
    ck_assert_int_eq(
        clEnqueueReadBuffer(queue, view.buffer, CL_TRUE, 0, problem_bytes(t), t->bytes, 0, NULL, NULL),
        CL_SUCCESS);
}

clsplat_status problem_attend_buffers(problem *p, clsplat_device *device) {
    cl_context context = clsplat_device_context(device);
    cl_command_queue queue = clsplat_device_queue(device);
    problem_tensor *t = p->tensors;
    problem_poison(&t[PROBLEM_OUT]);
    problem_poison(&t[PROBLEM_LSE]);
    clsplat_attention_tensors views = {.q = uploaded(&t[PROBLEM_Q], context),
                                       .k = uploaded(&t[PROBLEM_K], context),
                                       .v = uploaded(&t[PROBLEM_V], context),
                                       .key_bias = uploaded(&t[PROBLEM_BIAS], context),
                                       .out = uploaded(&t[PROBLEM_OUT], context),
                                       .lse = uploaded(&t[PROBLEM_LSE], context)};
    clsplat_status status = clsplat_attend_enqueue(device, p->attention, views, 0, NULL, NULL);
    if (status == CLSPLAT_OK)
        status = clsplat_device_finish(device);
    if (status == CLSPLAT_OK) {
        download(&t[PROBLEM_OUT], views.out, queue);
        download(&t[PROBLEM_LSE], views.lse, queue);
    }
    cl_mem buffers[] = {views.q.buffer,        views.k.buffer,   views.v.buffer,
                        views.key_bias.buffer, views.out.buffer, views.lse.buffer};
    for (size_t i = 0; i < PROBLEM_TENSORS; i++)
        if (buffers[i])
            clReleaseMemObject(buffers[i]);
    return status;
}

double *problem_dense(const problem_tensor *t) {
    if (!t->bytes)
        return NULL;
    const size_t *n = t->view.shape;
    double *array = malloc(n[0] * n[1] * n[2] * n[3] * sizeof *array), *next = array;
    for (size_t b = 0; b < n[0]; b++)
        for (size_t h = 0; h < n[1]; h++)
            for (size_t row = 0; row < n[2]; row++)
                for (size_t column = 0; column < n[3]; column++)
                    *next++ = problem_get(t, b, h, row, column);
    return array;
}

void problem_expect(problem *p) {
    double *q = problem_dense(&p->tensors[PROBLEM_Q]), *k = problem_dense(&p->tensors[PROBLEM_K]);
    double *v = problem_dense(&p->tensors[PROBLEM_V]), *bias = problem_dense(&p->tensors[PROBLEM_BIAS]);
    naive_tensors *t = &p->reference;
    t->q = q;
    t->k = k;
    t->v = v;
    t->key_bias = bias;
    t->largest = &p->largest;
    if (p->splats) {
        clsplat_splats_parameters splats = clsplat_splats_get(p->splats);
        naive_gaussian(t, &splats, p->spec.mixing);
    } else {
        float scale = p->attention.scale;
        naive_softmax(t, isnan(scale) ? 1 / sqrt((double)p->spec.dim) : (double)scale);
    }
    t->q = t->k = t->v = t->key_bias = NULL;
    t->largest = NULL;
    free(q);
    free(k);
    free(v);
    free(bias);
}

size_t problem_spoilt(const problem_tensor *t) {
    const size_t *n = t->view.shape, size = clsplat_dtype_size(t->view.dtype);
    unsigned char *rest = malloc(problem_bytes(t));
    memcpy(rest, t->bytes, problem_bytes(t));
    for (size_t b = 0; b < n[0]; b++)
        for (size_t h = 0; h < n[1]; h++)
            for (size_t row = 0; row < n[2]; row++)
                memset(rest + problem_place(t, b, h, row, 0) * size, 0xFF, n[3] * size);
    size_t spoilt = 0;
    for (size_t i = 0; i < problem_bytes(t); i++)
        spoilt += rest[i] != 0xFF;
    free(rest);
    return spoilt;
}

/* Matrix units round weights, and means of splats, to the 16 bits of the inputs. */
static bool on_matrix_units(const problem *p) {
    clsplat_device *device = problem_on_stage().device;
    if (!device)
        return false;
    clsplat_limits limits = clsplat_device_describe(device)->limits;
    return (limits.nvidia_capability >= 80 || limits.matrix_units) && p->spec.q != CLSPLAT_F32 &&
           p->spec.k != CLSPLAT_F32 && p->spec.v != CLSPLAT_F32;
}

/* Storage decides: the arithmetic is float32 for any input. With extreme variances an early causal row may be
 * far from all keys: its log-weights are as large as its lse, and float32 knows their differences to an ulp
 * of that. */
static double out_tolerance(const problem *p) {
    if (on_matrix_units(p))
        return 1e-2;
    double stored = p->spec.out == CLSPLAT_F32 ? 1e-5 : p->spec.out == CLSPLAT_F16 ? 1e-3 : 8e-3;
    return p->spec.data == DATA_EXTREME ? stored + ldexp(p->largest, -24) : stored;
}

static double lse_tolerance(clsplat_dtype dtype) {
    return dtype == CLSPLAT_F32 ? 2e-5 : dtype == CLSPLAT_F16 ? 2e-3 : 1.6e-2;
}

void problem_check(const problem *p) {
    char words[400];
    problem_describe(&p->spec, words, sizeof words);
    double *out = problem_dense(&p->tensors[PROBLEM_OUT]), *lse = problem_dense(&p->tensors[PROBLEM_LSE]);
    const naive_shape *n = &p->reference.shape;
    size_t rows = n->batch * n->heads * n->queries;
    double out_error = compare_norm(out, p->reference.out, rows * n->value_dim);
    double lse_error = compare_lse(lse, p->reference.lse, rows);
    free(out);
    free(lse);
    ck_assert_msg(out_error < out_tolerance(p), "%s: out is off by %.2e", words, out_error);
    ck_assert_msg(lse_error < fmax(lse_tolerance(p->spec.lse), p->splats && on_matrix_units(p) ? 1e-2 : 0),
                  "%s: lse is off by %.2e", words, lse_error);
    ck_assert_msg(problem_spoilt(&p->tensors[PROBLEM_OUT]) == 0, "%s: wrote beside out", words);
    ck_assert_msg(problem_spoilt(&p->tensors[PROBLEM_LSE]) == 0, "%s: wrote beside lse", words);
    if (getenv("CLSPLAT_TEST_VERBOSE"))
        fprintf(stderr, "%s: out %.1e, lse %.1e\n", words, out_error, lse_error);
}

void problem_solve(problem *p, clsplat_device *device) {
    clsplat_status status = problem_attend(p, device);
    char words[400];
    problem_describe(&p->spec, words, sizeof words);
    ck_assert_msg(status == CLSPLAT_OK, "%s: %s", words, clsplat_last_error(p->lib));
    problem_expect(p);
    problem_check(p);
}
