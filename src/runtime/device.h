/* An opened device: the one struct that everything above OpenCL hangs from. */
#ifndef CLSPLAT_RUNTIME_DEVICE_H
#define CLSPLAT_RUNTIME_DEVICE_H

#include <clsplat/device.h>

#include "base/log.h"

/* A place of a workspace that lives between calls: its number is its user's to know (op/workspace.h). */
enum { WORKSPACE_SLOTS = 70 };
typedef unsigned workspace_slot;

typedef struct workspace {
    cl_mem mem;
    size_t bytes;
} workspace;

/* See runtime/trail.h. */
typedef struct trail {
    cl_event *events;
    const char **names;
    size_t count, capacity;
    cl_int code; /* of the first command that failed and was not told of yet; CL_SUCCESS: none */
    const char *failed;
    uint64_t failures; /* told so far: what was on the device before the last may be wrong */
} trail;

/* What a floor above keeps with a device, which knows no more of it than this. */
typedef struct device_keeper {
    size_t bytes;
    void (*forget)(void *kept); /* before the device closes */
    bool by_limits;             /* and when its limits change */
} device_keeper;

struct program;
struct profile;
struct device_kept;

struct clsplat_device {
    clsplat *lib;
    struct clsplat_device *next; /* of the library handle's */
    uint64_t serial; /* never two alike in one process's library handle: what was uploaded where */
    clsplat_device_info info;
    unsigned quirks; /* bits of quirk_flag, from runtime/quirks.h */
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    bool in_order;            /* what the queue promises */
    bool queue_profiles;      /* CL_QUEUE_PROFILING_ENABLE */
    trail trail;              /* the commands enqueued through this handle */
    struct program *programs; /* built so far: a list */
    struct profile *profile;
    workspace workspaces[WORKSPACE_SLOTS];
    clsplat_memory memory;
    struct device_kept *kept; /* a list */
};

/* What is kept by this keeper; NULL: nothing. */
void *device_kept(const clsplat_device *device, const device_keeper *keeper);
/* The same, made and zeroed the first time. Returns: NULL without memory. */
void *device_keep(clsplat_device *device, const device_keeper *keeper);
void device_forget(clsplat_device *device, const device_keeper *keeper);

bool device_is_open(clsplat *lib, uint64_t serial);
/* Counts bytes of device memory in and out of a device's figures; of one that has been closed nothing.
 * Threads: any. */
void device_count(clsplat *lib, uint64_t serial, int64_t bytes);
/* Begins a new peak at `least`, or at what is held if that is more. Returns: the peak until now. */
uint64_t device_begin_peak(clsplat_device *device, uint64_t least);

/* The sentence for an OpenCL error code: "clEnqueueNDRangeKernel: CL_INVALID_WORK_GROUP_SIZE (-54)". Memory
 * exhaustion becomes MEMORY; that a kernel asks for more items, registers or local memory than there are
 * UNSUPPORTED, where it is made or launched (elsewhere CL_OUT_OF_RESOURCES is how some drivers tell of a
 * crash); everything else OPENCL. */
#define LAUNCH_CALL "clEnqueueNDRangeKernel"
#define KERNEL_CALL "clCreateKernel"
clsplat_status cl_failed(clsplat *lib, const char *call, cl_int code);
const char *cl_error_name(cl_int code);

#define TRY_CL(lib, call)                                                                                    \
    do {                                                                                                     \
        cl_int code_ = (call);                                                                               \
        if (code_ != CL_SUCCESS) {                                                                           \
            status = cl_failed((lib), #call, code_);                                                         \
            goto fail;                                                                                       \
        }                                                                                                    \
    } while (0)

#endif
