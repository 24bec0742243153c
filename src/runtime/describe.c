#include "runtime/describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/quirks.h"

char *device_string(cl_device_id id, cl_device_info what) {
    size_t bytes = 0;
    if (clGetDeviceInfo(id, what, 0, NULL, &bytes) != CL_SUCCESS)
        return NULL;
    char *s = calloc(bytes + 1, 1);
    if (s && clGetDeviceInfo(id, what, bytes, s, NULL) != CL_SUCCESS)
        s[0] = '\0';
    return s;
}

/* As much of the string as fits; drivers refuse to give a part of one. */
static void copy_string(cl_device_id id, cl_device_info what, char *to, size_t size) {
    char *s = device_string(id, what);
    snprintf(to, size, "%s", s ? s : "");
    free(s);
}

static void copy_platform_name(cl_device_id id, char *to, size_t size) {
    cl_platform_id platform = NULL;
    size_t bytes = 0;
    char *s = NULL;
    to[0] = '\0';
    if (clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL) == CL_SUCCESS &&
        clGetPlatformInfo(platform, CL_PLATFORM_NAME, 0, NULL, &bytes) == CL_SUCCESS)
        s = calloc(bytes + 1, 1);
    if (s && clGetPlatformInfo(platform, CL_PLATFORM_NAME, bytes, s, NULL) == CL_SUCCESS)
        snprintf(to, size, "%s", s);
    free(s);
}

/* A fixed-size answer; 0 if the driver has none. */
static void get(cl_device_id id, cl_device_info what, void *value, size_t bytes) {
    if (clGetDeviceInfo(id, what, bytes, value, NULL) != CL_SUCCESS)
        memset(value, 0, bytes);
}

static cl_uint get_uint(cl_device_id id, cl_device_info what) {
    cl_uint value = 0;
    get(id, what, &value, sizeof value);
    return value;
}

static cl_ulong get_ulong(cl_device_id id, cl_device_info what) {
    cl_ulong value = 0;
    get(id, what, &value, sizeof value);
    return value;
}

static size_t get_size(cl_device_id id, cl_device_info what) {
    size_t value = 0;
    get(id, what, &value, sizeof value);
    return value;
}

static bool get_bool(cl_device_id id, cl_device_info what) {
    return get_uint(id, what) != CL_FALSE;
}

static bool has_extension(const char *extensions, const char *name) {
    size_t length = strlen(name);
    for (const char *at = extensions; at && (at = strstr(at, name)); at += length)
        if ((at == extensions || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

/* Subgroups were in the core of OpenCL 2.1 and 2.2 and are an option of 3.0. */
static bool has_subgroups(cl_device_id id, const char *version, const char *extensions) {
    enum { MAX_NUM_SUB_GROUPS = 0x105C };
    int major = 0, minor = 0;
    if (has_extension(extensions, "cl_khr_subgroups"))
        return true;
    return sscanf(version, "OpenCL %d.%d", &major, &minor) == 2 && 10 * major + minor >= 21 &&
           get_uint(id, MAX_NUM_SUB_GROUPS) > 0;
}

static bool has_int64(cl_device_id id, const char *extensions) {
    char *profile = device_string(id, CL_DEVICE_PROFILE);
    bool embedded = profile && strcmp(profile, "EMBEDDED_PROFILE") == 0;
    free(profile);
    return !embedded || has_extension(extensions, "cles_khr_int64");
}

/* cl_nv_device_attribute_query's numbers, which Khronos' headers do not have. */
static uint32_t nvidia_capability(cl_device_id id, const char *extensions) {
    enum { CAPABILITY_MAJOR_NV = 0x4000, CAPABILITY_MINOR_NV = 0x4001 };
    if (!has_extension(extensions, "cl_nv_device_attribute_query"))
        return 0;
    return 10 * get_uint(id, CAPABILITY_MAJOR_NV) + get_uint(id, CAPABILITY_MINOR_NV);
}

/* Of the smallest subgroup: cl_intel_required_subgroup_size names them all, AMD's attributes a wave. */
static uint32_t subgroup_size(cl_device_id id, const char *extensions) {
    enum { WAVEFRONT_WIDTH_AMD = 0x4043, SUB_GROUP_SIZES_INTEL = 0x4108 };
    size_t sizes[16] = {0}, smallest = 0;
    if (has_extension(extensions, "cl_amd_device_attribute_query"))
        return get_uint(id, WAVEFRONT_WIDTH_AMD);
    if (has_extension(extensions, "cl_intel_required_subgroup_size"))
        get(id, SUB_GROUP_SIZES_INTEL, sizes, sizeof sizes);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        if (sizes[i] && (!smallest || sizes[i] < smallest))
            smallest = sizes[i];
    return (uint32_t)smallest;
}

/* Intel has an extension for its matrix units. AMD has none: the chip's name tells, as its compiler has it.
 */
static clsplat_matrix_units matrix_units(cl_device_id id, const char *extensions) {
    static const struct {
        const char *chip;
        clsplat_matrix_units units;
    } chips[] = {
        {"gfx11", CLSPLAT_UNITS_WMMA}, {"gfx90a", CLSPLAT_UNITS_MFMA}, {"gfx94", CLSPLAT_UNITS_MFMA}};
    clsplat_matrix_units units = CLSPLAT_UNITS_NONE;
    char *name = device_string(id, CL_DEVICE_NAME);
    if (has_extension(extensions, "cl_intel_subgroup_matrix_multiply_accumulate"))
        units = CLSPLAT_UNITS_DPAS;
    for (size_t i = 0; name && has_extension(extensions, "cl_amd_device_attribute_query") &&
                       i < sizeof chips / sizeof *chips;
         ++i)
        if (strncmp(name, chips[i].chip, strlen(chips[i].chip)) == 0)
            units = chips[i].units;
    free(name);
    return units;
}

static void describe_groups(cl_device_id id, clsplat_limits *limits) {
    size_t sizes[16] = {0}; /* a device may have more than the three dimensions of a full profile */
    limits->max_work_group = (uint32_t)get_size(id, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    if (get_uint(id, CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS) <= sizeof sizes / sizeof *sizes)
        get(id, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizes, sizeof sizes);
    for (int d = 0; d < 3; ++d)
        limits->max_work_item_sizes[d] = (uint32_t)sizes[d];
}

/* Of the hardware: a compiler that makes vectors of work-items itself prefers 1, as Intel's for CPUs does. */
static uint32_t vector_width(cl_device_id id) {
    uint32_t native = get_uint(id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    return native ? native : get_uint(id, CL_DEVICE_PREFERRED_VECTOR_WIDTH_FLOAT);
}

static clsplat_limits describe_limits(cl_device_id id, const char *version) {
    char *extensions = device_string(id, CL_DEVICE_EXTENSIONS);
    bool own_local = get_uint(id, CL_DEVICE_LOCAL_MEM_TYPE) == CL_LOCAL;
    clsplat_limits limits = {
        .global_memory = get_ulong(id, CL_DEVICE_GLOBAL_MEM_SIZE),
        .max_allocation = get_ulong(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE),
        .local_memory = own_local ? get_ulong(id, CL_DEVICE_LOCAL_MEM_SIZE) : 0,
        .constant_memory = get_ulong(id, CL_DEVICE_MAX_CONSTANT_BUFFER_SIZE),
        .compute_units = get_uint(id, CL_DEVICE_MAX_COMPUTE_UNITS),
        .clock_mhz = get_uint(id, CL_DEVICE_MAX_CLOCK_FREQUENCY),
        .vector_width_float = vector_width(id),
        .cache_line = get_uint(id, CL_DEVICE_GLOBAL_MEM_CACHELINE_SIZE),
        .base_address_align = get_uint(id, CL_DEVICE_MEM_BASE_ADDR_ALIGN) / 8,
        .nvidia_capability = nvidia_capability(id, extensions),
        .subgroup = subgroup_size(id, extensions),
        .matrix_units = matrix_units(id, extensions),
        .timer_resolution_ns = (uint32_t)get_size(id, CL_DEVICE_PROFILING_TIMER_RESOLUTION),
        .fast_fma = (get_ulong(id, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_FMA) != 0,
        .half_arithmetic = has_extension(extensions, "cl_khr_fp16"),
        .subgroups = has_subgroups(id, version, extensions),
        .int64 = has_int64(id, extensions),
        .unified_memory = get_bool(id, CL_DEVICE_HOST_UNIFIED_MEMORY),
        .cpu = (get_ulong(id, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU) != 0,
    };
    describe_groups(id, &limits);
    free(extensions);
    return limits;
}

/* In the order of the score. */
static const char *const type_names[] = {"other", "cpu", "accelerator", "gpu"};

static unsigned type_rank(cl_device_id id) {
    cl_ulong type = get_ulong(id, CL_DEVICE_TYPE);
    return type & CL_DEVICE_TYPE_GPU           ? 3
           : type & CL_DEVICE_TYPE_ACCELERATOR ? 2
           : type & CL_DEVICE_TYPE_CPU         ? 1
                                               : 0;
}

static void describe_problem(cl_device_id id, clsplat_device_info *info) {
    const char *problem = "";
    if (!get_bool(id, CL_DEVICE_AVAILABLE))
        problem = "its driver says that it is not available (used by another process, or switched off)";
    else if (!get_bool(id, CL_DEVICE_COMPILER_AVAILABLE))
        problem = "its driver has no kernel compiler; install the vendor's full OpenCL package";
    info->available = !problem[0];
    snprintf(info->problem, sizeof info->problem, "%s", problem);
}

static uint64_t score_of(const clsplat_device_info *info, unsigned rank, unsigned quirk_flags) {
    const clsplat_limits *limits = &info->limits;
    uint64_t units = limits->compute_units ? limits->compute_units : 1;
    uint64_t clock = limits->clock_mhz ? limits->clock_mhz : 1;
    if (!info->available)
        return 0;
    return (quirk_flags & QUIRK_SOFTWARE ? 0 : rank * UINT64_C(1000000000)) + units * clock;
}

unsigned device_describe(cl_device_id id, clsplat_device_info *info) {
    unsigned rank = type_rank(id);
    *info = (clsplat_device_info){.type = type_names[rank]};
    copy_platform_name(id, info->platform, sizeof info->platform);
    copy_string(id, CL_DEVICE_NAME, info->name, sizeof info->name);
    copy_string(id, CL_DEVICE_VENDOR, info->vendor, sizeof info->vendor);
    copy_string(id, CL_DEVICE_VERSION, info->version, sizeof info->version);
    copy_string(id, CL_DRIVER_VERSION, info->driver, sizeof info->driver);
    info->limits = describe_limits(id, info->version);
    describe_problem(id, info);
    unsigned quirk_flags = quirks_apply(info);
    if (quirk_flags & QUIRK_SOFTWARE)
        info->limits.cpu = false; /* its compiler is a graphics card's */
    info->score = score_of(info, rank, quirk_flags);
    return quirk_flags;
}
