/* What BERT's tokenisers do to a text: cleaning, accents, Chinese characters and lower case before it is cut
 * into words, words at white space and punctuation, and words into the longest pieces of the vocabulary.
 *
 * Source: Devlin et al. 2018 (arXiv 1810.04805), tokenization.py; details as in Hugging Face's tokenizers. */
#ifndef CLSPLAT_TOKENIZER_BERT_H
#define CLSPLAT_TOKENIZER_BERT_H

#include "tokenizer/bpe.h"
#include "tokenizer/pattern.h"

typedef struct bert_rules {
    bool clean;      /* control characters go, every white space becomes a space */
    bool chinese;    /* spaces around every CJK ideograph */
    bool accents;    /* decomposed, and marks that take no space go */
    bool lower_case; /* character by character */
} bert_rules;

/* Rewrites UTF-8 text; `to` is empty before, and running out of memory shows there. Returns: MEMORY, INVALID.
 */
clsplat_status bert_normalise(clsplat *lib, bert_rules rules, const char *words, size_t count, text *to);

/* Hands on what lies between white spaces, punctuation marks alone. */
clsplat_status bert_cut(const char *words, size_t count, pattern_piece *piece, void *user);

/* Words as pieces: the longest that the vocabulary has, from the left; all but the first have the prefix
 * before their name. A word that cannot be cut so, or is longer, is the unknown token. */
typedef struct wordpiece {
    char *prefix; /* NULL: this is no WordPiece model */
    int32_t unknown;
    size_t longest; /* characters of a word */
} wordpiece;

clsplat_status wordpiece_encode(clsplat *lib, const wordpiece *w, const bpe *vocabulary, const char *word,
                                size_t bytes, token_list *to);

#endif
