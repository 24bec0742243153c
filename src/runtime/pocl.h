/* PoCL works in a folder: it has no device if it cannot make it, and compiles nothing if it cannot write
 * there. */
#ifndef CLSPLAT_RUNTIME_POCL_H
#define CLSPLAT_RUNTIME_POCL_H

#include "base/log.h"
#include "base/text.h"

/* Adds to `words`, if PoCL would not get along with its folder, a sentence with the folder, the reason and
 * the remedy; otherwise nothing. Whether PoCL is there at all is not looked at. Leaves nothing behind.
 * Returns: whether there is something to say. */
bool pocl_folder_problem(text *words);
/* PoCL looks at nothing of what it keeps there. Returns: OPENCL, for a kernel that is not in what it made of
 * its source. */
clsplat_status pocl_folder_damaged(clsplat *lib, const char *kernel, const char *source);

#endif
