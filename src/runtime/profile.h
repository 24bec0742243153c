/* Per-kernel times behind clsplat_profile_*. */
#ifndef CLSPLAT_RUNTIME_PROFILE_H
#define CLSPLAT_RUNTIME_PROFILE_H

#include "runtime/launch.h"

clsplat_status profile_create(clsplat_device *device);
/* Accepts a device without a profile. */
void profile_release(clsplat_device *device);

bool profile_is_on(const clsplat_device *device);
/* True where event times cannot be used: launches are then timed by the host, and block. */
bool profile_needs_wall_clock(const clsplat_device *device);
/* One launch: by its event (retained), or by `seconds` measured on the host when event is NULL. */
clsplat_status profile_add(clsplat_device *device, const char *kernel, work w, cl_event event,
                           double seconds);

#endif
