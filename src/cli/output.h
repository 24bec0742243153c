/* Where a result will go. */
#ifndef CLSPLAT_CLI_OUTPUT_H
#define CLSPLAT_CLI_OUTPUT_H

#include "base/log.h"

/* Finds out before the work whether a file can be put there, by making one and throwing it away.
 * Returns: IO. */
clsplat_status output_check(clsplat *lib, const char *path);

#endif
