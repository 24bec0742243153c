/* The text that a model learns from: files and folders as one list of tokens, the last part of which is held
 * out for validation. */
#ifndef CLSPLAT_TRAIN_CORPUS_H
#define CLSPLAT_TRAIN_CORPUS_H

#include <clsplat/model.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* Files are in an order that depends on their paths alone and is none of the alphabet's, so that what is held
 * out is of all kinds. A byte 0 stands behind each. */
typedef struct corpus {
    uint8_t *bytes;
    size_t count, capacity; /* bytes */
    size_t files, skipped;
    int32_t *tokens; /* after corpus_encode; NULL: bytes are tokens */
    size_t length;   /* of them */
} corpus;

/* Adds the file, or all regular files below the folder whose names fit `match` (a shell pattern; NULL: all),
 * but for hidden ones and those that have a byte 0, as binary files do. Symbolic links within a folder are
 * not followed. Returns: IO, MEMORY. */
clsplat_status corpus_add(clsplat *lib, const char *const *paths, size_t count, const char *match,
                          corpus *to);
/* Makes tokens of a text by the model's tokeniser, unless its vocabulary is the 256 bytes; behind each file
 * comes the first token that ends a text, if the model has one, in the place of the byte 0. Returns: IO (the
 * model has no tokeniser), UNSUPPORTED, MEMORY. */
clsplat_status corpus_encode(corpus *c, clsplat_model *model);
/* Tokens in all, and one of them. */
size_t corpus_length(const corpus *c);
int32_t corpus_token(const corpus *c, size_t at);
/* Of its bytes: another text has another one. */
uint64_t corpus_digest(const corpus *c);

/* Whether a folder has a tokeniser that can be read, for a vocabulary of so many. Returns: IO, FORMAT,
 * UNSUPPORTED, MEMORY. And its files, to another folder. Returns: IO, MEMORY. */
clsplat_status corpus_check_tokenizer(clsplat *lib, const char *folder, size_t vocabulary);
clsplat_status corpus_take_tokenizer(clsplat *lib, const char *from, const char *to);

/* Accepts a zeroed struct. */
void corpus_free(corpus *to);

#endif
