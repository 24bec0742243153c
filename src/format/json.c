#include "format/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json_text.h"

/* Up to here double holds every whole number. */
static const double EXACT = 9007199254740992.0;

clsplat_status json_file(clsplat *lib, const char *path, size_t limit, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    *root = NULL;
    TRY(file_load(lib, path, limit, &bytes, &count));
    TRY(json_text_read(lib, path, bytes, count, root));
    if (!json_is_object(*root))
        TRY(log_error(lib, CLSPLAT_FORMAT, "%s: must be a JSON object", path));
fail:
    if (status != CLSPLAT_OK) {
        json_decref(*root);
        *root = NULL;
    }
    free(bytes);
    return status;
}

clsplat_status json_refuse(const json_place *at, clsplat_status status, const char *key, const char *format,
                           ...) {
    char problem[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    return log_error(at->lib, status, "%s: key %s%s %s", at->path, at->prefix, key, problem);
}

static const json_t *value_of(const json_place *at, const char *key) {
    const json_t *value = json_object_get(at->object, key);
    return json_is_null(value) ? NULL : value;
}

bool json_has(const json_place *at, const char *key) {
    return value_of(at, key) != NULL;
}

static clsplat_status missing(const json_place *at, const char *key, json_need need) {
    return need == JSON_NEEDED ? json_refuse(at, CLSPLAT_FORMAT, key, "is missing") : CLSPLAT_OK;
}

clsplat_status json_size(const json_place *at, const char *key, json_need need, size_t least, size_t most,
                         size_t *value) {
    const json_t *found = value_of(at, key);
    if (!found)
        return missing(at, key, need);
    double real = json_is_real(found) ? json_real_value(found) : 0.5; /* 8.0 is a whole number, too */
    bool exact = real == floor(real) && fabs(real) < EXACT;
    json_int_t number = exact ? (json_int_t)real : json_integer_value(found);
    if (!(exact || json_is_integer(found)) || number < 0 || (size_t)number < least || (size_t)number > most)
        return json_refuse(at, CLSPLAT_FORMAT, key, "must be a whole number from %zu to %zu", least, most);
    *value = (size_t)number;
    return CLSPLAT_OK;
}

clsplat_status json_double(const json_place *at, const char *key, json_need need, double least, double most,
                           double *value) {
    const json_t *found = value_of(at, key);
    if (!found)
        return missing(at, key, need);
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= least && number <= most))
        return json_refuse(at, CLSPLAT_FORMAT, key, "must be a number from %g to %g", least, most);
    *value = number;
    return CLSPLAT_OK;
}

clsplat_status json_bool(const json_place *at, const char *key, bool *value) {
    const json_t *found = value_of(at, key);
    if (!found)
        return CLSPLAT_OK;
    if (!json_is_boolean(found))
        return json_refuse(at, CLSPLAT_FORMAT, key, "must be true or false");
    *value = json_is_true(found);
    return CLSPLAT_OK;
}

clsplat_status json_word(const json_place *at, const char *key, json_need need, const char **value) {
    const json_t *found = value_of(at, key);
    if (!found)
        return missing(at, key, need);
    if (!json_is_string(found))
        return json_refuse(at, CLSPLAT_FORMAT, key, "must be a name in quotes");
    *value = json_string_value(found);
    return CLSPLAT_OK;
}

static json_t *kept(json_t *whole, bool good) {
    if (good)
        return whole;
    json_decref(whole);
    return NULL;
}

json_t *json_push(json_t *list, json_t *value) {
    return kept(list, json_array_append_new(list, value) == 0);
}

json_t *json_put(json_t *object, const char *key, json_t *value) {
    return kept(object, json_object_set_new(object, key, value) == 0);
}

char *json_write(const json_t *value, size_t flags) {
    size_t bytes = value ? json_dumpb(value, NULL, 0, flags) : 0;
    char *words = bytes > 0 ? malloc(bytes + 1) : NULL;
    if (!words || json_dumpb(value, words, bytes, flags) != bytes) {
        free(words);
        return NULL;
    }
    words[bytes] = '\0';
    return words;
}
