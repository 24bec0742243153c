/* A conversation: its words, its turns, and how much of it the model still sees. */
#ifndef CLSPLAT_CLI_CHAT_H
#define CLSPLAT_CLI_CHAT_H

#include <jansson.h>

#include "cli/chat_template.h"

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
    uint64_t session_bytes;
    int32_t *read; /* [capacity] what the session has read */
    size_t read_count;
    text words;    /* the whole conversation, as far as it is not forgotten */
    size_t *turns; /* [turn_count] where in it each turn of the user begins */
    size_t turn_count, turn_room, forgotten;
    size_t answer;  /* where in it the last answer begins */
    json_t *report; /* of the turns, with --json */
    size_t written;
    double seconds;
} chat;

/* Adds what the model is told first, and what somebody says up to where the answer begins. */
clsplat_status chat_begin_words(chat *h);
clsplat_status chat_add_user(chat *h, const char *words, size_t bytes);
/* The tokens of the conversation, which leave room for an answer: with --memory the oldest turns are
 * forgotten for it, and what the model was told first stays. Returns: INVALID if there is no room. Ownership:
 * language_free. */
clsplat_status chat_tokens(chat *h, language_tokens *tokens);
void chat_free_words(chat *h);

#endif
