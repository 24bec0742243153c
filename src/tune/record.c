/* A record as a line of text: one table of fields for both ways. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "tune/database.h"

typedef enum field_kind { WORDS, NUMBER, WHOLE, HASH } field_kind;

typedef struct field {
    const char *key;
    field_kind kind;
    size_t offset, size;
} field;

#define AT(key, kind, member)                                                                                \
    { key, kind, offsetof(tune_record, member), sizeof(((tune_record *)0)->member) }

static const field fields[] = {
    AT("op", WORDS, op),
    AT("variant", WORDS, variant),
    AT("type", WORDS, shape.type),
    AT("form", WORDS, shape.form),
    AT("heads", WHOLE, shape.heads),
    AT("rows", WHOLE, shape.rows),
    AT("sources", WHOLE, shape.sources),
    AT("dim", WHOLE, shape.dim),
    AT("value_dim", WHOLE, shape.value_dim),
    AT("parameters", WORDS, parameters),
    AT("seconds", NUMBER, seconds),
    AT("error", NUMBER, error),
    AT("source", HASH, source),
    AT("device", WORDS, on.device),
    AT("vendor", WORDS, on.vendor),
    AT("platform", WORDS, on.platform),
    AT("driver", WORDS, on.driver),
    AT("kind", WORDS, on.kind),
    AT("compute_units", WHOLE, on.compute_units),
    AT("max_work_group", WHOLE, on.max_work_group),
    AT("vector_width", WHOLE, on.vector_width),
    AT("local_memory", WHOLE, on.local_memory),
};
enum { FIELDS = sizeof fields / sizeof *fields };

void tune_record_write(const tune_record *record, text *line) {
    for (size_t i = 0; i < FIELDS; ++i) {
        const void *value = (const char *)record + fields[i].offset;
        text_add(line, "%s%s=", i ? "; " : "", fields[i].key);
        switch (fields[i].kind) {
        case WORDS:
            text_add(line, "%s", (const char *)value);
            break;
        case NUMBER:
            number_add(line, "%.6g", *(const double *)value);
            break;
        case WHOLE:
            text_add(line, "%" PRIu64, *(const uint64_t *)value);
            break;
        case HASH:
            text_add(line, "%016" PRIx64, *(const uint64_t *)value);
            break;
        }
    }
}

static bool read_words(const char *words, size_t length, char *to, size_t size) {
    if (length == 0 || length >= size)
        return false;
    memcpy(to, words, length);
    to[length] = '\0';
    return true;
}

static bool read_value(const field *f, const char *words, size_t length, void *to) {
    char *end = NULL;
    if (f->kind == WORDS)
        return read_words(words, length, to, f->size);
    if (words[0] == '-' || words[0] == ' ' || words[0] == '+')
        return false;
    errno = 0;
    if (f->kind == NUMBER)
        *(double *)to = number_read(words, &end);
    else
        *(uint64_t *)to = strtoull(words, &end, f->kind == HASH ? 16 : 10);
    return length > 0 && end == words + length && errno == 0 && !(f->kind == NUMBER && isnan(*(double *)to));
}

bool tune_record_read(const char *line, tune_record *record) {
    *record = (tune_record){0};
    for (const char *c = line; *c; ++c)
        if ((unsigned char)*c < ' ' || *c == 127)
            return false;
    for (size_t i = 0; i < FIELDS; ++i) {
        size_t key = strlen(fields[i].key);
        if (strncmp(line, fields[i].key, key) != 0 || line[key] != '=')
            return false;
        line += key + 1;
        const char *next = i + 1 < FIELDS ? strstr(line, "; ") : line + strlen(line);
        if (!next || !read_value(&fields[i], line, (size_t)(next - line), (char *)record + fields[i].offset))
            return false;
        line = i + 1 < FIELDS ? next + 2 : next;
    }
    return true;
}

/* Without what would end a field or a line. */
static void copy_words(char *to, size_t size, const char *words) {
    snprintf(to, size, "%s", words[0] ? words : "-");
    for (char *c = to; *c; ++c)
        if ((unsigned char)*c < ' ' || *c == 127 || *c == ';')
            *c = ' ';
}

tune_device tune_device_of(const clsplat_device_info *info) {
    tune_device d = {.compute_units = info->limits.compute_units,
                     .max_work_group = info->limits.max_work_group,
                     .vector_width = info->limits.vector_width_float,
                     .local_memory = info->limits.local_memory};
    copy_words(d.platform, sizeof d.platform, info->platform);
    copy_words(d.vendor, sizeof d.vendor, info->vendor);
    copy_words(d.device, sizeof d.device, info->name);
    copy_words(d.driver, sizeof d.driver, info->driver);
    copy_words(d.kind, sizeof d.kind, info->type);
    return d;
}

static uint64_t nearest_power(uint64_t n, uint64_t most) {
    uint64_t power = n < 1 ? 1 : n >= most ? most : (uint64_t)1 << (int)(log2((double)n) + 0.5);
    return power < most ? power : most;
}

void tune_shape_round(tune_shape *shape) {
    shape->heads = nearest_power(shape->heads, 64);
    shape->rows = nearest_power(shape->rows, 4096);
    shape->sources = nearest_power(shape->sources, 4096);
}

static double doublings(uint64_t a, uint64_t b) {
    return fabs(log2(((double)a + 1) / ((double)b + 1)));
}

double tune_device_distance(const tune_device *a, const tune_device *b) {
    return doublings(a->compute_units, b->compute_units) + doublings(a->max_work_group, b->max_work_group) +
           doublings(a->vector_width, b->vector_width) + doublings(a->local_memory, b->local_memory);
}

double tune_shape_distance(const tune_shape *a, const tune_shape *b) {
    return doublings(a->heads, b->heads) + 2 * doublings(a->rows, b->rows) +
           doublings(a->sources, b->sources) + doublings(a->dim, b->dim) +
           doublings(a->value_dim, b->value_dim) + (strcmp(a->type, b->type) ? INFINITY : 0) +
           (strcmp(a->form, b->form) ? 2 : 0);
}

tune_match tune_device_match(const tune_device *a, const tune_device *b) {
    const double farthest = 6;
    double distance = tune_device_distance(a, b);
    bool limits = distance == 0, platform = strcmp(a->platform, b->platform) == 0;
    if (strcmp(a->kind, b->kind) != 0)
        return TUNE_FOREIGN;
    if (limits && platform && strcmp(a->device, b->device) == 0)
        return strcmp(a->driver, b->driver) == 0 ? TUNE_SAME : TUNE_OTHER_DRIVER;
    if (limits && platform && strcmp(a->vendor, b->vendor) == 0)
        return TUNE_ARCHITECTURE;
    return distance <= farthest ? TUNE_NEAREST : TUNE_FOREIGN;
}
