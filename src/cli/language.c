#include "cli/language.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/language_ranks.h"
#include "cli/report.h"

static const char *const methods[] = {
    [CLSPLAT_MODEL_EXACT] = "softmax",     [CLSPLAT_MODEL_WINDOW] = "window",
    [CLSPLAT_MODEL_NEAR_FAR] = "near-far", [CLSPLAT_MODEL_TOPK] = "topk",
    [CLSPLAT_MODEL_BLOCKS] = "blocks",     NULL};
static const char *const dtypes[] = {
    [CLSPLAT_F32] = "f32", [CLSPLAT_F16] = "f16", [CLSPLAT_BF16] = "bf16", NULL};

/* Which options go together. */
static clsplat_status read_attention(cli *c, const language_request *r, clsplat_model_attention *a) {
    clsplat_status status = CLSPLAT_OK;
    int method = CLSPLAT_MODEL_EXACT;
    uint64_t window = a->window, topk = a->sparse_topk, chunk = 0;
    TRY(cli_choice(c, "--attention", r->attention, methods, &method));
    TRY(cli_count(c, "--window", r->window, 1, &window));
    TRY(cli_tolerance(c, r->tolerance, &a->tolerance));
    TRY(cli_count(c, "--sparse-topk", r->sparse_topk, 0, &topk));
    TRY(cli_count(c, "--chunk", r->chunk, 1, &chunk));
    if (r->window && method != CLSPLAT_MODEL_WINDOW)
        return cli_misuse(c, "--window is for --attention window");
    if ((r->tolerance || r->chunk) && method != CLSPLAT_MODEL_NEAR_FAR)
        return cli_misuse(c, "%s is for --attention near-far", r->tolerance ? "--tolerance" : "--chunk");
    if (r->sparse_topk && method < CLSPLAT_MODEL_NEAR_FAR)
        return cli_misuse(c, "--sparse-topk is for --attention near-far, topk and blocks");
    if (!topk && method > CLSPLAT_MODEL_NEAR_FAR)
        return cli_misuse(c, "--attention %s needs --sparse-topk N: how many keys a query sees",
                          methods[method]);
    a->method = (clsplat_model_method)method;
    a->window = window;
    a->sparse_topk = topk;
    a->chunk = chunk;
fail:
    return status;
}

static clsplat_status read_adaptation(cli *c, const language_request *r, language *l) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t every = 0;
    TRY(cli_count(c, "--adapt", r->adapt, 0, &every));
    l->attention.adapt_every = r->adapt && every == 0 ? SIZE_MAX : every;
    if (!r->history)
        return CLSPLAT_OK;
    TRY(history_open(c->lib, r->history, NULL, false, &l->decisions));
    l->attention.adapt_listener = history_add;
    l->attention.adapt_user = &l->decisions;
fail:
    return status;
}

clsplat_status language_open(cli *c, const language_request *r, const char *folder, language *l) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_model_options options = clsplat_model_options_defaults();
    int dtype = CLSPLAT_F32;
    uint64_t context = 0;
    *l = (language){.c = c, .attention = clsplat_model_attention_defaults()};
    TRY(read_attention(c, r, &l->attention));
    TRY(cli_choice(c, "--dtype", r->dtype, dtypes, &dtype));
    TRY(cli_count(c, "--context", r->context, 2, &context));
    TRY(cli_size(c, "--memory", r->memory, &l->memory));
    options.activations = options.cache = (clsplat_dtype)dtype;
    options.context = context;
    options.progress = progress_step;
    options.progress_user = &c->progress;
    progress_begin(&c->progress);
    snprintf(c->progress.note, sizeof c->progress.note, "weights");
    if (r->shared && cli_ranks() > 1)
        TRY(language_ranks_begin(l));
    TRY(l->ranks ? language_ranks_device(l) : clsplat_device_open(c->lib, c->device, &l->device));
    TRY(language_meet(l, clsplat_model_open(l->device, folder, options, &l->model)));
    TRY(read_adaptation(c, r, l)); /* once nothing is left to refuse: it empties a file */
    progress_clear(&c->progress);
    c->progress.note[0] = '\0';
    l->info = clsplat_model_describe(l->model);
    l->context = context ? context : l->info->context;
    log_info(c->lib, "%s: %s, %.1f million parameters, %zu layers, %zu tokens of context", folder,
             l->info->family, 1e-6 * (double)l->info->parameters, l->info->layers, l->info->context);
fail:
    return status;
}

clsplat_status language_session(const language *l, size_t wanted, size_t least, clsplat_session **session,
                                uint64_t *bytes) {
    clsplat_status status = CLSPLAT_OK;
    char given[REPORT_BYTES], needed[REPORT_BYTES];
    uint64_t most = l->memory && l->info->token_bytes ? l->memory / l->info->token_bytes : wanted;
    size_t capacity = most < wanted ? (size_t)most : wanted;
    *bytes = least * l->info->token_bytes;
    while (capacity >= least) {
        uint64_t before = clsplat_device_memory(l->device).now;
        TRY(l->ranks ? language_ranks_session(l, capacity, session)
                     : clsplat_session_open(l->model, capacity, l->attention, session));
        *bytes = clsplat_device_memory(l->device).now - before;
        if (!l->memory || *bytes <= l->memory)
            return CLSPLAT_OK;
        clsplat_session_close(session);
        /* What a session has beside keys and values grows with it or stays: this never goes below what fits.
         */
        size_t next = (size_t)((double)capacity * (double)l->memory / (double)*bytes);
        capacity = next < capacity ? next : capacity - 1;
    }
    return log_error(l->c->lib, CLSPLAT_INVALID,
                     "--memory: %s is too little: %zu tokens take %s of it at least; allow more, shorten the "
                     "text, or store "
                     "keys and values in --dtype f16 or bf16",
                     report_bytes(l->memory, given), least, report_bytes(*bytes, needed));
fail:
    return status;
}

void language_close(language *l) {
    if (history_end(&l->decisions) != CLSPLAT_OK)
        log_warning(l->c->lib, "%s", clsplat_last_error(l->c->lib));
    history_close(&l->decisions);
    clsplat_model_close(&l->model);
    clsplat_device_close(&l->device);
    language_ranks_end(l);
}

clsplat_status language_meet(const language *l, clsplat_status status) {
    return l->ranks ? language_ranks_agree(l, status) : status;
}

clsplat_status language_alike(const language *l, clsplat_status status, language_tokens tokens) {
    status = language_meet(l, status);
    return l->ranks && status == CLSPLAT_OK ? language_ranks_alike(l, tokens) : status;
}

/* A launcher ends the others as soon as one has ended badly: the words come first. */
clsplat_status language_leave(const language *l, clsplat_status status) {
    if (!l->ranks)
        return status;
    status = language_meet(l, status);
    if (status != CLSPLAT_OK)
        cli_print_error(l->c, status);
    l->c->quiet = true;
    return status;
}

void language_free(language_tokens *tokens) {
    clsplat_model_free(tokens->list);
    *tokens = (language_tokens){0};
}

/* What the tokeniser puts around a text shows around an empty one. */
clsplat_status language_encode(const language *l, const char *words, size_t bytes, bool special,
                               language_tokens *tokens) {
    clsplat_status status = CLSPLAT_OK;
    language_tokens around = {0};
    *tokens = (language_tokens){0};
    TRY(clsplat_model_encode(l->model, words, bytes, special, &tokens->list, &tokens->count));
    if (!special)
        return CLSPLAT_OK;
    TRY(clsplat_model_encode(l->model, "", 0, true, &around.list, &around.count));
    size_t before = 0;
    while (before < around.count && before < tokens->count && around.list[before] == tokens->list[before])
        ++before;
    if (bytes > 0)
        tokens->count -= around.count - before;
fail:
    language_free(&around);
    return status;
}

clsplat_status language_feed(const language *l, clsplat_session *session, language_tokens tokens,
                             float *logits, language_span bar) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0, count; i < tokens.count; i += count) {
        count = tokens.count - i < LANGUAGE_PIECE ? tokens.count - i : LANGUAGE_PIECE;
        TRY(clsplat_session_feed(session, tokens.list + i, count,
                                 logits ? logits + i * l->info->vocabulary : NULL));
        TRY(clsplat_device_finish(l->device));
        double share = (double)(i + count) / (double)tokens.count;
        if (!progress_step(&l->c->progress, bar.begin + share * (bar.end - bar.begin)))
            return CLSPLAT_CANCELLED;
    }
fail:
    return status;
}

clsplat_status language_stream_add(const language *l, language_stream *s, int32_t token) {
    clsplat_status status = CLSPLAT_OK;
    char *words = NULL;
    size_t bytes = 0;
    TRY(clsplat_model_decode_next(l->model, s->previous, token, &words, &bytes));
    text_add_bytes(&s->held, words, bytes);
    s->previous = token;
    if (!text_ok(&s->held))
        TRY(log_error(l->c->lib, CLSPLAT_MEMORY, "there is no memory for the text"));
fail:
    clsplat_model_free(words);
    return status;
}

size_t language_stream_ready(const language_stream *s) {
    return s->held.length ? utf8_complete(s->held.data, s->held.length) : 0;
}

void language_stream_drop(language_stream *s, size_t bytes) {
    if (bytes == 0)
        return;
    memmove(s->held.data, s->held.data + bytes, s->held.length - bytes);
    s->held.length -= bytes;
    s->held.data[s->held.length] = '\0';
}

clsplat_status language_choose(cli *c, const language_choice *r, clsplat_sampling *sampling, size_t *tokens) {
    clsplat_status status = CLSPLAT_OK;
    bool draws = r->top_k || r->top_p || r->seed;
    double temperature = draws ? 1 : 0, top_p = 1;
    uint64_t top_k = 0, count = 256;
    *sampling = clsplat_sampling_defaults();
    c->raw = r->raw != 0;
    TRY(cli_number(c, "--temperature", r->temperature, &temperature));
    TRY(cli_number(c, "--top-p", r->top_p, &top_p));
    TRY(cli_count(c, "--top-k", r->top_k, 1, &top_k));
    TRY(cli_count(c, "--seed", r->seed, 0, &sampling->seed));
    TRY(cli_count(c, "--tokens", r->tokens, 1, &count));
    if (!((float)temperature >= 0))
        return cli_misuse(c, "--temperature: `%s` is below 0", r->temperature);
    if (!((float)top_p > 0 && (float)top_p <= 1))
        return cli_misuse(c, "--top-p: `%s` is not a probability above 0", r->top_p);
    if (draws && (float)temperature == 0)
        return cli_misuse(c, "--temperature 0 takes the most probable token; %s would do nothing",
                          r->top_k   ? "--top-k"
                          : r->top_p ? "--top-p"
                                     : "--seed");
    sampling->temperature = (float)temperature;
    sampling->top_p = (float)top_p;
    sampling->top_k = top_k;
    *tokens = count;
fail:
    return status;
}
