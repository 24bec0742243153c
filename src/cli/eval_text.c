/* Bits per byte and perplexity of a text. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "cli/eval.h"
#include "cli/report.h"

enum { TEXT_LIMIT = 1 << 30 }; /* bytes */

/* The bytes of a window's tokens but the first. */
static clsplat_status count_bytes(const language *l, language_tokens window, size_t *bytes) {
    clsplat_status status = CLSPLAT_OK;
    char *first = NULL, *all = NULL;
    size_t first_bytes = 0, all_bytes = 0;
    TRY(clsplat_model_decode(l->model, window.list, 1, &first, &first_bytes));
    TRY(clsplat_model_decode(l->model, window.list, window.count, &all, &all_bytes));
    *bytes += all_bytes - first_bytes;
fail:
    clsplat_model_free(first);
    clsplat_model_free(all);
    return status;
}

static clsplat_status read_windows(const language *l, clsplat_session *session, language_span bar,
                                   float *log_likelihood, eval_reading *r) {
    clsplat_status status = CLSPLAT_OK;
    double scale = (bar.end - bar.begin) / (double)r->tokens.count;
    for (size_t i = 0; i + 1 < r->tokens.count; i += r->window) {
        size_t count = r->tokens.count - i < r->window ? r->tokens.count - i : r->window;
        language_tokens window = {r->tokens.list + i, count};
        language_span part = {bar.begin + scale * (double)i, bar.begin + scale * (double)(i + count)};
        TRY(eval_score(l, session, window, log_likelihood, NULL, part, &r->cost));
        for (size_t j = 0; j + 1 < count; ++j)
            r->nats -= (double)log_likelihood[j];
        r->scored += count - 1;
        TRY(count_bytes(l, window, &r->bytes));
        snprintf(l->c->progress.note, sizeof l->c->progress.note, "%.4f bits/byte", eval_reading_bits(r));
    }
    if (!isfinite(r->nats))
        return log_error(l->c->lib, CLSPLAT_INVALID, "%s: the model's logits are not finite", r->path);
fail:
    return status;
}

double eval_reading_bits(const eval_reading *r) {
    return r->bytes > 0 ? r->nats / M_LN2 / (double)r->bytes : 0;
}

clsplat_status eval_reading_begin(const language *l, const char *path, eval_reading *r) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    *r = (eval_reading){.path = path};
    status = file_load(l->c->lib, path, TEXT_LIMIT, &bytes, &count);
    if (status == CLSPLAT_OK)
        status = language_encode(l, bytes, count, false, &r->tokens);
    TRY(language_alike(l, status, r->tokens));
    if (r->tokens.count < 2)
        TRY(log_error(l->c->lib, CLSPLAT_INVALID,
                      "%s: has %zu tokens; the first of a window is not scored, so that it needs 2", path,
                      r->tokens.count));
    r->window = l->context < r->tokens.count ? l->context : r->tokens.count;
fail:
    free(bytes);
    return status;
}

clsplat_status eval_reading_run(const language *l, language_span bar, eval_reading *r) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session *session = NULL;
    float *log_likelihood = malloc(r->window * sizeof *log_likelihood);
    r->nats = 0;
    r->scored = r->bytes = 0;
    r->cost = (eval_cost){0};
    if (!log_likelihood)
        TRY(log_error(l->c->lib, CLSPLAT_MEMORY, "there is no memory for windows of %zu tokens", r->window));
    uint64_t bytes;
    TRY(language_session(l, r->window, r->window, &session, &bytes));
    TRY(read_windows(l, session, bar, log_likelihood, r));
    if (r->errors)
        TRY(clsplat_session_errors(session, r->errors));
fail:
    clsplat_session_close(&session);
    free(log_likelihood);
    return status;
}

void eval_reading_end(eval_reading *r) {
    language_free(&r->tokens);
    free(r->errors);
}

static clsplat_status report(const language *l, const eval_reading *r) {
    cli *c = l->c;
    double perplexity = fmin(exp(r->nats / (double)r->scored), DBL_MAX);
    progress_clear(&c->progress);
    if (l->silent)
        return CLSPLAT_OK;
    if (c->json)
        return report_json(
            c,
            eval_json(l, &r->cost,
                      json_pack("{s:o, s:o, s:I}", "bits_per_byte", report_number(eval_reading_bits(r)),
                                "perplexity", report_number(perplexity), "tokens", (json_int_t)r->scored)));
    printf("%.4f bits/byte, perplexity %.4g, over %zu tokens of %zu bytes in windows of %zu\n",
           eval_reading_bits(r), perplexity, r->scored, r->bytes, r->window);
    eval_print(l, &r->cost);
    return cli_flush(c);
}

clsplat_status eval_text(const language *l, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    eval_reading r;
    TRY(eval_reading_begin(l, path, &r));
    TRY(eval_reading_run(l, (language_span){0, 1}, &r));
    TRY(report(l, &r));
fail:
    eval_reading_end(&r);
    return status;
}
