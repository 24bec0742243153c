#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "runtime/causes.h"
#include "runtime/describe.h"
#include "runtime/device.h"
#include "runtime/platforms.h"
#include "runtime/pocl.h"

/* Appends a platform's devices. One that has none, or that fails to tell, does not hide the others. */
static clsplat_status add_devices(clsplat *lib, cl_platform_id platform, device_set *set) {
    cl_uint found = 0;
    cl_int code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &found);
    if (code != CL_SUCCESS && code != CL_DEVICE_NOT_FOUND)
        log_warning(lib, "an OpenCL platform does not list its devices: %s (%d)", cl_error_name(code),
                    (int)code);
    if (code != CL_SUCCESS || found == 0)
        return CLSPLAT_OK;
    cl_device_id *ids = realloc(set->ids, (set->count + found) * sizeof *ids);
    if (!ids)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a list of %u OpenCL devices", found);
    set->ids = ids;
    if (clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, found, ids + set->count, NULL) == CL_SUCCESS)
        set->count += found;
    return CLSPLAT_OK;
}

static void add_platform_name(text *names, cl_platform_id platform) {
    char name[128] = "?";
    if (clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name, name, NULL) != CL_SUCCESS)
        strcpy(name, "?");
    text_add(names, "%s%s", names->length ? ", " : "", name);
}

static clsplat_status no_devices(clsplat *lib, const cl_platform_id *platforms, size_t count) {
    text names = {0}, folder = {0};
    for (size_t i = 0; i < count; ++i)
        add_platform_name(&names, platforms[i]);
    bool unusable = pocl_folder_problem(&folder) && text_ok(&folder);
    clsplat_status status =
        log_error(lib, CLSPLAT_NO_DEVICE,
                  "no OpenCL platform of this machine has a device (asked: %s)%s. %s%s" PLATFORMS_INSTALL,
                  text_ok(&names) ? names.data : "?", causes_find().words, unusable ? folder.data : "",
                  unusable ? ". If this is not it: " : "");
    text_free(&folder);
    text_free(&names);
    return status;
}

/* What a process has one of: drivers that are loaded by the first look (PoCL, Mesa) crash if two threads have
 * it at a time. Handles of different threads are independent otherwise. */
static pthread_mutex_t first_look = PTHREAD_MUTEX_INITIALIZER;

void device_look_begin(void) {
    pthread_mutex_lock(&first_look);
}

void device_look_end(void) {
    pthread_mutex_unlock(&first_look);
}

static clsplat_status read_all(clsplat *lib, device_set *set) {
    clsplat_status status = CLSPLAT_OK;
    cl_platform_id *platforms = NULL;
    size_t count = 0;
    *set = (device_set){0};
    TRY(platforms_read(lib, &platforms, &count));
    for (size_t i = 0; i < count; ++i)
        TRY(add_devices(lib, platforms[i], set));
    if (set->count == 0)
        TRY(no_devices(lib, platforms, count));
    set->infos = calloc(set->count, sizeof *set->infos);
    if (!set->infos)
        TRY(log_error(lib, CLSPLAT_MEMORY, "no memory to describe %zu devices", set->count));
    for (size_t i = 0; i < set->count; ++i)
        device_describe(set->ids[i], &set->infos[i]);
fail:
    free(platforms);
    if (status != CLSPLAT_OK)
        device_set_free(set);
    return status;
}

clsplat_status device_set_read(clsplat *lib, device_set *set) {
    device_look_begin();
    clsplat_status status = read_all(lib, set);
    device_look_end();
    return status;
}

void device_set_free(device_set *set) {
    free(set->ids);
    free(set->infos);
    *set = (device_set){0};
}

clsplat_status clsplat_device_list(clsplat *lib, clsplat_device_info **list, size_t *count) {
    device_set set;
    clsplat_status status = device_set_read(lib, &set);
    *list = set.infos;
    *count = set.count;
    set.infos = NULL;
    device_set_free(&set);
    return status;
}

void clsplat_device_list_free(clsplat_device_info **list) {
    if (list) {
        free(*list);
        *list = NULL;
    }
}

/* What `which` turned out to be. */
typedef enum request_kind { REQUEST_BEST, REQUEST_INDEX, REQUEST_TYPE, REQUEST_NAME } request_kind;

static request_kind kind_of(const char *which) {
    if (!which[0])
        return REQUEST_BEST;
    if (strspn(which, "0123456789") == strlen(which))
        return REQUEST_INDEX;
    bool type = strcasecmp(which, "cpu") == 0 || strcasecmp(which, "gpu") == 0 ||
                strcasecmp(which, "accelerator") == 0;
    return type ? REQUEST_TYPE : REQUEST_NAME;
}

static bool fits(const clsplat_device_info *info, size_t index, request_kind kind, const char *which) {
    switch (kind) {
    case REQUEST_BEST:
        return true;
    case REQUEST_INDEX:
        return strtoull(which, NULL, 10) == index;
    case REQUEST_TYPE:
        return strcasecmp(info->type, which) == 0;
    case REQUEST_NAME:
        return text_contains(info->name, which) || text_contains(info->platform, which);
    }
    return false;
}

static void add_candidate(text *t, const clsplat_device_info *info, size_t index) {
    text_add(t, "%s%zu: %s (%s, %s)", t->length ? "; " : "", index, info->name, info->platform, info->type);
    if (!info->available)
        text_add(t, ", which cannot be opened: %s", info->problem);
}

static clsplat_status refuse(clsplat *lib, const clsplat_device_info *infos, size_t count,
                             const char *sentence, const char *which, const char *origin) {
    text there = {0};
    for (size_t i = 0; i < count; ++i)
        add_candidate(&there, &infos[i], i);
    clsplat_status status =
        log_error(lib, CLSPLAT_NO_DEVICE, "%s '%s': %s. There is %s", origin, which[0] ? which : "the best",
                  sentence, text_ok(&there) ? there.data : "no memory to list the devices");
    text_free(&there);
    return status;
}

clsplat_status device_choose(clsplat *lib, const clsplat_device_info *infos, size_t count, const char *which,
                             const char *origin, size_t *index) {
    request_kind kind = kind_of(which);
    size_t fitting = 0, usable = 0, best = 0;
    for (size_t i = 0; i < count; ++i) {
        if (!fits(&infos[i], i, kind, which))
            continue;
        ++fitting;
        if (!infos[i].available)
            continue;
        if (usable++ == 0 || infos[i].score > infos[best].score)
            best = i;
    }
    if (fitting == 0)
        return refuse(lib, infos, count, "no device fits", which, origin);
    if (usable == 0)
        return refuse(lib, infos, count, "no device that fits can be opened", which, origin);
    if (kind == REQUEST_NAME && usable > 1)
        return refuse(lib, infos, count, "more than one device fits; give its index", which, origin);
    *index = best;
    return CLSPLAT_OK;
}
