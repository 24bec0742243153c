#include "runtime/pocl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Where PoCL looks. Source: pocl_cache_init_topdir in lib/CL/pocl_cache.c of PoCL 3.1. */
static void add_folder(text *folder) {
    static const struct {
        const char *variable, *behind;
    } places[] = {
        {"POCL_CACHE_DIR", ""}, {"XDG_CACHE_HOME", "/pocl/kcache"}, {"HOME", "/.cache/pocl/kcache"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; ++i) {
        const char *value = getenv(places[i].variable);
        if (value && *value) {
            text_add(folder, "%s%s", value, places[i].behind);
            return;
        }
    }
    text_add(folder, "/tmp/pocl/kcache");
}

/* By making a folder there and removing it again: file systems that are read-only or no real ones let root in
 * and then refuse. Full ones make folders, but no programs. */
static int problem_in(const char *path) {
    enum { LEAST = 1 << 20 };
    text probe = {0};
    struct statvfs about;
    if (statvfs(path, &about) == 0 && about.f_blocks > 0 &&
        (unsigned long long)about.f_bavail * about.f_frsize < LEAST)
        return ENOSPC;
    text_add(&probe, "%s/.clsplat-XXXXXX", path);
    int problem = text_ok(&probe) && !mkdtemp(probe.data) ? errno : 0;
    if (text_ok(&probe) && !problem)
        rmdir(probe.data);
    text_free(&probe);
    return problem;
}

/* The folder, or the one above it that is there and in which it would be made: 0, or why it is of no use. */
static int problem_with(char *path) {
    struct stat about;
    for (;;) {
        if (stat(path, &about) == 0)
            return S_ISDIR(about.st_mode) ? problem_in(path) : ENOTDIR;
        char *slash = strrchr(path, '/');
        if (errno != ENOENT || !slash)
            return errno;
        slash[slash == path] = '\0';
    }
}

bool pocl_folder_problem(text *words) {
    text folder = {0}, path = {0};
    add_folder(&folder);
    text_add(&path, "%s", folder.data ? folder.data : "");
    int problem = text_ok(&folder) && text_ok(&path) ? problem_with(path.data) : 0;
    if (problem)
        text_add(words, "PoCL cannot work in its folder %s: %s; name another one in POCL_CACHE_DIR",
                 folder.data, strerror(problem));
    text_free(&folder);
    text_free(&path);
    return problem != 0;
}

clsplat_status pocl_folder_damaged(clsplat *lib, const char *kernel, const char *source) {
    text folder = {0};
    add_folder(&folder);
    clsplat_status status =
        log_error(lib, CLSPLAT_OPENCL,
                  "kernel %s of %s is not in what PoCL made of it: its folder %s is damaged; remove that",
                  kernel, source, text_ok(&folder) ? folder.data : "");
    text_free(&folder);
    return status;
}
