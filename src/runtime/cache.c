#include "runtime/cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/text.h"

/* A file: this header, the key, the payload. Without padding, so that no byte of a file goes unchecked. */
typedef struct entry_header {
    char magic[8];
    uint64_t version;
    uint64_t key_bytes, payload_bytes;
    XXH128_canonical_t payload_hash;
} entry_header;
_Static_assert(sizeof(entry_header) == 48, "the header of a cache entry has padding");

static const char MAGIC[8] = {'C', 'L', 'S', 'P', 'L', 'A', 'T', 'B'};
enum { FORMAT_VERSION = 1, NAME_DIGITS = 32 };

/* Empty if the cache is off. A relative XDG_CACHE_HOME is to be ignored, says its specification. */
static text cache_folder(void) {
    text folder = {0};
    const char *wanted = getenv("CLSPLAT_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (wanted && strcasecmp(wanted, "off") == 0)
        return folder;
    if (xdg && xdg[0] == '/')
        text_add(&folder, "%s/clsplat", xdg);
    else if (home && home[0] == '/')
        text_add(&folder, "%s/.cache/clsplat", home);
    return folder;
}

static bool folder_ok(const text *folder) {
    return text_ok(folder) && folder->length > 0;
}

bool cache_wanted(void) {
    text folder = cache_folder();
    bool wanted = folder_ok(&folder);
    text_free(&folder);
    return wanted;
}

/* What is found there runs as a kernel: nobody else may have put it there. The administrator trusts
 * everybody's. */
static bool is_private(const char *folder) {
    struct stat about;
    return stat(folder, &about) == 0 && (about.st_uid == geteuid() || about.st_uid == 0 || geteuid() == 0) &&
           !(about.st_mode & S_IWOTH);
}

/* The folder's file for the key. */
static text entry_path(const text *folder, const void *key, size_t key_bytes) {
    text path = {0};
    XXH128_hash_t hash = XXH3_128bits(key, key_bytes);
    text_add(&path, "%s/%016llx%016llx.bin", folder->data, (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    return path;
}

static entry_header header_of(size_t key_bytes, const void *payload, size_t payload_bytes) {
    entry_header h = {.version = FORMAT_VERSION, .key_bytes = key_bytes, .payload_bytes = payload_bytes};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    XXH128_canonicalFromHash(&h.payload_hash, XXH3_128bits(payload, payload_bytes));
    return h;
}

/* Where the payload begins in the file's bytes; 0 if they are not a whole entry of this very key. */
static size_t payload_offset(const char *bytes, size_t count, const void *key, size_t key_bytes) {
    size_t offset = sizeof(entry_header) + key_bytes;
    if (count <= offset)
        return 0;
    entry_header expected = header_of(key_bytes, bytes + offset, count - offset);
    if (memcmp(bytes, &expected, sizeof expected) != 0 ||
        memcmp(bytes + sizeof expected, key, key_bytes) != 0)
        return 0;
    return offset;
}

static bool read_entry(clsplat *lib, const char *path, const void *key, size_t key_bytes, void **bytes,
                       size_t *count) {
    char *file = NULL;
    size_t file_bytes = 0;
    log_quiet_begin(lib);
    clsplat_status status = file_load(lib, path, CACHE_LIMIT, &file, &file_bytes);
    log_quiet_end(lib);
    if (status != CLSPLAT_OK)
        return false;
    size_t offset = payload_offset(file, file_bytes, key, key_bytes);
    if (offset == 0) {
        free(file);
        return false;
    }
    utimensat(AT_FDCWD, path, NULL, 0); /* used now; in a folder that cannot be written the order stays */
    *count = file_bytes - offset;
    memmove(file, file + offset, *count);
    *bytes = file;
    return true;
}

bool cache_get(clsplat *lib, const void *key, size_t key_bytes, void **bytes, size_t *count) {
    text folder = cache_folder(), path = {0};
    bool hit = false;
    if (folder_ok(&folder) && is_private(folder.data))
        path = entry_path(&folder, key, key_bytes);
    if (path.length > 0)
        hit = read_entry(lib, path.data, key, key_bytes, bytes, count);
    if (path.length > 0)
        log_info(lib, "kernel cache: %s %s", hit ? "found" : "no", path.data);
    text_free(&path);
    text_free(&folder);
    return hit;
}

static clsplat_status write_entry(clsplat *lib, const char *path, const void *key, size_t key_bytes,
                                  const void *bytes, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    entry_header header = header_of(key_bytes, bytes, count);
    file_writer file = {0};
    TRY(file_create_cached(lib, path, &file));
    TRY(file_write(lib, &file, &header, sizeof header));
    TRY(file_write(lib, &file, key, key_bytes));
    TRY(file_write(lib, &file, bytes, count));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    return status;
}

void cache_put(clsplat *lib, const void *key, size_t key_bytes, const void *bytes, size_t count) {
    text folder = cache_folder(), path = {0};
    if (!folder_ok(&folder) || count == 0 || sizeof(entry_header) + key_bytes + count > CACHE_LIMIT)
        goto out;
    file_make_folder(folder.data);
    if (access(folder.data, F_OK) == 0 && !is_private(folder.data)) {
        log_warning(lib,
                    "compiled kernels are not kept: %s belongs to somebody else, or anybody may write there. "
                    "Mend that, "
                    "name another folder in XDG_CACHE_HOME, or set CLSPLAT_CACHE=off",
                    folder.data);
        goto out;
    }
    path = entry_path(&folder, key, key_bytes);
    if (!text_ok(&path))
        goto out;
    log_quiet_begin(lib);
    clsplat_status status = write_entry(lib, path.data, key, key_bytes, bytes, count);
    log_quiet_end(lib);
    if (status == CLSPLAT_OK)
        cache_evict(lib, CACHE_LIMIT);
    else
        log_warning(
            lib,
            "compiled kernels cannot be kept, so every start compiles them anew: %s. Mend the folder, name "
            "another in XDG_CACHE_HOME, or set CLSPLAT_CACHE=off",
            log_quiet_words(lib));
out:
    text_free(&path);
    text_free(&folder);
}

/* One file of the cache's own making. */
typedef struct cached_file {
    char name[256];
    uint64_t bytes;
    struct timespec used;
} cached_file;

typedef struct cached_files {
    cached_file *list;
    size_t count, capacity;
    uint64_t bytes;
} cached_files;

/* An entry or, after a crash, the temporary file of one; other files in the folder are not the cache's. */
static bool is_ours(const char *name) {
    return strspn(name, "0123456789abcdef") == NAME_DIGITS && name[NAME_DIGITS] == '.';
}

static void add_file(cached_files *files, const char *name, const struct stat *info) {
    if (files->count == files->capacity) {
        size_t capacity = files->capacity ? 2 * files->capacity : 64;
        cached_file *grown = realloc(files->list, capacity * sizeof *grown);
        if (!grown)
            return; /* what is not seen now is seen by a later eviction */
        files->list = grown;
        files->capacity = capacity;
    }
    cached_file *file = &files->list[files->count++];
    *file = (cached_file){.bytes = (uint64_t)info->st_size, .used = info->st_mtim};
    snprintf(file->name, sizeof file->name, "%s", name);
    files->bytes += file->bytes;
}

static cached_files list_files(DIR *folder) {
    cached_files files = {0};
    struct stat info;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (is_ours(entry->d_name) &&
            fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode))
            add_file(&files, entry->d_name, &info);
    return files;
}

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const cached_file *)a)->used, *y = &((const cached_file *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

void cache_evict(clsplat *lib, uint64_t limit) {
    text path = cache_folder();
    DIR *folder = folder_ok(&path) && is_private(path.data) ? opendir(path.data) : NULL;
    if (folder) {
        cached_files files = list_files(folder);
        if (files.count > 0)
            qsort(files.list, files.count, sizeof *files.list, by_use);
        for (size_t i = 0; i < files.count && files.bytes > limit; ++i) {
            log_info(lib, "kernel cache: %s goes, it was not used for longest", files.list[i].name);
            unlinkat(dirfd(folder), files.list[i].name, 0);
            files.bytes -= files.list[i].bytes;
        }
        free(files.list);
        closedir(folder);
    }
    text_free(&path);
}
