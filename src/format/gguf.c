#include "format/gguf.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/gguf_file.h"

enum {
    KEYS_LIMIT = 1 << 16,
    TENSORS_LIMIT = 1 << 20,
    KEY_LIMIT = (1 << 16) - 1, /* bytes, the format's own */
    NAME_LIMIT = 255,          /* bytes; the format's own is 64, which newer files exceed */
    ALIGNMENT = 32,            /* where general.alignment does not say */
    ALIGNMENT_LIMIT = 1 << 20,
    VALUE_LEAST = 8 + 4 + 1,         /* bytes of a key and its value at least */
    TENSOR_LEAST = 8 + 4 + 8 + 4 + 8 /* bytes of a tensor's entry */
};

static const struct {
    const char *name;
    unsigned bytes; /* of an element; 0: it says itself */
} kinds[GGUF_KINDS] = {{"uint8", 1},  {"int8", 1},    {"uint16", 2}, {"int16", 2},  {"uint32", 4},
                       {"int32", 4},  {"float32", 4}, {"bool", 1},   {"string", 0}, {"array", 0},
                       {"uint64", 8}, {"int64", 8},   {"float64", 8}};

/* What the header is read with: all that is left of the file. */
typedef struct cursor {
    clsplat *lib;
    const gguf *f;
    uint64_t at;
    const char *what, *name; /* "key", "tensor", of that name; NULL: neither */
} cursor;

__attribute__((format(printf, 3, 4))) static clsplat_status refuse(const cursor *c, clsplat_status status,
                                                                   const char *format, ...) {
    char problem[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    if (!c->name)
        return log_error(c->lib, status, "%s: %s", c->f->file.path, problem);
    return log_error(c->lib, status, "%s: %s '%s': %s", c->f->file.path, c->what, text_show(c->name).bytes,
                     problem);
}

static uint64_t left(const cursor *c) {
    return c->f->file.size - c->at;
}

static uint64_t little(const unsigned char *bytes, size_t count) {
    uint64_t number = 0;
    while (count-- > 0)
        number = number << 8 | bytes[count];
    return number;
}

static clsplat_status take(cursor *c, size_t bytes, const char *what, uint64_t *number) {
    if (left(c) < bytes)
        return refuse(c, CLSPLAT_FORMAT,
                      "the file ends before %s (byte %" PRIu64 "); it is truncated or damaged", what, c->at);
    *number = little(c->f->map + c->at, bytes);
    c->at += bytes;
    return CLSPLAT_OK;
}

static clsplat_status take_words(cursor *c, const char *what, gguf_words *words) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t count = 0;
    TRY(take(c, 8, what, &count));
    if (count > left(c))
        return refuse(c, CLSPLAT_FORMAT,
                      "%s of %" PRIu64 " bytes leaves the file, of which %" PRIu64 " are left", what, count,
                      left(c));
    *words = (gguf_words){(const char *)c->f->map + c->at, (size_t)count};
    c->at += count;
fail:
    return status;
}

/* A key or a tensor's name as C wants it. */
static clsplat_status take_name(cursor *c, const char *what, size_t limit, char **name) {
    clsplat_status status = CLSPLAT_OK;
    gguf_words words = {0};
    TRY(take_words(c, what, &words));
    if (words.count == 0 || words.count > limit || memchr(words.bytes, '\0', words.count))
        return refuse(c, CLSPLAT_FORMAT,
                      "%s of %zu bytes at byte %" PRIu64 " is empty, longer than %zu or has a NUL", what,
                      words.count, c->at, limit);
    *name = malloc(words.count + 1);
    if (!*name)
        return refuse(c, CLSPLAT_MEMORY, "no memory for its header");
    memcpy(*name, words.bytes, words.count);
    (*name)[words.count] = '\0';
fail:
    return status;
}

static clsplat_status skip_strings(cursor *c, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    gguf_words words;
    for (size_t i = 0; i < count; ++i)
        TRY(take_words(c, "a string", &words));
fail:
    return status;
}

static clsplat_status take_kind(cursor *c, gguf_kind *kind) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t number = 0;
    TRY(take(c, 4, "the type of its value", &number));
    if (number >= GGUF_KINDS)
        return refuse(c, CLSPLAT_FORMAT, "its value is of type %" PRIu64 ", which the format does not have",
                      number);
    *kind = (gguf_kind)number;
fail:
    return status;
}

static clsplat_status take_array(cursor *c, gguf_value *v) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t count = 0;
    TRY(take_kind(c, &v->kind));
    if (v->kind == GGUF_ARRAY)
        return refuse(c, CLSPLAT_UNSUPPORTED, "its value is a list of lists, which is not supported");
    TRY(take(c, 8, "the number of its elements", &count));
    unsigned least = kinds[v->kind].bytes ? kinds[v->kind].bytes : 8;
    if (count > left(c) / least)
        return refuse(c, CLSPLAT_FORMAT,
                      "its %" PRIu64 " elements of type %s leave the file, of which %" PRIu64
                      " bytes are left",
                      count, kinds[v->kind].name, left(c));
    v->is_array = true;
    v->count = (size_t)count;
fail:
    return status;
}

static clsplat_status take_value(cursor *c, gguf_value *v) {
    clsplat_status status = CLSPLAT_OK;
    TRY(take_name(c, "a key", KEY_LIMIT, &v->key));
    c->what = "key";
    c->name = v->key;
    v->count = 1;
    TRY(take_kind(c, &v->kind));
    if (v->kind == GGUF_ARRAY)
        TRY(take_array(c, v));
    v->bytes = c->f->map + c->at;
    uint64_t begin = c->at, bytes = (uint64_t)kinds[v->kind].bytes * v->count;
    if (v->kind == GGUF_STRING)
        TRY(skip_strings(c, v->count));
    else if (bytes > left(c))
        return refuse(c, CLSPLAT_FORMAT, "the file ends before its value");
    else
        c->at += bytes;
    v->length = (size_t)(c->at - begin);
    for (size_t i = 0; v->kind == GGUF_BOOL && i < v->count; ++i)
        if (v->bytes[i] > 1)
            return refuse(c, CLSPLAT_FORMAT, "its value is a bool of %d, which is neither 0 nor 1",
                          v->bytes[i]);
    c->name = NULL;
fail:
    return status;
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const gguf_value *)a)->key, ((const gguf_value *)b)->key);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const gguf_tensor *)a)->name, ((const gguf_tensor *)b)->name);
}

/* Makes room for one more in a list that grows with what was found. */
static void *grow(void *list, size_t count, size_t element) {
    if (count & (count - 1) || (count > 0 && count < 16))
        return list;
    return realloc(list, (count < 16 ? 16 : 2 * count) * element);
}

static clsplat_status read_values(cursor *c, gguf *f, uint64_t count) {
    clsplat_status status = CLSPLAT_OK;
    if (count > KEYS_LIMIT || count > left(c) / VALUE_LEAST)
        return refuse(c, CLSPLAT_FORMAT,
                      "claims %" PRIu64 " keys, more than its %" PRIu64
                      " bytes can hold or %d; it is damaged",
                      count, f->file.size, KEYS_LIMIT);
    for (uint64_t i = 0; i < count; ++i) {
        gguf_value *values = grow(f->values, f->value_count, sizeof *values);
        if (!values)
            return refuse(c, CLSPLAT_MEMORY, "no memory for its header");
        f->values = values;
        values[f->value_count] = (gguf_value){0};
        TRY(take_value(c, &values[f->value_count++]));
    }
    if (f->value_count > 0)
        qsort(f->values, f->value_count, sizeof *f->values, by_key);
    for (size_t i = 1; i < f->value_count; ++i)
        if (strcmp(f->values[i - 1].key, f->values[i].key) == 0)
            return refuse(c, CLSPLAT_FORMAT, "has the key '%s' twice", text_show(f->values[i].key).bytes);
fail:
    return status;
}

/* Types that others have, for messages. */
static const char *foreign_type(uint64_t id) {
    static const char *const names[] = {
        [4] = "Q4_2",     [5] = "Q4_3",    [9] = "Q8_1",     [10] = "Q2_K",  [11] = "Q3_K",   [15] = "Q8_K",
        [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
        [22] = "IQ2_S",   [23] = "IQ4_XS", [24] = "I8",      [25] = "I16",   [26] = "I32",    [27] = "I64",
        [28] = "F64",     [29] = "IQ1_M",  [34] = "TQ1_0",   [35] = "TQ2_0", [39] = "MXFP4"};
    return id < sizeof names / sizeof *names && names[id] ? names[id] : "unknown";
}

static clsplat_status take_type(cursor *c, gguf_tensor *t) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t id = 0;
    TRY(take(c, 4, "its type", &id));
    t->type = block_type_of_id((uint32_t)id);
    if (!t->type)
        return refuse(c, CLSPLAT_UNSUPPORTED,
                      "is of type %s (%" PRIu64 "); F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, "
                      "Q4_K, Q5_K and Q6_K are supported",
                      foreign_type(id), id);
    if (t->shape[0] % t->type->numbers != 0)
        return refuse(c, CLSPLAT_FORMAT,
                      "rows of %" PRIu64 " numbers are no whole blocks of %zu, as type %s has them",
                      t->shape[0], t->type->numbers, t->type->name);
    if (__builtin_mul_overflow(t->count / t->type->numbers, (uint64_t)t->type->bytes, &t->bytes))
        return refuse(c, CLSPLAT_FORMAT, "has 2^64 bytes or more");
fail:
    return status;
}

static clsplat_status take_tensor(cursor *c, gguf_tensor *t) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t rank = 0;
    TRY(take_name(c, "a tensor's name", NAME_LIMIT, &t->name));
    c->what = "tensor";
    c->name = t->name;
    TRY(take(c, 4, "its number of dimensions", &rank));
    if (rank < 1 || rank > GGUF_MAX_RANK)
        return refuse(c, CLSPLAT_FORMAT, "has %" PRIu64 " dimensions; there can be 1 to %d", rank,
                      GGUF_MAX_RANK);
    t->rank = (size_t)rank;
    t->count = 1;
    for (size_t i = 0; i < GGUF_MAX_RANK; ++i) {
        t->shape[i] = 1;
        if (i < rank)
            TRY(take(c, 8, "its dimensions", &t->shape[i]));
        if (t->shape[i] == 0)
            return refuse(c, CLSPLAT_FORMAT, "dimension %zu is 0", i);
        if (__builtin_mul_overflow(t->count, t->shape[i], &t->count))
            return refuse(c, CLSPLAT_FORMAT, "its dimensions multiply to 2^64 or more");
    }
    TRY(take_type(c, t));
    TRY(take(c, 8, "its offset", &t->begin));
    c->name = NULL;
fail:
    return status;
}

static int by_place(const void *a, const void *b) {
    const gguf_tensor *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Offsets count from where the data begin; between tensors there may be padding. */
static clsplat_status check_places(cursor *c, gguf *f) {
    uint64_t available = f->data <= f->file.size ? f->file.size - f->data : 0, end = 0;
    c->what = "tensor";
    if (f->tensor_count > 0)
        qsort(f->tensors, f->tensor_count, sizeof *f->tensors, by_place);
    for (size_t i = 0; i < f->tensor_count; ++i) {
        gguf_tensor *t = &f->tensors[i];
        c->name = t->name;
        if (t->begin % f->alignment != 0)
            return refuse(c, CLSPLAT_FORMAT,
                          "its offset %" PRIu64 " is no multiple of the alignment, %" PRIu64, t->begin,
                          f->alignment);
        if (t->begin > available || t->bytes > available - t->begin)
            return refuse(c, CLSPLAT_FORMAT,
                          "its %" PRIu64 " bytes from offset %" PRIu64 " leave the file, which has %" PRIu64
                          " bytes of data; it is truncated or damaged",
                          t->bytes, t->begin, available);
        if (t->begin < end)
            return refuse(c, CLSPLAT_FORMAT, "its data from offset %" PRIu64 " overlap those of tensor '%s'",
                          t->begin, text_show(f->tensors[i - 1].name).bytes);
        end = t->begin + t->bytes;
        t->begin += f->data;
    }
    c->name = NULL;
    return CLSPLAT_OK;
}

static clsplat_status read_tensors(cursor *c, gguf *f, uint64_t count) {
    clsplat_status status = CLSPLAT_OK;
    if (count > TENSORS_LIMIT || count > left(c) / TENSOR_LEAST)
        return refuse(c, CLSPLAT_FORMAT,
                      "claims %" PRIu64 " tensors, more than its %" PRIu64
                      " bytes can hold or %d; it is damaged",
                      count, f->file.size, TENSORS_LIMIT);
    for (uint64_t i = 0; i < count; ++i) {
        gguf_tensor *tensors = grow(f->tensors, f->tensor_count, sizeof *tensors);
        if (!tensors)
            return refuse(c, CLSPLAT_MEMORY, "no memory for its header");
        f->tensors = tensors;
        tensors[f->tensor_count] = (gguf_tensor){0};
        TRY(take_tensor(c, &tensors[f->tensor_count++]));
    }
    f->data = (c->at + f->alignment - 1) / f->alignment * f->alignment;
    TRY(check_places(c, f));
    if (f->tensor_count > 0)
        qsort(f->tensors, f->tensor_count, sizeof *f->tensors, by_name);
    for (size_t i = 1; i < f->tensor_count; ++i)
        if (strcmp(f->tensors[i - 1].name, f->tensors[i].name) == 0)
            return refuse(c, CLSPLAT_FORMAT, "has the tensor '%s' twice",
                          text_show(f->tensors[i].name).bytes);
fail:
    return status;
}

static clsplat_status read_alignment(cursor *c, gguf *f) {
    const gguf_value *v = gguf_find(f, "general.alignment");
    f->alignment = ALIGNMENT;
    if (!v)
        return CLSPLAT_OK;
    if (v->is_array || !gguf_whole(v, 0, &f->alignment) || f->alignment == 0 ||
        f->alignment > ALIGNMENT_LIMIT || f->alignment & (f->alignment - 1))
        return refuse(c, CLSPLAT_FORMAT, "key 'general.alignment' must be a power of two of at most %d",
                      ALIGNMENT_LIMIT);
    return CLSPLAT_OK;
}

static clsplat_status read_header(cursor *c, gguf *f) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t magic = 0, version = 0, tensors = 0, values = 0;
    TRY(take(c, 4, "its magic word", &magic));
    if (memcmp(f->map, "GGUF", 4) != 0)
        return refuse(c, CLSPLAT_FORMAT, "does not begin with 'GGUF'; it is no GGUF file");
    TRY(take(c, 4, "its version", &version));
    if (version != 0 && (version & 0xffff) == 0)
        return refuse(c, CLSPLAT_UNSUPPORTED, "is a big-endian GGUF file; convert it to a little-endian one");
    if (version != 2 && version != 3)
        return refuse(c, CLSPLAT_UNSUPPORTED, "is of GGUF's version %" PRIu64 "; 2 and 3 are supported",
                      version);
    TRY(take(c, 8, "its number of tensors", &tensors));
    TRY(take(c, 8, "its number of keys", &values));
    TRY(read_values(c, f, values));
    TRY(read_alignment(c, f));
    TRY(read_tensors(c, f, tensors));
fail:
    return status;
}

clsplat_status gguf_open(clsplat *lib, const char *path, gguf **file) {
    clsplat_status status = CLSPLAT_OK;
    const void *map = NULL;
    gguf *f = calloc(1, sizeof *f);
    *file = NULL;
    if (!f)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory to open it", path);
    TRY(file_open(lib, path, &f->file));
    TRY(file_map(lib, &f->file, &map));
    f->map = map;
    TRY(read_header(&(cursor){.lib = lib, .f = f}, f));
    *file = f;
    return CLSPLAT_OK;
fail:
    gguf_close(&f);
    return status;
}

void gguf_close(gguf **file) {
    if (!file || !*file)
        return;
    for (size_t i = 0; i < (*file)->value_count; ++i)
        free((*file)->values[i].key);
    for (size_t i = 0; i < (*file)->tensor_count; ++i)
        free((*file)->tensors[i].name);
    free((*file)->values);
    free((*file)->tensors);
    file_unmap(&(*file)->file, (*file)->map);
    file_close(&(*file)->file);
    free(*file);
    *file = NULL;
}
