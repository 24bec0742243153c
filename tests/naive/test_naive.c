/* The reference itself against the golden cases, which come from another program: if both are right they
 * agree to the rounding of the float32 that the cases are stored in. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "format/safetensors.h"
#include "naive/naive.h"
#include "suite.h"

static const char *const cases[] = {
    "bfloat16-inputs", "causal-empty-rows", "causal-gqa-key-bias", "causal-more-keys",   "diagonal-joint",
    "far-from-origin", "full-causal",       "isotropic-per-level", "softmax-causal-gqa", "softmax-padding",
};
enum { CASES = sizeof cases / sizeof *cases };

typedef struct golden {
    clsplat *lib;
    safetensors *input, *splats, *expected; /* splats: NULL for softmax */
    char flags[200];
    naive_tensors t;
} golden;

static safetensors *open_file(clsplat *lib, const char *name, const char *file, bool wanted) {
    char path[500];
    snprintf(path, sizeof path, GOLDEN "/%s/%s.safetensors", name, file);
    FILE *there = fopen(path, "rb");
    ck_assert_msg(there || !wanted, "no file %s", path);
    if (!there)
        return NULL;
    fclose(there);
    safetensors *opened = NULL;
    suite_ok(lib, safetensors_open(lib, path, &opened));
    return opened;
}

/* The raw numbers of a tensor; NULL if the file has none of that name. */
static void *raw(const golden *g, const safetensors *file, const char *name) {
    const safetensors_entry *entry = file ? safetensors_find(file, name) : NULL;
    if (!entry)
        return NULL;
    void *bytes = malloc(entry->bytes);
    suite_ok(g->lib, safetensors_read(g->lib, file, entry, bytes));
    return bytes;
}

static double *doubles(const golden *g, const safetensors *file, const char *name) {
    const safetensors_entry *entry = safetensors_find(file, name);
    void *bytes = raw(g, file, name);
    if (!bytes)
        return NULL;
    clsplat_dtype dtype = strcmp(entry->dtype, "BF16") == 0  ? CLSPLAT_BF16
                          : strcmp(entry->dtype, "F16") == 0 ? CLSPLAT_F16
                                                             : CLSPLAT_F32;
    double *values = malloc(entry->count * sizeof *values);
    for (size_t i = 0; i < entry->count; i++)
        values[i] = stored_get(dtype, bytes, i);
    free(bytes);
    return values;
}

static void read_flags(golden *g, const char *name) {
    char path[500];
    snprintf(path, sizeof path, GOLDEN "/%s/args.txt", name);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file && fgets(g->flags, sizeof g->flags, file), "no flags in %s", path);
    fclose(file);
}

static golden golden_open(const char *name) {
    golden g = {.lib = suite_library()};
    read_flags(&g, name);
    g.input = open_file(g.lib, name, "input", true);
    g.splats = open_file(g.lib, name, "splats", false);
    g.expected = open_file(g.lib, name, "expected", true);
    const uint64_t *q = safetensors_find(g.input, "q")->shape, *k = safetensors_find(g.input, "k")->shape;
    naive_shape shape = {q[0], q[1], k[1], q[2], k[2], q[3], safetensors_find(g.input, "v")->shape[3]};
    size_t rows = shape.batch * shape.heads * shape.queries;
    g.t = (naive_tensors){.shape = shape,
                          .causal = strstr(g.flags, "--causal") != NULL,
                          .q = doubles(&g, g.input, "q"),
                          .k = doubles(&g, g.input, "k"),
                          .v = doubles(&g, g.input, "v"),
                          .key_bias = doubles(&g, g.input, "key_bias"),
                          .out = malloc(rows * shape.value_dim * sizeof(double)),
                          .lse = malloc(rows * sizeof(double))};
    return g;
}

static void golden_close(golden *g) {
    const void *owned[] = {g->t.q, g->t.k, g->t.v, g->t.key_bias, g->t.out, g->t.lse};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free((void *)owned[i]);
    safetensors_close(&g->input);
    safetensors_close(&g->splats);
    safetensors_close(&g->expected);
    clsplat_destroy(&g->lib);
}

/* Gradients in the order of the file's names. */
static const char *const gradient_names[] = {"dq",
                                             "dk",
                                             "dv",
                                             "dkey_bias",
                                             "dmean",
                                             "dlog_var",
                                             "dprecision_chol",
                                             "dlog_amplitude",
                                             "dlog_temperature",
                                             "dlevel_log_weight"};
enum { GRADIENTS = sizeof gradient_names / sizeof *gradient_names };

typedef struct golden_gradients {
    naive_gradients n;
    double *arrays[GRADIENTS]; /* NULL: the case has none of that name */
} golden_gradients;

static golden_gradients gradients_open(const golden *g) {
    golden_gradients d = {0};
    for (size_t i = 0; i < GRADIENTS; i++) {
        const safetensors_entry *entry = safetensors_find(g->expected, gradient_names[i]);
        d.arrays[i] = entry ? calloc(entry->count, sizeof(double)) : NULL;
    }
    double **a = d.arrays;
    d.n = (naive_gradients){doubles(g, g->input, "dout"), a[0], a[1], a[2], a[3], a[4],
                            a[5] ? a[5] : a[6],           a[7], a[8], a[9], 0,    0};
    return d;
}

static void gradients_check(const golden *g, golden_gradients *d, const char *name) {
    for (size_t i = 0; i < GRADIENTS; i++) {
        if (!d->arrays[i])
            continue;
        double *expected = doubles(g, g->expected, gradient_names[i]);
        size_t count = safetensors_find(g->expected, gradient_names[i])->count;
        double error = compare_norm(d->arrays[i], expected, count);
        free(expected);
        free(d->arrays[i]);
        ck_assert_msg(error < 1e-7, "%s: %s is off by %.1e", name, gradient_names[i], error);
    }
    free((void *)d->n.dout);
}

static void run_gaussian(const golden *g, naive_gradients *gradients) {
    const uint64_t *mean = safetensors_find(g->splats, "mean")->shape;
    const safetensors_entry *log_var = safetensors_find(g->splats, "log_var");
    clsplat_splats_parameters s = {.mean = raw(g, g->splats, "mean"),
                                   .log_var = raw(g, g->splats, "log_var"),
                                   .precision_chol = raw(g, g->splats, "precision_chol"),
                                   .log_amplitude = raw(g, g->splats, "log_amplitude"),
                                   .log_temperature = raw(g, g->splats, "log_temperature"),
                                   .level = raw(g, g->splats, "level"),
                                   .level_log_weight = raw(g, g->splats, "level_log_weight")};
    s.shape = (clsplat_splats_shape){.covariance = !log_var                 ? CLSPLAT_FULL
                                                   : log_var->shape[2] == 1 ? CLSPLAT_ISOTROPIC
                                                                            : CLSPLAT_DIAGONAL,
                                     .heads = mean[0],
                                     .count = mean[1],
                                     .dim = mean[2],
                                     .levels = safetensors_find(g->splats, "level_log_weight")->count};
    clsplat_mixing mixing = strstr(g->flags, "per-level") ? CLSPLAT_PER_LEVEL : CLSPLAT_JOINT;
    naive_gaussian(&g->t, &s, mixing);
    naive_gaussian_backward(&g->t, &s, mixing, gradients);
    void *owned[] = {s.mean,  s.log_var,         s.precision_chol, s.log_amplitude, s.log_temperature,
                     s.level, s.level_log_weight};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
}

START_TEST(agrees_with_the_golden_case) {
    golden g = golden_open(cases[_i]);
    const char *scale = strstr(g.flags, "--scale ");
    golden_gradients gradients = gradients_open(&g);
    double factor = scale ? strtod(scale + 8, NULL) : 1 / sqrt((double)g.t.shape.dim);
    if (g.splats)
        run_gaussian(&g, &gradients.n);
    else {
        naive_softmax(&g.t, factor);
        naive_softmax_backward(&g.t, factor, &gradients.n);
    }
    gradients_check(&g, &gradients, cases[_i]);
    double *out = doubles(&g, g.expected, "out"), *lse = doubles(&g, g.expected, "lse");
    size_t rows = g.t.shape.batch * g.t.shape.heads * g.t.shape.queries;
    double error = compare_norm(g.t.out, out, rows * g.t.shape.value_dim),
           lse_error = compare_lse(g.t.lse, lse, rows);
    free(out);
    free(lse);
    golden_close(&g);
    ck_assert_msg(error < 1e-7 && lse_error < 2e-7, "%s: out is off by %.1e, lse by %.1e", cases[_i], error,
                  lse_error);
}
END_TEST

/* Reading what was written is attention: the sums over keys and splats in the other order. */
START_TEST(read_of_write_is_attention) {
    enum { N = 3, M = 5, D = 2, DV = 2, S = 3 };
    float mean[S * D] = {0, 1, -1, 0.5F, 2, 0}, log_var[S * D] = {0, 0.5F, -1, 0, 1, -0.5F},
                   weight[2] = {0.3F, -1};
    float amplitude[S] = {0, 1, -2}, temperature[S] = {0.2F, 0, -0.3F};
    int32_t level[S] = {1, 0, 1};
    clsplat_splats_parameters s = {
        0, {CLSPLAT_DIAGONAL, 1, S, D, 2}, mean, log_var, NULL, amplitude, temperature, level, weight, NULL};
    double q[N * D], k[M * D], v[M * DV], bias[M] = {0, 1, -INFINITY, -0.5, 0};
    double out[N * DV], lse[N], state_lse[S], state_value[S * DV], read_out[DV];
    for (size_t i = 0; i < M * D; i++) {
        k[i] = sin((double)i);
        v[i] = cos(3 * (double)i);
        q[i % (N * D)] = cos((double)i + 1);
    }
    naive_gaussian(&(naive_tensors){{1, 1, 1, N, M, D, DV}, false, q, k, v, bias, out, lse, NULL, 0, 0}, &s,
                   (clsplat_mixing)_i);
    for (size_t i = 0; i < S; i++)
        state_lse[i] = naive_write(&s, 0, i, &(naive_keys){M, D, DV, k, v, bias}, state_value + i * DV);
    for (size_t i = 0; i < N; i++) {
        double l = naive_read(&s, 0, (clsplat_mixing)_i, q + i * D, state_lse, state_value, DV, read_out);
        ck_assert_double_eq_tol(l, lse[i], 1e-12);
        ck_assert(compare_norm(read_out, out + i * DV, DV) < 1e-12);
    }
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, agrees_with_the_golden_case, 0, CASES);
    tcase_add_loop_test(part, read_of_write_is_attention, 0, 2);
}

int main(void) {
    static const suite_part parts[] = {{"naive", add_all}};
    return suite_run("naive", parts, sizeof parts / sizeof *parts);
}
