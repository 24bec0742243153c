#include "tokenizer/beside.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"

enum { FILE_LIMIT = 64 << 20 };

/* The file of that name in the tokeniser's folder; *root stays NULL if there is none. */
static clsplat_status read_file(const tokenizer *t, const char *name, json_t **root) {
    clsplat_status status = CLSPLAT_OK;
    const char *slash = strrchr(t->path, '/');
    text path = {0};
    text_add(&path, "%.*s/%s", slash ? (int)(slash - t->path) : 1, slash ? t->path : ".", name);
    if (!text_ok(&path))
        TRY(log_error(t->lib, CLSPLAT_MEMORY, "%s: no memory for its path", name));
    if (file_is_there(path.data))
        TRY(json_file(t->lib, path.data, FILE_LIMIT, root));
fail:
    text_free(&path);
    return status;
}

clsplat_status tokenizer_beside_read(const tokenizer *t, tokenizer_beside *b) {
    clsplat_status status = CLSPLAT_OK;
    *b = (tokenizer_beside){0};
    TRY(read_file(t, "tokenizer_config.json", &b->config));
    if (!json_object_get(b->config, "added_tokens_decoder")) {
        TRY(read_file(t, "added_tokens.json", &b->added));
        TRY(read_file(t, "special_tokens_map.json", &b->special));
    }
fail:
    return status;
}

void tokenizer_beside_free(tokenizer_beside *b) {
    json_decref(b->config);
    json_decref(b->added);
    json_decref(b->special);
    *b = (tokenizer_beside){0};
}

/* A token is named by a string, or by an object with its content. */
static const char *name_of(const json_t *value) {
    const char *name = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    return name && *name ? name : NULL;
}

/* Whether one of an object's tokens, or of its lists of tokens, has that name. */
static bool names(const json_t *object, const char *name) {
    const char *key, *own;
    json_t *value, *inner;
    size_t i;
    json_object_foreach((json_t *)object, key, value) {
        size_t length = strlen(key);
        bool one = length > 6 && strcmp(key + length - 6, "_token") == 0;
        if (one && (own = name_of(value)) && strcmp(own, name) == 0)
            return true;
        if (length > 7 && strcmp(key + length - 7, "_tokens") == 0)
            json_array_foreach(value, i, inner) {
                if ((own = name_of(inner)) && strcmp(own, name) == 0)
                    return true;
            }
    }
    return false;
}

static bool flag(const json_t *entry, const char *name, bool absent) {
    const json_t *value = json_object_get(entry, name);
    return json_is_boolean(value) ? json_is_true(value) : absent;
}

static clsplat_status wrong(const tokenizer *t, const char *where, const char *what) {
    return log_error(t->lib, CLSPLAT_FORMAT,
                     "%s: beside it, %s has an entry '%s' that does not say a token and its number", t->path,
                     where, text_show(what).bytes);
}

static clsplat_status walk_config(const tokenizer *t, const json_t *list, tokenizer_beside_take *take,
                                  void *user) {
    clsplat_status status = CLSPLAT_OK;
    const char *key;
    json_t *entry;
    json_object_foreach((json_t *)list, key, entry) {
        char *end;
        long token = strtol(key, &end, 10);
        const char *name = json_string_value(json_object_get(entry, "content"));
        bool special = flag(entry, "special", false);
        if (end == key || *end || token < 0 || token > INT32_MAX || !name)
            return wrong(t, "added_tokens_decoder of tokenizer_config.json", key);
        if (*name)
            TRY(take(user, name,
                     (added_token){.token = (int32_t)token,
                                   .special = special,
                                   .single_word = flag(entry, "single_word", false),
                                   .left = flag(entry, "lstrip", false),
                                   .right = flag(entry, "rstrip", false)},
                     flag(entry, "normalized", !special)));
    }
fail:
    return status;
}

static clsplat_status walk_old(const tokenizer *t, const tokenizer_beside *b, tokenizer_beside_take *take,
                               void *user) {
    clsplat_status status = CLSPLAT_OK;
    const char *name;
    json_t *number;
    json_object_foreach(b->added, name, number) {
        json_int_t token = json_integer_value(number);
        bool special = names(b->special, name) || names(b->config, name);
        if (!json_is_integer(number) || token < 0 || token > INT32_MAX)
            return wrong(t, "added_tokens.json", name);
        if (*name)
            TRY(take(user, name, (added_token){.token = (int32_t)token, .special = special}, !special));
    }
fail:
    return status;
}

static clsplat_status take_named(const json_t *value, tokenizer_beside_take *take, void *user) {
    const char *name = name_of(value);
    return name ? take(user, name, (added_token){.token = -1, .special = true}, false) : CLSPLAT_OK;
}

/* By the keys that name tokens, and those that list them. */
static clsplat_status walk_names(const json_t *object, tokenizer_beside_take *take, void *user) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    clsplat_status status = CLSPLAT_OK;
    const json_t *inner;
    size_t k;
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        TRY(take_named(json_object_get(object, names[i]), take, user));
    for (size_t i = 0; i < sizeof lists / sizeof *lists; ++i)
        json_array_foreach(json_object_get(object, lists[i]), k, inner) {
            TRY(take_named(inner, take, user));
        }
fail:
    return status;
}

clsplat_status tokenizer_beside_walk(const tokenizer *t, const tokenizer_beside *b,
                                     tokenizer_beside_take *take, void *user) {
    clsplat_status status = CLSPLAT_OK;
    TRY(walk_config(t, json_object_get(b->config, "added_tokens_decoder"), take, user));
    TRY(walk_old(t, b, take, user));
    TRY(walk_names(b->config, take, user));
    TRY(walk_names(b->special, take, user));
fail:
    return status;
}
