/* GGUF files, versions 2 and 3, little-endian: a magic word, the numbers of tensors and keys, typed values by
 * their keys, the tensors' names, shapes, types and places, and behind a padding their data.
 * Source: the format's description in the repository of ggml (docs/gguf.md).
 *
 * Nothing in a file is believed: every count, length, type, dimension, product, offset, alignment and overlap
 * is checked when it is opened, and memory is taken for what was found only, never for what is claimed. */
#ifndef CLSPLAT_FORMAT_GGUF_H
#define CLSPLAT_FORMAT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "format/blocks.h"

enum { GGUF_MAX_RANK = 4 };

/* As in files. */
typedef enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_KINDS
} gguf_kind;

/* Words in the file: UTF-8 or not, without a NUL behind them. */
typedef struct gguf_words {
    const char *bytes;
    size_t count;
} gguf_words;

typedef struct gguf_value {
    char *key;
    gguf_kind kind; /* of an array: its elements' */
    bool is_array;
    size_t count;               /* elements; 1 if it is no array */
    const unsigned char *bytes; /* of the first, in the file */
    size_t length;              /* of all */
} gguf_value;

typedef struct gguf_tensor {
    char *name;
    const block_type *type;
    size_t rank;
    uint64_t shape[GGUF_MAX_RANK]; /* the dimension that lies together first; 1 behind the last */
    uint64_t count, begin, bytes;  /* numbers; place in the file */
} gguf_tensor;

typedef struct gguf gguf;

/* Whether the path is that of a regular file that begins with GGUF's magic word. */
bool gguf_is(const char *path);

/* Returns: IO, FORMAT and UNSUPPORTED (naming the file, and the key or tensor), MEMORY. */
clsplat_status gguf_open(clsplat *lib, const char *path, gguf **file);
/* Accepts NULL and a NULL handle; sets *file to NULL. */
void gguf_close(gguf **file);

const char *gguf_path(const gguf *file);
/* Ownership: the file's. NULL if there is none. */
const gguf_value *gguf_find(const gguf *file, const char *key);
const gguf_value *gguf_value_at(const gguf *file, size_t index);
const gguf_tensor *gguf_find_tensor(const gguf *file, const char *name);
const gguf_tensor *gguf_tensor_at(const gguf *file, size_t index);
size_t gguf_tensor_count(const gguf *file);
const void *gguf_data(const gguf *file, const gguf_tensor *tensor);

/* An element as a number: whole (not of floats, not negative), any, or yes and no. False: it is none. */
bool gguf_whole(const gguf_value *value, size_t index, uint64_t *number);
bool gguf_number(const gguf_value *value, size_t index, double *number);
bool gguf_flag(const gguf_value *value, bool *flag);
/* A string, or the elements of an array of them one after the other; *at begins with 0. False: it is none, or
 * there are no more. */
bool gguf_next(const gguf_value *value, size_t *at, gguf_words *words);

#endif
