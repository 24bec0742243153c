/* Files: read whole or in part, written so that they appear only when complete. */
#ifndef CLSPLAT_BASE_FILE_H
#define CLSPLAT_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* An open regular file. */
typedef struct file_reader {
    int descriptor;
    uint64_t size;
    char *path;
} file_reader;

/* Returns: IO with path and reason, also for folders and devices, which are not opened for reading. */
clsplat_status file_open(clsplat *lib, const char *path, file_reader *file);
/* Exactly `count` bytes from `offset`; IO if the file has become shorter. */
clsplat_status file_read(clsplat *lib, const file_reader *file, uint64_t offset, void *bytes, size_t count);
void file_close(file_reader *file);

/* A whole file of up to `limit` bytes, with a NUL behind it; the caller frees *bytes. */
clsplat_status file_load(clsplat *lib, const char *path, size_t limit, char **bytes, size_t *count);

/* A file in the making: it lies under a temporary name in the same folder until file_commit. */
typedef struct file_writer {
    int descriptor;
    char *path, *temporary;
} file_writer;

clsplat_status file_create(clsplat *lib, const char *path, file_writer *file);
clsplat_status file_write(clsplat *lib, file_writer *file, const void *bytes, size_t count);
/* Puts the file in place in one step; after a failure only what was there before is left. */
clsplat_status file_commit(clsplat *lib, file_writer *file);
/* Throws the file away unless it was committed; always to be called. */
void file_discard(file_writer *file);

#endif
