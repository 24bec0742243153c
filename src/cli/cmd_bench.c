/* clsplat bench: how fast an operation runs, by each of its variants, beside what the device can do at most.
 */
#include <clsplat/device.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/report.h"

const char *const bench_dtype_names[] = {
    [CLSPLAT_F32] = "f32", [CLSPLAT_F16] = "f16", [CLSPLAT_BF16] = "bf16", NULL};

static const char summary[] =
    "Times attention, or a matrix product, on random numbers: every variant of it that fits the device, one\n"
    "beside the other, the plain one first, and what the library takes by itself (tuned). Rates are "
    "compared\n"
    "with a multiply-add and a copy loop on the same device, results with the plain variant's.";

typedef struct bench_options {
    char *op, *shape, *dtype, *variant, *repeat; /* as given; NULL: not given */
    int causal;
} bench_options;

clsplat_status bench_read_op(cli *c, const char *given, int *op) {
    const char *names[EXAMPLE_OPERATIONS + 1] = {0};
    for (size_t i = 0; i < EXAMPLE_OPERATIONS; ++i)
        names[i] = example_operations[i].name;
    return cli_choice(c, "--op", given, names, op);
}

clsplat_status bench_read_shape(cli *c, const char *given, example_shape *shape) {
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

static clsplat_status read_request(cli *c, const bench_options *o, const example_operation *op,
                                   bench_request *r) {
    enum { DIM_LIMIT = 1024, VALUE_DIM = 64, SPLATS = 256 };
    clsplat_status status = CLSPLAT_OK;
    int dtype = CLSPLAT_F32;
    uint64_t repeat = 9;
    *r = (bench_request){.operation = op,
                         .shape = {.batch = 1,
                                   .heads = op->heads,
                                   .queries = op->tokens,
                                   .keys = op->tokens,
                                   .dim = op->dim,
                                   .value_dim = op->kind->product ? 1 : VALUE_DIM,
                                   .splats = op->kind->of_splats ? SPLATS : 1,
                                   .covariance = op->covariance,
                                   .causal = o->causal && !op->kind->product},
                         .variant = o->variant};
    TRY(bench_read_shape(c, o->shape, &r->shape));
    TRY(cli_choice(c, "--dtype", o->dtype, bench_dtype_names, &dtype));
    TRY(cli_count(c, "--repeat", o->repeat, 1, &repeat));
    r->shape.dtype = (clsplat_dtype)dtype;
    r->repeat = repeat;
    if (!op->kind->product && (r->shape.dim > DIM_LIMIT || r->shape.value_dim > DIM_LIMIT))
        return cli_misuse(c, "--shape: D and Dv are at most %d for attention", DIM_LIMIT);
fail:
    return status;
}

static clsplat_status measure(cli *c, clsplat_device *device, const bench_request *request,
                              const op_peak *peak, json_t **array) {
    clsplat_status status = CLSPLAT_OK;
    example e = {0};
    bench_result results[BENCH_VARIANTS];
    size_t count = 0;
    progress_begin(&c->progress);
    TRY(example_create(device, request->operation->kind, &request->shape, &e));
    TRY(bench_time(c, request, &e, results, &count));
    progress_clear(&c->progress);
    if (c->json)
        bench_append(array, request, peak, results, count);
    else
        bench_print(request, peak, results, count);
fail:
    example_free(&e);
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
    TRY(bench_read_op(c, o->op, &only));
    if (only >= 0 && example_operations[only].kind->product && o->causal)
        return json_decref(array), cli_misuse(c, "--causal is for attention, not for gemm");
    TRY(read_request(c, o, &example_operations[only < 0 ? 0 : only], &request));
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(op_peak_measure(device, &peak));
    for (int op = 0; op < EXAMPLE_OPERATIONS; ++op) {
        if (only >= 0 && op != only)
            continue;
        TRY(read_request(c, o, &example_operations[op], &request));
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
         "what to time: softmax, gaussian, gaussian-isotropic, gaussian-full, near-far, each of them with "
         "-backward behind it for its gradients, or gemm; all of them if it is not given",
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
