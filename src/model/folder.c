#include "model/folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "model/gguf_model.h"

enum { SHARDS_LIMIT = 4096, INDEX_LIMIT = 64 << 20 };

struct model_folder {
    char *path;    /* of the one file, or of the index */
    json_t *index; /* NULL: one file */
    const char *names[SHARDS_LIMIT];
    safetensors *files[SHARDS_LIMIT];
    size_t count;
    char *alias, *other; /* NULL: none */
    size_t packed_count;
    gguf *packed; /* instead of all that; and its tensors as entries, with their heads */
    safetensors_entry *entries;
    size_t *heads;
    gguf_name *entry_names;
};

static char *path_of(const char *folder, const char *name) {
    text path = {0};
    text_add(&path, "%s/%s", folder, name);
    if (text_ok(&path))
        return path.data;
    text_free(&path);
    return NULL;
}

static clsplat_status open_file(clsplat *lib, model_folder *f, const char *folder, const char *name) {
    char *path = path_of(folder, name);
    if (!path)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder);
    clsplat_status status = safetensors_open(lib, path, &f->files[f->count]);
    free(path);
    if (status == CLSPLAT_OK)
        f->names[f->count++] = name;
    return status;
}

static size_t shard_of(const model_folder *f, const char *name) {
    size_t i = 0;
    while (i < f->count && strcmp(f->names[i], name) != 0)
        ++i;
    return i;
}

/* A shard lies in the folder itself: its name may not lead elsewhere. */
static bool is_plain_name(const char *name) {
    return name && *name && !strchr(name, '/') && name[0] != '.';
}

static clsplat_status open_shards(clsplat *lib, model_folder *f, const char *folder) {
    clsplat_status status = CLSPLAT_OK;
    const char *tensor;
    json_t *value;
    TRY(json_file(lib, f->path, INDEX_LIMIT, &f->index));
    json_t *map = json_object_get(f->index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: key weight_map must be an object with a file for each tensor", f->path);
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        if (!is_plain_name(name))
            return log_error(lib, CLSPLAT_FORMAT,
                             "%s: weight_map names no file of the folder for tensor '%s'", f->path,
                             text_show(tensor).bytes);
        if (shard_of(f, name) < f->count)
            continue;
        if (f->count == SHARDS_LIMIT)
            return log_error(lib, CLSPLAT_FORMAT, "%s: weight_map names more than %d files", f->path,
                             SHARDS_LIMIT);
        TRY(open_file(lib, f, folder, name));
    }
fail:
    return status;
}

/* Older folders have weights only as Python objects, which are programs. */
static clsplat_status refuse_pickles(clsplat *lib, const char *folder, const char *single) {
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0; !file_is_there(single) && i < sizeof pickles / sizeof *pickles; ++i) {
        char *pickle = path_of(folder, pickles[i]);
        if (pickle && file_is_there(pickle))
            status = log_error(
                lib, CLSPLAT_UNSUPPORTED,
                "%s: is not read; convert it to %s with Python's transformers: save_pretrained(FOLDER, "
                "safe_serialization=True)",
                pickle, single);
        free(pickle);
        TRY(status);
    }
fail:
    return status;
}

/* How a GGUF file's tensor would be described in a folder: its name there, and the dimension that lies
 * together last. */
static void describe(model_folder *f, size_t i, const gguf_tensor *t) {
    safetensors_entry *e = &f->entries[i];
    f->entry_names[i] = gguf_name_in_folder(t->name);
    *e = (safetensors_entry){.name = f->entry_names[i].bytes,
                             .rank = t->rank,
                             .count = t->count,
                             .begin = t->begin,
                             .bytes = t->bytes};
    snprintf(e->dtype, sizeof e->dtype, "%s", t->type->name);
    for (size_t d = 0; d < t->rank; ++d)
        e->shape[d] = t->shape[t->rank - 1 - d];
}

static clsplat_status open_packed(clsplat *lib, model_folder *f) {
    clsplat_status status = CLSPLAT_OK;
    const gguf_family *family = NULL;
    uint64_t heads = 0, kv_heads = 0;
    TRY(gguf_open(lib, f->path, &f->packed));
    TRY(gguf_family_of(lib, f->packed, &family));
    TRY(gguf_size(lib, f->packed, "attention.head_count", true, &heads));
    kv_heads = heads;
    TRY(gguf_size(lib, f->packed, "attention.head_count_kv", false, &kv_heads));
    f->packed_count = gguf_tensor_count(f->packed);
    f->entries = calloc(f->packed_count + 1, sizeof *f->entries);
    f->heads = calloc(f->packed_count + 1, sizeof *f->heads);
    f->entry_names = calloc(f->packed_count + 1, sizeof *f->entry_names);
    if (!f->entries || !f->heads || !f->entry_names)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", f->path);
    for (size_t i = 0; i < f->packed_count; ++i) {
        const gguf_tensor *t = gguf_tensor_at(f->packed, i);
        describe(f, i, t);
        if (family->pairs && strstr(t->name, ".attn_q."))
            f->heads[i] = (size_t)heads;
        if (family->pairs && strstr(t->name, ".attn_k."))
            f->heads[i] = (size_t)kv_heads;
    }
fail:
    return status;
}

clsplat_status model_folder_open(clsplat *lib, const char *path, model_folder **folder) {
    clsplat_status status = CLSPLAT_OK;
    static const char single[] = "model.safetensors", index[] = "model.safetensors.index.json";
    model_folder *f = calloc(1, sizeof *f);
    char *sharded = path_of(path, index);
    bool is_sharded = false;
    *folder = NULL;
    if (f)
        f->path = gguf_is(path) ? text_copy(path) : path_of(path, single);
    if (!f || !f->path || !sharded)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory to open it", path));
    is_sharded = !file_is_there(f->path) && file_is_there(sharded);
    if (gguf_is(path)) {
        TRY(open_packed(lib, f));
    } else if (is_sharded) {
        char *swap = f->path;
        f->path = sharded;
        sharded = swap;
        TRY(open_shards(lib, f, path));
    } else {
        TRY(refuse_pickles(lib, path, f->path));
        TRY(open_file(lib, f, path, single));
    }
    *folder = f;
    f = NULL;
fail:
    free(sharded);
    model_folder_close(&f);
    return status;
}

void model_folder_close(model_folder **folder) {
    if (!folder || !*folder)
        return;
    for (size_t i = 0; i < (*folder)->count; ++i)
        safetensors_close(&(*folder)->files[i]);
    gguf_close(&(*folder)->packed);
    free((*folder)->entries);
    free((*folder)->heads);
    free((*folder)->entry_names);
    json_decref((*folder)->index);
    free((*folder)->alias);
    free((*folder)->other);
    free((*folder)->path);
    free(*folder);
    *folder = NULL;
}

const char *model_folder_path(const model_folder *folder) {
    return folder->path;
}

static model_tensor find_in(const model_folder *f, size_t first, size_t end, const char *name) {
    for (size_t i = first; i < end; ++i) {
        const safetensors_entry *entry = safetensors_find(f->files[i], name);
        if (entry)
            return (model_tensor){f->files[i], entry, 0};
    }
    return (model_tensor){0};
}

/* Where the index says, or in any shard: transformers reads what the shards have. */
static model_tensor find_named(const model_folder *f, const char *name) {
    if (f->packed) {
        const gguf_tensor *t = gguf_find_tensor(f->packed, gguf_name_in_file(name).bytes);
        return t ? model_folder_at(f, (size_t)(t - gguf_tensor_at(f->packed, 0))) : (model_tensor){0};
    }
    const char *file = json_string_value(json_object_get(json_object_get(f->index, "weight_map"), name));
    size_t shard = file ? shard_of(f, file) : f->count;
    model_tensor found = find_in(f, shard, shard < f->count ? shard + 1 : shard, name);
    return found.entry ? found : find_in(f, 0, f->count, name);
}

model_tensor model_folder_find(const model_folder *f, const char *name) {
    model_tensor found = find_named(f, name);
    for (size_t i = 0; !found.entry && i < f->count; ++i) {
        const char *other = safetensors_metadata(f->files[i], name);
        if (other)
            found = find_named(f, other);
    }
    if (!found.entry && f->alias && f->other && strcmp(f->alias, name) == 0)
        found = find_named(f, f->other);
    return found;
}

clsplat_status model_folder_alias(clsplat *lib, model_folder *folder, const char *name, const char *other) {
    free(folder->alias);
    free(folder->other);
    folder->alias = text_copy(name);
    folder->other = text_copy(other);
    return folder->alias && folder->other
               ? CLSPLAT_OK
               : log_error(lib, CLSPLAT_MEMORY, "%s: no memory for a name", folder->path);
}

model_tensor model_folder_at(const model_folder *f, size_t index) {
    if (f->packed)
        return index < f->packed_count ? (model_tensor){NULL, &f->entries[index], f->heads[index]}
                                       : (model_tensor){0};
    for (size_t i = 0; i < f->count; ++i) {
        size_t count = safetensors_count(f->files[i]);
        if (index < count)
            return (model_tensor){f->files[i], safetensors_at(f->files[i], index), 0};
        index -= count;
    }
    return (model_tensor){0};
}

const char *model_folder_path_of(const model_folder *f, const model_tensor *t) {
    return t->file ? safetensors_path(t->file) : f->path;
}

clsplat_status model_folder_map(clsplat *lib, const model_folder *f, const model_tensor *t,
                                const void **bytes) {
    if (t->file)
        return safetensors_map(lib, t->file, t->entry, bytes);
    *bytes = gguf_data(f->packed, gguf_tensor_at(f->packed, (size_t)(t->entry - f->entries)));
    return CLSPLAT_OK;
}

const gguf *model_folder_packed(const model_folder *f) {
    return f->packed;
}
