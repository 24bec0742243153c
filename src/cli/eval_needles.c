/* Planted facts: how many answers are predicted in full. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/eval.h"
#include "cli/eval_tokens.h"
#include "cli/report.h"

enum { ANSWER = 5 }; /* tokens */

typedef struct recall {
    int_tensor tokens, answers; /* [B,T], [B,F] */
    bool *greedy;               /* [T − 1] */
    size_t recalled, of;
    eval_cost cost;
} recall;

static clsplat_status load(const language *l, const char *path, recall *r) {
    clsplat_status status = CLSPLAT_OK;
    cli *c = l->c;
    safetensors *file = NULL;
    TRY(safetensors_open(c->lib, path, &file));
    TRY(token_tensor_read(l, file, "tokens", &r->tokens));
    TRY(int_tensor_read(c->lib, file, "answers", r->tokens.columns, &r->answers));
    if (r->answers.rows != r->tokens.rows)
        TRY(log_error(c->lib, CLSPLAT_SHAPE, "%s: tensor 'answers' has %zu rows, but tensor 'tokens' has %zu",
                      path, r->answers.rows, r->tokens.rows));
    for (size_t i = 0; i < r->answers.rows * r->answers.columns; ++i) {
        int32_t at = r->answers.numbers[i];
        if (at < 1 || (size_t)at + ANSWER > r->tokens.columns)
            TRY(log_error(
                c->lib, CLSPLAT_INVALID,
                "%s: tensor 'answers' has %" PRId32 " at [%zu, %zu]; an answer of %d tokens begins at 1 "
                "to %zu - %d",
                path, at, i / r->answers.columns, i % r->answers.columns, ANSWER, r->tokens.columns, ANSWER));
    }
fail:
    safetensors_close(&file);
    return status;
}

/* greedy[i] tells of token i + 1. */
static bool is_recalled(const recall *r, int32_t at) {
    for (int32_t i = at; i < at + ANSWER; ++i)
        if (!r->greedy[i - 1])
            return false;
    return true;
}

static clsplat_status read_all(const language *l, clsplat_session *session, recall *r) {
    clsplat_status status = CLSPLAT_OK;
    double rows = (double)r->tokens.rows;
    for (size_t b = 0; b < r->tokens.rows; ++b) {
        language_tokens row = {r->tokens.numbers + b * r->tokens.columns, r->tokens.columns};
        TRY(eval_score(l, session, row, NULL, r->greedy,
                       (language_span){(double)b / rows, (double)(b + 1) / rows}, &r->cost));
        for (size_t f = 0; f < r->answers.columns; ++f, ++r->of)
            r->recalled += is_recalled(r, r->answers.numbers[b * r->answers.columns + f]);
        snprintf(l->c->progress.note, sizeof l->c->progress.note, "%zu of %zu recalled", r->recalled, r->of);
    }
fail:
    return status;
}

static clsplat_status report(const language *l, const recall *r) {
    cli *c = l->c;
    progress_clear(&c->progress);
    if (c->json)
        return report_json(c,
                           eval_json(l, &r->cost,
                                     json_pack("{s:I, s:I, s:I}", "recalled", (json_int_t)r->recalled, "of",
                                               (json_int_t)r->of, "tokens", (json_int_t)r->cost.tokens)));
    printf("%zu of %zu planted facts recalled, %zu texts of %zu tokens\n", r->recalled, r->of, r->tokens.rows,
           r->tokens.columns);
    eval_print(l, &r->cost);
    return cli_flush(c);
}

clsplat_status eval_needles(const language *l, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session *session = NULL;
    recall r = {0};
    TRY(load(l, path, &r));
    r.greedy = malloc(r.tokens.columns * sizeof *r.greedy);
    if (!r.greedy)
        TRY(log_error(l->c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", r.tokens.columns));
    TRY(clsplat_session_open(l->model, r.tokens.columns, l->attention, &session));
    TRY(read_all(l, session, &r));
    TRY(report(l, &r));
fail:
    clsplat_session_close(&session);
    free(r.greedy);
    int_tensor_free(&r.tokens);
    int_tensor_free(&r.answers);
    return status;
}
