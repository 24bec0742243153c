/* How a conversation is written for a model. */
#ifndef CLSPLAT_CLI_CHAT_TEMPLATE_H
#define CLSPLAT_CLI_CHAT_TEMPLATE_H

#include "cli/language.h"

typedef struct chat_turn {
    const char *before, *after;
} chat_turn;

typedef struct chat_template {
    const char *name;
    const char *needs[2]; /* special tokens by which it is recognised; NULL: none */
    const char *marks[2]; /* what the model's own template has if it is this one; NULL: none */
    chat_turn system;
    bool told_to_user; /* the system's words stand in the first turn of the user, before its own */
    chat_turn user, assistant;
    const char
        *stop;     /* what ends an answer: a special token's name, or text; NULL: only the model's own end */
    bool by_words; /* its tokens alone say nothing */
} chat_template;

/* The one of that name; without a name the one that the model's own template is, or else the first whose
 * tokens the model's vocabulary has, and `plain` without any. A template of its own that is none of these is
 * said. */
clsplat_status chat_template_choose(const language *l, const char *name, const chat_template **chosen);
/* The token of that name; −1 if it is not one token. */
clsplat_status chat_token(const language *l, const char *name, int32_t *token);

#endif
