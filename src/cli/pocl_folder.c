#include "cli/pocl_folder.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "runtime/pocl.h"

char *pocl_folder_replace(cli *c) {
    const char *given = getenv("TMPDIR");
    text problem = {0}, folder = {0};
    if (!pocl_folder_problem(&problem))
        return NULL;
    text_add(&folder, "%s/clsplat-XXXXXX", given && *given ? given : "/tmp");
    bool made = text_ok(&folder) && mkdtemp(folder.data) && setenv("POCL_CACHE_DIR", folder.data, 1) == 0;
    if (made && text_ok(&problem))
        log_info(c->lib, "%s. Until the command ends, %s takes its place", problem.data, folder.data);
    if (!made)
        text_free(&folder);
    text_free(&problem);
    return folder.data;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk) {
    (void)about, (void)kind, (void)walk;
    return remove(path);
}

void pocl_folder_remove(char *folder) {
    if (folder)
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}
