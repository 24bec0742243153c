/* The commands of a handle whose end nobody has looked at yet.
 *
 * A command that fails while it runs fails nobody else: on an in-order queue the next one runs all the same,
 * and a blocking read of what it should have written answers CL_SUCCESS. So every command's event is kept
 * until its status was looked at, and whatever hands a result out looks at all of them first. A failure is
 * told once, by the first call that finds it, whichever call enqueued the command: the commands after it may
 * have worked on what it did not write. */
#ifndef CLSPLAT_RUNTIME_TRAIL_H
#define CLSPLAT_RUNTIME_TRAIL_H

#include "runtime/device.h"

/* Room for one more event, so that trail_add cannot fail; ended commands make it first. Returns: MEMORY. */
clsplat_status trail_reserve(clsplat_device *device);
/* Takes the event over. `name` is a literal: the kernel, or what the command did. */
void trail_add(clsplat_device *device, cl_event event, const char *name);

/* The last command, which has just been added. */
cl_event trail_last(const clsplat_device *device);
/* The last command if it may not have ended yet, else NULL. */
cl_event trail_unfinished(const clsplat_device *device);

/* Looks at the commands that have ended. Returns: OPENCL or MEMORY, naming the first that failed. */
clsplat_status trail_look(clsplat_device *device);
/* Waits for all of them, and looks. Returns: the same, and OPENCL where waiting fails. */
clsplat_status trail_finish(clsplat_device *device);
/* Lets go of all events unseen. */
void trail_release(clsplat_device *device);

#endif
