/* Kernels built on first use, one program per source and set of options, kept in memory and in the
 * binary cache. */
#ifndef CLSPLAT_RUNTIME_PROGRAM_H
#define CLSPLAT_RUNTIME_PROGRAM_H

#include "runtime/device.h"

/* `source` is the name of an embedded file, e.g. "softmax.cl"; `options` are -D definitions. The
 * library adds what the device decides (CLSPLAT_FMA for hardware fma).
 *
 * Ownership: *kernel is the device's; its arguments are set anew before every launch.
 * Returns: BUILD with the build log (file and line) as the last error, OPENCL.
 * Blocks: while it builds, the first time. */
clsplat_status program_kernel(clsplat_device *device, const char *source, const char *kernel,
                              const char *options, cl_kernel *out);

/* A name and its text; the embedded ones are made at build time by cl/embed.py, includes expanded, with #line
 * marks. */
typedef struct embedded_source {
    const char *name;
    const char *text;
} embedded_source;
extern const embedded_source embedded_sources[];
extern const size_t embedded_source_count;
/* NULL if there is none of that name. */
const char *program_source(const char *name);

/* The same from any text. On one device a name always stands for the same text. */
clsplat_status program_kernel_text(clsplat_device *device, embedded_source source, const char *kernel,
                                   const char *options, cl_kernel *out);

/* Where a kernel of the device's is noted as launched, which is its user's to set; NULL: it is not the
 * device's. */
bool *program_launched(const clsplat_device *device, cl_kernel kernel);

void program_release_all(clsplat_device *device);

#endif
