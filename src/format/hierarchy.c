/* The levels of a splat set, as the original system's configuration writes them. */
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>

#include <clsplat/splats.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json_text.h"

enum { CONFIG_LIMIT = 16 << 20, LEVEL_LIMIT = 4096, COUNT_LIMIT = 1 << 24 };

/* So far apart that nobody minds, and so near that every share of the sum is above 0. */
static const double WEIGHT_LEAST = 1e-9, WEIGHT_MOST = 1e9;

static clsplat_status allocate(clsplat *lib, size_t levels, clsplat_hierarchy *h) {
    *h = (clsplat_hierarchy){.levels = levels,
                             .names = calloc(levels, sizeof *h->names),
                             .counts = calloc(levels, sizeof *h->counts),
                             .weights = calloc(levels, sizeof *h->weights)};
    if (h->names && h->counts && h->weights)
        return CLSPLAT_OK;
    clsplat_hierarchy_free(h);
    return log_error(lib, CLSPLAT_MEMORY, "no memory for %zu levels", levels);
}

void clsplat_hierarchy_free(clsplat_hierarchy *hierarchy) {
    for (size_t l = 0; hierarchy->names && l < hierarchy->levels; ++l)
        free(hierarchy->names[l]);
    free(hierarchy->names);
    free(hierarchy->counts);
    free(hierarchy->weights);
    *hierarchy = (clsplat_hierarchy){0};
}

static clsplat_status set_level(clsplat *lib, clsplat_hierarchy *h, size_t level, const char *name,
                                size_t count, double weight) {
    h->names[level] = text_copy(name);
    h->counts[level] = count;
    h->weights[level] = weight;
    return h->names[level] ? CLSPLAT_OK : log_error(lib, CLSPLAT_MEMORY, "no memory for the name of a level");
}

static void normalise(clsplat_hierarchy *h) {
    double sum = 0;
    for (size_t l = 0; l < h->levels; ++l)
        sum += h->weights[l];
    for (size_t l = 0; l < h->levels; ++l)
        h->weights[l] /= sum;
}

clsplat_status clsplat_hierarchy_default(clsplat *lib, clsplat_hierarchy *hierarchy) {
    static const struct {
        const char *name;
        size_t count;
        double weight;
    } levels[] = {{"Token", 100, 0.4}, {"Phrase", 50, 0.3}, {"Section", 20, 0.2}, {"Document", 5, 0.1}};
    clsplat_status status = CLSPLAT_OK;
    TRY(allocate(lib, sizeof levels / sizeof *levels, hierarchy));
    for (size_t l = 0; l < hierarchy->levels; ++l)
        TRY(set_level(lib, hierarchy, l, levels[l].name, levels[l].count, levels[l].weight));
    return CLSPLAT_OK;
fail:
    clsplat_hierarchy_free(hierarchy);
    return status;
}

/* The three lists of a configuration, under "hierarchy" or at the top. */
typedef struct config {
    const char *path, *prefix; /* the file, and what stands before a key in messages */
    const json_t *names, *counts, *weights;
} config;

static clsplat_status find_list(clsplat *lib, const config *c, const json_t *object, const char *key,
                                const json_t **list) {
    *list = json_object_get(object, key);
    if (json_is_array(*list) && json_array_size(*list) > 0 && json_array_size(*list) <= LEVEL_LIMIT)
        return CLSPLAT_OK;
    return log_error(lib, CLSPLAT_FORMAT, "%s: %s%s must be a list with one entry per level, 1 to %d of them",
                     c->path, c->prefix, key, LEVEL_LIMIT);
}

static clsplat_status find_lists(clsplat *lib, const json_t *root, config *c) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *hierarchy = json_object_get(root, "hierarchy");
    bool at_top = !hierarchy && json_object_get(root, "levels");
    c->prefix = at_top ? "" : "hierarchy.";
    if (!json_is_object(root))
        return log_error(lib, CLSPLAT_FORMAT, "%s: must be a JSON object with the key hierarchy", c->path);
    if (hierarchy && !json_is_object(hierarchy))
        return log_error(lib, CLSPLAT_FORMAT, "%s: hierarchy must be an object", c->path);
    const json_t *object = at_top ? root : hierarchy;
    TRY(find_list(lib, c, object, "levels", &c->names));
    TRY(find_list(lib, c, object, "init_splats_per_level", &c->counts));
    TRY(find_list(lib, c, object, "level_weights", &c->weights));
    size_t names = json_array_size(c->names), counts = json_array_size(c->counts);
    size_t weights = json_array_size(c->weights);
    if (names != counts || names != weights)
        return log_error(
            lib, CLSPLAT_FORMAT,
            "%s: %slevels has %zu entries, init_splats_per_level %zu and level_weights %zu; they "
            "must be as many",
            c->path, c->prefix, names, counts, weights);
fail:
    return status;
}

static clsplat_status read_level(clsplat *lib, const config *c, size_t l, clsplat_hierarchy *h) {
    const char *name = json_string_value(json_array_get(c->names, l));
    const json_t *count = json_array_get(c->counts, l);
    double weight = json_number_value(json_array_get(c->weights, l)); /* 0 if it is no number */
    if (!name || !*name)
        return log_error(lib, CLSPLAT_FORMAT, "%s: %slevels[%zu] must be a name", c->path, c->prefix, l);
    if (!json_is_integer(count) || json_integer_value(count) < 1 || json_integer_value(count) > COUNT_LIMIT)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: %sinit_splats_per_level[%zu] must be a whole number from 1 to %d", c->path,
                         c->prefix, l, COUNT_LIMIT);
    if (!(weight >= WEIGHT_LEAST && weight <= WEIGHT_MOST))
        return log_error(lib, CLSPLAT_FORMAT, "%s: %slevel_weights[%zu] must be a number from %g to %g",
                         c->path, c->prefix, l, WEIGHT_LEAST, WEIGHT_MOST);
    return set_level(lib, h, l, name, (size_t)json_integer_value(count), weight);
}

static clsplat_status read_config(clsplat *lib, const char *path, const json_t *root,
                                  clsplat_hierarchy *hierarchy) {
    clsplat_status status = CLSPLAT_OK;
    config c = {.path = path};
    TRY(find_lists(lib, root, &c));
    TRY(allocate(lib, json_array_size(c.names), hierarchy));
    for (size_t l = 0; l < hierarchy->levels; ++l)
        TRY(read_level(lib, &c, l, hierarchy));
    normalise(hierarchy);
    return CLSPLAT_OK;
fail:
    clsplat_hierarchy_free(hierarchy);
    return status;
}

clsplat_status clsplat_hierarchy_load(clsplat *lib, const char *path, clsplat_hierarchy *hierarchy) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    json_t *root = NULL;
    *hierarchy = (clsplat_hierarchy){0};
    TRY(file_load(lib, path, CONFIG_LIMIT, &bytes, &count));
    TRY(json_text_read(lib, path, bytes, count, &root));
    TRY(read_config(lib, path, root, hierarchy));
fail:
    json_decref(root);
    free(bytes);
    return status;
}
