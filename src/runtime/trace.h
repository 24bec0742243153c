/* What a library handle's devices did, and when, as Chrome's trace format has it (opens in Perfetto and
 * chrome://tracing): kernels and copies by their events' times, builds and other steps of the host by its
 * clock.
 *
 * Off until trace_begin. Threads: those of the library handle. Source: the format's description ("Trace Event
 * Format"), complete events (ph X) in microseconds. */
#ifndef CLSPLAT_RUNTIME_TRACE_H
#define CLSPLAT_RUNTIME_TRACE_H

#include "runtime/device.h"

/* Returns: MEMORY. */
clsplat_status trace_begin(clsplat *lib);
bool trace_is_on(const clsplat *lib);
/* A command just enqueued. Commands beyond memory, or the first two million, are only counted. */
void trace_command(clsplat_device *device, const char *name, cl_event event);
/* A step of the host that began at that time of clock_seconds() and ends now. */
void trace_step(clsplat *lib, const char *name, double began);
/* Before the device goes: its commands have ended. */
void trace_leave(clsplat_device *device);

/* Writes the file in one step. Returns: IO, MEMORY. */
clsplat_status trace_save(clsplat *lib, const char *path);
/* Lets go of everything. */
void trace_end(clsplat *lib);

#endif
