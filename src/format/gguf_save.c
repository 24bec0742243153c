#include "format/gguf_save.h"

#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32 };

static void put(text *t, uint64_t number, size_t bytes) {
    unsigned char little[8];
    for (size_t i = 0; i < bytes; ++i)
        little[i] = (unsigned char)(number >> 8 * i);
    text_add_bytes(t, little, bytes);
}

static void put_words(text *t, const char *words, size_t count) {
    put(t, count, 8);
    text_add_bytes(t, words, count);
}

static void put_key(gguf_values *v, const char *key, gguf_kind kind) {
    put_words(&v->bytes, key, strlen(key));
    put(&v->bytes, kind, 4);
    ++v->count;
}

static uint32_t bits_of(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

void gguf_put_words(gguf_values *v, const char *key, const char *words, size_t count) {
    put_key(v, key, GGUF_STRING);
    put_words(&v->bytes, words, count);
}

void gguf_put_whole(gguf_values *v, const char *key, uint32_t number) {
    put_key(v, key, GGUF_U32);
    put(&v->bytes, number, 4);
}

void gguf_put_real(gguf_values *v, const char *key, double number) {
    put_key(v, key, GGUF_F32);
    put(&v->bytes, bits_of((float)number), 4);
}

void gguf_put_flag(gguf_values *v, const char *key, bool flag) {
    put_key(v, key, GGUF_BOOL);
    put(&v->bytes, flag, 1);
}

void gguf_put_value(gguf_values *v, const gguf_value *value) {
    if (value->is_array)
        gguf_put_list(v, value->key, value->kind, value->count);
    else
        put_key(v, value->key, value->kind);
    text_add_bytes(&v->bytes, value->bytes, value->length);
}

void gguf_put_list(gguf_values *v, const char *key, gguf_kind kind, size_t count) {
    put_key(v, key, GGUF_ARRAY);
    put(&v->bytes, kind, 4);
    put(&v->bytes, count, 8);
}

void gguf_put_list_words(gguf_values *v, const char *words, size_t count) {
    put_words(&v->bytes, words, count);
}

void gguf_put_list_whole(gguf_values *v, int32_t number) {
    put(&v->bytes, (uint32_t)number, 4);
}

void gguf_put_list_real(gguf_values *v, float number) {
    put(&v->bytes, bits_of(number), 4);
}

static uint64_t padding(uint64_t bytes) {
    return (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
}

static void put_tensors(text *t, const gguf_content *c) {
    uint64_t begin = 0;
    for (size_t i = 0; i < c->count; ++i) {
        const gguf_tensor *tensor = &c->tensors[i];
        put_words(t, tensor->name, strlen(tensor->name));
        put(t, tensor->rank, 4);
        for (size_t d = 0; d < tensor->rank; ++d)
            put(t, tensor->shape[d], 8);
        put(t, tensor->type->id, 4);
        put(t, begin, 8);
        begin += tensor->bytes + padding(tensor->bytes);
    }
}

static clsplat_status write_header(clsplat *lib, file_writer *file, const gguf_content *c) {
    static const char zeros[ALIGNMENT];
    text header = {0};
    text_add(&header, "GGUF");
    put(&header, VERSION, 4);
    put(&header, c->count, 8);
    put(&header, c->values->count, 8);
    text_add_bytes(&header, c->values->bytes.data, c->values->bytes.length);
    put_tensors(&header, c);
    text_add_bytes(&header, zeros, (size_t)padding(header.length));
    clsplat_status status = text_ok(&header) && text_ok(&c->values->bytes)
                                ? file_write(lib, file, header.data, header.length)
                                : log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its header", file->path);
    text_free(&header);
    return status;
}

clsplat_status gguf_save(clsplat *lib, const char *path, const gguf_content *content) {
    static const char zeros[ALIGNMENT];
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {.descriptor = -1};
    TRY(file_create(lib, path, &file));
    TRY(write_header(lib, &file, content));
    for (size_t i = 0; i < content->count; ++i) {
        TRY(content->write(content->user, i, &file));
        TRY(file_write(lib, &file, zeros, (size_t)padding(content->tensors[i].bytes)));
    }
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    return status;
}
