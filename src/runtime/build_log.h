/* What a driver's compiler said, in the words of the files that a person can open. */
#ifndef CLSPLAT_RUNTIME_BUILD_LOG_H
#define CLSPLAT_RUNTIME_BUILD_LOG_H

#include <CL/cl.h>

/* The beginning of the build log of a program made from `source`, with the names and lines of its #line marks
 * even where the driver counts the source's own lines. Ownership: the caller frees it; NULL if there is none.
 */
char *build_log_read(cl_program program, cl_device_id id, const char *source);

#endif
