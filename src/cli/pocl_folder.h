/* A folder for PoCL where it cannot work in its own: a home that is read-only, gone or full. */
#ifndef CLSPLAT_CLI_POCL_FOLDER_H
#define CLSPLAT_CLI_POCL_FOLDER_H

#include "base/text.h"
#include "cli/cli.h"

typedef struct lent_folder {
    char *path; /* NULL: none is needed, or none could be made */
    text why;
} lent_folder;

/* Makes one and names it in POCL_CACHE_DIR, if it is needed. To be called before OpenCL is. */
lent_folder pocl_folder_lend(void);
/* Says so to whoever asked for it, which is known once options have been read. */
void pocl_folder_tell(cli *c, const lent_folder *lent);
/* Removes it with all that is in it. */
void pocl_folder_remove(lent_folder *lent);

#endif
