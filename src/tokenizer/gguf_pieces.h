/* The tokens of a GGUF file's tokeniser. */
#ifndef CLSPLAT_TOKENIZER_GGUF_PIECES_H
#define CLSPLAT_TOKENIZER_GGUF_PIECES_H

#include <jansson.h>

#include "format/gguf.h"

typedef struct pieces {
    clsplat *lib;
    const gguf *file;
    gguf_words *names; /* [count], in the file */
    const gguf_value *types, *scores;
    size_t count;
} pieces;

/* Fills all but the first two. Returns: FORMAT, MEMORY. */
clsplat_status pieces_read(pieces *p);
void pieces_free(pieces *p);

clsplat_status pieces_refuse(const pieces *p, clsplat_status status, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Every token by its name into `vocabulary`, those that texts name as they are into `added` instead or as
 * well. */
clsplat_status pieces_vocabulary(const pieces *p, json_t *vocabulary, json_t *added);
/* Merges as the file lists them, or out of scores. */
clsplat_status pieces_merges(const pieces *p, json_t *merges);
clsplat_status pieces_scored_merges(const pieces *p, const json_t *vocabulary, json_t *merges);

#endif
