#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

static clsplat_status failed(clsplat *lib, const char *what, const char *path) {
    return log_error(lib, CLSPLAT_IO, "%s: cannot be %s: %s", path, what, strerror(errno));
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode) ? "is a folder, not a file" : "is not a regular file";
}

clsplat_status file_open(clsplat *lib, const char *path, file_reader *file) {
    clsplat_status status = CLSPLAT_OK;
    struct stat about;
    *file = (file_reader){.descriptor = -1};
    file->path = text_copy(path);
    if (!file->path)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory to open it", path);
    file->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->descriptor < 0)
        status = failed(lib, "opened", path);
    else if (fstat(file->descriptor, &about) != 0)
        status = failed(lib, "examined", path);
    else if (!S_ISREG(about.st_mode))
        status = log_error(lib, CLSPLAT_IO, "%s: %s", path, kind_of(about.st_mode));
    else
        file->size = (uint64_t)about.st_size;
    if (status != CLSPLAT_OK)
        file_close(file);
    return status;
}

clsplat_status file_read(clsplat *lib, const file_reader *file, uint64_t offset, void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t got = pread(file->descriptor, (char *)bytes + done, count - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return failed(lib, "read", file->path);
        if (got == 0)
            return log_error(lib, CLSPLAT_IO, "%s: became shorter while it was read", file->path);
        done += (size_t)got;
    }
    return CLSPLAT_OK;
}

clsplat_status file_map(clsplat *lib, const file_reader *file, const void **bytes) {
    void *map = MAP_FAILED;
    *bytes = NULL;
    if (file->size > 0 && file->size <= SIZE_MAX)
        map = mmap(NULL, (size_t)file->size, PROT_READ, MAP_PRIVATE, file->descriptor, 0);
    if (map == MAP_FAILED)
        return log_error(lib, CLSPLAT_IO, "%s: cannot be mapped: %s", file->path, strerror(errno));
    *bytes = map;
    return CLSPLAT_OK;
}

void file_unmap(const file_reader *file, const void *bytes) {
    if (bytes)
        munmap((void *)bytes, (size_t)file->size);
}

void file_close(file_reader *file) {
    if (file->descriptor >= 0)
        close(file->descriptor);
    free(file->path);
    *file = (file_reader){.descriptor = -1};
}

bool file_is_there(const char *path) {
    struct stat about;
    return lstat(path, &about) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static clsplat_status too_large(clsplat *lib, const char *path, uint64_t bytes, size_t limit) {
    return log_error(lib, CLSPLAT_FORMAT, "%s: has %" PRIu64 " bytes; such a file has at most %zu", path,
                     bytes, limit);
}

/* A file of which the system does not know the size, as in /proc, says that it has none. */
static clsplat_status read_unsized(clsplat *lib, const file_reader *file, size_t limit, text *to) {
    char piece[4096];
    for (;;) {
        ssize_t got = pread(file->descriptor, piece, sizeof piece, (off_t)to->length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return failed(lib, "read", file->path);
        if (got == 0)
            return CLSPLAT_OK;
        text_add_bytes(to, piece, (size_t)got);
        if (!text_ok(to))
            return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for it", file->path);
        if (to->length > limit)
            return too_large(lib, file->path, to->length, limit);
    }
}

clsplat_status file_load(clsplat *lib, const char *path, size_t limit, char **bytes, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    file_reader file = {.descriptor = -1};
    text unsized = {0};
    char *data = NULL;
    *bytes = NULL;
    *count = 0;
    TRY(file_open(lib, path, &file));
    if (file.size > limit)
        TRY(too_large(lib, path, file.size, limit));
    if (file.size == 0)
        TRY(read_unsized(lib, &file, limit, &unsized));
    data = unsized.data ? unsized.data : malloc((size_t)file.size + 1);
    if (!data)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its %" PRIu64 " bytes", path, file.size));
    TRY(file_read(lib, &file, 0, data, (size_t)file.size));
    *count = unsized.data ? unsized.length : (size_t)file.size;
    data[*count] = '\0';
    *bytes = data;
    data = NULL;
    unsized = (text){0};
fail:
    if (data != unsized.data)
        free(data);
    text_free(&unsized);
    file_close(&file);
    return status;
}

/* Letters of a target's name that its temporary file begins with. */
enum { KEPT_NAME = 100 };

/* A path's last part. */
static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What is at the path may be replaced: nothing, or a regular file. */
static clsplat_status check_target(clsplat *lib, const char *path) {
    struct stat about;
    if (stat(path, &about) == 0) {
        if (!S_ISREG(about.st_mode))
            return log_error(lib, CLSPLAT_IO, "%s: %s; it will not be replaced", path,
                             kind_of(about.st_mode));
        return access(path, W_OK) == 0 ? CLSPLAT_OK : failed(lib, "written", path);
    }
    if (errno != ENOENT || !*name_of(path))
        return failed(lib, "written", path);
    if (lstat(path, &about) == 0)
        return log_error(lib, CLSPLAT_IO, "%s: is a symbolic link to a file that does not exist", path);
    return CLSPLAT_OK;
}

/* ".PID-N.tmp" after the target's name. */
static bool is_temporary(const char *rest) {
    static const char digits[] = "0123456789";
    size_t owner = strspn(rest, digits),
           attempt = owner && rest[owner] == '-' ? strspn(rest + owner + 1, digits) : 0;
    return attempt > 0 && strcmp(rest + owner + 1 + attempt, ".tmp") == 0;
}

/* Whoever writes a file holds a lock on it from its first moment on, give or take some seconds. */
static void remove_left_over(int folder, const char *name) {
    enum { SETTLED = 60 };
    struct stat about;
    int descriptor = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return;
    if (fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode) && time(NULL) - about.st_mtime > SETTLED &&
        flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        unlinkat(folder, name, 0);
    close(descriptor);
}

/* Removes what crashes have left of earlier files for the same target. */
static void sweep_beside(const file_writer *file) {
    text folder = {0}, prefix = {0};
    const char *name = name_of(file->target);
    text_add(&folder, "%.*s.", (int)(name - file->target), file->target);
    text_add(&prefix, "%.*s.", KEPT_NAME, name);
    DIR *list = text_ok(&folder) && text_ok(&prefix) ? opendir(folder.data) : NULL;
    for (struct dirent *entry; list && (entry = readdir(list));)
        if (strncmp(entry->d_name, prefix.data, prefix.length) == 0 &&
            is_temporary(entry->d_name + prefix.length))
            remove_left_over(dirfd(list), entry->d_name);
    if (list)
        closedir(list);
    text_free(&prefix);
    text_free(&folder);
}

/* A new file beside the target under a name that nobody has. The name begins like the target's, and is never
 * too long where the target's is not. */
static clsplat_status create_beside(clsplat *lib, file_writer *file) {
    enum { ATTEMPTS = 1000 };
    int folder = (int)(name_of(file->target) - file->target);
    for (unsigned attempt = 0; attempt < ATTEMPTS; ++attempt) {
        text name = {0};
        text_add(&name, "%.*s%.*s.%ld-%u.tmp", folder, file->target, KEPT_NAME, file->target + folder,
                 (long)getpid(), attempt);
        if (!text_ok(&name)) {
            text_free(&name);
            return log_error(lib, CLSPLAT_MEMORY, "%s: no memory to write it", file->path);
        }
        file->descriptor = open(name.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->descriptor >= 0) {
            file->temporary = name.data;
            flock(file->descriptor, LOCK_EX | LOCK_NB); /* no matter if it cannot: see remove_left_over */
            return CLSPLAT_OK;
        }
        int reason = errno;
        text_free(&name);
        errno = reason;
        if (errno != EEXIST)
            return failed(lib, "written", file->path);
    }
    return log_error(lib, CLSPLAT_IO, "%s: %d temporary files lie beside it already; remove them", file->path,
                     ATTEMPTS);
}

/* As the XDG specification wants the folders of a user to be. */
void file_make_folder(char *path) {
    enum { MODE = 0700 };
    for (char *slash = path + 1; (slash = strchr(slash, '/')); ++slash) {
        *slash = '\0';
        mkdir(path, MODE);
        *slash = '/';
    }
    mkdir(path, MODE);
}

static clsplat_status create(clsplat *lib, const char *path, bool follow, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    struct stat about;
    *file = (file_writer){.descriptor = -1, .careless = !follow};
    if (follow || lstat(path, &about) != 0 || !S_ISLNK(about.st_mode))
        TRY(check_target(lib, path));
    file->path = text_copy(path);
    file->target = follow ? realpath(path, NULL) : NULL;
    if (!file->target) /* nothing there yet */
        file->target = text_copy(path);
    if (!file->path || !file->target) {
        status = log_error(lib, CLSPLAT_MEMORY, "%s: no memory to write it", path);
        goto fail;
    }
    sweep_beside(file);
    TRY(create_beside(lib, file));
    return CLSPLAT_OK;
fail:
    file_discard(file);
    return status;
}

clsplat_status file_create(clsplat *lib, const char *path, file_writer *file) {
    return create(lib, path, true, file);
}

clsplat_status file_create_cached(clsplat *lib, const char *path, file_writer *file) {
    return create(lib, path, false, file);
}

clsplat_status file_write(clsplat *lib, file_writer *file, const void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t put = write(file->descriptor, (const char *)bytes + done, count - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return failed(lib, "written", file->path);
        done += (size_t)put;
    }
    return CLSPLAT_OK;
}

clsplat_status file_commit(clsplat *lib, file_writer *file) {
    /* Some file systems have nothing to sync, which is no failure to write. */
    int synced = file->careless || fsync(file->descriptor) == 0 || errno == EINVAL || errno == EROFS ? 0 : -1;
    int reason = errno, closed = close(file->descriptor);
    file->descriptor = -1;
    if (synced != 0) {
        errno = reason;
        return failed(lib, "written", file->path);
    }
    if (closed != 0 || rename(file->temporary, file->target) != 0)
        return failed(lib, "written", file->path);
    free(file->temporary);
    file->temporary = NULL;
    return CLSPLAT_OK;
}

void file_discard(file_writer *file) {
    if (file->descriptor >= 0)
        close(file->descriptor);
    if (file->temporary)
        unlink(file->temporary);
    free(file->temporary);
    free(file->target);
    free(file->path);
    *file = (file_writer){.descriptor = -1};
}
