#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

static clsplat_status failed(clsplat *lib, const char *what, const char *path) {
    return log_error(lib, CLSPLAT_IO, "%s: cannot be %s: %s", path, what, strerror(errno));
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode) ? "is a folder, not a file" : "is not a regular file";
}

clsplat_status file_open(clsplat *lib, const char *path, file_reader *file) {
    struct stat about;
    *file = (file_reader){.descriptor =
                              open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)}; /* a FIFO must not block */
    if (file->descriptor < 0)
        return failed(lib, "opened", path);
    clsplat_status status = CLSPLAT_OK;
    if (fstat(file->descriptor, &about) != 0)
        status = failed(lib, "examined", path);
    else if (!S_ISREG(about.st_mode))
        status = log_error(lib, CLSPLAT_IO, "%s: %s", path, kind_of(about.st_mode));
    else if (!(file->path = text_copy(path)))
        status = log_error(lib, CLSPLAT_MEMORY, "no memory to open %s", path);
    if (status != CLSPLAT_OK)
        file_close(file);
    else
        file->size = (uint64_t)about.st_size;
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

void file_close(file_reader *file) {
    if (file->descriptor >= 0)
        close(file->descriptor);
    free(file->path);
    *file = (file_reader){.descriptor = -1};
}

clsplat_status file_load(clsplat *lib, const char *path, size_t limit, char **bytes, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    file_reader file;
    char *data = NULL;
    *bytes = NULL;
    TRY(file_open(lib, path, &file));
    if (file.size > limit)
        status = log_error(lib, CLSPLAT_FORMAT, "%s: has %llu bytes; such a file has at most %zu", path,
                           (unsigned long long)file.size, limit);
    else if (!(data = malloc((size_t)file.size + 1)))
        status = log_error(lib, CLSPLAT_MEMORY, "no memory to read %s", path);
    else
        status = file_read(lib, &file, 0, data, (size_t)file.size);
    if (status == CLSPLAT_OK) {
        data[file.size] = '\0';
        *bytes = data;
        *count = (size_t)file.size;
    } else {
        free(data);
    }
    file_close(&file);
fail:
    return status;
}

/* What is at the path may be replaced: nothing, or a regular file. */
static clsplat_status check_target(clsplat *lib, const char *path) {
    struct stat about;
    if (stat(path, &about) != 0)
        return errno == ENOENT ? CLSPLAT_OK : failed(lib, "written", path);
    if (!S_ISREG(about.st_mode))
        return log_error(lib, CLSPLAT_IO, "%s: %s; it will not be replaced", path, kind_of(about.st_mode));
    if (access(path, W_OK) != 0)
        return failed(lib, "written", path);
    return CLSPLAT_OK;
}

/* A new file beside `path` under a name that nobody has. */
static clsplat_status create_beside(clsplat *lib, file_writer *file) {
    for (unsigned attempt = 0; attempt < 1000; ++attempt) {
        text name = {0};
        text_add(&name, "%s.%ld-%u.tmp", file->path, (long)getpid(), attempt);
        if (!text_ok(&name)) {
            text_free(&name);
            break;
        }
        file->descriptor = open(name.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->descriptor >= 0) {
            file->temporary = name.data;
            return CLSPLAT_OK;
        }
        text_free(&name);
        if (errno != EEXIST)
            return failed(lib, "written", file->path);
    }
    return log_error(lib, CLSPLAT_IO, "%s: no temporary file can be made beside it", file->path);
}

clsplat_status file_create(clsplat *lib, const char *path, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    *file = (file_writer){.descriptor = -1};
    TRY(check_target(lib, path));
    file->path = realpath(path, NULL); /* a link's target is replaced, not the link */
    if (!file->path)
        file->path = text_copy(path);
    if (!file->path)
        status = log_error(lib, CLSPLAT_MEMORY, "no memory to write %s", path);
    else
        status = create_beside(lib, file);
    if (status != CLSPLAT_OK)
        file_discard(file);
fail:
    return status;
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
    int closed = close(file->descriptor);
    file->descriptor = -1;
    if (closed != 0 || rename(file->temporary, file->path) != 0)
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
    free(file->path);
    *file = (file_writer){.descriptor = -1};
}
