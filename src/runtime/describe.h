/* The devices there are: what one can do, and which one a user means. */
#ifndef CLSPLAT_RUNTIME_DESCRIBE_H
#define CLSPLAT_RUNTIME_DESCRIBE_H

#include "base/log.h"

#include <clsplat/device.h>

/* Everything that clsplat_device_info tells, asked of the driver. Returns: the bits of quirk_flag. */
unsigned device_describe(cl_device_id id, clsplat_device_info *info);

/* A string of the device in full, however long; the caller frees it. NULL if the driver has none, or without
 * memory. */
char *device_string(cl_device_id id, cl_device_info what);

/* Around calls that may load or set up a driver: one thread of the process at a time. */
void device_look_begin(void);
void device_look_end(void);

/* All devices in the loader's order. */
typedef struct device_set {
    cl_device_id *ids;
    clsplat_device_info *infos;
    size_t count;
} device_set;
clsplat_status device_set_read(clsplat *lib, device_set *set);
void device_set_free(device_set *set);

/* The one that `which` means, as clsplat_device_open reads it; "" is the best. `origin` says in the error
 * where the word came from. */
clsplat_status device_choose(clsplat *lib, const clsplat_device_info *infos, size_t count, const char *which,
                             const char *origin, size_t *index);

#endif
