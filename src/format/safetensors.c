#include "format/safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json_text.h"

enum {
    HEADER_LIMIT = 100 * 1000 * 1000, /* bytes, the format's own */
    VALUE_LIMIT = 1 << 21,            /* numbers, names, lists: some 200,000 tensors */
    PREFIX = 8                        /* bytes of the header's length */
};

struct safetensors {
    file_reader file;
    uint64_t data;   /* where the data begin in the file; never after its end */
    const void *map; /* NULL until it is wanted */
    json_t *header;  /* owns the names */
    safetensors_entry *entries;
    size_t count;
};

static const struct {
    const char *name;
    unsigned bytes;
} dtypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
    {"F32", 4},  {"I64", 8}, {"U64", 8}, {"F64", 8},     {"C64", 8},
};

unsigned safetensors_dtype_bytes(const char *name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; ++i)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bytes;
    return 0;
}

/* What is wrong with the file, or with one of its tensors. */
__attribute__((format(printf, 4, 5))) static clsplat_status
damaged(clsplat *lib, const safetensors *f, const char *tensor, const char *format, ...) {
    char problem[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    if (!tensor)
        return log_error(lib, CLSPLAT_FORMAT, "%s: %s", f->file.path, problem);
    return log_error(lib, CLSPLAT_FORMAT, "%s: tensor '%s': %s", f->file.path, text_show(tensor).bytes,
                     problem);
}

/* [2, 3]; of more dimensions than an entry keeps, those and dots. */
typedef struct shape_text {
    char bytes[SAFETENSORS_MAX_RANK * 22 + 8];
} shape_text;

static shape_text shape_of(const safetensors_entry *e) {
    shape_text shown = {"["};
    size_t length = 1;
    for (size_t i = 0; i < e->rank && i < SAFETENSORS_MAX_RANK; ++i)
        length += (size_t)snprintf(shown.bytes + length, sizeof shown.bytes - length, "%s%" PRIu64,
                                   i ? ", " : "", e->shape[i]);
    snprintf(shown.bytes + length, sizeof shown.bytes - length,
             e->rank > SAFETENSORS_MAX_RANK ? ", ...]" : "]");
    return shown;
}

/* A JSON integer that is not negative; Jansson's are below 2^63. */
static bool whole_number(const json_t *value, uint64_t *number) {
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *number = (uint64_t)json_integer_value(value);
    return true;
}

static clsplat_status parse_dtype(clsplat *lib, const safetensors *f, const json_t *dtype,
                                  safetensors_entry *e) {
    const char *name = json_string_value(dtype);
    if (!name || !*name)
        return damaged(lib, f, e->name, "has no dtype, or one that is not a name");
    snprintf(e->dtype, sizeof e->dtype, "%.*s", (int)sizeof e->dtype - 1, text_show(name).bytes);
    return CLSPLAT_OK;
}

static clsplat_status parse_shape(clsplat *lib, const safetensors *f, const json_t *shape,
                                  safetensors_entry *e) {
    if (!json_is_array(shape))
        return damaged(lib, f, e->name, "has no shape, or one that is not a list");
    e->rank = json_array_size(shape);
    e->count = 1;
    for (size_t i = 0; i < e->rank; ++i) {
        uint64_t dimension;
        if (!whole_number(json_array_get(shape, i), &dimension))
            return damaged(lib, f, e->name, "dimension %zu of its shape is not a whole number of at least 0",
                           i);
        if (__builtin_mul_overflow(e->count, dimension, &e->count))
            return damaged(lib, f, e->name, "the dimensions of its shape multiply to 2^64 or more");
        if (i < SAFETENSORS_MAX_RANK)
            e->shape[i] = dimension;
    }
    return CLSPLAT_OK;
}

static clsplat_status parse_offsets(clsplat *lib, const safetensors *f, const json_t *offsets,
                                    safetensors_entry *e) {
    uint64_t begin, end, bytes, available = f->file.size - f->data;
    unsigned element = safetensors_dtype_bytes(e->dtype);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !whole_number(json_array_get(offsets, 0), &begin) || !whole_number(json_array_get(offsets, 1), &end))
        return damaged(lib, f, e->name, "data_offsets is not a pair of whole numbers of at least 0");
    if (begin > end)
        return damaged(lib, f, e->name, "data_offsets [%" PRIu64 ", %" PRIu64 "] run backwards", begin, end);
    if (end > available)
        return damaged(lib, f, e->name,
                       "data_offsets [%" PRIu64 ", %" PRIu64 "] leave the file, which has %" PRIu64
                       " bytes of data; it is truncated or damaged",
                       begin, end, available);
    e->begin = f->data + begin;
    e->bytes = end - begin;
    if (!element)
        return CLSPLAT_OK;
    if (__builtin_mul_overflow(e->count, (uint64_t)element, &bytes))
        return damaged(lib, f, e->name, "its shape %s of %s is 2^64 bytes or more", shape_of(e).bytes,
                       e->dtype);
    if (bytes != e->bytes)
        return damaged(lib, f, e->name,
                       "data_offsets [%" PRIu64 ", %" PRIu64 "] do not fit shape %s of %s (%" PRIu64
                       " bytes)",
                       begin, end, shape_of(e).bytes, e->dtype, bytes);
    return CLSPLAT_OK;
}

static clsplat_status parse_entry(clsplat *lib, const safetensors *f, const char *name, const json_t *value,
                                  safetensors_entry *e) {
    clsplat_status status = CLSPLAT_OK;
    *e = (safetensors_entry){.name = name};
    if (!json_is_object(value))
        return damaged(lib, f, name, "its header entry is not an object");
    TRY(parse_dtype(lib, f, json_object_get(value, "dtype"), e));
    TRY(parse_shape(lib, f, json_object_get(value, "shape"), e));
    TRY(parse_offsets(lib, f, json_object_get(value, "data_offsets"), e));
fail:
    return status;
}

static int by_place(const void *a, const void *b) {
    const safetensors_entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The format has neither overlaps nor holes: by place, every tensor begins where the one before it ends. */
static clsplat_status check_places(clsplat *lib, safetensors *f) {
    uint64_t place = f->data;
    qsort(f->entries, f->count, sizeof *f->entries, by_place);
    for (size_t i = 0; i < f->count; ++i) {
        const safetensors_entry *e = &f->entries[i];
        uint64_t begin = e->begin - f->data;
        if (e->begin < place)
            return damaged(lib, f, e->name,
                           "data_offsets [%" PRIu64 ", %" PRIu64 "] overlap those of tensor '%s'", begin,
                           begin + e->bytes, text_show(f->entries[i - 1].name).bytes);
        if (e->begin > place)
            return damaged(lib, f, e->name,
                           "before data_offsets [%" PRIu64 ", %" PRIu64 "] are %" PRIu64
                           " bytes that belong to no tensor",
                           begin, begin + e->bytes, e->begin - place);
        place += e->bytes;
    }
    if (place != f->file.size)
        return damaged(lib, f, NULL, "the last %" PRIu64 " bytes belong to no tensor", f->file.size - place);
    return CLSPLAT_OK;
}

static clsplat_status parse_header(clsplat *lib, safetensors *f) {
    clsplat_status status = CLSPLAT_OK;
    const char *name;
    json_t *value;
    f->entries = calloc(json_object_size(f->header) + 1, sizeof *f->entries);
    if (!f->entries)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its header", f->file.path);
    json_object_foreach(f->header, name, value) {
        if (strcmp(name, "__metadata__") != 0)
            TRY(parse_entry(lib, f, name, value, &f->entries[f->count++]));
        else if (!json_is_object(value))
            return damaged(lib, f, NULL, "__metadata__ in its header is not an object");
    }
    TRY(check_places(lib, f));
fail:
    return status;
}

/* The last key of the outermost object that begins before `end`: names the tensor of a syntax error there.
 * NULL if there is none. Writes: a NUL behind the key. */
static const char *last_key(char *json, size_t length, size_t end) {
    size_t depth = 0, key = 0, key_end = 0;
    bool value_next = false;
    for (size_t i = 0; i < end; ++i) {
        char c = json[i];
        if (c == '"') {
            size_t begin = ++i;
            while (i < length && json[i] != '"')
                i += json[i] == '\\' ? 2 : 1;
            if (depth == 1 && !value_next) {
                key = begin;
                key_end = i < length ? i : length;
            }
        } else if (c == '{' || c == '[') {
            ++depth;
        } else if (c == '}' || c == ']') {
            --depth;
        }
        if (depth == 1 && (c == ':' || c == ','))
            value_next = c == ':';
    }
    json[key_end] = '\0';
    return key ? json + key : NULL;
}

/* Whether the text has so few values that their tree, 150 bytes each at most, is soon made. */
static bool is_modest(const char *json, size_t length) {
    size_t values = 0;
    for (size_t i = 0; i < length; ++i)
        values += json[i] == ',' || json[i] == '[' || json[i] == '{';
    return values <= VALUE_LIMIT;
}

/* Jansson bounds the nesting itself. */
static clsplat_status parse_json(clsplat *lib, safetensors *f, char *json, size_t length) {
    json_error_t error;
    if (length == 0 || json[0] != '{')
        return damaged(lib, f, NULL, "its header does not begin with '{'; it is no safetensors file");
    if (!is_modest(json, length))
        return damaged(lib, f, NULL, "its header has more than %d values, more than any real file",
                       VALUE_LIMIT);
    f->header = json_loadb(json, length, JSON_REJECT_DUPLICATES, &error);
    if (f->header)
        return CLSPLAT_OK;
    if (json_error_code(&error) == json_error_out_of_memory)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its header", f->file.path);
    size_t position = error.position < 0 || (size_t)error.position > length ? length : (size_t)error.position;
    return damaged(lib, f, last_key(json, length, position),
                   "the header cannot be read as JSON: %s (byte %zu)", text_show(error.text).bytes, position);
}

static clsplat_status read_header(clsplat *lib, safetensors *f) {
    clsplat_status status = CLSPLAT_OK;
    unsigned char prefix[PREFIX];
    uint64_t length = 0;
    char *json = NULL;
    text mended = {0};
    if (f->file.size < PREFIX)
        return damaged(lib, f, NULL, "has %" PRIu64 " bytes, too few for a safetensors file", f->file.size);
    TRY(file_read(lib, &f->file, 0, prefix, PREFIX));
    for (int i = PREFIX - 1; i >= 0; --i)
        length = length << 8 | prefix[i];
    if (length > HEADER_LIMIT || length > f->file.size - PREFIX)
        return damaged(lib, f, NULL,
                       "claims a header of %" PRIu64 " bytes, but %" PRIu64
                       " follow and at most %d are allowed; it is truncated or no safetensors file",
                       length, f->file.size - PREFIX, HEADER_LIMIT);
    f->data = PREFIX + length;
    json = malloc((size_t)length + 1);
    if (!json)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its header", f->file.path);
    TRY(file_read(lib, &f->file, PREFIX, json, (size_t)length));
    json_text_mend(json, (size_t)length, JSON_NUMBERS_STRICT, &mended);
    if (!text_ok(&mended))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its header", f->file.path));
    TRY(parse_json(lib, f, mended.data, mended.length));
    TRY(parse_header(lib, f));
fail:
    text_free(&mended);
    free(json);
    return status;
}

clsplat_status safetensors_open(clsplat *lib, const char *path, safetensors **file) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *f = calloc(1, sizeof *f);
    *file = NULL;
    if (!f)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory to open it", path);
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
    free((*file)->entries);
    json_decref((*file)->header);
    file_unmap(&(*file)->file, (*file)->map);
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

clsplat_status safetensors_read_part(clsplat *lib, const safetensors *file, const safetensors_entry *entry,
                                     uint64_t offset, void *bytes, size_t count) {
    return file_read(lib, &file->file, entry->begin + offset, bytes, count);
}

clsplat_status safetensors_map(clsplat *lib, safetensors *file, const safetensors_entry *entry,
                               const void **bytes) {
    clsplat_status status = CLSPLAT_OK;
    if (!file->map)
        TRY(file_map(lib, &file->file, &file->map));
    *bytes = (const char *)file->map + entry->begin;
fail:
    return status;
}
