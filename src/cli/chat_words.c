/* The words of a conversation, and which of them are kept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chat.h"

static clsplat_status no_memory(const chat *h) {
    return log_error(h->c->lib, CLSPLAT_MEMORY, "there is no memory for the conversation");
}

clsplat_status chat_begin_words(chat *h) {
    const chat_turn *system = &h->template->system;
    if (h->r->system && !h->template->told_to_user)
        text_add(&h->words, "%s%s%s", system->before, h->r->system, system->after);
    return text_ok(&h->words) ? CLSPLAT_OK : no_memory(h);
}

/* Where a template has no place for it, what the model is told stands before the first words of the user. */
static void begin_user(const chat *h, text *to, bool first) {
    const chat_template *t = h->template;
    text_add(to, "%s", t->user.before);
    if (first && h->r->system && t->told_to_user)
        text_add(to, "%s%s%s", t->system.before, h->r->system, t->system.after);
}

clsplat_status chat_add_user(chat *h, const char *words, size_t bytes) {
    if (h->turn_count == h->turn_room) {
        size_t room = h->turn_room ? 2 * h->turn_room : 64;
        size_t *turns = realloc(h->turns, room * sizeof *turns);
        if (!turns)
            return no_memory(h);
        h->turns = turns;
        h->turn_room = room;
    }
    h->turns[h->turn_count++] = h->words.length;
    begin_user(h, &h->words, h->turn_count == 1);
    text_add_bytes(&h->words, words, bytes);
    text_add(&h->words, "%s%s", h->template->user.after, h->template->assistant.before);
    return text_ok(&h->words) ? CLSPLAT_OK : no_memory(h);
}

/* The second turn becomes the first. */
static clsplat_status forget_one(chat *h) {
    size_t begin = h->turns[0], next = h->turns[1], said = next + strlen(h->template->user.before);
    text kept = {0};
    text_add_bytes(&kept, h->words.data, begin);
    begin_user(h, &kept, true);
    text_add_bytes(&kept, h->words.data + said, h->words.length - said);
    if (!text_ok(&kept)) {
        text_free(&kept);
        return no_memory(h);
    }
    size_t less = h->words.length - kept.length;
    for (size_t i = 2; i < h->turn_count; ++i)
        h->turns[i - 1] = h->turns[i] - less;
    --h->turn_count;
    ++h->forgotten;
    text_free(&h->words);
    h->words = kept;
    return CLSPLAT_OK;
}

static clsplat_status encode(const chat *h, language_tokens *tokens) {
    language_free(tokens);
    return language_encode(h->l, h->words.data, h->words.length, true, tokens);
}

clsplat_status chat_tokens(chat *h, language_tokens *tokens) {
    clsplat_status status = CLSPLAT_OK;
    size_t capacity = clsplat_session_capacity(h->session), before = h->forgotten;
    size_t answer = h->r->tokens < capacity / 4 ? h->r->tokens : capacity / 4;
    TRY(encode(h, tokens));
    if (h->l->memory && tokens->count + answer > capacity)
        while (h->turn_count > 1 && tokens->count > capacity / 2) { /* not again with every turn */
            TRY(forget_one(h));
            TRY(encode(h, tokens));
        }
    if (h->forgotten > before) {
        progress_clear(&h->c->progress);
        fprintf(stderr, "clsplat chat: --memory holds %zu tokens: the first %zu turns are forgotten\n",
                capacity, h->forgotten);
    }
    if (tokens->count >= capacity)
        TRY(log_error(h->c->lib, CLSPLAT_INVALID,
                      "the conversation has %zu tokens, and the %s %zu: begin anew, or with a longer %s",
                      tokens->count, h->l->memory ? "memory holds" : "context", capacity,
                      h->l->memory ? "--memory" : "--context"));
fail:
    return status;
}

void chat_free_words(chat *h) {
    text_free(&h->words);
    free(h->turns);
}
