#include "runtime/buffer.h"

static const double MIB = 1024.0 * 1024.0;

/* One sentence for both ways to fail: the device's own limit, and memory that is gone. */
static clsplat_status no_memory(clsplat_device *device, size_t bytes, const char *reason) {
    const clsplat_limits *limits = &device->info.limits;
    return log_error(
        device->lib, CLSPLAT_MEMORY,
        "%s has no room for a buffer of %.1f MiB: %s; it allows %.1f MiB in one piece and %.1f MiB in all, "
        "of which this handle has %.1f MiB",
        device->info.name, (double)bytes / MIB, reason, (double)limits->max_allocation / MIB,
        (double)limits->global_memory / MIB, (double)clsplat_device_memory(device).now / MIB);
}

clsplat_status buffer_create(clsplat_device *device, size_t bytes, cl_mem *mem) {
    return buffer_create_from(device, bytes, NULL, mem);
}

clsplat_status buffer_create_from(clsplat_device *device, size_t bytes, const void *host, cl_mem *mem) {
    cl_mem_flags flags = host ? CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR : CL_MEM_READ_WRITE;
    cl_int code = CL_SUCCESS;
    *mem = NULL;
    if (bytes > device->info.limits.max_allocation)
        return no_memory(device, bytes, "it is larger than one piece may be");
    *mem = clCreateBuffer(device->context, flags, bytes ? bytes : 1, (void *)host, &code);
    if (code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_INVALID_BUFFER_SIZE ||
        code == CL_OUT_OF_RESOURCES || code == CL_OUT_OF_HOST_MEMORY)
        return no_memory(device, bytes, cl_error_name(code));
    if (code != CL_SUCCESS)
        return cl_failed(device->lib, "clCreateBuffer", code);
    device_count(device->lib, device->serial, (int64_t)bytes);
    return CLSPLAT_OK;
}

void buffer_release(clsplat_device *device, size_t bytes, cl_mem *mem) {
    if (*mem)
        buffer_release_of(device->lib, device->serial, bytes, mem);
}

void buffer_release_of(clsplat *lib, uint64_t device, size_t bytes, cl_mem *mem) {
    if (!*mem)
        return;
    clReleaseMemObject(*mem);
    *mem = NULL;
    device_count(lib, device, -(int64_t)bytes);
}

size_t buffer_bytes(cl_mem mem) {
    cl_mem_object_type type = 0;
    size_t bytes = 0;
    if (clGetMemObjectInfo(mem, CL_MEM_TYPE, sizeof type, &type, NULL) != CL_SUCCESS ||
        type != CL_MEM_OBJECT_BUFFER ||
        clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof bytes, &bytes, NULL) != CL_SUCCESS)
        return 0;
    return bytes;
}

/* Commands that still use the old buffer keep it alive until they are done. */
clsplat_status workspace_take(clsplat_device *device, workspace_slot slot, size_t bytes, cl_mem *mem) {
    clsplat_status status = CLSPLAT_OK;
    workspace *w = &device->workspaces[slot];
    if (!w->mem || w->bytes < bytes) {
        buffer_release(device, w->bytes, &w->mem);
        w->bytes = 0;
        TRY(buffer_create(device, bytes, &w->mem));
        w->bytes = bytes;
    }
    *mem = w->mem;
fail:
    return status;
}

void workspace_release_all(clsplat_device *device) {
    for (unsigned slot = 0; slot < WORKSPACE_SLOTS; ++slot)
        buffer_release(device, device->workspaces[slot].bytes, &device->workspaces[slot].mem);
}
