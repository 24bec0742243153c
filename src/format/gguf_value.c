/* What was found in a GGUF file, by name and as numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/gguf_file.h"

/* What is no regular file is not opened: a FIFO would wait for a writer. */
bool gguf_is(const char *path) {
    char magic[4] = {0};
    struct stat found;
    FILE *file = stat(path, &found) == 0 && S_ISREG(found.st_mode) ? fopen(path, "rb") : NULL;
    if (!file)
        return false;
    size_t count = fread(magic, 1, sizeof magic, file);
    fclose(file);
    return count == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
}

const char *gguf_path(const gguf *file) {
    return file->file.path;
}

static int value_of_key(const void *key, const void *value) {
    return strcmp(key, ((const gguf_value *)value)->key);
}

static int tensor_of_name(const void *name, const void *tensor) {
    return strcmp(name, ((const gguf_tensor *)tensor)->name);
}

const gguf_value *gguf_find(const gguf *f, const char *key) {
    return f->value_count == 0 ? NULL
                               : bsearch(key, f->values, f->value_count, sizeof *f->values, value_of_key);
}

const gguf_value *gguf_value_at(const gguf *f, size_t index) {
    return index < f->value_count ? &f->values[index] : NULL;
}

const gguf_tensor *gguf_find_tensor(const gguf *f, const char *name) {
    return f->tensor_count == 0
               ? NULL
               : bsearch(name, f->tensors, f->tensor_count, sizeof *f->tensors, tensor_of_name);
}

const gguf_tensor *gguf_tensor_at(const gguf *f, size_t index) {
    return index < f->tensor_count ? &f->tensors[index] : NULL;
}

size_t gguf_tensor_count(const gguf *f) {
    return f->tensor_count;
}

const void *gguf_data(const gguf *f, const gguf_tensor *tensor) {
    return f->map + tensor->begin;
}

static uint64_t bits_at(const gguf_value *v, size_t index, size_t size) {
    uint64_t bits = 0;
    for (size_t i = size; i-- > 0;)
        bits = bits << 8 | v->bytes[index * size + i];
    return bits;
}

static double real_at(const gguf_value *v, size_t index) {
    float single;
    double real;
    uint32_t low = (uint32_t)bits_at(v, index, 4);
    if (v->kind == GGUF_F32) {
        memcpy(&single, &low, sizeof single);
        return (double)single;
    }
    uint64_t bits = bits_at(v, index, 8);
    memcpy(&real, &bits, sizeof real);
    return real;
}

/* Of an integer: its value as 64 bits with its sign. */
static bool integer_at(const gguf_value *v, size_t index, int64_t *number) {
    switch (v->kind) {
    case GGUF_U8:
        *number = (int64_t)bits_at(v, index, 1);
        return true;
    case GGUF_I8:
        *number = (int8_t)bits_at(v, index, 1);
        return true;
    case GGUF_U16:
        *number = (int64_t)bits_at(v, index, 2);
        return true;
    case GGUF_I16:
        *number = (int16_t)bits_at(v, index, 2);
        return true;
    case GGUF_U32:
        *number = (int64_t)bits_at(v, index, 4);
        return true;
    case GGUF_I32:
        *number = (int32_t)bits_at(v, index, 4);
        return true;
    case GGUF_U64:
    case GGUF_I64:
        *number = (int64_t)bits_at(v, index, 8);
        return *number >= 0 || v->kind == GGUF_I64;
    default:
        return false;
    }
}

bool gguf_whole(const gguf_value *v, size_t index, uint64_t *number) {
    int64_t found;
    if (!v || index >= v->count || !integer_at(v, index, &found) || found < 0)
        return false;
    *number = (uint64_t)found;
    return true;
}

bool gguf_number(const gguf_value *v, size_t index, double *number) {
    int64_t whole;
    if (!v || index >= v->count)
        return false;
    if (v->kind == GGUF_F32 || v->kind == GGUF_F64) {
        *number = real_at(v, index);
        return true;
    }
    if (!integer_at(v, index, &whole))
        return false;
    *number = (double)whole;
    return true;
}

bool gguf_flag(const gguf_value *v, bool *flag) {
    if (!v || v->is_array || v->kind != GGUF_BOOL)
        return false;
    *flag = v->bytes[0] != 0;
    return true;
}

bool gguf_next(const gguf_value *v, size_t *at, gguf_words *words) {
    if (!v || v->kind != GGUF_STRING || *at >= v->length)
        return false;
    uint64_t count = 0;
    for (size_t i = 8; i-- > 0;)
        count = count << 8 | v->bytes[*at + i];
    *words = (gguf_words){(const char *)v->bytes + *at + 8, (size_t)count};
    *at += 8 + (size_t)count;
    return true;
}
