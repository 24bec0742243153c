#include "runtime/launch_check.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of "uint", "float", "ulong4", …; 0: none of the types that hosts set. */
static size_t bytes_of(const char *type) {
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {{"uint", 4}, {"int", 4}, {"float", 4}, {"ulong", 8}, {"long", 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; ++i) {
        size_t length = strlen(types[i].name);
        if (strncmp(type, types[i].name, length) == 0) {
            unsigned long width = strtoul(type + length, NULL, 10);
            return types[i].bytes * (width ? width : 1);
        }
    }
    return 0;
}

/* NULL: it does, or nobody knows. */
static const char *disagrees(const launch *l, cl_uint i) {
    char type[64] = "";
    cl_kernel_arg_address_qualifier where = CL_KERNEL_ARG_ADDRESS_PRIVATE;
    const launch_argument *told = &l->told[i];
    if (clGetKernelArgInfo(l->kernel, i, CL_KERNEL_ARG_ADDRESS_QUALIFIER, sizeof where, &where, NULL) !=
            CL_SUCCESS ||
        clGetKernelArgInfo(l->kernel, i, CL_KERNEL_ARG_TYPE_NAME, sizeof type, type, NULL) != CL_SUCCESS)
        return NULL;
    if (where != CL_KERNEL_ARG_ADDRESS_PRIVATE)
        return told->kind == LAUNCH_MEM ? NULL : "it takes a buffer";
    if (told->kind == LAUNCH_MEM)
        return "it takes no buffer";
    size_t bytes = bytes_of(type);
    if (bytes && bytes != told->bytes)
        return "it takes another number of bytes";
    if (told->kind != LAUNCH_BYTES && bytes && (strcmp(type, "float") == 0) != (told->kind == LAUNCH_FLOAT))
        return "a float stands where an integer does, or the other way round";
    return NULL;
}

/* Whether the kernel's parameter i is called otherwise than the host says; `name` gets what the kernel says.
 * Parameters that a kernel copies may end in an underscore; those called as a built-in begin with PoCL's
 * macro. */
static bool named_otherwise(const launch *l, cl_uint i, size_t room, char *name) {
    static const char macro[] = "_cl_";
    const launch_argument *told = &l->told[i];
    if (clGetKernelArgInfo(l->kernel, i, CL_KERNEL_ARG_NAME, room, name, NULL) != CL_SUCCESS || !*name)
        return false;
    if (strncmp(name, macro, strlen(macro)) == 0)
        memmove(name, name + strlen(macro), strlen(name) - strlen(macro) + 1);
    size_t length = strlen(told->name);
    if (strncmp(name, told->name, length) == 0) {
        const char *rest = name + length;
        if (strcmp(rest, told->end) == 0 || (!*told->end && strcmp(rest, "_") == 0))
            return false;
    }
    return !*told->end || strcmp(name, told->end + 1) != 0;
}

clsplat_status launch_check(const launch *l, const clsplat_device *device) {
    char name[128] = "";
    cl_uint count = 0;
    if (clGetKernelInfo(l->kernel, CL_KERNEL_FUNCTION_NAME, sizeof name, name, NULL) != CL_SUCCESS ||
        clGetKernelInfo(l->kernel, CL_KERNEL_NUM_ARGS, sizeof count, &count, NULL) != CL_SUCCESS ||
        strcmp(name, l->name) != 0) /* another stands in for it: tests/vendors */
        return CLSPLAT_OK;
    if (count != l->next)
        return log_error(device->lib, CLSPLAT_OPENCL, "kernel %s takes %u arguments, and is told %u", name,
                         count, l->next);
    for (cl_uint i = 0; i < count && i < LAUNCH_ARGUMENTS; ++i) {
        char parameter[128] = "";
        if (named_otherwise(l, i, sizeof parameter, parameter))
            return log_error(device->lib, CLSPLAT_OPENCL,
                             "kernel %s, argument %u: it is called %s there, and the host tells %s%s", name,
                             i, parameter, l->told[i].name, l->told[i].end);
        const char *why = disagrees(l, i);
        if (why)
            return log_error(device->lib, CLSPLAT_OPENCL, "kernel %s, argument %u: %s", name, i, why);
    }
    return CLSPLAT_OK;
}
