/* Files: read whole or in part, written so that they appear only when complete. */
#ifndef CLSPLAT_BASE_FILE_H
#define CLSPLAT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* An open regular file. */
typedef struct file_reader {
    int descriptor;
    uint64_t size;
    char *path;
} file_reader;

/* Returns: IO with path and reason, also for whatever is not a regular file; never waits for a FIFO's writer.
 */
clsplat_status file_open(clsplat *lib, const char *path, file_reader *file);
/* Exactly `count` bytes from `offset`; IO if the file has become shorter. */
clsplat_status file_read(clsplat *lib, const file_reader *file, uint64_t offset, void *bytes, size_t count);
/* The whole file in memory, read as it is looked at; to be unmapped before the file is closed. A file that
 * somebody shortens meanwhile ends the process when what is gone is looked at. */
clsplat_status file_map(clsplat *lib, const file_reader *file, const void **bytes);
/* Accepts NULL. */
void file_unmap(const file_reader *file, const void *bytes);
void file_close(file_reader *file);

/* Whether something of that name is in its folder: a link that leads nowhere is, and so is what may not be
 * read. What is there must be opened, or the call fails: it is not to be taken for absent. */
bool file_is_there(const char *path);

/* A whole file of up to `limit` bytes, with a NUL behind it; the caller frees *bytes. */
clsplat_status file_load(clsplat *lib, const char *path, size_t limit, char **bytes, size_t *count);

/* Makes the folder and those above it that are missing; whether it worked shows when a file is made in it. */
void file_make_folder(char *path);

/* A file in the making: it lies under a temporary name in the same folder until file_commit, which writes it
 * through to the disk before it takes the old one's place: after a power cut either is there, whole. A
 * process that is killed leaves its temporary file, which the next file for the same target removes a minute
 * later. */
typedef struct file_writer {
    int descriptor;
    char *path; /* as the caller names it, for messages */
    char *target, *temporary;
    bool careless; /* whoever reads it checks it and can do without: it need not survive a power cut */
} file_writer;

/* What is there may be replaced if it is a regular file, behind a symbolic link too; the link stays.
 * Returns: IO with path and reason, before anything is written. */
clsplat_status file_create(clsplat *lib, const char *path, file_writer *file);
/* The same for what can be had again: a link is replaced, not what it points to, which somebody else may have
 * chosen; and a power cut may leave half of it. */
clsplat_status file_create_cached(clsplat *lib, const char *path, file_writer *file);
clsplat_status file_write(clsplat *lib, file_writer *file, const void *bytes, size_t count);
/* Puts the file in place in one step; after a failure only what was there before is left. */
clsplat_status file_commit(clsplat *lib, file_writer *file);
/* Throws the file away unless it was committed; always to be called after file_create. */
void file_discard(file_writer *file);

#endif
