#include "format/safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

enum { HEADER_LIMIT = 100 << 20, PRINTED_NAME = 64 };

struct safetensors {
    file_reader file;
    json_t *header; /* owns the names */
    safetensors_entry *entries;
    size_t count;
};

static const struct {
    const char *name;
    unsigned bytes;
} dtypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
    {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"I64", 8},     {"U64", 8}, {"F64", 8},
};

/* 0 for a type that this library does not know. */
static unsigned dtype_bytes(const char *name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; ++i)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bytes;
    return 0;
}

/* A name out of a file, fit to be shown. */
typedef struct printed_name {
    char text[PRINTED_NAME + 4];
} printed_name;

static printed_name printable(const char *name) {
    printed_name p = {{0}};
    size_t i = 0;
    for (; name[i] && i < PRINTED_NAME; ++i)
        p.text[i] = (unsigned char)name[i] < ' ' || name[i] == 127 ? '?' : name[i];
    if (name[i])
        memcpy(p.text + i, "...", 3);
    return p;
}

static clsplat_status damaged(clsplat *lib, const safetensors *f, const char *tensor, const char *problem) {
    if (!tensor)
        return log_error(lib, CLSPLAT_FORMAT, "%s: %s", f->file.path, problem);
    return log_error(lib, CLSPLAT_FORMAT, "%s: tensor '%s': %s", f->file.path, printable(tensor).text,
                     problem);
}

/* A JSON integer that is not negative. */
static bool whole_number(const json_t *value, uint64_t *number) {
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *number = (uint64_t)json_integer_value(value);
    return true;
}

static clsplat_status parse_shape(clsplat *lib, const safetensors *f, const json_t *shape,
                                  safetensors_entry *e) {
    if (!json_is_array(shape))
        return damaged(lib, f, e->name, "has no shape");
    e->rank = json_array_size(shape);
    e->count = 1;
    for (size_t i = 0; i < e->rank; ++i) {
        uint64_t dimension;
        if (!whole_number(json_array_get(shape, i), &dimension))
            return damaged(lib, f, e->name, "a dimension is not a whole number of at least 0");
        if (__builtin_mul_overflow(e->count, dimension, &e->count))
            return damaged(lib, f, e->name, "its dimensions multiply to more than 2^64");
        if (i < SAFETENSORS_MAX_RANK)
            e->shape[i] = dimension;
    }
    return CLSPLAT_OK;
}

static clsplat_status parse_entry(clsplat *lib, const safetensors *f, uint64_t data, const char *name,
                                  const json_t *value, safetensors_entry *e) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *offsets = json_object_get(value, "data_offsets");
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    uint64_t begin, end, bytes;
    *e = (safetensors_entry){.name = name};
    if (!json_is_object(value))
        return damaged(lib, f, name, "its header entry is not an object");
    if (!dtype || strlen(dtype) >= sizeof e->dtype)
        return damaged(lib, f, name, "has no dtype, or one that no library knows");
    strcpy(e->dtype, dtype);
    TRY(parse_shape(lib, f, json_object_get(value, "shape"), e));
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !whole_number(json_array_get(offsets, 0), &begin) || !whole_number(json_array_get(offsets, 1), &end))
        return damaged(lib, f, name, "data_offsets is not a pair of whole numbers of at least 0");
    if (begin > end || end > f->file.size - data)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: tensor '%s': data_offsets [%" PRIu64 ", %" PRIu64
                         "] leave the file, which has %" PRIu64 " bytes of data",
                         f->file.path, printable(name).text, begin, end, f->file.size - data);
    e->begin = data + begin;
    e->bytes = end - begin;
    unsigned element = dtype_bytes(dtype);
    if (element && (__builtin_mul_overflow(e->count, (uint64_t)element, &bytes) || bytes != e->bytes))
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: tensor '%s': %" PRIu64 " bytes of data do not fit %" PRIu64 " elements of %s",
                         f->file.path, printable(name).text, e->bytes, e->count, e->dtype);
fail:
    return status;
}

static int by_place(const void *a, const void *b) {
    const safetensors_entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The format has neither overlaps nor holes: sorted by place, every tensor begins where the last one ended.
 */
static clsplat_status check_places(clsplat *lib, const safetensors *f, uint64_t data) {
    for (size_t i = 0; i < f->count; ++i) {
        const safetensors_entry *e = &f->entries[i];
        if (e->begin != data)
            return damaged(lib, f, e->name,
                           e->begin < data ? "its data overlap another tensor's"
                                           : "there is a hole before its data");
        data += e->bytes;
    }
    if (data != f->file.size)
        return damaged(lib, f, NULL, "there are bytes behind the last tensor's data");
    return CLSPLAT_OK;
}

static clsplat_status parse_header(clsplat *lib, safetensors *f, uint64_t data) {
    clsplat_status status = CLSPLAT_OK;
    const char *name;
    json_t *value;
    if (!json_is_object(f->header))
        return damaged(lib, f, NULL, "its header is not a JSON object");
    f->entries = calloc(json_object_size(f->header) + 1, sizeof *f->entries);
    if (!f->entries)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for the header of %s", f->file.path);
    json_object_foreach(f->header, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            if (!json_is_object(value))
                return damaged(lib, f, NULL, "its __metadata__ is not an object");
            continue;
        }
        TRY(parse_entry(lib, f, data, name, value, &f->entries[f->count]));
        ++f->count;
    }
    qsort(f->entries, f->count, sizeof *f->entries, by_place);
    TRY(check_places(lib, f, data));
fail:
    return status;
}

static clsplat_status read_header(clsplat *lib, safetensors *f) {
    clsplat_status status = CLSPLAT_OK;
    unsigned char prefix[8];
    uint64_t length = 0;
    char *json = NULL;
    json_error_t error;
    if (f->file.size < sizeof prefix)
        return damaged(lib, f, NULL, "is too short to be a safetensors file");
    TRY(file_read(lib, &f->file, 0, prefix, sizeof prefix));
    for (int i = 7; i >= 0; --i)
        length = length << 8 | prefix[i];
    if (length > HEADER_LIMIT || length > f->file.size - sizeof prefix)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: claims a header of %" PRIu64 " bytes in a file of %" PRIu64
                         ": it is truncated or not a safetensors file",
                         f->file.path, length, f->file.size);
    if (!(json = malloc((size_t)length + 1)))
        return log_error(lib, CLSPLAT_MEMORY, "no memory for the header of %s", f->file.path);
    TRY(file_read(lib, &f->file, sizeof prefix, json, (size_t)length));
    f->header = json_loadb(json, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!f->header) {
        status = log_error(lib, CLSPLAT_FORMAT, "%s: its header is not JSON: %s at byte %d", f->file.path,
                           printable(error.text).text, error.position);
        goto fail;
    }
    TRY(parse_header(lib, f, sizeof prefix + length));
fail:
    free(json);
    return status;
}

clsplat_status safetensors_open(clsplat *lib, const char *path, safetensors **file) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *f = calloc(1, sizeof *f);
    *file = NULL;
    if (!f)
        return log_error(lib, CLSPLAT_MEMORY, "no memory to open %s", path);
    f->file.descriptor = -1;
    TRY(file_open(lib, path, &f->file));
    TRY(read_header(lib, f));
    *file = f;
    return CLSPLAT_OK;
fail:
    safetensors_close(&f);
    return status;
}

void safetensors_close(safetensors **file) {
    if (!file || !*file)
        return;
    json_decref((*file)->header);
    free((*file)->entries);
    file_close(&(*file)->file);
    free(*file);
    *file = NULL;
}

const char *safetensors_path(const safetensors *file) {
    return file->file.path;
}

const safetensors_entry *safetensors_find(const safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; ++i)
        if (strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    return NULL;
}

size_t safetensors_count(const safetensors *file) {
    return file->count;
}

const safetensors_entry *safetensors_at(const safetensors *file, size_t index) {
    assert(index < file->count);
    return &file->entries[index];
}

const char *safetensors_metadata(const safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

clsplat_status safetensors_read(clsplat *lib, const safetensors *file, const safetensors_entry *entry,
                                void *bytes) {
    return file_read(lib, &file->file, entry->begin, bytes, (size_t)entry->bytes);
}

static uint64_t output_bytes(const safetensors_output *t) {
    uint64_t bytes = dtype_bytes(t->dtype);
    for (size_t i = 0; i < t->rank; ++i)
        bytes *= t->shape[i];
    return bytes;
}

static json_t *output_entry(const safetensors_output *t, uint64_t begin) {
    json_t *shape = json_array();
    for (size_t i = 0; i < t->rank; ++i)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + output_bytes(t)));
}

/* The header as text, padded with spaces to a multiple of 8; NULL without memory. */
static char *output_header(const safetensors_output *tensors, size_t count, const char *const (*metadata)[2],
                           size_t pairs) {
    json_t *header = json_object(), *about = json_object();
    uint64_t begin = 0;
    text padded = {0};
    for (size_t i = 0; i < pairs; ++i)
        json_object_set_new(about, metadata[i][0], json_string(metadata[i][1]));
    if (pairs)
        json_object_set(header, "__metadata__", about);
    for (size_t i = 0; i < count; ++i) {
        json_object_set_new(header, tensors[i].name, output_entry(&tensors[i], begin));
        begin += output_bytes(&tensors[i]);
    }
    char *compact = json_dumps(header, JSON_COMPACT);
    if (compact)
        text_add(&padded, "%s%*s", compact, (int)(-strlen(compact) % 8), "");
    bool complete = compact && json_object_size(header) == count + (pairs > 0) && text_ok(&padded);
    free(compact);
    json_decref(about);
    json_decref(header);
    if (!complete)
        text_free(&padded);
    return padded.data;
}

clsplat_status safetensors_save(clsplat *lib, const char *path, const safetensors_output *tensors,
                                size_t count, const char *const (*metadata)[2], size_t pairs) {
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {.descriptor = -1};
    char *header = output_header(tensors, count, metadata, pairs);
    if (!header)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for the header of %s", path);
    uint64_t length = strlen(header);
    unsigned char prefix[8];
    for (int i = 0; i < 8; ++i)
        prefix[i] = (unsigned char)(length >> 8 * i);
    TRY(file_create(lib, path, &file));
    TRY(file_write(lib, &file, prefix, sizeof prefix));
    TRY(file_write(lib, &file, header, (size_t)length));
    for (size_t i = 0; i < count; ++i)
        TRY(file_write(lib, &file, tensors[i].data, (size_t)output_bytes(&tensors[i])));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    free(header);
    return status;
}
