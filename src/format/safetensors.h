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

#include "base/file.h"
#include "base/log.h"

enum { SAFETENSORS_MAX_RANK = 8 };

/* Per element; 0 for a type that this library does not know. */
unsigned safetensors_dtype_bytes(const char *dtype);

typedef struct safetensors_entry {
    const char *name;
    char dtype[16]; /* "F32", "BF16", "I32", …; of an unknown one what is fit to print */
    size_t rank;    /* as in the file, perhaps more than SAFETENSORS_MAX_RANK */
    uint64_t shape[SAFETENSORS_MAX_RANK]; /* the first of them; a dimension may be 0 */
    uint64_t count;                       /* elements */
    uint64_t begin, bytes;                /* begin counts from the start of the file */
} safetensors_entry;

typedef struct safetensors safetensors;

/* Returns: IO, FORMAT (naming the file and the tensor), MEMORY. */
clsplat_status safetensors_open(clsplat *lib, const char *path, safetensors **file);
/* Accepts NULL and a NULL handle; sets *file to NULL. */
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

/* `count` of them, from the entry's byte `offset` on. */
clsplat_status safetensors_read_part(clsplat *lib, const safetensors *file, const safetensors_entry *entry,
                                     uint64_t offset, void *bytes, size_t count);

/* The entry's bytes without a copy, from a mapping that lasts until the file is closed: see file_map. */
clsplat_status safetensors_map(clsplat *lib, safetensors *file, const safetensors_entry *entry,
                               const void **bytes);

/* What a file will hold, in this order. */
typedef struct safetensors_output {
    const char *name;
    const char *dtype; /* one that this library knows */
    size_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK];
    const void *data; /* NULL: see safetensors_save_parts */
} safetensors_output;

/* Writes the file in one step, or leaves what was there. `metadata` is `pairs` × {key, value}; may be NULL
 * with 0 pairs. Names, keys and values are UTF-8, and names differ. Returns: IO, INVALID (metadata that is
 * not UTF-8), MEMORY. */
clsplat_status safetensors_save(clsplat *lib, const char *path, const safetensors_output *tensors,
                                size_t count, const char *const (*metadata)[2], size_t pairs);

/* The same of tensors that nobody holds as a whole: `write` adds the bytes of tensor `index` to the file.
 * Returns: what it returns, too. */
typedef struct safetensors_parts {
    const safetensors_output *tensors;
    size_t count;
    clsplat_status (*write)(void *user, size_t index, file_writer *file);
    void *user;
} safetensors_parts;
clsplat_status safetensors_save_parts(clsplat *lib, const char *path, const safetensors_parts *parts,
                                      const char *const (*metadata)[2], size_t pairs);

#endif
