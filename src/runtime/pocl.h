/* PoCL works in a folder: it has no device if it cannot make it, and compiles nothing if it cannot write
 * there. */
#ifndef CLSPLAT_RUNTIME_POCL_H
#define CLSPLAT_RUNTIME_POCL_H

#include "base/text.h"

/* Adds to `words`, if PoCL would not get along with its folder, a sentence with the folder, the reason and
 * the remedy; otherwise nothing. Whether PoCL is there at all is not looked at. Leaves nothing behind.
 * Returns: whether there is something to say. */
bool pocl_folder_problem(text *words);

#endif
