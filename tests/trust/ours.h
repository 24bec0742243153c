/* Who calls: clsplat, its library, Jansson or popt; or somebody else, as a driver, whose faults are not ours
 * to test. */
#ifndef CLSPLAT_TESTS_OURS_H
#define CLSPLAT_TESTS_OURS_H

#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { OURS_RANGES = 64 };
static struct { uintptr_t begin, end; } ours_ranges[OURS_RANGES];
static int ours_count;

static bool ours_named(const char *path) {
    static const char *const all[] = {"libclsplat", "libjansson", "libpopt"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    bool found = name[0] == '\0'; /* the program itself */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        found = found || strncmp(name, all[i], strlen(all[i])) == 0;
    return found;
}

static int ours_add(struct dl_phdr_info *info, size_t size, void *user) {
    (void)size, (void)user;
    for (int i = 0; ours_named(info->dlpi_name) && i < info->dlpi_phnum && ours_count < OURS_RANGES; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && (header->p_flags & PF_X)) {
            ours_ranges[ours_count].begin = info->dlpi_addr + header->p_vaddr;
            ours_ranges[ours_count++].end = info->dlpi_addr + header->p_vaddr + header->p_memsz;
        }
    }
    return 0;
}

/* To be called once, before main: nothing is anybody's until then. */
static void ours_find(void) {
    dl_iterate_phdr(ours_add, NULL);
}

static bool ours(const void *caller) {
    uintptr_t a = (uintptr_t)caller;
    for (int i = 0; i < ours_count; i++)
        if (a >= ours_ranges[i].begin && a < ours_ranges[i].end)
            return true;
    return false;
}

#endif
