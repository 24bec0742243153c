/* clsplat bench: how fast an operation runs, by each of its variants, beside what the device can do at most.
 */
#include <clsplat/device.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/report.h"

const char *const bench_op_names[] = {
    "softmax", "gaussian", "gaussian-isotropic", "gaussian-full", "near-far", "gemm", NULL};
const char *const bench_dtype_names[] = {
    [CLSPLAT_F32] = "f32", [CLSPLAT_F16] = "f16", [CLSPLAT_BF16] = "bf16", NULL};

static const char summary[] =
    "Times attention, or a matrix product, on random numbers: every variant of it that fits the device, one\n"
    "beside the other, the plain one first, and what the library takes by itself (tuned). Rates are "
    "compared\n"
    "with a multiply-add and a copy loop on the same device, results with the plain variant's.";

static const bench_shape default_shapes[BENCH_OPS] = {
    [BENCH_SOFTMAX] = {1, 4, 4096, 4096, 64, 64, 1},
    [BENCH_GAUSSIAN] = {1, 1, 65536, 65536, 64, 64, 256},
    [BENCH_ISOTROPIC] = {1, 1, 65536, 65536, 64, 64, 256},
    [BENCH_FULL] = {1, 1, 4096, 4096, 64, 64, 256},
    [BENCH_NEAR_FAR] = {1, 4, 4096, 4096, 64, 64, 1},
    [BENCH_GEMM] = {1, 1, 2048, 2048, 2048, 1, 1},
};

typedef struct bench_options {
    char *op, *shape, *dtype, *variant, *repeat; /* as given; NULL: not given */
    int causal;
} bench_options;

clsplat_status bench_read_shape(cli *c, const char *given, bench_shape *shape) {
    size_t *const numbers[] = {&shape->batch, &shape->heads,     &shape->queries, &shape->keys,
                               &shape->dim,   &shape->value_dim, &shape->splats};
    enum { LIMIT = INT32_MAX };
    for (size_t i = 0; given && i < sizeof numbers / sizeof *numbers; ++i) {
        char number[16] = "";
        size_t length = strcspn(given, ",");
        uint64_t value = 0;
        if (length < sizeof number)
            memcpy(number, given, length);
        clsplat_status status = cli_count(c, "--shape", number, 1, &value);
        if (status != CLSPLAT_OK)
            return status;
        if (value > LIMIT)
            return cli_misuse(c, "--shape: %s is more than %d", number, LIMIT);
        *numbers[i] = value;
        given = given[length] ? given + length + 1 : NULL;
    }
    return given ? cli_misuse(c, "--shape: `%s` is too much; it is B,H,N,M,D,Dv,S", given) : CLSPLAT_OK;
}

static clsplat_status read_request(cli *c, const bench_options *o, bench_op op, bench_request *r) {
    enum { DIM_LIMIT = 1024 };
    clsplat_status status = CLSPLAT_OK;
    int dtype = CLSPLAT_F32;
    uint64_t repeat = 9;
    *r = (bench_request){.op = op,
                         .shape = default_shapes[op],
                         .causal = o->causal && op != BENCH_GEMM,
                         .variant = o->variant};
    TRY(bench_read_shape(c, o->shape, &r->shape));
    TRY(cli_choice(c, "--dtype", o->dtype, bench_dtype_names, &dtype));
    TRY(cli_count(c, "--repeat", o->repeat, 1, &repeat));
    r->dtype = (clsplat_dtype)dtype;
    r->repeat = repeat;
    if (op != BENCH_GEMM && (r->shape.dim > DIM_LIMIT || r->shape.value_dim > DIM_LIMIT))
        return cli_misuse(c, "--shape: D and Dv are at most %d for attention", DIM_LIMIT);
fail:
    return status;
}

static clsplat_status measure(cli *c, clsplat_device *device, const bench_request *request,
                              const op_peak *peak, json_t **array) {
    clsplat_status status = CLSPLAT_OK;
    bench_case b = {0};
    bench_result results[BENCH_VARIANTS];
    size_t count = 0;
    progress_begin(&c->progress);
    TRY(bench_case_create(device, request, &b));
    TRY(bench_time(c, &b, results, &count));
    progress_clear(&c->progress);
    if (c->json)
        bench_append(array, &b, peak, results, count);
    else
        bench_print(&b, peak, results, count);
fail:
    bench_case_free(&b);
    return status;
}

/* The operation that is asked for, or all. */
static clsplat_status bench(cli *c, const bench_options *o) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    bench_request request;
    op_peak peak;
    int only = -1;
    json_t *array = c->json ? json_array() : NULL;
    TRY(cli_choice(c, "--op", o->op, bench_op_names, &only));
    if (only == BENCH_GEMM && o->causal)
        return json_decref(array), cli_misuse(c, "--causal is for attention, not for gemm");
    TRY(read_request(c, o, only < 0 ? BENCH_SOFTMAX : (bench_op)only, &request));
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(op_peak_measure(device, &peak));
    for (int op = 0; op < BENCH_OPS; ++op) {
        if (only >= 0 && op != only)
            continue;
        TRY(read_request(c, o, (bench_op)op, &request));
        TRY(measure(c, device, &request, &peak, &array));
        TRY(cli_flush(c));
    }
    if (c->json)
        TRY(report_json(c, json_incref(array)));
    else
        printf("%s, at most %.1f GFLOP/s of multiply-adds and %.1f GB/s of copying\n",
               clsplat_device_describe(device)->name, 1e-9 * peak.flops, 1e-9 * peak.bytes);
fail:
    json_decref(array);
    clsplat_device_close(&device);
    return status;
}

clsplat_status cmd_bench(cli *c, int argc, const char **argv) {
    bench_options o = {0};
    struct poptOption options[] = {
        {"op", 0, POPT_ARG_STRING, &o.op, 0,
         "what to time: softmax, gaussian, gaussian-isotropic, gaussian-full, near-far or gemm; all of them "
         "if it is "
         "not given",
         "OP"},
        {"shape", 0, POPT_ARG_STRING, &o.shape, 0,
         "batch, heads, queries, keys, columns of a key and of a value, splats; numbers left away at the end "
         "are the "
         "default's",
         "B,H,N,M,D,Dv,S"},
        {"dtype", 0, POPT_ARG_STRING, &o.dtype, 0,
         "f32, f16 or bf16: how numbers are stored; f32 if it is not given", "TYPE"},
        {"causal", 0, POPT_ARG_NONE, &o.causal, 0, "query i sees the keys up to i + (M - N)", NULL},
        {"variant", 0, POPT_ARG_STRING, &o.variant, 0, "this one alone", "NAME"},
        {"repeat", 0, POPT_ARG_STRING, &o.repeat, 0, "runs of each, 9 if it is not given", "N"},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "[OPTION...]", options, .arguments = 0};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = bench(c, &o);
    cli_free(options);
    return status;
}
