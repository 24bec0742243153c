/* Bits per byte and perplexity of a text. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "cli/eval.h"
#include "cli/report.h"

enum { TEXT_LIMIT = 1 << 30 }; /* bytes */

typedef struct reading {
    const char *path;
    language_tokens tokens;
    size_t window;
    double nats;           /* of all scored tokens */
    size_t scored, bytes;  /* how many, and the bytes they stand for */
    float *log_likelihood; /* [window] */
    eval_cost cost;
} reading;

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

static clsplat_status read_windows(const language *l, clsplat_session *session, reading *r) {
    clsplat_status status = CLSPLAT_OK;
    double all = (double)r->tokens.count;
    for (size_t i = 0; i + 1 < r->tokens.count; i += r->window) {
        size_t count = r->tokens.count - i < r->window ? r->tokens.count - i : r->window;
        language_tokens window = {r->tokens.list + i, count};
        TRY(eval_score(l, session, window, r->log_likelihood, NULL,
                       (language_span){(double)i / all, (double)(i + count) / all}, &r->cost));
        for (size_t j = 0; j + 1 < count; ++j)
            r->nats -= (double)r->log_likelihood[j];
        r->scored += count - 1;
        TRY(count_bytes(l, window, &r->bytes));
        snprintf(l->c->progress.note, sizeof l->c->progress.note, "%.4f bits/byte",
                 r->nats / M_LN2 / (double)r->bytes);
    }
fail:
    return status;
}

static clsplat_status report(const language *l, const reading *r) {
    cli *c = l->c;
    double bits = r->bytes > 0 ? r->nats / M_LN2 / (double)r->bytes : 0;
    double perplexity = fmin(exp(r->nats / (double)r->scored), DBL_MAX);
    if (!isfinite(r->nats))
        return log_error(c->lib, CLSPLAT_INVALID, "%s: the model's logits are not finite", r->path);
    progress_clear(&c->progress);
    if (c->json)
        return report_json(c, eval_json(l, &r->cost,
                                        json_pack("{s:f, s:f, s:I}", "bits_per_byte", bits, "perplexity",
                                                  perplexity, "tokens", (json_int_t)r->scored)));
    printf("%.4f bits/byte, perplexity %.4g, over %zu tokens of %zu bytes in windows of %zu\n", bits,
           perplexity, r->scored, r->bytes, r->window);
    eval_print(l, &r->cost);
    return cli_flush(c);
}

clsplat_status eval_text(const language *l, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session *session = NULL;
    reading r = {.path = path};
    char *bytes = NULL;
    size_t count = 0;
    TRY(file_load(l->c->lib, path, TEXT_LIMIT, &bytes, &count));
    TRY(language_encode(l, bytes, count, false, &r.tokens));
    if (r.tokens.count < 2)
        TRY(log_error(l->c->lib, CLSPLAT_INVALID,
                      "%s: has %zu tokens; the first of a window is not scored, so that it needs 2", path,
                      r.tokens.count));
    r.window = l->context < r.tokens.count ? l->context : r.tokens.count;
    r.log_likelihood = malloc(r.window * sizeof *r.log_likelihood);
    if (!r.log_likelihood)
        TRY(log_error(l->c->lib, CLSPLAT_MEMORY, "there is no memory for windows of %zu tokens", r.window));
    TRY(clsplat_session_open(l->model, r.window, l->attention, &session));
    TRY(read_windows(l, session, &r));
    TRY(report(l, &r));
fail:
    clsplat_session_close(&session);
    free(r.log_likelihood);
    language_free(&r.tokens);
    free(bytes);
    return status;
}
