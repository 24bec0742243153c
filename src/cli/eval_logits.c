/* The logits after every one of given tokens, to be compared with another program's. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cli/eval.h"
#include "cli/eval_tokens.h"
#include "cli/report.h"

static clsplat_status feed_all(const language *l, clsplat_session *session, const int_tensor *ids,
                               float *logits, eval_cost *cost) {
    clsplat_status status = CLSPLAT_OK;
    double rows = (double)ids->rows;
    for (size_t b = 0; b < ids->rows; ++b) {
        language_tokens row = {ids->numbers + b * ids->columns, ids->columns};
        double begin = clock_seconds();
        TRY(clsplat_session_rewind(session, 0));
        TRY(language_feed(l, session, row, logits + b * ids->columns * l->info->vocabulary,
                          (language_span){(double)b / rows, (double)(b + 1) / rows}));
        TRY(eval_count(session, begin, cost));
    }
fail:
    return status;
}

/* −inf is a token that never comes; everything else that is no number is the end of a computation. */
static clsplat_status check(const language *l, const int_tensor *ids, const float *logits) {
    size_t vocabulary = l->info->vocabulary, all = ids->rows * ids->columns * vocabulary;
    for (size_t i = 0; i < all; ++i)
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return log_error(l->c->lib, CLSPLAT_NOT_FINITE,
                             "tensor 'logits' is not finite: %s at [%zu, %zu, %zu]; a weight of the model is "
                             "damaged, or --dtype "
                             "f16 is too narrow for it",
                             isnan(logits[i]) ? "NaN" : "infinite", i / vocabulary / ids->columns,
                             i / vocabulary % ids->columns, i % vocabulary);
    return CLSPLAT_OK;
}

static clsplat_status report(const language *l, const eval_cost *cost) {
    cli *c = l->c;
    progress_clear(&c->progress);
    if (c->json)
        return report_json(c, eval_json(l, cost, json_pack("{s:I}", "tokens", (json_int_t)cost->tokens)));
    if (c->verbose)
        eval_print(l, cost);
    return cli_flush(c);
}

clsplat_status eval_logits(const language *l, const char *path, const char *output) {
    clsplat_status status = CLSPLAT_OK;
    cli *c = l->c;
    safetensors *file = NULL;
    clsplat_session *session = NULL;
    int_tensor ids = {0};
    eval_cost cost = {0};
    float *logits = NULL;
    uint64_t numbers;
    TRY(safetensors_open(c->lib, path, &file));
    TRY(token_tensor_read(l, file, "input_ids", &ids));
    if (!__builtin_mul_overflow((uint64_t)ids.rows * ids.columns, l->info->vocabulary, &numbers) &&
        numbers <= SIZE_MAX / sizeof *logits)
        logits = malloc(numbers * sizeof *logits);
    if (!logits)
        TRY(log_error(c->lib, CLSPLAT_MEMORY,
                      "%s: there is no memory for tensor 'logits', [%zu, %zu, %zu] in F32", path, ids.rows,
                      ids.columns, l->info->vocabulary));
    TRY(clsplat_session_open(l->model, ids.columns, l->attention, &session));
    TRY(feed_all(l, session, &ids, logits, &cost));
    TRY(check(l, &ids, logits));
    TRY(report(l, &cost));
    TRY(safetensors_save(
        c->lib, output,
        &(safetensors_output){"logits", "F32", 3, {ids.rows, ids.columns, l->info->vocabulary}, logits}, 1,
        NULL, 0));
fail:
    clsplat_session_close(&session);
    free(logits);
    int_tensor_free(&ids);
    safetensors_close(&file);
    return status;
}
