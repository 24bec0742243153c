#include "runtime/platforms.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/causes.h"

/* A driver that pip installs into the `lib` of a Python environment, with an .icd file where only that
 * environment's own loader looks. Its platforms go through any loader, since their objects carry their
 * functions with them. */
typedef struct stray_driver {
    const char *file;     /* the library */
    const char *platform; /* its name; a platform of that name from the loader is the same driver */
    const char *needs;    /* the package that its own does not ask for */
} stray_driver;

static const stray_driver stray_drivers[] = {{"libintelocl.so", "Intel(R) OpenCL", "intel-cmplr-lib-rt"}};

/* Environments, the active one first: a variable, or NULL, and a folder below it. */
typedef struct place {
    const char *variable, *folder;
} place;

static const place places[] = {
    {"VIRTUAL_ENV", "/lib"}, {"CONDA_PREFIX", "/lib"}, {"HOME", "/.local/lib"}, {NULL, "/usr/local/lib"}};

/* Whoever names the drivers there are means these and no others. */
static bool drivers_are_named(void) {
    const char *const variables[] = {"OCL_ICD_VENDORS", "OCL_ICD_FILENAMES"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; ++i)
        if (getenv(variables[i]) && getenv(variables[i])[0])
            return true;
    return false;
}

static bool has_platform(const cl_platform_id *platforms, size_t count, const char *wanted) {
    for (size_t i = 0; i < count; ++i) {
        char name[128] = "";
        if (clGetPlatformInfo(platforms[i], CL_PLATFORM_NAME, sizeof name, name, NULL) == CL_SUCCESS &&
            strcmp(name, wanted) == 0)
            return true;
    }
    return false;
}

/* False if there is no such file. */
static bool find_driver(const stray_driver *driver, char *path, size_t size) {
    for (size_t i = 0; i < sizeof places / sizeof *places; ++i) {
        const char *root = places[i].variable ? getenv(places[i].variable) : "";
        if (!root || (places[i].variable && root[0] != '/'))
            continue;
        int length = snprintf(path, size, "%s%s/%s", root, places[i].folder, driver->file);
        if (length > 0 && (size_t)length < size && access(path, R_OK) == 0)
            return true;
    }
    return false;
}

typedef void *(CL_API_CALL *find_function)(const char *name);
typedef cl_int(CL_API_CALL *list_platforms)(cl_uint room, cl_platform_id *platforms, cl_uint *count);

/* What an .icd file would have led the loader to: cl_khr_icd. NULL, with words in the log, if the library
 * does not load. It stays loaded: its threads end with the process. */
static list_platforms load_driver(clsplat *lib, const stray_driver *driver, const char *path) {
    find_function find = NULL;
    list_platforms list = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        log_warning(lib, "the driver %s does not load: %s; it may want the package %s beside its own", path,
                    dlerror(), driver->needs);
        return NULL;
    }
    *(void **)&find = dlsym(library, "clGetExtensionFunctionAddress");
    if (find)
        *(void **)&list = find("clIcdGetPlatformIDsKHR");
    if (!list)
        log_warning(lib, "the driver %s is not made for loaders: it has no clIcdGetPlatformIDsKHR", path);
    else
        log_info(lib, "the driver %s was found without an .icd file", path);
    return list;
}

static clsplat_status add_stray(clsplat *lib, const stray_driver *driver, cl_platform_id **platforms,
                                size_t *count) {
    char path[4096];
    cl_uint found = 0;
    if (has_platform(*platforms, *count, driver->platform) || !find_driver(driver, path, sizeof path))
        return CLSPLAT_OK;
    list_platforms list = load_driver(lib, driver, path);
    if (!list || list(0, NULL, &found) != CL_SUCCESS || found == 0)
        return CLSPLAT_OK;
    cl_platform_id *all = realloc(*platforms, (*count + found) * sizeof *all);
    if (!all)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a list of %zu OpenCL platforms", *count + found);
    *platforms = all;
    if (list(found, all + *count, NULL) == CL_SUCCESS)
        *count += found;
    return CLSPLAT_OK;
}

static clsplat_status ask_loader(clsplat *lib, cl_platform_id **platforms, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    enum { PLATFORM_NOT_FOUND_KHR = -1001 };
    cl_uint found = 0;
    cl_int code = clGetPlatformIDs(0, NULL, &found);
    if (code == PLATFORM_NOT_FOUND_KHR || (code == CL_SUCCESS && found == 0))
        return CLSPLAT_OK;
    if (code != CL_SUCCESS)
        return cl_failed(lib, "clGetPlatformIDs", code);
    *platforms = calloc(found, sizeof **platforms);
    if (!*platforms)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a list of %u OpenCL platforms", found);
    TRY_CL(lib, clGetPlatformIDs(found, *platforms, NULL));
    *count = found;
fail:
    return status;
}

clsplat_status platforms_read(clsplat *lib, cl_platform_id **platforms, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    *platforms = NULL;
    *count = 0;
    TRY(ask_loader(lib, platforms, count));
    for (size_t i = 0; i < sizeof stray_drivers / sizeof *stray_drivers && !drivers_are_named(); ++i)
        TRY(add_stray(lib, &stray_drivers[i], platforms, count));
    if (*count == 0)
        TRY(log_error(lib, CLSPLAT_NO_DEVICE, "this machine has no OpenCL platform%s. " PLATFORMS_INSTALL,
                      causes_find().words));
    return CLSPLAT_OK;
fail:
    free(*platforms);
    *platforms = NULL;
    return status;
}
