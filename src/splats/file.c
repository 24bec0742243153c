/* Splat sets in safetensors files. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "splats/file.h"

enum { FORMAT_VERSION = 2 };

clsplat_status splats_file_need(clsplat *lib, const safetensors *f, const char *name, const char *dtype,
                                size_t rank, const safetensors_entry **entry) {
    const char *path = safetensors_path(f);
    const safetensors_entry *e = *entry = safetensors_find(f, name);
    if (!e)
        return log_error(lib, CLSPLAT_FORMAT, "%s: has no tensor '%s'", path, name);
    if (strcmp(e->dtype, dtype) != 0)
        return log_error(lib, CLSPLAT_FORMAT, "%s: tensor '%s' is %s; it must be %s", path, name,
                         text_show(e->dtype).bytes, dtype);
    if (e->rank != rank)
        return log_error(lib, CLSPLAT_FORMAT, "%s: tensor '%s' has %zu dimensions; it must have %zu", path,
                         name, e->rank, rank);
    for (size_t d = 0; d < rank; ++d)
        if (e->shape[d] == 0)
            return log_error(lib, CLSPLAT_FORMAT,
                             "%s: tensor '%s': dimension %zu is 0; it must be at least 1", path, name, d);
    return CLSPLAT_OK;
}

clsplat_status splats_file_expect(clsplat *lib, const safetensors *f, const safetensors_entry *e, size_t d,
                                  uint64_t size) {
    if (e->shape[d] == size)
        return CLSPLAT_OK;
    return log_error(lib, CLSPLAT_FORMAT,
                     "%s: tensor '%s': dimension %zu is %" PRIu64 "; it must be %" PRIu64
                     " to fit the other tensors",
                     safetensors_path(f), e->name, d, e->shape[d], size);
}

/* The tensors of a file, in the order of clsplat_splats_parameters. */
typedef struct contents {
    const safetensors_entry *mean, *log_var, *precision_chol, *log_amplitude, *log_temperature, *level,
        *level_weight;
} contents;

static clsplat_status find_covariance(clsplat *lib, const safetensors *f, contents *c,
                                      clsplat_splats_shape *shape) {
    clsplat_status status = CLSPLAT_OK;
    bool has_var = safetensors_find(f, "log_var"), has_chol = safetensors_find(f, "precision_chol");
    if (has_var == has_chol)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: has %s of 'log_var' and 'precision_chol'; it must have one",
                         safetensors_path(f), has_var ? "both" : "neither");
    const safetensors_entry **e = has_var ? &c->log_var : &c->precision_chol;
    TRY(splats_file_need(lib, f, has_var ? "log_var" : "precision_chol", "F32", has_var ? 3 : 4, e));
    TRY(splats_file_expect(lib, f, *e, 0, shape->heads));
    TRY(splats_file_expect(lib, f, *e, 1, shape->count));
    shape->covariance = has_chol                                              ? CLSPLAT_FULL
                        : (*e)->shape[2] == 1 && (*e)->shape[2] != shape->dim ? CLSPLAT_ISOTROPIC
                                                                              : CLSPLAT_DIAGONAL;
    for (size_t d = 2; d < (*e)->rank && shape->covariance != CLSPLAT_ISOTROPIC; ++d)
        TRY(splats_file_expect(lib, f, *e, d, shape->dim));
fail:
    return status;
}

static clsplat_status find_contents(clsplat *lib, const safetensors *f, contents *c,
                                    clsplat_splats_shape *shape) {
    clsplat_status status = CLSPLAT_OK;
    *c = (contents){0};
    TRY(splats_file_need(lib, f, "mean", "F32", 3, &c->mean));
    shape->heads = (size_t)c->mean->shape[0];
    shape->count = (size_t)c->mean->shape[1];
    shape->dim = (size_t)c->mean->shape[2];
    TRY(find_covariance(lib, f, c, shape));
    TRY(splats_file_need(lib, f, "log_amplitude", "F32", 2, &c->log_amplitude));
    TRY(splats_file_need(lib, f, "log_temperature", "F32", 2, &c->log_temperature));
    const safetensors_entry *const per_splat[] = {c->log_amplitude, c->log_temperature};
    for (size_t i = 0; i < 2; ++i) {
        TRY(splats_file_expect(lib, f, per_splat[i], 0, shape->heads));
        TRY(splats_file_expect(lib, f, per_splat[i], 1, shape->count));
    }
    TRY(splats_file_need(lib, f, "level", "I32", 1, &c->level));
    TRY(splats_file_expect(lib, f, c->level, 0, shape->count));
    TRY(splats_file_need(lib, f, "level_log_weight", "F32", 1, &c->level_weight));
    shape->levels = (size_t)c->level_weight->shape[0];
fail:
    return status;
}

clsplat_status splats_file_version(clsplat *lib, const safetensors *f) {
    const char *version = safetensors_metadata(f, "format_version");
    if (version && strtol(version, NULL, 10) > FORMAT_VERSION)
        return log_error(lib, CLSPLAT_UNSUPPORTED, "%s: has format version %s; this library reads up to %d",
                         safetensors_path(f), text_show(version).bytes, FORMAT_VERSION);
    return CLSPLAT_OK;
}

static clsplat_status read_names(const safetensors *f, clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t l = 0; l < set->parameters.shape.levels; ++l) {
        text key = {0};
        text_add(&key, "level_name.%zu", l);
        const char *name = text_ok(&key) ? safetensors_metadata(f, key.data) : NULL;
        text_free(&key);
        if (name && *name)
            TRY(clsplat_splats_set_level_name(set, l, name));
    }
fail:
    return status;
}

clsplat_status splats_file_finish(clsplat *lib, const safetensors *f, clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    text where = {0};
    TRY(read_names(f, set));
    text_add(&where, "%s: tensor ", safetensors_path(f));
    if (!text_ok(&where)) {
        status = log_error(lib, CLSPLAT_MEMORY, "no memory to check %s", safetensors_path(f));
        goto fail;
    }
    TRY(splats_check(set, CLSPLAT_FORMAT, where.data));
fail:
    text_free(&where);
    return status;
}

clsplat_status splats_file_levels(clsplat *lib, const safetensors *f, clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    const safetensors_entry *e;
    TRY(splats_file_need(lib, f, "level", "I32", 1, &e));
    TRY(splats_file_expect(lib, f, e, 0, set->parameters.shape.count));
    TRY(safetensors_read(lib, f, e, set->parameters.level));
    TRY(splats_file_need(lib, f, "level_log_weight", "F32", 1, &e));
    TRY(splats_file_expect(lib, f, e, 0, set->parameters.shape.levels));
    TRY(safetensors_read(lib, f, e, set->parameters.level_log_weight));
fail:
    return status;
}

static clsplat_status read_contents(clsplat *lib, const safetensors *f, const contents *c,
                                    clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_parameters *p = &set->parameters;
    TRY(safetensors_read(lib, f, c->mean, p->mean));
    if (c->log_var)
        TRY(safetensors_read(lib, f, c->log_var, p->log_var));
    else
        TRY(safetensors_read(lib, f, c->precision_chol, p->precision_chol));
    TRY(safetensors_read(lib, f, c->log_amplitude, p->log_amplitude));
    TRY(safetensors_read(lib, f, c->log_temperature, p->log_temperature));
    TRY(safetensors_read(lib, f, c->level, p->level));
    TRY(safetensors_read(lib, f, c->level_weight, p->level_log_weight));
    TRY(splats_file_finish(lib, f, set));
fail:
    return status;
}

clsplat_status clsplat_splats_load(clsplat *lib, const char *path, clsplat_splats **splats) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *f = NULL;
    clsplat_splats *set = NULL;
    clsplat_splats_shape shape = {0};
    contents c;
    *splats = NULL;
    TRY(safetensors_open(lib, path, &f));
    TRY(splats_file_version(lib, f));
    const char *kind = safetensors_metadata(f, "kind");
    if (kind && strcmp(kind, "delta") == 0) {
        status = log_error(
            lib, CLSPLAT_FORMAT,
            "%s: holds the difference from other splats only; these are needed as well, as its base", path);
        goto fail;
    }
    if (kind && strcmp(kind, "compact") == 0) {
        TRY(splats_read_compact(lib, f, splats));
        goto fail;
    }
    TRY(find_contents(lib, f, &c, &shape));
    TRY(clsplat_splats_create(lib, shape, &set));
    TRY(read_contents(lib, f, &c, set));
    *splats = set;
    set = NULL;
fail:
    clsplat_splats_destroy(&set);
    safetensors_close(&f);
    return status;
}

void splats_arrays(const clsplat_splats *set, splats_array arrays[SPLATS_ARRAYS]) {
    const clsplat_splats_parameters *p = &set->parameters;
    arrays[0] = (splats_array){"mean", p->mean, p->shape.dim};
    arrays[1] =
        (splats_array){p->log_var ? "log_var" : "precision_chol", p->log_var ? p->log_var : p->precision_chol,
                       splats_covariance_size(&p->shape)};
    arrays[2] = (splats_array){"log_amplitude", p->log_amplitude, 1};
    arrays[3] = (splats_array){"log_temperature", p->log_temperature, 1};
}

clsplat_status splats_file_write(const clsplat_splats *set, const char *path, const char *version,
                                 const safetensors_output *tensors, size_t count,
                                 const char *const (*extra)[2], size_t extras) {
    clsplat_status status = CLSPLAT_OK;
    size_t levels = set->parameters.shape.levels, pairs = 0;
    const char *(*metadata)[2] = calloc(2 + extras + levels, sizeof *metadata);
    text *keys = calloc(levels, sizeof *keys);
    bool memory = metadata && keys;
    if (memory) {
        metadata[pairs][0] = "format", metadata[pairs++][1] = "clsplat";
        metadata[pairs][0] = "format_version", metadata[pairs++][1] = version;
    }
    for (size_t i = 0; memory && i < extras; ++i, ++pairs)
        metadata[pairs][0] = extra[i][0], metadata[pairs][1] = extra[i][1];
    for (size_t l = 0; memory && l < levels; ++l, ++pairs) {
        text_add(&keys[l], "level_name.%zu", l);
        memory = text_ok(&keys[l]);
        metadata[pairs][0] = keys[l].data;
        metadata[pairs][1] = set->level_names[l];
    }
    status = memory
                 ? safetensors_save(set->lib, path, tensors, count, (const char *const(*)[2])metadata, pairs)
                 : log_error(set->lib, CLSPLAT_MEMORY, "no memory to save %s", path);
    for (size_t l = 0; keys && l < levels; ++l)
        text_free(&keys[l]);
    free(keys);
    free(metadata);
    return status;
}

clsplat_status clsplat_splats_save(clsplat_splats *splats, const char *path) {
    const clsplat_splats_parameters *p = &splats->parameters;
    uint64_t heads = p->shape.heads, count = p->shape.count, dim = p->shape.dim, levels = p->shape.levels;
    const safetensors_output tensors[] = {
        {"mean", "F32", 3, {heads, count, dim}, p->mean},
        p->log_var
            ? (safetensors_output){"log_var",
                                   "F32",
                                   3,
                                   {heads, count, splats_covariance_size(&p->shape)},
                                   p->log_var}
            : (safetensors_output){"precision_chol", "F32", 4, {heads, count, dim, dim}, p->precision_chol},
        {"log_amplitude", "F32", 2, {heads, count}, p->log_amplitude},
        {"log_temperature", "F32", 2, {heads, count}, p->log_temperature},
        {"level", "I32", 1, {count}, p->level},
        {"level_log_weight", "F32", 1, {levels}, p->level_log_weight},
    };
    clsplat_status status = CLSPLAT_OK;
    TRY(splats_check(splats, CLSPLAT_INVALID, ""));
    TRY(splats_file_write(splats, path, "1", tensors, sizeof tensors / sizeof *tensors, NULL, 0));
fail:
    return status;
}
