/* clsplat generate: a text goes on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/utf8.h"
#include "cli/language.h"
#include "cli/report.h"
#include "cli/show.h"

enum { PROMPT_LIMIT = 1 << 28 }; /* bytes */

static const char summary[] = "Goes on with the prompt, as the model in a folder would: config.json, "
                              "model.safetensors or its shards, and\n"
                              "unless its vocabulary is the 256 bytes, tokenizer.json or tokenizer.model. "
                              "The text comes on standard output\n"
                              "as it is written; Ctrl-C keeps what is there.";

typedef struct generate_request {
    language_request model;
    language_choice choice;
    char *prompt, *file;
    int show;
    clsplat_sampling sampling;
    size_t tokens;
} generate_request;

/* What came out. */
typedef struct outcome {
    text words;              /* with --json */
    size_t prompt, tokens;   /* how many */
    double reading, writing; /* seconds */
    uint64_t session_bytes;
    const char *end; /* why it stopped: "end", "tokens", "context", "memory" or "interrupted" */
    bool interrupted;
    double *shares; /* --show: per cent of the keys that each token written took one by one; NULL: not asked
                       for */
    size_t shown;
} outcome;

static clsplat_status read_input(cli *c, text *prompt) {
    char bytes[4096];
    for (ssize_t got; (got = read(STDIN_FILENO, bytes, sizeof bytes)) != 0;) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return log_error(c->lib, CLSPLAT_IO, "standard input: cannot be read: %s", strerror(errno));
        text_add_bytes(prompt, bytes, (size_t)got);
        if (prompt->length > PROMPT_LIMIT)
            return log_error(c->lib, CLSPLAT_INVALID, "standard input: more than %d bytes", PROMPT_LIMIT);
    }
    return CLSPLAT_OK;
}

static clsplat_status read_prompt(cli *c, const generate_request *r, text *prompt) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    if (r->prompt && r->file)
        return cli_misuse(c, "--prompt and --file are two prompts; leave one of them away");
    if (r->prompt)
        text_add(prompt, "%s", r->prompt);
    else if (!r->file)
        return cli_misuse(c, "the prompt is missing: --prompt TEXT, or -f FILE (- is standard input)");
    else if (strcmp(r->file, "-") == 0)
        TRY(read_input(c, prompt));
    else
        TRY(file_load(c->lib, r->file, PROMPT_LIMIT, &bytes, &count));
    text_add_bytes(prompt, bytes ? bytes : "", count);
    if (!text_ok(prompt))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for the prompt"));
fail:
    free(bytes);
    return status;
}

static clsplat_status show(const language *l, language_stream *s, size_t bytes, outcome *o) {
    cli *c = l->c;
    if (c->json)
        text_add_bytes(&o->words, bytes ? s->held.data : "", bytes);
    else if (bytes > 0 && !l->silent)
        cli_show(c, s->held.data, bytes);
    language_stream_drop(s, bytes);
    return c->json ? CLSPLAT_OK : cli_flush(c);
}

/* What the last token took, of what all have taken. */
static clsplat_status note_keys(clsplat_session *session, clsplat_session_statistics *before, outcome *o) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session_statistics now;
    TRY(clsplat_session_statistics_read(session, &now));
    double visible = now.visible_keys - before->visible_keys;
    if (before->tokens > 0 && visible > 0)
        o->shares[o->shown++] = 100 * (now.exact_keys - before->exact_keys) / visible;
    *before = now;
fail:
    return status;
}

/* From the prompt's last logits on. */
static clsplat_status write_on(const language *l, clsplat_session *session, language_stream stream,
                               clsplat_sampling sampling, size_t tokens, outcome *o) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session_statistics before = {0};
    double begin = clock_seconds();
    if (o->shares)
        TRY(note_keys(session, &before, o));
    o->end = "tokens";
    for (o->tokens = 0; o->tokens < tokens;) {
        int32_t token;
        TRY(clsplat_session_sample(session, sampling, &token));
        ++o->tokens;
        if (clsplat_model_is_end(l->model, token)) {
            o->end = "end";
            break;
        }
        TRY(language_stream_add(l, &stream, token));
        TRY(show(l, &stream, language_stream_ready(&stream), o));
        if (progress_stopped(&l->c->progress)) {
            o->end = "interrupted";
            o->interrupted = true;
            break;
        }
        if (o->tokens < tokens)
            TRY(clsplat_session_feed(session, &token, 1, NULL));
        if (o->shares && o->tokens < tokens)
            TRY(note_keys(session, &before, o));
    }
    TRY(show(l, &stream, stream.held.length, o));
fail:
    o->writing = clock_seconds() - begin;
    text_free(&stream.held);
    return status;
}

static double rate(size_t tokens, double seconds) {
    return seconds > 0 ? (double)tokens / seconds : 0;
}

static void print_shares(const outcome *o) {
    text line = {0};
    if (o->shares)
        show_line(&line, "keys one by one", o->shares, o->shown, " %");
    if (line.data && text_ok(&line))
        fputs(line.data, stderr);
    text_free(&line);
}

static clsplat_status report(cli *c, const language *l, const outcome *o) {
    const char *device = clsplat_device_describe(l->device)->name;
    if (l->silent)
        return CLSPLAT_OK;
    if (!c->json) {
        fprintf(stderr, "\n%zu tokens read, %.1f a second; %zu written, %.1f a second; %s\n", o->prompt,
                rate(o->prompt, o->reading), o->tokens, rate(o->tokens, o->writing), device);
        print_shares(o);
        return CLSPLAT_OK;
    }
    json_t *json = json_pack(
        "{s:o, s:s, s:I, s:f, s:I, s:f, s:I, s:I, s:o}", "text", report_words(o->words.data, o->words.length),
        "end", o->end, "prompt_tokens", (json_int_t)o->prompt, "prompt_tokens_per_second",
        rate(o->prompt, o->reading), "tokens", (json_int_t)o->tokens, "tokens_per_second",
        rate(o->tokens, o->writing), "session_bytes", (json_int_t)o->session_bytes, "peak_bytes",
        (json_int_t)clsplat_device_memory(l->device).peak, "device", report_text(device));
    return report_json(c, json);
}

static clsplat_status go_on(const language *l, language_tokens prompt, const generate_request *r,
                            outcome *o) {
    clsplat_status status = CLSPLAT_OK;
    cli *c = l->c;
    clsplat_session *session = NULL;
    if (prompt.count == 0)
        return log_error(c->lib, CLSPLAT_INVALID,
                         "the prompt is empty, and this model has no token to begin with");
    if (prompt.count >= l->context)
        return log_error(
            c->lib, CLSPLAT_INVALID,
            "the prompt has %zu tokens, and the context %zu: shorten it, or ask for a longer --context",
            prompt.count, l->context);
    size_t room = l->context - prompt.count, tokens = r->tokens < room ? r->tokens : room;
    TRY(language_session(l, prompt.count + tokens, prompt.count + 1, &session, &o->session_bytes));
    bool short_of_memory = clsplat_session_capacity(session) < prompt.count + tokens;
    tokens = clsplat_session_capacity(session) - prompt.count;
    if (r->show && !(o->shares = calloc(tokens + 1, sizeof *o->shares)))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "--show: there is no memory for %zu tokens", tokens));
    double begin = clock_seconds();
    TRY(language_feed(l, session, prompt, NULL, (language_span){0, 1}));
    o->reading = clock_seconds() - begin;
    o->prompt = prompt.count;
    progress_clear(&c->progress);
    TRY(write_on(l, session, (language_stream){.previous = prompt.list[prompt.count - 1]}, r->sampling,
                 tokens, o));
    if (o->tokens == tokens && tokens < r->tokens && !o->interrupted && strcmp(o->end, "tokens") == 0)
        o->end = short_of_memory ? "memory" : "context";
    if (strcmp(o->end, "memory") == 0 && !c->json && !l->silent)
        fprintf(stderr, "\nthe text ends here: --memory %s holds no more than %zu tokens", r->model.memory,
                clsplat_session_capacity(session));
fail:
    clsplat_session_close(&session);
    return status;
}

static clsplat_status generate(cli *c, generate_request *r) {
    clsplat_status status = CLSPLAT_OK;
    language l = {0};
    language_tokens tokens = {0};
    outcome o = {0};
    text prompt = {0};
    c->interrupted = "interrupted while the prompt was read";
    TRY(language_choose(c, &r->choice, &r->sampling, &r->tokens));
    TRY(read_prompt(c, r, &prompt));
    r->model.shared = true;
    TRY(language_open(c, &r->model, c->arguments[0], &l));
    status = language_encode(&l, prompt.data ? prompt.data : "", prompt.length, true, &tokens);
    TRY(language_alike(&l, status, tokens));
    TRY(go_on(&l, tokens, r, &o));
    TRY(report(c, &l, &o));
    c->interrupted = "interrupted; the text so far stays";
    if (o.interrupted)
        status = CLSPLAT_CANCELLED;
fail:
    status = language_leave(&l, status);
    free(o.shares);
    text_free(&o.words);
    language_free(&tokens);
    language_close(&l);
    text_free(&prompt);
    return status;
}

clsplat_status cmd_generate(cli *c, int argc, const char **argv) {
    generate_request r = {0};
    struct poptOption choice[] = {LANGUAGE_CHOICE_OPTIONS(r.choice), POPT_TABLEEND};
    struct poptOption attention[] = {LANGUAGE_ATTENTION_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption model[] = {LANGUAGE_MODEL_OPTIONS(r.model), LANGUAGE_MEMORY_OPTION(r.model),
                                 POPT_TABLEEND};
    struct poptOption options[] = {
        {"prompt", 'p', POPT_ARG_STRING, &r.prompt, 0, "the text to go on with", "TEXT"},
        {"file", 'f', POPT_ARG_STRING, &r.file, 0, "the file with that text; - is standard input", "FILE"},
        {"show", 0, POPT_ARG_NONE, &r.show, 0,
         "at the end print how many keys each token took one by one, as a line of blocks, on standard error",
         NULL},
        CLI_GROUP(LANGUAGE_CHOICE, choice),
        CLI_GROUP(LANGUAGE_ATTENTION, attention),
        CLI_GROUP(LANGUAGE_MODEL, model),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL --prompt TEXT [OPTION...]", options, .arguments = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = generate(c, &r);
    cli_free(options);
    return status;
}
