#include "cli/pocl_folder.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "runtime/pocl.h"

lent_folder pocl_folder_lend(void) {
    const char *given = getenv("TMPDIR");
    lent_folder lent = {0};
    text path = {0};
    if (!pocl_folder_problem(&lent.why))
        return lent;
    text_add(&path, "%s/clsplat-XXXXXX", given && *given ? given : "/tmp");
    if (text_ok(&path) && mkdtemp(path.data) && setenv("POCL_CACHE_DIR", path.data, 1) == 0)
        lent.path = path.data;
    else
        text_free(&path);
    return lent;
}

void pocl_folder_tell(cli *c, const lent_folder *lent) {
    if (lent->path && text_ok(&lent->why))
        log_info(c->lib, "%s. For this command %s takes its place", lent->why.data, lent->path);
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk) {
    (void)about, (void)kind, (void)walk;
    return remove(path);
}

void pocl_folder_remove(lent_folder *lent) {
    if (lent->path)
        nftw(lent->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(lent->path);
    text_free(&lent->why);
}
