#include "train/corpus.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/text.h"

enum { DEPTH_LIMIT = 64 };
static const size_t FILE_LIMIT = (size_t)1 << 40;

typedef struct found {
    char *path;
    uint64_t order;
    bool named; /* by the caller: it is read whatever is in it */
} found;

typedef struct listing {
    clsplat *lib;
    const char *match;
    found *files;
    size_t count, capacity;
} listing;

static clsplat_status add_file(listing *l, const char *path, const char *below, bool named) {
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 256;
        found *files = realloc(l->files, capacity * sizeof *files);
        if (!files)
            return log_error(l->lib, CLSPLAT_MEMORY, "%s: no memory to list the files", path);
        l->files = files;
        l->capacity = capacity;
    }
    l->files[l->count] = (found){text_copy(path), XXH64(below, strlen(below), 0), named};
    if (!l->files[l->count].path)
        return log_error(l->lib, CLSPLAT_MEMORY, "%s: no memory to list the files", path);
    ++l->count;
    return CLSPLAT_OK;
}

/* `root` letters of the path lead to what the caller named: the rest decides the order, wherever it lies. */
static clsplat_status add_folder(listing *l, const char *folder, size_t root, size_t depth) {
    clsplat_status status = CLSPLAT_OK;
    DIR *list = opendir(folder);
    text path = {0};
    if (!list)
        return log_error(l->lib, CLSPLAT_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(list));) {
        struct stat about;
        text_free(&path);
        path = (text){0};
        if (entry->d_name[0] == '.')
            continue;
        text_add(&path, "%s/%s", folder, entry->d_name);
        if (!text_ok(&path))
            TRY(log_error(l->lib, CLSPLAT_MEMORY, "%s: no memory to list it", folder));
        if (lstat(path.data, &about) != 0)
            continue;
        if (S_ISDIR(about.st_mode) && depth < DEPTH_LIMIT)
            TRY(add_folder(l, path.data, root, depth + 1));
        else if (S_ISREG(about.st_mode) && (!l->match || fnmatch(l->match, entry->d_name, 0) == 0))
            TRY(add_file(l, path.data, path.data + root, false));
    }
fail:
    text_free(&path);
    closedir(list);
    return status;
}

static int by_order(const void *a, const void *b) {
    const found *x = a, *y = b;
    return x->order != y->order ? (x->order < y->order ? -1 : 1) : strcmp(x->path, y->path);
}

static clsplat_status append(clsplat *lib, corpus *c, const char *path, const char *bytes, size_t count) {
    if (c->count + count + 1 > c->capacity) {
        size_t capacity = 2 * c->capacity > c->count + count + 1 ? 2 * c->capacity : c->count + count + 1;
        uint8_t *larger = realloc(c->bytes, capacity);
        if (!larger)
            return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for it beside the %zu bytes before", path,
                             c->count);
        c->bytes = larger;
        c->capacity = capacity;
    }
    memcpy(c->bytes + c->count, bytes, count);
    c->count += count;
    c->bytes[c->count++] = 0;
    ++c->files;
    return CLSPLAT_OK;
}

static clsplat_status read_all(const listing *l, corpus *c) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0; i < l->count; ++i) {
        char *bytes = NULL;
        size_t count = 0;
        TRY(file_load(l->lib, l->files[i].path, FILE_LIMIT, &bytes, &count));
        if (count > 0 && (l->files[i].named || !memchr(bytes, 0, count)))
            status = append(l->lib, c, l->files[i].path, bytes, count);
        else
            ++c->skipped;
        free(bytes);
        if (status != CLSPLAT_OK)
            goto fail;
    }
fail:
    return status;
}

clsplat_status corpus_add(clsplat *lib, const char *const *paths, size_t count, const char *match,
                          corpus *c) {
    clsplat_status status = CLSPLAT_OK;
    listing l = {.lib = lib, .match = match};
    for (size_t i = 0; i < count; ++i) {
        struct stat about;
        const char *slash = strrchr(paths[i], '/');
        if (stat(paths[i], &about) == 0 && S_ISDIR(about.st_mode))
            TRY(add_folder(&l, paths[i], strlen(paths[i]), 0));
        else
            TRY(add_file(&l, paths[i], slash ? slash + 1 : paths[i], true));
    }
    if (l.count > 0)
        qsort(l.files, l.count, sizeof *l.files, by_order);
    TRY(read_all(&l, c));
fail:
    for (size_t i = 0; i < l.count; ++i)
        free(l.files[i].path);
    free(l.files);
    return status;
}

uint64_t corpus_digest(const corpus *c) {
    return XXH3_64bits(c->bytes, c->count);
}

void corpus_free(corpus *c) {
    free(c->bytes);
    free(c->tokens);
    *c = (corpus){0};
}
