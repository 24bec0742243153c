/* A unigram model: of all ways to cut a word into pieces of the vocabulary the one whose scores, logarithms
 * of probabilities, have the largest sum. Source: Kudo 2018 (arXiv 1804.10959); details as in Hugging Face's
 * tokenizers. */
#ifndef CLSPLAT_TOKENIZER_UNIGRAM_H
#define CLSPLAT_TOKENIZER_UNIGRAM_H

#include "tokenizer/kind.h"

typedef struct unigram unigram;

/* `pieces`: how many there will be at most; `where` is the file, for messages. Returns: MEMORY. */
clsplat_status unigram_create(clsplat *lib, const char *where, size_t pieces, unigram **u);
/* Accepts NULL. */
void unigram_destroy(unigram *u);

/* A name may have JSON_NUL for NUL. Returns: MEMORY. */
clsplat_status unigram_add(unigram *u, const char *name, int32_t token, double score);
/* After the last piece. `unknown`: the token of characters that are in no piece, one for several in a row;
 * −1: none. `fallback`: such a run as its bytes, the tokens <0x00> to <0xFF>, if all of them are there.
 * Returns: FORMAT if the token for unknown characters is no piece. */
clsplat_status unigram_finish(unigram *u, int32_t unknown, bool fallback);

/* The tokens of a word, UTF-8. Returns: MEMORY; INVALID if a character is in no piece, and there is no token
 * for that. */
clsplat_status unigram_encode(const unigram *u, const char *word, size_t bytes, token_list *to);

#endif
