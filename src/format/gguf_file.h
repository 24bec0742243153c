/* A GGUF file as its reader and its look-up see it. */
#ifndef CLSPLAT_FORMAT_GGUF_FILE_H
#define CLSPLAT_FORMAT_GGUF_FILE_H

#include "base/file.h"
#include "format/gguf.h"

struct gguf {
    file_reader file;
    const unsigned char *map;
    uint64_t data; /* where the data begin */
    uint64_t alignment;
    gguf_value *values; /* by key */
    size_t value_count;
    gguf_tensor *tensors; /* by name */
    size_t tensor_count;
};

#endif
