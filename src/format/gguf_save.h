/* GGUF files in the making: version 3, little-endian, as format/gguf.h reads them. */
#ifndef CLSPLAT_FORMAT_GGUF_SAVE_H
#define CLSPLAT_FORMAT_GGUF_SAVE_H

#include "base/file.h"
#include "base/text.h"
#include "format/gguf.h"

/* Keys and values as they will lie in the file; zeroed at first, `bytes` to be freed. Running out of memory
 * shows in text_ok. */
typedef struct gguf_values {
    text bytes;
    size_t count;
} gguf_values;

void gguf_put_words(gguf_values *v, const char *key, const char *words, size_t count);
void gguf_put_whole(gguf_values *v, const char *key, uint32_t number);
void gguf_put_real(gguf_values *v, const char *key, double number);
void gguf_put_flag(gguf_values *v, const char *key, bool flag);
/* A value of another file, under its own key. */
void gguf_put_value(gguf_values *v, const gguf_value *value);
/* A list: so many elements must follow, of strings, I32 or F32. */
void gguf_put_list(gguf_values *v, const char *key, gguf_kind kind, size_t count);
void gguf_put_list_words(gguf_values *v, const char *words, size_t count);
void gguf_put_list_whole(gguf_values *v, int32_t number);
void gguf_put_list_real(gguf_values *v, float number);

/* What a file will hold, in this order: names, types and shapes; `write` adds the bytes of tensor `index` to
 * the file. */
typedef struct gguf_content {
    const gguf_values *values;
    const gguf_tensor *tensors;
    size_t count;
    clsplat_status (*write)(void *user, size_t index, file_writer *file);
    void *user;
} gguf_content;

/* Writes the file in one step, or leaves what was there. Returns: IO, MEMORY, or what `write` returns. */
clsplat_status gguf_save(clsplat *lib, const char *path, const gguf_content *content);

#endif
