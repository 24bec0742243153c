/* What the kinds of tokenisers share: every token's bytes, so that decoding is one loop for all of them, and
 * a table of functions for what differs. */
#ifndef CLSPLAT_TOKENIZER_KIND_H
#define CLSPLAT_TOKENIZER_KIND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "tokenizer/tokenizer.h"

/* A growing list; running out of memory is remembered, as in text. */
typedef struct token_list {
    int32_t *tokens;
    size_t count, capacity;
    bool failed;
} token_list;

void token_list_add(token_list *list, int32_t token);
void token_list_free(token_list *list);

/* A token as decoding writes it. */
typedef struct token_piece {
    size_t begin, count; /* where its bytes lie in the tokenizer's `bytes` */
    bool special;        /* written for nobody to read: left out by decoding */
    bool as_it_is;       /* its spaces are no tokeniser's: see tokenizer_strip */
} token_piece;

typedef struct tokenizer_kind {
    /* `text` is UTF-8 unless the kind says `raw`. */
    clsplat_status (*encode)(const tokenizer *t, const char *text, size_t count, bool special,
                             token_list *to);
    void (*close)(void *state); /* accepts NULL */
    bool raw;
    bool mute; /* there is no file: tokens have no text, and nothing is encoded */
} tokenizer_kind;

/* What of a text's beginning is the tokeniser's own and goes again when it is decoded. */
typedef enum tokenizer_strip {
    STRIP_NOTHING,
    STRIP_SPACE,       /* one space */
    STRIP_SPACES,      /* all spaces */
    STRIP_FIRST_SPACES /* the spaces in the first token */
} tokenizer_strip;

struct tokenizer {
    clsplat *lib;
    char *path; /* its file, or the folder of bytes; for messages */
    size_t vocabulary;
    const tokenizer_kind *kind;
    void *state;
    token_piece *pieces; /* [vocabulary] */
    text bytes;
    size_t
        beyond; /* tokens of the file that the model's vocabulary does not reach, and the first one's name */
    text_shown first_beyond;
    int32_t next;          /* behind the highest number that the file gave */
    token_list begin, end; /* around a whole text */
    tokenizer_strip strip;
};

/* Gives a token its bytes; a second time replaces the first. One beyond the model's vocabulary has none: it
 * is counted, and a text in which it occurs is refused. Returns: FORMAT if the number is below 0; `name` is
 * what the file calls it. */
clsplat_status tokenizer_set_piece(tokenizer *t, int64_t token, const char *name, const void *bytes,
                                   size_t count);

/* Says that there is no file. */
clsplat_status tokenizer_refuse(const tokenizer *t);

/* Each fills in a tokenizer of which path and vocabulary are set; what it set when it fails is released by
 * tokenizer_close. */
clsplat_status tokenizer_open_bytes(tokenizer *t);
clsplat_status tokenizer_open_json(tokenizer *t);
clsplat_status tokenizer_open_vocab(tokenizer *t);
clsplat_status tokenizer_open_gguf(tokenizer *t); /* its path is that of the file */
clsplat_status tokenizer_open_sentencepiece(tokenizer *t);

#endif
