/* A folder for PoCL where its own cannot be used, as in a container of which the files are not to be changed.
 */
#ifndef CLSPLAT_CLI_POCL_FOLDER_H
#define CLSPLAT_CLI_POCL_FOLDER_H

#include "cli/cli.h"

/* Makes a temporary one and names it in POCL_CACHE_DIR, if that is necessary and possible; NULL if not.
 * Before the first device is looked at. Ownership: to be given to pocl_folder_remove, which accepts NULL. */
char *pocl_folder_replace(cli *c);
void pocl_folder_remove(char *folder);

#endif
