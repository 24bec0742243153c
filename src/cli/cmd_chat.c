/* clsplat chat: a conversation with a language model. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "cli/chat_template.h"
#include "cli/report.h"

static const char summary[] = "Answers line by line; every line of standard input is a turn, and its end "
                              "ends the conversation. Ctrl-C\n"
                              "ends an answer, and at the prompt the program.";

enum { CONTEXT = 8192 }; /* at most, unless more is asked for */

typedef struct chat_request {
    language_request model;
    language_choice choice;
    char *system, *template;
    clsplat_sampling sampling;
    size_t tokens;
} chat_request;

typedef struct chat {
    cli *c;
    const language *l;
    const chat_request *r;
    const chat_template *template;
    int32_t stop_token;
    clsplat_session *session;
    size_t capacity;
    int32_t *read; /* [capacity] what the session has read */
    size_t read_count;
    text words;    /* the whole conversation */
    size_t answer; /* where in it the last answer begins */
    json_t *turns; /* with --json */
    size_t written;
    double seconds;
} chat;

static void add_turn(chat *h, chat_turn turn, const char *words) {
    text_add(&h->words, "%s%s%s", turn.before, words, turn.after);
}

/* The next thing somebody says, without the white space around it. NULL at the end. */
static char *ask(chat *h, char **line, size_t *room) {
    bool person = isatty(STDIN_FILENO) != 0;
    for (;;) {
        if (person)
            fputs("> ", stderr);
        progress_listen(&h->c->progress, true);
        ssize_t length = getline(line, room, stdin);
        progress_listen(&h->c->progress, false);
        if (length < 0)
            return NULL;
        char *words = *line + strspn(*line, " \t\r\n");
        size_t end = strlen(words);
        while (end > 0 && strchr(" \t\r\n", words[end - 1]))
            --end;
        words[end] = '\0';
        if (end > 0)
            return words;
    }
}

/* Brings the session to the end of the conversation: only what differs from what it has read is read anew. */
static clsplat_status catch_up(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    language_tokens all = {0};
    size_t same = 0;
    TRY(language_encode(h->l, h->words.data, h->words.length, true, &all));
    while (same < h->read_count && same + 1 < all.count && h->read[same] == all.list[same])
        ++same;
    if (all.count >= h->capacity)
        TRY(log_error(
            h->c->lib, CLSPLAT_INVALID,
            "the conversation has %zu tokens, and the context %zu: begin anew, or with a longer --context",
            all.count, h->capacity));
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
    const char *found = stop && s->held.data ? strstr(s->held.data, stop) : NULL;
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
        fwrite(s->held.data, 1, bytes, stdout);
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
        if (clsplat_model_is_end(h->l->model, token) || token == h->stop_token ||
            h->read_count == h->capacity)
            break;
        TRY(language_stream_add(h->l, &stream, token));
        TRY(show(h, &stream, shown_of(h, &stream, &over)));
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

/* One line and its answer. */
static clsplat_status take_turn(chat *h, const char *words) {
    clsplat_status status = CLSPLAT_OK;
    add_turn(h, h->template->user, words);
    text_add(&h->words, "%s", h->template->assistant.before);
    if (!text_ok(&h->words))
        TRY(log_error(h->c->lib, CLSPLAT_MEMORY, "there is no memory for the conversation"));
    TRY(catch_up(h));
    h->answer = h->words.length;
    TRY(answer(h));
    if (h->c->json) {
        text mended = {0};
        utf8_add_mended(&mended, h->words.data + h->answer, h->words.length - h->answer);
        json_array_append_new(h->turns, json_pack("{s:s, s:s}", "user", words, "assistant", mended.data));
        text_free(&mended);
    } else {
        puts("");
    }
    text_add(&h->words, "%s", h->template->assistant.after);
    int number = progress_take(&h->c->progress);
    if (number == SIGTERM || (number && !isatty(STDIN_FILENO)))
        status = CLSPLAT_CANCELLED;
fail:
    return status;
}

static clsplat_status converse(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    char *line = NULL, *words;
    size_t room = 0;
    const char *system = h->r->system;
    if (system && h->template->system.before)
        add_turn(h, h->template->system, system);
    for (bool first = true; (words = ask(h, &line, &room)); first = false) {
        text with = {0};
        text_add(&with, "%s%s%s", first && system && !h->template->system.before ? system : "",
                 first && system && !h->template->system.before ? "\n\n" : "", words);
        status = text_ok(&with)
                     ? take_turn(h, with.data)
                     : log_error(h->c->lib, CLSPLAT_MEMORY, "there is no memory for the conversation");
        text_free(&with);
        TRY(status);
    }
fail:
    free(line);
    return status;
}

static clsplat_status report(chat *h) {
    double rate = h->seconds > 0 ? (double)h->written / h->seconds : 0;
    const char *device = clsplat_device_describe(h->l->device)->name;
    if (h->c->json)
        return report_json(h->c, json_pack("{s:s, s:O, s:I, s:f, s:s}", "template", h->template->name,
                                           "turns", h->turns, "tokens", (json_int_t)h->written,
                                           "tokens_per_second", rate, "device", device));
    fprintf(stderr, "%zu tokens written, %.1f a second; %s\n", h->written, rate, device);
    return cli_flush(h->c);
}

static clsplat_status begin(chat *h) {
    clsplat_status status = CLSPLAT_OK;
    size_t made_for = h->l->context;
    h->capacity = h->r->model.context || made_for < CONTEXT ? made_for : CONTEXT;
    h->stop_token = -1;
    TRY(chat_template_choose(h->l, h->r->template, &h->template));
    if (h->template->needs[0])
        TRY(chat_token(h->l, h->template->stop, &h->stop_token));
    h->read = malloc(h->capacity * sizeof *h->read);
    h->turns = json_array();
    if (!h->read || !h->turns)
        TRY(log_error(h->c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", h->capacity));
    TRY(clsplat_session_open(h->l->model, h->capacity, h->l->attention, &h->session));
fail:
    return status;
}

static clsplat_status run(cli *c, chat_request *r) {
    clsplat_status status = CLSPLAT_OK;
    language l = {0};
    chat h = {.c = c, .l = &l, .r = r};
    c->interrupted = "interrupted";
    TRY(language_choose(c, &r->choice, &r->sampling, &r->tokens));
    TRY(language_open(c, &r->model, c->arguments[0], &l));
    TRY(begin(&h));
    TRY(converse(&h));
    TRY(report(&h));
fail:
    clsplat_session_close(&h.session);
    json_decref(h.turns);
    text_free(&h.words);
    free(h.read);
    language_close(&l);
    return status;
}

clsplat_status cmd_chat(cli *c, int argc, const char **argv) {
    chat_request r = {0};
    struct poptOption options[] = {
        {"system", 's', POPT_ARG_STRING, &r.system, 0, "what the model is told before the conversation",
         "TEXT"},
        {"template", 0, POPT_ARG_STRING, &r.template, 0,
         "how turns are written; the one whose tokens the model has if it is not given",
         "chatml|llama3|mistral|plain"},
        LANGUAGE_CHOICE_OPTIONS(r.choice),
        LANGUAGE_OPTIONS(r.model),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL [OPTION...]", options, .arguments = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = run(c, &r);
    cli_free(options);
    return status;
}
