/* Byte-pair encoding: a word's characters, joined pair by pair in the order in which the pairs were learned.
 * Source: Sennrich, Haddow and Birch 2016; details as in Hugging Face's tokenizers. */
#ifndef CLSPLAT_TOKENIZER_BPE_H
#define CLSPLAT_TOKENIZER_BPE_H

#include <stdbool.h>
#include <stdint.h>

#include "tokenizer/kind.h"

typedef struct bpe bpe;

/* What does not follow from vocabulary and merges. */
typedef struct bpe_rules {
    const char *unknown;   /* the token for characters that are in no token; NULL: they are left out */
    bool fuse_unknown;     /* one token for several such characters in a row */
    bool byte_fallback;    /* such a character as its bytes <0x00> to <0xFF>, if there are tokens for them */
    bool whole_words;      /* a word that is a token is that token, whatever the merges make of it */
    size_t tokens, merges; /* how many there will be at most */
} bpe_rules;

/* `where` is the file, for messages. Returns: MEMORY. */
clsplat_status bpe_create(clsplat *lib, const char *where, bpe_rules rules, bpe **b);
/* Accepts NULL. */
void bpe_destroy(bpe *b);

/* Names may have JSON_NUL for NUL. Returns: MEMORY; FORMAT if the name is there already. */
clsplat_status bpe_add_token(bpe *b, const char *name, int32_t token);
/* The pair that is joined next after those added before. Returns: FORMAT if one of the two, or what they make
 * together, is no token. */
clsplat_status bpe_add_merge(bpe *b, const char *left, size_t left_bytes, const char *right);
/* The token for unknown characters, where it is not in the vocabulary. */
void bpe_set_unknown(bpe *b, int32_t token);
/* After the last token. Returns: FORMAT if the token for unknown characters is none. */
clsplat_status bpe_finish(bpe *b);

/* −1 if no token has that name. */
int32_t bpe_find(const bpe *b, const char *name, size_t bytes);

/* The tokens of a word, UTF-8. Returns: MEMORY, INVALID (a word of 2^31 bytes or more). */
clsplat_status bpe_encode(const bpe *b, const char *word, size_t bytes, token_list *to);

#endif
