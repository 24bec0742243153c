#include "runtime/device.h"

#include <assert.h>
#include <stdlib.h>

#include "runtime/buffer.h"
#include "runtime/describe.h"
#include "runtime/profile.h"
#include "runtime/program.h"
#include "runtime/quirks.h"
#include "runtime/trace.h"
#include "runtime/trail.h"

/* A handle around objects it has a reference to each; it takes them over whatever happens. */
static clsplat_status wrap(clsplat *lib, cl_device_id id, cl_context context, cl_command_queue commands,
                           clsplat_device **device) {
    clsplat_status status = CLSPLAT_OK;
    cl_command_queue_properties properties = 0;
    clsplat_device *d = calloc(1, sizeof *d);
    if (!d) {
        clReleaseCommandQueue(commands);
        clReleaseContext(context);
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a device handle");
    }
    d->lib = lib;
    d->id = id;
    d->context = context;
    d->queue = commands;
    TRY_CL(lib, clGetCommandQueueInfo(commands, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL));
    d->in_order = !(properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
    d->queue_profiles = properties & CL_QUEUE_PROFILING_ENABLE;
    pthread_mutex_lock(&lib->lock);
    d->serial = ++lib->device_serials;
    d->next = lib->devices;
    lib->devices = d;
    pthread_mutex_unlock(&lib->lock);
    d->quirks = device_describe(id, &d->info);
    TRY(profile_create(d));
    if (d->quirks & QUIRK_LOOP_LIMIT)
        log_warning(lib,
                    "%s ends long loops early: exact attention is cut to fit, but splats over long inputs "
                    "give wrong results; on a CPU, PoCL does not",
                    d->info.name);
    log_info(lib, "device %s (%s, driver %s)", d->info.name, d->info.platform, d->info.driver);
    *device = d;
    return CLSPLAT_OK;
fail:
    clsplat_device_close(&d);
    return status;
}

static clsplat_status open_own(clsplat *lib, cl_device_id id, clsplat_device **device) {
    clsplat_status status = CLSPLAT_OK;
    cl_platform_id platform = NULL;
    cl_context context = NULL;
    cl_int code = CL_SUCCESS;
    TRY_CL(lib, clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL));
    cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)platform, 0};
    context = clCreateContext(properties, 1, &id, NULL, NULL, &code);
    if (code == CL_INVALID_PLATFORM) /* the loader does not know it: platforms.h */
        context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    if (code != CL_SUCCESS)
        TRY(cl_failed(lib, "clCreateContext", code));
    cl_command_queue commands = clCreateCommandQueue(context, id, CL_QUEUE_PROFILING_ENABLE, &code);
    if (code != CL_SUCCESS)
        TRY(cl_failed(lib, "clCreateCommandQueue", code));
    return wrap(lib, id, context, commands, device);
fail:
    if (context)
        clReleaseContext(context);
    return status;
}

clsplat_status clsplat_device_open(clsplat *lib, const char *which, clsplat_device **device) {
    clsplat_status status = CLSPLAT_OK;
    device_set set = {0};
    size_t index = 0;
    assert(lib && device);
    *device = NULL;
    bool asked = which && which[0];
    const char *environment = getenv("CLSPLAT_DEVICE");
    const char *word = asked ? which : environment ? environment : "";
    TRY(device_set_read(lib, &set));
    TRY(device_choose(lib, set.infos, set.count, word, asked ? "device" : "CLSPLAT_DEVICE", &index));
    device_look_begin();
    status = open_own(lib, set.ids[index], device);
    device_look_end();
fail:
    device_set_free(&set);
    return status;
}

clsplat_status clsplat_device_adopt(clsplat *lib, cl_context context, cl_command_queue commands,
                                    clsplat_device **device) {
    clsplat_status status = CLSPLAT_OK;
    cl_context owner = NULL;
    cl_device_id id = NULL;
    assert(lib && device);
    *device = NULL;
    if (!context || !commands)
        return log_error(lib, CLSPLAT_INVALID,
                         "clsplat_device_adopt needs a context and a queue; the %s is NULL",
                         context ? "queue" : "context");
    TRY_CL(lib, clGetCommandQueueInfo(commands, CL_QUEUE_CONTEXT, sizeof owner, &owner, NULL));
    TRY_CL(lib, clGetCommandQueueInfo(commands, CL_QUEUE_DEVICE, sizeof id, &id, NULL));
    if (owner != context)
        return log_error(lib, CLSPLAT_INVALID,
                         "clsplat_device_adopt: the queue was made in another context than the one given");
    clRetainContext(context);
    clRetainCommandQueue(commands);
    return wrap(lib, id, context, commands, device);
fail:
    return status;
}

/* With the lock held. */
static clsplat_device *find(clsplat *lib, uint64_t serial) {
    clsplat_device *d = lib->devices;
    while (d && d->serial != serial)
        d = d->next;
    return d;
}

bool device_is_open(clsplat *lib, uint64_t serial) {
    pthread_mutex_lock(&lib->lock);
    bool open = find(lib, serial);
    pthread_mutex_unlock(&lib->lock);
    return open;
}

void device_count(clsplat *lib, uint64_t serial, int64_t bytes) {
    pthread_mutex_lock(&lib->lock);
    clsplat_device *d = find(lib, serial);
    if (d) {
        d->memory.now += (uint64_t)bytes;
        if (d->memory.now > d->memory.peak)
            d->memory.peak = d->memory.now;
    }
    pthread_mutex_unlock(&lib->lock);
}

uint64_t device_begin_peak(clsplat_device *device, uint64_t least) {
    pthread_mutex_lock(&device->lib->lock);
    uint64_t peak = device->memory.peak;
    device->memory.peak = least > device->memory.now ? least : device->memory.now;
    pthread_mutex_unlock(&device->lib->lock);
    return peak;
}

/* One that could not be made whole is not in it. */
static void leave_list(clsplat_device *device) {
    clsplat_device **at = &device->lib->devices;
    pthread_mutex_lock(&device->lib->lock);
    while (*at && *at != device)
        at = &(*at)->next;
    if (*at)
        *at = device->next;
    pthread_mutex_unlock(&device->lib->lock);
}

struct device_kept {
    struct device_kept *next;
    const device_keeper *keeper;
    max_align_t bytes[];
};

void *device_kept(const clsplat_device *device, const device_keeper *keeper) {
    struct device_kept *k = device->kept;
    while (k && k->keeper != keeper)
        k = k->next;
    return k ? k->bytes : NULL;
}

void *device_keep(clsplat_device *device, const device_keeper *keeper) {
    void *kept = device_kept(device, keeper);
    struct device_kept *k = kept ? NULL : calloc(1, sizeof *k + keeper->bytes);
    if (!k)
        return kept;
    k->keeper = keeper;
    k->next = device->kept;
    device->kept = k;
    return k->bytes;
}

/* All of them; those that hang on limits; or that one. */
static void forget(clsplat_device *device, bool all, bool by_limits, const device_keeper *only) {
    for (struct device_kept **at = &device->kept, *k; (k = *at);) {
        if (!all && !(by_limits && k->keeper->by_limits) && k->keeper != only) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        k->keeper->forget(k->bytes);
        free(k);
    }
}

void device_forget(clsplat_device *device, const device_keeper *keeper) {
    forget(device, false, false, keeper);
}

void clsplat_device_close(clsplat_device **device) {
    if (!device || !*device)
        return;
    clsplat_device *d = *device;
    clsplat_device_finish(d);
    trace_leave(d);
    trail_release(d);
    free(d->trail.events);
    free(d->trail.names);
    profile_release(d);
    program_release_all(d);
    workspace_release_all(d);
    forget(d, true, true, NULL);
    leave_list(d);
    clReleaseCommandQueue(d->queue);
    clReleaseContext(d->context);
    free(d);
    *device = NULL;
}

/* Waits for the handle's own commands only: on a guest's queue there may be commands behind it that never end
 * before the caller does something. */
clsplat_status clsplat_device_finish(clsplat_device *device) {
    clsplat_status status = CLSPLAT_OK;
    TRY_CL(device->lib, clFlush(device->queue));
    TRY(trail_finish(device));
fail:
    return status;
}

const clsplat_device_info *clsplat_device_describe(const clsplat_device *device) {
    return &device->info;
}

void clsplat_device_set_limits(clsplat_device *device, clsplat_limits limits) {
    device->info.limits = limits;
    forget(device, false, true, NULL);
}

cl_context clsplat_device_context(const clsplat_device *device) {
    return device->context;
}

cl_command_queue clsplat_device_queue(const clsplat_device *device) {
    return device->queue;
}

clsplat_memory clsplat_device_memory(const clsplat_device *device) {
    pthread_mutex_lock(&device->lib->lock);
    clsplat_memory memory = device->memory;
    pthread_mutex_unlock(&device->lib->lock);
    return memory;
}
