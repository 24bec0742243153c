/* clsplat tune: finds the fastest variants on a device, and shows, exports and imports what was found. */
#include <clsplat/tune.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/output.h"
#include "cli/report.h"
#include "op/choose.h"

static const char summary[] =
    "Looks for the fastest variant of each operation on the device, and for its parameters. Candidates are\n"
    "compared with the plain variant before they are timed; what is found is kept for all programs of the "
    "user.\n"
    "Budgets: quick is a minute, normal ten, full every candidate; SECONDS are for all operations together.";

typedef struct tune_options {
    char *op, *shape, *dtype, *budget, *from, *to; /* as given; NULL: not given */
    int show;
} tune_options;

typedef struct listener {
    cli *c;
    json_t *array; /* NULL: lines */
} listener;

static clsplat_status read_budget(cli *c, const char *given, double *seconds) {
    static const char *const names[] = {"quick", "normal", "full"};
    static const double budgets[] = {60, 600, INFINITY};
    for (size_t i = 0; given && i < sizeof names / sizeof *names; ++i)
        if (strcmp(given, names[i]) == 0) {
            *seconds = budgets[i];
            return CLSPLAT_OK;
        }
    clsplat_status status = cli_number(c, "--budget", given, seconds);
    if (status == CLSPLAT_OK && !(*seconds > 0))
        return cli_misuse(c, "--budget: `%s` is not above 0", given);
    return status;
}

static clsplat_status read_options(cli *c, const tune_options *given, clsplat_tune_options *o) {
    clsplat_status status = CLSPLAT_OK;
    int op = -1, dtype = CLSPLAT_F32;
    *o = clsplat_tune_options_defaults();
    example_shape shape = {.batch = o->batch,
                           .heads = o->heads,
                           .queries = o->queries,
                           .keys = o->keys,
                           .dim = o->dim,
                           .value_dim = o->value_dim,
                           .splats = o->splats};
    o->seconds = 600;
    TRY(bench_read_op(c, given->op, &op));
    TRY(cli_choice(c, "--dtype", given->dtype, bench_dtype_names, &dtype));
    TRY(read_budget(c, given->budget, &o->seconds));
    TRY(bench_read_shape(c, given->shape, &shape));
    o->op = op < 0 ? NULL : example_operations[op].name;
    o->dtype = (clsplat_dtype)dtype;
    o->batch = shape.batch;
    o->heads = shape.heads;
    o->queries = shape.queries;
    o->keys = shape.keys;
    o->dim = shape.dim;
    o->value_dim = shape.value_dim;
    o->splats = shape.splats;
fail:
    return status;
}

static void print_step(listener *l, const clsplat_tune_step *step) {
    progress_clear(&l->c->progress);
    if (l->c->json)
        l->array =
            json_push(l->array, json_pack("{s:s, s:s, s:o, s:o, s:I, s:I}", "op", step->op, "best",
                                          step->best, "seconds", report_number(step->best_seconds),
                                          "first_seconds", report_number(step->first_seconds), "tried",
                                          (json_int_t)step->tried, "rejected", (json_int_t)step->rejected));
    else
        printf("%-17s %-42s %9.3f ms, at first %.3f; %zu tried, %zu rejected\n", step->op, step->best,
               1e3 * step->best_seconds, 1e3 * step->first_seconds, step->tried, step->rejected);
    fflush(stdout);
}

static bool listen(void *user, const clsplat_tune_step *step) {
    listener *l = user;
    progress *p = &l->c->progress;
    snprintf(p->note, sizeof p->note, "%s: %s %.3f ms", step->op, step->best, 1e3 * step->best_seconds);
    if (!isfinite(step->best_seconds))
        snprintf(p->note, sizeof p->note, "%s", step->op);
    if (step->finished)
        print_step(l, step);
    return progress_step(p, step->done);
}

static clsplat_status search(cli *c, const tune_options *given) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    clsplat_tune_options options;
    listener l = {c, c->json ? json_array() : NULL};
    TRY(read_options(c, given, &options));
    options.progress = listen;
    options.progress_user = &l;
    c->interrupted = "interrupted; what was found until then is kept";
    progress_begin(&c->progress);
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(clsplat_tune(device, options));
    progress_clear(&c->progress);
    if (c->json)
        TRY(report_json(c, json_incref(l.array)));
fail:
    json_decref(l.array);
    clsplat_device_close(&device);
    return status;
}

static json_t *record_json(const tune_record *r) {
    return json_pack("{s:o, s:o, s:o, s:o, s:[I,I,I,I,I], s:o, s:o, s:o, s:o, s:o, s:b}", "op",
                     report_text(r->op), "variant", report_text(r->variant), "type",
                     report_text(r->shape.type), "form", report_text(r->shape.form), "shape",
                     (json_int_t)r->shape.heads, (json_int_t)r->shape.rows, (json_int_t)r->shape.sources,
                     (json_int_t)r->shape.dim, (json_int_t)r->shape.value_dim, "parameters",
                     report_text(r->parameters), "seconds", report_number(r->seconds), "error",
                     report_number(r->error), "device", report_text(r->on.device), "driver",
                     report_text(r->on.driver), "crashed", (int)isinf(r->seconds));
}

static void print_record(const tune_record *r) {
    char seconds[32] = "crashed";
    if (isfinite(r->seconds))
        snprintf(seconds, sizeof seconds, "%.3f ms", 1e3 * r->seconds);
    printf("%-8s %-10s %-4s %llu x %llu x %llu, %llu and %llu columns: %s %s, %s, error %.1e, on %s (%s)\n",
           r->op, r->shape.form, r->shape.type, (unsigned long long)r->shape.heads,
           (unsigned long long)r->shape.rows, (unsigned long long)r->shape.sources,
           (unsigned long long)r->shape.dim, (unsigned long long)r->shape.value_dim, r->variant,
           r->parameters, seconds, r->error, r->on.device, r->on.driver);
}

/* Those that calls look at: the library's and the user's. */
static clsplat_status show(cli *c) {
    clsplat_status status = CLSPLAT_OK;
    tune_database db = {0};
    json_t *array = c->json ? json_array() : NULL;
    TRY(op_records_load(c->lib, &db));
    for (size_t i = 0; i < db.count; ++i)
        if (c->json)
            array = json_push(array, record_json(&db.records[i]));
        else
            print_record(&db.records[i]);
    if (c->json)
        TRY(report_json(c, json_incref(array)));
fail:
    json_decref(array);
    tune_database_free(&db);
    return status;
}

static clsplat_status tune(cli *c, const tune_options *o) {
    clsplat_status status = CLSPLAT_OK;
    if (o->from)
        TRY(clsplat_tune_import(c->lib, o->from));
    if (o->to) {
        TRY(output_check(c->lib, o->to));
        TRY(clsplat_tune_export(c->lib, o->to));
    }
    if (o->show)
        TRY(show(c));
    if (!o->from && !o->to && !o->show)
        TRY(search(c, o));
fail:
    return status;
}

clsplat_status cmd_tune(cli *c, int argc, const char **argv) {
    tune_options o = {0};
    struct poptOption options[] = {
        {"op", 0, POPT_ARG_STRING, &o.op, 0,
         "what to tune: softmax, gaussian, gaussian-isotropic, gaussian-full, near-far, gemm, "
         "softmax-backward or near-far-backward; all of them if it is not given",
         "OP"},
        {"shape", 0, POPT_ARG_STRING, &o.shape, 0,
         "batch, heads, queries, keys, columns of a key and of a value, splats; 1,4,4096,4096,64,64,256 is "
         "the default",
         "B,H,N,M,D,Dv,S"},
        {"dtype", 0, POPT_ARG_STRING, &o.dtype, 0,
         "f32, f16 or bf16: how numbers are stored; f32 if it is not given", "TYPE"},
        {"budget", 0, POPT_ARG_STRING, &o.budget, 0,
         "how long to look: quick, normal, full or seconds; normal if it is not given", "BUDGET"},
        {"show", 0, POPT_ARG_NONE, &o.show, 0, "print the records there are; look for nothing", NULL},
        {"export", 0, POPT_ARG_STRING, &o.to, 0, "write the user's records to a file", "FILE"},
        {"import", 0, POPT_ARG_STRING, &o.from, 0, "take over records from a file", "FILE"},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "[OPTION...]", options, .arguments = 0};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = tune(c, &o);
    cli_free(options);
    return status;
}
