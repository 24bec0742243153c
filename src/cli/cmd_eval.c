/* clsplat eval: how well a language model predicts what it reads. */
#include "cli/eval.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/output.h"
#include "cli/report.h"

static const char summary[] =
    "Reads FILE in windows of --context tokens, each for itself, and says how many bits a byte of it costs "
    "and the\n"
    "perplexity of its tokens; the first token of a window is not scored. With --needles, the planted facts "
    "in a\n"
    "tensor file that are recalled in full; with --tokens and --logits, the logits after given tokens.";

clsplat_status eval_count(clsplat_session *session, double begin, eval_cost *cost) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session_statistics statistics;
    cost->seconds += clock_seconds() - begin;
    TRY(clsplat_session_statistics_read(session, &statistics));
    cost->tokens += statistics.tokens;
    cost->exact += statistics.exact_keys;
    cost->visible += statistics.visible_keys;
fail:
    return status;
}

clsplat_status eval_score(const language *l, clsplat_session *session, language_tokens tokens,
                          float *log_likelihood, bool *greedy, language_span bar, eval_cost *cost) {
    clsplat_status status = CLSPLAT_OK;
    double begin = clock_seconds();
    TRY(clsplat_session_rewind(session, 0));
    for (size_t i = 0, count; i + 1 < tokens.count; i += count) {
        count = tokens.count - 1 - i < LANGUAGE_PIECE ? tokens.count - 1 - i : LANGUAGE_PIECE;
        TRY(clsplat_session_score(session, tokens.list + i, tokens.list + i + 1, count,
                                  log_likelihood ? log_likelihood + i : NULL, greedy ? greedy + i : NULL));
        double share = (double)(i + count) / (double)(tokens.count - 1);
        if (!progress_step(&l->c->progress, bar.begin + share * (bar.end - bar.begin)))
            return CLSPLAT_CANCELLED;
    }
    TRY(eval_count(session, begin, cost));
fail:
    return status;
}

double eval_share(const eval_cost *cost) {
    return cost->visible > 0 ? cost->exact / cost->visible : 1;
}

static double rate_of(const eval_cost *cost) {
    return cost->seconds > 0 ? (double)cost->tokens / cost->seconds : 0;
}

json_t *eval_json(const language *l, const eval_cost *cost, json_t *report) {
    report = json_put(report, "tokens_per_second", report_number(rate_of(cost)));
    report = json_put(report, "exact_keys_share", report_number(eval_share(cost)));
    report = json_put(report, "peak_bytes", json_integer((json_int_t)clsplat_device_memory(l->device).peak));
    return json_put(report, "device", report_text(clsplat_device_describe(l->device)->name));
}

void eval_print(const language *l, const eval_cost *cost) {
    char memory[REPORT_BYTES];
    printf("%.1f tokens a second, %.1f %% of the keys exactly, %s of device memory at most; %s\n",
           rate_of(cost), 100 * eval_share(cost), report_bytes(clsplat_device_memory(l->device).peak, memory),
           clsplat_device_describe(l->device)->name);
}

typedef struct eval_request {
    language_request model;
    char *needles, *tokens, *logits, *fill;
    int compare;
} eval_request;

/* One of the four things to do. */
static clsplat_status check_request(cli *c, const eval_request *r) {
    if ((c->arguments[1] != NULL) + (r->needles != NULL) + (r->tokens != NULL) + (r->fill != NULL) != 1)
        return cli_misuse(
            c, "what to read is missing or too much: FILE, --needles FILE, --tokens FILE or --fill TEXT");
    if ((r->tokens != NULL) != (r->logits != NULL))
        return cli_misuse(c, "--tokens IN.safetensors and --logits OUT.safetensors go together");
    if (r->compare && !c->arguments[1])
        return cli_misuse(c, "--compare reads a text: name a FILE");
    if (cli_ranks() > 1 && (!c->arguments[1] || r->compare))
        return cli_misuse(c, "over several ranks a text is read, and nothing compared: name a FILE, or leave "
                             "mpirun away");
    if (r->compare && r->model.attention && strcmp(r->model.attention, "near-far") != 0)
        return cli_misuse(c, "--compare takes every attention in turn; leave --attention away");
    return CLSPLAT_OK;
}

static clsplat_status eval(cli *c, eval_request *r) {
    clsplat_status status = CLSPLAT_OK;
    language l = {0};
    c->interrupted = r->logits ? NULL : "interrupted";
    TRY(check_request(c, r));
    if (r->logits)
        TRY(output_check(c->lib, r->logits));
    if (r->compare && !r->model.attention)
        r->model.attention = strdup("near-far");
    r->model.shared = c->arguments[1] && !r->compare;
    TRY(language_open(c, &r->model, c->arguments[0], &l));
    if (r->needles)
        TRY(eval_needles(&l, r->needles));
    else if (r->tokens)
        TRY(eval_logits(&l, r->tokens, r->logits));
    else if (r->fill)
        TRY(eval_fill(&l, r->fill));
    else if (r->compare)
        TRY(eval_compare(&l, c->arguments[1]));
    else
        TRY(eval_text(&l, c->arguments[1]));
fail:
    status = language_leave(&l, status);
    language_close(&l);
    return status;
}

clsplat_status cmd_eval(cli *c, int argc, const char **argv) {
    eval_request r = {0};
    struct poptOption attention[] = {LANGUAGE_ATTENTION_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption model[] = {LANGUAGE_MODEL_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption options[] = {
        {"needles", 0, POPT_ARG_STRING, &r.needles, 0,
         "tensors tokens [B,T] and answers [B,F], where the five tokens of each planted fact begin", "FILE"},
        {"tokens", 0, POPT_ARG_STRING, &r.tokens, 0, "a tensor input_ids [B,T], I32", "FILE"},
        {"logits", 0, POPT_ARG_STRING, &r.logits, 0, "where logits [B,T,V] go, F32", "OUT"},
        {"fill", 0, POPT_ARG_STRING, &r.fill, 0, "what an encoder would put for each mask in this text",
         "TEXT"},
        {"compare", 0, POPT_ARG_NONE, &r.compare, 0,
         "near-far beside exact attention, a window, the keys of the largest scores, and blocks of them, "
         "with "
         "as many keys; and the error of every layer",
         NULL},
        CLI_GROUP(LANGUAGE_ATTENTION, attention),
        CLI_GROUP(LANGUAGE_MODEL, model),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL FILE [OPTION...]", options, .arguments = 1, .optional = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = eval(c, &r);
    cli_free(options);
    return status;
}
