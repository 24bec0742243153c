/* The text that a model learns from: files and folders as one list of tokens, the last part of which is held
 * out for validation. */
#ifndef CLSPLAT_TRAIN_CORPUS_H
#define CLSPLAT_TRAIN_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* Files are in an order that depends on their paths alone and is none of the alphabet's, so that what is held
 * out is of all kinds. A byte 0 stands behind each. */
typedef struct corpus {
    uint8_t *bytes;
    size_t count, capacity;
    size_t files, skipped;
} corpus;

/* Adds the file, or all regular files below the folder whose names fit `match` (a shell pattern; NULL: all),
 * but for hidden ones and those that have a byte 0, as binary files do. Symbolic links within a folder are
 * not followed. Returns: IO, MEMORY. */
clsplat_status corpus_add(clsplat *lib, const char *const *paths, size_t count, const char *match,
                          corpus *to);
/* Accepts a zeroed struct. */
void corpus_free(corpus *to);

#endif
