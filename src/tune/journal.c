#include "tune/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static clsplat_status failed(clsplat *lib, const char *path) {
    return log_error(lib, CLSPLAT_IO, "%s: the tuner's journal cannot be written: %s", path, strerror(errno));
}

static clsplat_status read_left(clsplat *lib, const char *path, int descriptor, text *left) {
    char bytes[4096];
    ssize_t count = pread(descriptor, bytes, sizeof bytes, 0);
    if (count < 0)
        return log_error(lib, CLSPLAT_IO, "%s: the tuner's journal cannot be read: %s", path,
                         strerror(errno));
    const char *end = count > 0 ? memchr(bytes, '\n', (size_t)count) : NULL;
    if (end) /* otherwise it was never complete, and so never begun */
        text_add_bytes(left, bytes, (size_t)(end - bytes));
    return text_ok(left) ? CLSPLAT_OK : log_error(lib, CLSPLAT_MEMORY, "no memory for the tuner's journal");
}

clsplat_status tune_journal_open(clsplat *lib, const char *path, tune_journal *journal, text *left) {
    clsplat_status status = CLSPLAT_OK;
    *left = (text){0};
    journal->descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (journal->descriptor < 0)
        return failed(lib, path);
    if (flock(journal->descriptor, LOCK_EX | LOCK_NB) != 0)
        TRY(errno == EWOULDBLOCK
                ? log_error(lib, CLSPLAT_IO, "%s: another process is tuning; wait until it is done", path)
                : failed(lib, path));
    TRY(read_left(lib, path, journal->descriptor, left));
    return CLSPLAT_OK;
fail:
    tune_journal_close(journal);
    return status;
}

clsplat_status tune_journal_begin(clsplat *lib, const tune_journal *journal, const char *line) {
    text bytes = {0};
    text_add(&bytes, "%s\n", line);
    bool written = text_ok(&bytes) && ftruncate(journal->descriptor, 0) == 0 &&
                   pwrite(journal->descriptor, bytes.data, bytes.length, 0) == (ssize_t)bytes.length &&
                   fsync(journal->descriptor) == 0;
    text_free(&bytes);
    return written ? CLSPLAT_OK : failed(lib, "trying.txt");
}

void tune_journal_end(const tune_journal *journal) {
    /* If this fails, a good candidate will be taken for one that crashed: a loss, not a danger. */
    if (ftruncate(journal->descriptor, 0) != 0)
        return;
}

void tune_journal_close(tune_journal *journal) {
    if (journal->descriptor >= 0)
        close(journal->descriptor);
    journal->descriptor = -1;
}
