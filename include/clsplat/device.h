/* Devices: what the OpenCL loader shows, which one to use, what it can do, what it spent.
 *
 * A clsplat_device is one opened OpenCL device with a queue, the programs built for it, their binary
 * cache and reusable workspaces. It is either the library's own (clsplat_device_open) or a guest in
 * the caller's context and queue (clsplat_device_adopt).
 *
 * Threads: a clsplat_device may be used by one thread at a time. */
#ifndef CLSPLAT_DEVICE_H
#define CLSPLAT_DEVICE_H

/* Programs that bring no OpenCL objects of their own need no OpenCL headers: they define CLSPLAT_WITHOUT_CL.
 */
#ifdef CLSPLAT_WITHOUT_CL
#include "handles.h"
#else
#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <clsplat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct clsplat_device clsplat_device;

/* Matrix units of other vendors than NVIDIA, and how their subgroups take part. */
typedef enum clsplat_matrix_units {
    CLSPLAT_UNITS_NONE,
    CLSPLAT_UNITS_WMMA, /* AMD's RDNA 3: waves of 32 */
    CLSPLAT_UNITS_MFMA, /* AMD's CDNA 2 and 3: waves of 64 */
    CLSPLAT_UNITS_DPAS  /* Intel's Xe: subgroups of 8 or 16 */
} clsplat_matrix_units;

/* What a device can do, read once. Kernel variants and the cutting of large problems look here and
 * nowhere else, so that another device's limits can be put in by hand. */
typedef struct clsplat_limits {
    uint64_t global_memory;          /* bytes */
    uint64_t max_allocation;         /* bytes in one buffer */
    uint64_t local_memory;           /* bytes per work-group; 0 if it is ordinary global memory */
    uint64_t constant_memory;        /* bytes */
    uint32_t compute_units;          /* multiprocessors or cores */
    uint32_t clock_mhz;              /* as the device reports it; 0 if it does not */
    uint32_t max_work_group;         /* work-items */
    uint32_t max_work_item_sizes[3]; /* work-items */
    uint32_t vector_width_float;     /* floats of a native vector; 1 on most GPUs */
    uint32_t cache_line;             /* bytes; 0 if unknown */
    uint32_t base_address_align;     /* bytes that a sub-buffer's origin must divide by */
    uint32_t timer_resolution_ns;    /* of event times */
    uint32_t nvidia_capability;      /* compute capability, 90 for 9.0; 0 on other vendors' devices */
    uint32_t subgroup;               /* work-items of the smallest that it offers; 0: it does not say */
    clsplat_matrix_units matrix_units;
    bool fast_fma;        /* fma() is hardware; if false, mad() is used instead */
    bool half_arithmetic; /* cl_khr_fp16; half storage needs no extension */
    bool subgroups;       /* cl_khr_subgroups or OpenCL 2.1+ with them */
    bool int64;           /* false only on some embedded-profile devices */
    bool unified_memory;  /* host and device share memory */
    bool cpu;             /* a work-item has a core's vectors and caches to itself */
} clsplat_limits;

typedef struct clsplat_device_info {
    char platform[128]; /* "Portable Computing Language" */
    char name[256];     /* "pthread-skylake-avx512-AMD EPYC" */
    char vendor[128];
    char version[128]; /* "OpenCL 3.0 PoCL HSTR: …" */
    char driver[128];
    const char *type;  /* "gpu", "cpu", "accelerator" or "other" */
    bool available;    /* can be opened: it is available and has a compiler; see problem */
    char problem[160]; /* why not, in words; "" if available */
    uint64_t score;    /* the device with the highest is taken by default: see clsplat_device_list */
    clsplat_limits limits;
    char quirks[256]; /* names of the rows of the quirk table that match, comma-separated */
} clsplat_device_info;

/* Every device of every platform, in the loader's order; the position is the device's index.
 *
 * The score: a device that cannot be opened has 0. Otherwise type × 10⁹ (gpu 3, accelerator 2, cpu 1, other
 * 0) + compute units × max(clock in MHz, 1), and a quirk may lower it (a software rasteriser that calls
 * itself a CPU ranks below a real CPU driver). Ties go to the lower index.
 *
 * Ownership: *list is the caller's, to be given to clsplat_device_list_free.
 * Returns: NO_DEVICE if there is no platform or no platform has a device (with how to install one). */
CLSPLAT_API clsplat_status clsplat_device_list(clsplat *lib, clsplat_device_info **list, size_t *count);
CLSPLAT_API void clsplat_device_list_free(clsplat_device_info **list);

/* Opens a device with a context and an in-order profiling queue of the library's own.
 *
 * `which` is an index of the list, a type ("cpu", "gpu", "accelerator"), or a part of the name or of the
 * platform's name (case does not matter); NULL or "" asks the environment variable CLSPLAT_DEVICE, and
 * without that takes the highest score. A type with several devices takes its highest score; a name that fits
 * several devices, or none, is an error that lists what there is.
 *
 * Ownership: *device is the caller's. Returns: NO_DEVICE, OPENCL. Blocks: while the driver starts. */
CLSPLAT_API clsplat_status clsplat_device_open(clsplat *lib, const char *which, clsplat_device **device);

/* Works inside the caller's context and queue, in-order or out-of-order, with or without profiling.
 * Ownership: both are retained, and released by clsplat_device_close. Returns: INVALID if the queue
 * is not one of the context, OPENCL. */
CLSPLAT_API clsplat_status clsplat_device_adopt(clsplat *lib, cl_context context, cl_command_queue queue,
                                                clsplat_device **device);

/* Blocks: until what was enqueued through this handle is done. Accepts NULL; sets *device to NULL. */
CLSPLAT_API void clsplat_device_close(clsplat_device **device);

/* Ownership: the device's, valid until it is closed. */
CLSPLAT_API const clsplat_device_info *clsplat_device_describe(const clsplat_device *device);

/* Replaces the limits that the library works by, to try out how it behaves on a smaller device.
 * Values larger than the real ones are the caller's risk. */
CLSPLAT_API void clsplat_device_set_limits(clsplat_device *device, clsplat_limits limits);

/* The OpenCL objects behind a device. Ownership: the device's; retain what must outlive it. */
CLSPLAT_API cl_context clsplat_device_context(const clsplat_device *device);
CLSPLAT_API cl_command_queue clsplat_device_queue(const clsplat_device *device);

/* Blocks: until everything that was enqueued through this handle is done. Returns: OPENCL. */
CLSPLAT_API clsplat_status clsplat_device_finish(clsplat_device *device);

/* Device memory that the library itself holds through this handle (workspaces, splats, staged
 * blocks), in bytes: now and at most since the device was opened. */
typedef struct clsplat_memory {
    uint64_t now, peak;
} clsplat_memory;
CLSPLAT_API clsplat_memory clsplat_device_memory(const clsplat_device *device);

/* Profiling: one row per kernel name. */
typedef struct clsplat_profile_row {
    char kernel[64];
    uint64_t launches;
    double seconds;  /* on the device; with wall_clock, on the host around each launch */
    double flops;    /* as counted by the operation, exponentials left out */
    double bytes;    /* the least that must move: every input and output once */
    bool wall_clock; /* the device's event times are useless (they are 0), or the queue has none */
} clsplat_profile_row;

/* While on, every launch is timed. Where only the wall clock can tell, launches block. Off by default. */
CLSPLAT_API void clsplat_profile_set(clsplat_device *device, bool on);

/* Ends what was gathered since profiling was switched on or last read, and starts anew.
 * Ownership: *rows is the caller's, to be given to clsplat_profile_free.
 * Blocks: until the launches are done. Returns: OPENCL, MEMORY. */
CLSPLAT_API clsplat_status clsplat_profile_read(clsplat_device *device, clsplat_profile_row **rows,
                                                size_t *count);
CLSPLAT_API void clsplat_profile_free(clsplat_profile_row **rows);

#ifdef __cplusplus
}
#endif
#endif
