#include "model/pooling.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"

enum { FILE_LIMIT = 1 << 20, LONGEST_LIMIT = 1 << 30 };

/* A file of the folder that may be missing: then *root stays NULL. `list`: its root is a list. */
static clsplat_status load(clsplat *lib, const char *folder, const char *name, bool list, text *path,
                           json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    json_error_t error;
    *root = NULL;
    path->length = 0;
    text_add(path, "%s/%s", folder, name);
    if (!text_ok(path))
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder);
    if (access(path->data, F_OK) != 0)
        return CLSPLAT_OK;
    if (!list)
        return json_file(lib, path->data, FILE_LIMIT, root);
    TRY(file_load(lib, path->data, FILE_LIMIT, &bytes, &count));
    *root = json_loadb(bytes, count, 0, &error);
    if (!json_is_array(*root))
        TRY(log_error(lib, CLSPLAT_FORMAT, "%s: must be a JSON list of modules", path->data));
fail:
    free(bytes);
    return status;
}

/* The one mode that is set; old files may set none. */
static clsplat_status read_mode(const json_place *at, clsplat_pooling *kind) {
    static const struct {
        const char *key;
        clsplat_pooling kind; /* FOLDER: not here */
    } modes[] = {{"pooling_mode_cls_token", CLSPLAT_POOLING_CLS},
                 {"pooling_mode_mean_tokens", CLSPLAT_POOLING_MEAN},
                 {"pooling_mode_lasttoken", CLSPLAT_POOLING_LAST},
                 {"pooling_mode_max_tokens", CLSPLAT_POOLING_FOLDER},
                 {"pooling_mode_mean_sqrt_len_tokens", CLSPLAT_POOLING_FOLDER},
                 {"pooling_mode_weightedmean_tokens", CLSPLAT_POOLING_FOLDER}};
    clsplat_status status = CLSPLAT_OK;
    const char *first = NULL, *word = NULL;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; ++i) {
        bool set = false;
        TRY(json_bool(at, modes[i].key, &set));
        if (!set)
            continue;
        if (first)
            return json_refuse(at, CLSPLAT_UNSUPPORTED, modes[i].key,
                               "is true beside %s; one way of pooling at a time is supported", first);
        if (modes[i].kind == CLSPLAT_POOLING_FOLDER)
            return json_refuse(at, CLSPLAT_UNSUPPORTED, modes[i].key,
                               "is true; the mean, the first and the last token are supported");
        first = modes[i].key;
        *kind = modes[i].kind;
    }
    TRY(json_word(at, "pooling_mode", JSON_OPTIONAL, &word));
    if (first || !word)
        return CLSPLAT_OK;
    if (strcmp(word, "mean") != 0 && strcmp(word, "cls") != 0 && strcmp(word, "lasttoken") != 0)
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "pooling_mode",
                           "is '%s'; mean, cls and lasttoken are supported", text_show(word).bytes);
    *kind = *word == 'm' ? CLSPLAT_POOLING_MEAN : *word == 'c' ? CLSPLAT_POOLING_CLS : CLSPLAT_POOLING_LAST;
fail:
    return status;
}

static clsplat_status read_pooling(clsplat *lib, const char *folder, const char *module, model_pooling *p) {
    clsplat_status status = CLSPLAT_OK;
    json_t *root = NULL;
    text path = {0}, name = {0};
    text_add(&name, "%s%sconfig.json", module, *module ? "/" : "");
    if (!text_ok(&name))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    TRY(load(lib, folder, name.data, false, &path, &root));
    if (!root)
        TRY(log_error(lib, CLSPLAT_IO, "%s: is missing, but modules.json names it", path.data));
    TRY(read_mode(&(json_place){.lib = lib, .path = path.data, .prefix = "", .object = root}, &p->kind));
fail:
    json_decref(root);
    text_free(&path);
    text_free(&name);
    return status;
}

/* Transformer, Pooling and Normalize, in this order, the last perhaps missing. */
static clsplat_status read_module(clsplat *lib, const char *folder, const char *path, const json_t *module,
                                  model_pooling *p) {
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *place = json_string_value(json_object_get(module, "path"));
    const char *name = type && strrchr(type, '.') ? strrchr(type, '.') + 1 : type;
    if (!name || !place || place[0] == '/' || strstr(place, ".."))
        return log_error(lib, CLSPLAT_FORMAT, "%s: each module needs a type and a path in the folder", path);
    if (strcmp(name, "Transformer") == 0 && !*place)
        return CLSPLAT_OK;
    if (strcmp(name, "Pooling") == 0)
        return read_pooling(lib, folder, place, p);
    if (strcmp(name, "Normalize") == 0) {
        p->normalised = true;
        return CLSPLAT_OK;
    }
    return log_error(
        lib, CLSPLAT_UNSUPPORTED,
        "%s: the module '%s' in '%s' is not supported; a Transformer in the folder itself, Pooling and "
        "Normalize are",
        path, text_show(name).bytes, text_show(place).bytes);
}

/* The prompt that texts get unless somebody names another. */
static clsplat_status read_prompt(const json_place *at, model_pooling *p) {
    clsplat_status status = CLSPLAT_OK;
    const char *name = NULL;
    TRY(json_word(at, "default_prompt_name", JSON_OPTIONAL, &name));
    if (!name)
        return CLSPLAT_OK;
    const char *prompt = json_string_value(json_object_get(json_object_get(at->object, "prompts"), name));
    if (!prompt)
        return json_refuse(at, CLSPLAT_FORMAT, "default_prompt_name", "is '%s', which prompts does not have",
                           text_show(name).bytes);
    p->prompt = text_copy(prompt);
    if (!p->prompt)
        return log_error(at->lib, CLSPLAT_MEMORY, "%s: no memory for its prompt", at->path);
fail:
    return status;
}

clsplat_status model_pooling_load(clsplat *lib, const char *folder, model_pooling *p) {
    clsplat_status status = CLSPLAT_OK;
    json_t *modules = NULL, *sentence = NULL, *more = NULL;
    const json_t *module;
    size_t i;
    text path = {0};
    *p = (model_pooling){.kind = CLSPLAT_POOLING_MEAN};
    TRY(load(lib, folder, "modules.json", true, &path, &modules));
    json_array_foreach(modules, i, module) {
        TRY(read_module(lib, folder, path.data, module, p));
    }
    TRY(load(lib, folder, "sentence_bert_config.json", false, &path, &sentence));
    json_place at = {.lib = lib, .path = path.data, .prefix = "", .object = sentence};
    if (sentence)
        TRY(json_size(&at, "max_seq_length", JSON_OPTIONAL, 1, LONGEST_LIMIT, &p->longest));
    TRY(load(lib, folder, "config_sentence_transformers.json", false, &path, &more));
    at.path = path.data;
    at.object = more;
    if (more)
        TRY(read_prompt(&at, p));
fail:
    json_decref(modules);
    json_decref(sentence);
    json_decref(more);
    text_free(&path);
    if (status != CLSPLAT_OK)
        model_pooling_free(p);
    return status;
}

void model_pooling_free(model_pooling *p) {
    free(p->prompt);
    *p = (model_pooling){0};
}
