/* Structs of callers that were compiled with other headers than these: clsplat/status.h has the rule. */
#ifndef CLSPLAT_BASE_SIZED_H
#define CLSPLAT_BASE_SIZED_H

#include <stddef.h>

#include "base/log.h"

/* What the caller's struct has, over the `bytes` of our own, which holds what the rest is then. Both begin
 * with their size. `name` is said in errors; lib NULL: nothing is said. Returns: INVALID, UNSUPPORTED. */
clsplat_status sized_read(clsplat *lib, const char *name, const void *given, void *own, size_t bytes);

/* `own` is a variable that holds the defaults, and has the name of the parameter. */
#define SIZED_READ(lib, own, given) sized_read(lib, #own, given, &(own), sizeof(own))

/* Our own struct into the caller's as far as that goes; beyond ours it is 0. Its size stays. */
void sized_write(const void *own, size_t bytes, void *given);

#endif
