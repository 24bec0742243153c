/* Values of a JSON file by their keys: of the right type and range, or an error that names file and key. */
#ifndef CLSPLAT_FORMAT_JSON_H
#define CLSPLAT_FORMAT_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/log.h"

/* An object of a file; `prefix` stands before its keys in messages: "rope_parameters.". */
typedef struct json_place {
    clsplat *lib;
    const char *path, *prefix;
    const json_t *object;
} json_place;

/* Loads a file of up to `limit` bytes whose root is an object; the caller releases *root. Returns: IO,
 * FORMAT. */
clsplat_status json_file(clsplat *lib, const char *path, size_t limit, json_t **root);

/* Whether the key is there with another value than null. */
bool json_has(const json_place *at, const char *key);

/* A missing or null key keeps the default that is in *value; with `needed` it is an error. */
typedef enum json_need { JSON_OPTIONAL, JSON_NEEDED } json_need;
clsplat_status json_size(const json_place *at, const char *key, json_need need, size_t least, size_t most,
                         size_t *value);
clsplat_status json_double(const json_place *at, const char *key, json_need need, double least, double most,
                           double *value);
clsplat_status json_bool(const json_place *at, const char *key, bool *value);
clsplat_status json_word(const json_place *at, const char *key, json_need need, const char **value);

/* The list, the object with the value in it; NULL if there is no memory for that, or if one of the two is
 * NULL, so that what is made of many parts is whole or NULL. Ownership: both are taken over. */
json_t *json_push(json_t *list, json_t *value);
json_t *json_put(json_t *object, const char *key, json_t *value);

/* The value as text, as json_dumps writes it; NULL if there is no memory, or no value. json_dumps itself goes
 * on without a key that it had no room for (Jansson 2.14). Ownership: the caller's, for free. */
char *json_write(const json_t *value, size_t flags);

/* "FILE: key PREFIXKEY …": FORMAT or UNSUPPORTED. */
clsplat_status json_refuse(const json_place *at, clsplat_status status, const char *key, const char *format,
                           ...) __attribute__((format(printf, 4, 5)));

#endif
