/* Text to tokens and back, as a model's folder says: bytes, byte-level BPE (tokenizer.json) or SentencePiece
 * (tokenizer.model). */
#ifndef CLSPLAT_TOKENIZER_TOKENIZER_H
#define CLSPLAT_TOKENIZER_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

typedef struct tokenizer tokenizer;

/* `vocabulary`: the model's; no token reaches it. A folder without a tokeniser's file is one of bytes if the
 * vocabulary is 256; otherwise texts cannot be encoded nor tokens decoded, and both return IO. Returns: IO,
 * FORMAT and UNSUPPORTED (naming the file and the key), MEMORY. */
clsplat_status tokenizer_open(clsplat *lib, const char *folder, size_t vocabulary, tokenizer **t);
/* Accepts NULL and a NULL handle; sets *t to NULL. */
void tokenizer_close(tokenizer **t);

/* As clsplat_model_encode, clsplat_model_decode and clsplat_model_decode_next; *tokens and *text are
 * malloc'ed and the caller's. All but bytes read U+FFFD, with a warning, where a text is not UTF-8: one for
 * each longest beginning of a character, as Python's errors="replace" does before its tokenisers see a text.
 * Decoding writes the bytes that tokens stand for, whether or not they are UTF-8 together. */
clsplat_status tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, bool special,
                                int32_t **tokens, size_t *count);
clsplat_status tokenizer_decode(const tokenizer *t, const int32_t *tokens, size_t count, char **text,
                                size_t *bytes);
clsplat_status tokenizer_decode_next(const tokenizer *t, int32_t previous, int32_t token, char **text,
                                     size_t *bytes);

/* The special token that is named [MASK] or <mask>; −1: there is none. */
int32_t tokenizer_mask(const tokenizer *t);

#endif
