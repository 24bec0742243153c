/* Device memory: buffers that somebody owns, and workspaces that calls share. */
#ifndef CLSPLAT_RUNTIME_BUFFER_H
#define CLSPLAT_RUNTIME_BUFFER_H

#include "runtime/device.h"

/* A buffer of at least 1 byte, counted in the device's memory figures.
 * Returns: MEMORY, naming the size and the device's limit, if it is larger than max_allocation. */
clsplat_status buffer_create(clsplat_device *device, size_t bytes, cl_mem *mem);
/* The same, holding a copy of `host`, which may go at once; waits for no queue. */
clsplat_status buffer_create_from(clsplat_device *device, size_t bytes, const void *host, cl_mem *mem);
/* Accepts a NULL buffer; sets *mem to NULL. `bytes` as at creation. */
void buffer_release(clsplat_device *device, size_t bytes, cl_mem *mem);
/* The same by the device's serial; it may be closed. Threads: any. */
void buffer_release_of(clsplat *lib, uint64_t device, size_t bytes, cl_mem *mem);

/* The size of any buffer of the context, 0 for one that is not a buffer. */
size_t buffer_bytes(cl_mem mem);

/* The slot's buffer, of at least `bytes` bytes. What it holds is not kept when it grows. */
clsplat_status workspace_take(clsplat_device *device, workspace_slot slot, size_t bytes, cl_mem *mem);
void workspace_release_all(clsplat_device *device);

#endif
