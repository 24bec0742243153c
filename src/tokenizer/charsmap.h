/* The table by which SentencePiece rewrites characters before it cuts a text, as tokenizer.json has it under
 * Precompiled: a trie of what is replaced, and what replaces it.
 *
 * Layout: u32 bytes of the trie, the trie's units (u32, little-endian: Darts-clone), strings that end in NUL.
 * Source: sentencepiece's normalizer.cc; that whole clusters of characters are looked up first is Hugging
 * Face's. */
#ifndef CLSPLAT_TOKENIZER_CHARSMAP_H
#define CLSPLAT_TOKENIZER_CHARSMAP_H

#include <stdbool.h>

#include "base/text.h"

typedef struct charsmap charsmap;

/* The table in base64, checked. Returns: NULL, and in *wrong why, or NULL for no memory. Ownership: to be
 * given to charsmap_free. */
charsmap *charsmap_read(const char *base64, const char **wrong);
/* Accepts NULL. */
void charsmap_free(charsmap *map);

/* Rewrites UTF-8 text; running out of memory shows in `to`. */
void charsmap_apply(const charsmap *map, const char *words, size_t count, text *to);

#endif
