/* safetensors files: an 8-byte little-endian header length, a JSON header, raw little-endian data.
 * Source: the format's description in its Hugging Face repository.
 *
 * Nothing in a file is believed: the header's length and nesting, every dimension and product, every
 * offset, overlap and hole is checked before a byte of data is read or memory taken for it. Types this
 * library does not know are fine as long as nobody reads that tensor. */
#ifndef CLSPLAT_FORMAT_SAFETENSORS_H
#define CLSPLAT_FORMAT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

enum { SAFETENSORS_MAX_RANK = 8 };

typedef struct safetensors_entry {
    const char *name;
    char dtype[12]; /* "F32", "BF16", "I32", … as in the file */
    size_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK];
    uint64_t count;        /* elements */
    uint64_t begin, bytes; /* begin counts from the start of the file */
} safetensors_entry;

typedef struct safetensors safetensors;

clsplat_status safetensors_open(clsplat *lib, const char *path, safetensors **file);
void safetensors_close(safetensors **file);
const char *safetensors_path(const safetensors *file);

/* NULL if there is none of that name. Ownership: the file's. */
const safetensors_entry *safetensors_find(const safetensors *file, const char *name);
size_t safetensors_count(const safetensors *file);
const safetensors_entry *safetensors_at(const safetensors *file, size_t index);
/* A value of the metadata, NULL if there is none. Ownership: the file's. */
const char *safetensors_metadata(const safetensors *file, const char *key);

/* The entry's bytes as they are in the file; `bytes` must have room for entry->bytes. */
clsplat_status safetensors_read(clsplat *lib, const safetensors *file, const safetensors_entry *entry,
                                void *bytes);

/* What a file will hold, in this order. */
typedef struct safetensors_output {
    const char *name;
    const char *dtype; /* "F32" or "I32" */
    size_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK];
    const void *data;
} safetensors_output;

/* Writes the file in one step. `metadata` is `pairs` × {key, value}; may be NULL with 0 pairs. */
clsplat_status safetensors_save(clsplat *lib, const char *path, const safetensors_output *tensors,
                                size_t count, const char *const (*metadata)[2], size_t pairs);

#endif
