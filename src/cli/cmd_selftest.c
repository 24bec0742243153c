/* clsplat selftest: what works on this device. */
#include <clsplat/device.h>
#include <math.h>
#include <stdio.h>

#include "cli/report.h"
#include "cli/selftest.h"

static const char summary[] =
    "Runs every variant of every operation on small problems and compares its results with those of the "
    "plain\n"
    "variant, which for exact attention is compared with the host. A wrong one fails; it can be left out by\n"
    "hand with `clsplat bench --variant`, and belongs into an issue with `clsplat devices --report`.";

typedef struct listener {
    cli *c;
    json_t *array; /* NULL: lines */
    size_t right, wrong;
} listener;

static void print_result(const selftest_result *r) {
    char error[32] = "the reference";
    if (isfinite(r->error))
        snprintf(error, sizeof error, "%.1e", r->error);
    printf("%-9s %-10s %-5s %-13s %-14s %s%.300s\n", r->op, r->problem, r->type, r->variant, error,
           r->why ? "WRONG: " : "right", r->why ? r->why : "");
}

static clsplat_status listen(void *user, const selftest_result *r) {
    listener *l = user;
    *(r->why ? &l->wrong : &l->right) += 1;
    progress_clear(&l->c->progress);
    if (l->array)
        l->array =
            json_push(l->array, json_pack("{s:s, s:s, s:s, s:s, s:o, s:f, s:b, s:o}", "op", r->op, "problem",
                                          r->problem, "type", r->type, "variant", r->variant, "error",
                                          report_number(r->error), "bound", r->bound, "right", r->why == NULL,
                                          "why", r->why ? report_text(r->why) : json_null()));
    else
        print_result(r);
    if (!progress_step(&l->c->progress, r->done))
        return log_error(l->c->lib, CLSPLAT_CANCELLED, "stopped by the user");
    return CLSPLAT_OK;
}

clsplat_status selftest_print(cli *c, clsplat_device *device, json_t **array) {
    clsplat_status status = CLSPLAT_OK;
    listener l = {.c = c, .array = array ? *array : NULL};
    progress_begin(&c->progress);
    status = selftest_run(device, listen, &l);
    progress_clear(&c->progress);
    if (array)
        *array = l.array;
    TRY(status);
    if (!array)
        printf("%zu right, %zu wrong\n", l.right, l.wrong);
    if (l.wrong)
        TRY(log_error(c->lib, CLSPLAT_UNSUPPORTED, "%zu of %zu variants do not work on %s", l.wrong,
                      l.right + l.wrong, clsplat_device_describe(device)->name));
fail:
    return status;
}

static clsplat_status selftest(cli *c) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    json_t *array = c->json ? json_array() : NULL;
    TRY(clsplat_device_open(c->lib, c->device, &device));
    status = selftest_print(c, device, c->json ? &array : NULL);
    if (c->json && (status == CLSPLAT_OK || status == CLSPLAT_UNSUPPORTED)) {
        clsplat_status printed = report_json(c, array);
        array = NULL;
        TRY(printed);
    }
fail:
    json_decref(array);
    clsplat_device_close(&device);
    return status;
}

clsplat_status cmd_selftest(cli *c, int argc, const char **argv) {
    struct poptOption options[] = {POPT_TABLEEND};
    cli_syntax syntax = {summary, "[OPTION...]", options, .arguments = 0};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = selftest(c);
    return status;
}
