/* clsplat chat: a conversation with a language model. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/chat.h"
#include "cli/report.h"

static const char summary[] = "Answers line by line; every line of standard input is a turn, and its end "
                              "ends the conversation. Ctrl-C\n"
                              "ends an answer, and at the prompt the program.";

/* Tokens of a conversation: at most, unless more is asked for, and at least. */
enum { CONTEXT = 8192, LEAST = 16 };

static bool is_white(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What somebody says next, without the white space around it, in *line. */
typedef struct said {
    char *line;
    size_t room;
    const char *words; /* NULL: that was all */
    size_t bytes;
} said;

static clsplat_status ask(chat *h, said *s) {
    bool person = isatty(STDIN_FILENO) != 0;
    for (s->bytes = 0; s->bytes == 0;) {
        if (person) {
            fputs("> ", stderr);
            fflush(stderr);
        }
        progress_listen(&h->c->progress, true);
        errno = 0;
        ssize_t length = getline(&s->line, &s->room, stdin);
        progress_listen(&h->c->progress, false);
        s->words = NULL;
        if (length < 0 && !feof(stdin) && errno != EINTR)
            return log_error(h->c->lib, errno == ENOMEM ? CLSPLAT_MEMORY : CLSPLAT_IO,
                             "standard input: cannot be read: %s", strerror(errno));
        if (length < 0)
            return CLSPLAT_OK;
        s->words = s->line;
        for (s->bytes = (size_t)length; s->bytes > 0 && is_white(s->words[0]); --s->bytes)
            ++s->words;
        while (s->bytes > 0 && is_white(s->words[s->bytes - 1]))
            --s->bytes;
    }
    return CLSPLAT_OK;
}

/* Brings the session to the end of the conversation: only what differs from what it has read is read anew. */
static clsplat_status catch_up(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    language_tokens all = {0};
    size_t same = 0;
    TRY(chat_tokens(h, &all));
    while (same < h->read_count && same + 1 < all.count && h->read[same] == all.list[same])
        ++same;
    if (same < clsplat_session_reach(h->session))
        same = 0;
    h->c->progress.started = clock_seconds(); /* not with what the answers took */
    TRY(clsplat_session_rewind(h->session, same));
    h->read_count = same;
    TRY(language_feed(h->l, h->session, (language_tokens){all.list + same, all.count - same}, NULL,
                      (language_span){0, 1}));
    memcpy(h->read + same, all.list + same, (all.count - same) * sizeof *h->read);
    h->read_count = all.count;
    progress_clear(&h->c->progress);
fail:
    language_free(&all);
    return status;
}

/* How much of what is held can be shown: nothing that may be the beginning of the text that ends an answer.
 * *over: it is there. */
static size_t shown_of(const chat *h, const language_stream *s, bool *over) {
    const char *stop = h->stop_token >= 0 ? NULL : h->template->stop;
    const char *found =
        stop && s->held.data ? memmem(s->held.data, s->held.length, stop, strlen(stop)) : NULL;
    size_t ready = language_stream_ready(s), most = stop ? strlen(stop) - 1 : 0;
    *over = found != NULL;
    if (found)
        return (size_t)(found - s->held.data);
    for (size_t tail = most < ready ? most : ready; tail > 0; --tail)
        if (memcmp(s->held.data + ready - tail, stop, tail) == 0)
            return ready - tail;
    return ready;
}

static clsplat_status show(chat *h, language_stream *s, size_t bytes) {
    text_add_bytes(&h->words, s->held.data ? s->held.data : "", bytes);
    if (!h->c->json && bytes > 0)
        cli_show(h->c, s->held.data, bytes);
    language_stream_drop(s, bytes);
    return h->c->json ? CLSPLAT_OK : cli_flush(h->c);
}

static clsplat_status answer(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    language_stream stream = {.previous = h->read[h->read_count - 1]};
    bool over = false;
    double begin = clock_seconds();
    size_t first = h->written;
    while (!over && h->written - first < h->r->tokens) {
        int32_t token;
        TRY(clsplat_session_sample(h->session, h->r->sampling, &token));
        ++h->written;
        if (clsplat_model_is_end(h->l->model, token) || token == h->stop_token)
            break;
        TRY(language_stream_add(h->l, &stream, token));
        TRY(show(h, &stream, shown_of(h, &stream, &over)));
        if (h->read_count == clsplat_session_capacity(h->session)) {
            fprintf(stderr, "\nclsplat chat: the answer ends here: there is room for %zu tokens\n",
                    h->read_count);
            break;
        }
        TRY(clsplat_session_feed(h->session, &token, 1, NULL));
        h->read[h->read_count++] = token;
        if (progress_stopped(&h->c->progress))
            break;
    }
    TRY(show(h, &stream, over ? 0 : stream.held.length));
fail:
    h->seconds += clock_seconds() - begin;
    text_free(&stream.held);
    return status;
}

static clsplat_status report_turn(chat *h, const said *s) {
    json_t *turn = json_pack("{s:o, s:o}", "user", report_words(s->words, s->bytes), "assistant",
                             report_words(h->words.data + h->answer, h->words.length - h->answer));
    h->report = json_push(h->report, turn);
    return h->report ? CLSPLAT_OK
                     : log_error(h->c->lib, CLSPLAT_MEMORY, "there is no memory for the report of a turn");
}

/* One line and its answer. A turn that fails is reported as far as it came. */
static clsplat_status take_turn(chat *h, const said *s) {
    clsplat_status status = CLSPLAT_OK;
    TRY(chat_add_user(h, s->words, s->bytes));
    h->answer = h->words.length;
    status = catch_up(h);
    h->answer = h->words.length; /* it may have forgotten turns */
    if (status == CLSPLAT_OK)
        status = answer(h);
    if (h->c->json && status == CLSPLAT_OK)
        status = report_turn(h, s);
    else if (h->c->json)
        report_turn(h, s);
    else
        puts("");
    text_add(&h->words, "%s", h->template->assistant.after);
    int number = progress_take(&h->c->progress);
    if (status == CLSPLAT_OK && (number == SIGTERM || (number && !isatty(STDIN_FILENO))))
        status = CLSPLAT_CANCELLED;
fail:
    return status;
}

static clsplat_status converse(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    said s = {0};
    TRY(chat_begin_words(h));
    for (;;) {
        TRY(ask(h, &s));
        if (!s.words)
            break;
        TRY(take_turn(h, &s));
    }
fail:
    free(s.line);
    return status;
}

static clsplat_status report(chat *h) {
    double rate = h->seconds > 0 ? (double)h->written / h->seconds : 0;
    const char *device = clsplat_device_describe(h->l->device)->name;
    if (h->c->json)
        return report_json(h->c, json_pack("{s:s, s:O, s:I, s:f, s:I, s:I, s:I, s:o}", "template",
                                           h->template->name, "turns", h->report, "tokens",
                                           (json_int_t)h->written, "tokens_per_second", rate,
                                           "forgotten_turns", (json_int_t)h->forgotten, "session_tokens",
                                           (json_int_t)clsplat_session_capacity(h->session), "session_bytes",
                                           (json_int_t)h->session_bytes, "device", report_text(device)));
    fprintf(stderr, "%zu tokens written, %.1f a second; %s\n", h->written, rate, device);
    return cli_flush(h->c);
}

static clsplat_status begin(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    size_t made_for = h->l->context;
    bool asked = h->r->model.context || h->r->model.memory;
    h->stop_token = -1;
    TRY(chat_template_choose(h->l, h->r->template, &h->template));
    if (h->template->needs[0])
        TRY(chat_token(h->l, h->template->stop, &h->stop_token));
    TRY(language_session(h->l, asked || made_for < CONTEXT ? made_for : CONTEXT,
                         made_for < LEAST ? made_for : LEAST, &h->session, &h->session_bytes));
    h->read = malloc(clsplat_session_capacity(h->session) * sizeof *h->read);
    h->report = json_array();
    if (!h->read || !h->report)
        TRY(log_error(h->c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens",
                      clsplat_session_capacity(h->session)));
fail:
    return status;
}

/* After a failure the turns that were taken are reported, too. */
static clsplat_status run(cli *c, chat_request *r) {
    clsplat_status status = CLSPLAT_OK;
    language l = {0};
    chat h = {.c = c, .l = &l, .r = r};
    c->interrupted = "interrupted";
    TRY(language_choose(c, &r->choice, &r->sampling, &r->tokens));
    TRY(language_open(c, &r->model, c->arguments[0], &l));
    TRY(begin(&h));
    status = converse(&h);
    if (status == CLSPLAT_OK)
        TRY(report(&h));
    else if (c->json && h.report && json_array_size(h.report) > 0)
        report(&h);
fail:
    clsplat_session_close(&h.session);
    json_decref(h.report);
    chat_free_words(&h);
    free(h.read);
    language_close(&l);
    return status;
}

clsplat_status cmd_chat(cli *c, int argc, const char **argv) {
    chat_request r = {0};
    struct poptOption choice[] = {LANGUAGE_CHOICE_OPTIONS(r.choice), POPT_TABLEEND};
    struct poptOption attention[] = {LANGUAGE_ATTENTION_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption model[] = {LANGUAGE_MODEL_OPTIONS(r.model), LANGUAGE_MEMORY_OPTION(r.model),
                                 POPT_TABLEEND};
    struct poptOption options[] = {
        {"system", 's', POPT_ARG_STRING, &r.system, 0, "what the model is told before the conversation",
         "TEXT"},
        {"template", 0, POPT_ARG_STRING, &r.template, 0,
         "chatml, gemma, llama2, llama3, mistral, phi3, zephyr or plain: how turns are written; as the "
         "model's "
         "own template if it is not given",
         "NAME"},
        CLI_GROUP(LANGUAGE_CHOICE, choice),
        CLI_GROUP(LANGUAGE_ATTENTION, attention),
        CLI_GROUP(LANGUAGE_MODEL, model),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL [OPTION...]", options, .arguments = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = run(c, &r);
    cli_free(options);
    return status;
}
