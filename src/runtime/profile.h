/* Per-kernel times behind clsplat_profile_*. */
#ifndef CLSPLAT_RUNTIME_PROFILE_H
#define CLSPLAT_RUNTIME_PROFILE_H

#include "runtime/launch.h"

bool profile_is_on(const clsplat_device *device);
/* True where event times cannot be used: launches are then timed by the host, and block. */
bool profile_needs_wall_clock(const clsplat_device *device);
/* One launch: by its event (retained), or by `seconds` measured on the host when event is NULL. */
clsplat_status profile_add(clsplat_device *device, const char *kernel, work w, cl_event event,
                           double seconds);
void profile_release(clsplat_device *device);

#endif
