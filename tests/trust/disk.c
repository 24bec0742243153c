/* Files that cannot be opened, written, or finished, and a process that dies there (LD_PRELOAD): for clsplat
 * and its library, not for drivers.
 *
 *     LD_PRELOAD=…/disk.so CLSPLAT_DISK=kill:17 CLSPLAT_DISK_REPORT=report.txt clsplat …
 *
 * CLSPLAT_DISK is MODE:N, N from 1 over all calls that open, make, write, sync, cut, rename or remove a file:
 *     kill    SIGKILL instead of the Nth call
 *     full    the Nth call and all after it fail as on a full disk, with too many files open, or read-only
 *     once    the Nth call alone does
 * The report tells how many calls there were, and how many failed. */
#undef _FILE_OFFSET_BITS /* both sets of names are replaced here, each under its own */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trust/ours.h"

static long at, calls, injected;
static char mode[8];

__attribute__((constructor)) static void begin(void) {
    const char *words = getenv("CLSPLAT_DISK");
    if (words)
        sscanf(words, "%7[a-z]:%ld", mode, &at);
    ours_find();
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("CLSPLAT_DISK_REPORT");
    FILE *to = path ? fopen(path, "w") : NULL;
    if (!to)
        return;
    fprintf(to, "files %ld\ninjected %ld\n", calls, injected);
    fclose(to);
}

static bool fails(const void *caller, int reason) {
    if (!ours(caller))
        return false;
    long n = ++calls;
    if (n == at && strcmp(mode, "kill") == 0)
        kill(getpid(), SIGKILL);
    bool now = (n == at && strcmp(mode, "once") == 0) || (n >= at && at && strcmp(mode, "full") == 0);
    injected += now;
    if (now)
        errno = reason;
    return now;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILS(reason) fails(__builtin_return_address(0), reason)

#define OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...) {                                                             \
        va_list more;                                                                                        \
        va_start(more, flags);                                                                               \
        mode_t rights = flags & O_CREAT ? va_arg(more, mode_t) : 0;                                          \
        va_end(more);                                                                                        \
        return FAILS(flags & O_CREAT ? EROFS : EMFILE) ? -1 : REAL(name)(path, flags, rights);               \
    }
#define ONE(type, name, reason, parameters, arguments)                                                       \
    type name parameters {                                                                                   \
        return FAILS(reason) ? -1 : REAL(name) arguments;                                                    \
    }

OPEN(open)
OPEN(open64)
ONE(ssize_t, write, ENOSPC, (int f, const void *bytes, size_t count), (f, bytes, count))
ONE(ssize_t, pwrite, ENOSPC, (int f, const void *bytes, size_t count, off_t to), (f, bytes, count, to))
ONE(ssize_t, pwrite64, ENOSPC, (int f, const void *bytes, size_t count, off64_t to), (f, bytes, count, to))
ONE(int, fsync, EIO, (int f), (f))
ONE(int, ftruncate, EIO, (int f, off_t size), (f, size))
ONE(int, ftruncate64, EIO, (int f, off64_t size), (f, size))
ONE(int, rename, EROFS, (const char *from, const char *to), (from, to))
ONE(int, mkdir, EROFS, (const char *path, mode_t rights), (path, rights))

/* Nobody can do without it: it is only a moment to die at. */
int unlink(const char *path) {
    if (ours(__builtin_return_address(0)) && ++calls == at && strcmp(mode, "kill") == 0)
        kill(getpid(), SIGKILL);
    return REAL(unlink)(path);
}
