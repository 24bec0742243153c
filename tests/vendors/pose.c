/* A layer for ocl-icd (OPENCL_LAYERS) under which every device poses as another: CLSPLAT_POSE names a row of
 * the table below.
 *
 * Kernels run where they are really built, and what is larger than the pose allows is refused as its driver
 * would. With CLSPLAT_POSE_DUMP, a folder, nothing is built or run: what would have been is written there, a
 * program as NUMBER.cl and NUMBER.opt (its options), and for each launch a line "NUMBER KERNEL
 * ITEMS-OF-A-GROUP" in `launches`. */
#include <CL/cl_layer.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct pose {
    const char *pose, *name, *vendor, *version, *extensions;
    cl_device_type type;
    cl_uint units, width;
    cl_bool unified;
    size_t group;
    cl_ulong local; /* KiB; with own_local false it is ordinary memory */
    bool own_local;
    cl_ulong buffer; /* MiB in one */
    cl_ulong all;    /* MiB in all */
    size_t subgroup; /* items of the smallest; 0: not told */
    bool embedded;   /* its profile: no 64-bit integers */
} pose;

#define AMD "cl_khr_fp64 cl_khr_fp16 cl_khr_subgroups cl_khr_int64_base_atomics cl_khr_byte_addressable_store"
#define AMD_NAMED AMD " cl_amd_device_attribute_query"
#define INTEL "cl_khr_fp16 cl_khr_subgroups cl_intel_subgroups cl_intel_required_subgroup_size"
#define INTEL_XE INTEL " cl_intel_subgroup_matrix_multiply_accumulate"
/* As their drivers describe them; compute units of a card in the middle of the series. `least` is the least
 * there is of everything: no subgroups, no fp16, no 64-bit integers. */
static const pose poses[] = {
    {"amd", "gfx1030", "Advanced Micro Devices, Inc.", "OpenCL 2.0 ", AMD, CL_DEVICE_TYPE_GPU, 36, 1,
     CL_FALSE, 256, 64, true, 4096, 16384, 32, false},
    {"rdna3", "gfx1100", "Advanced Micro Devices, Inc.", "OpenCL 2.0 ", AMD_NAMED, CL_DEVICE_TYPE_GPU, 48, 1,
     CL_FALSE, 256, 64, true, 4096, 16384, 32, false},
    {"cdna", "gfx90a:sramecc+:xnack-", "Advanced Micro Devices, Inc.", "OpenCL 2.0 ", AMD_NAMED,
     CL_DEVICE_TYPE_GPU, 104, 1, CL_FALSE, 256, 64, true, 4096, 16384, 64, false},
    {"intel", "Intel(R) Iris(R) Xe Graphics", "Intel(R) Corporation", "OpenCL 3.0 NEO ", INTEL,
     CL_DEVICE_TYPE_GPU, 96, 1, CL_TRUE, 256, 64, true, 4096, 16384, 8, false},
    {"arc", "Intel(R) Arc(TM) A770 Graphics", "Intel(R) Corporation", "OpenCL 3.0 NEO ", INTEL_XE,
     CL_DEVICE_TYPE_GPU, 512, 1, CL_FALSE, 1024, 64, true, 15360, 16384, 8, false},
    {"pvc", "Intel(R) Data Center GPU Max 1550", "Intel(R) Corporation", "OpenCL 3.0 NEO ", INTEL_XE,
     CL_DEVICE_TYPE_GPU, 512, 1, CL_FALSE, 1024, 128, true, 4096, 65536, 16, false},
    {"adreno", "QUALCOMM Adreno(TM) 740", "QUALCOMM", "OpenCL 3.0 Adreno(TM) 740",
     "cl_khr_fp16 cl_khr_subgroups", CL_DEVICE_TYPE_GPU, 2, 1, CL_TRUE, 1024, 32, true, 884, 5120, 64, false},
    {"mali", "Mali-G78", "ARM", "OpenCL 2.1 v1.r32p1", "cl_khr_fp16 cl_khr_subgroups", CL_DEVICE_TYPE_GPU, 14,
     4, CL_TRUE, 512, 32, false, 1024, 4096, 16, false},
    {"v3d", "V3D 7.1.7", "Broadcom", "OpenCL 3.0 CLVK", "", CL_DEVICE_TYPE_GPU, 1, 1, CL_TRUE, 256, 16, true,
     128, 512, 16, false},
    {"least", "the least", "Nobody", "OpenCL 1.2 ", "", CL_DEVICE_TYPE_GPU, 4, 1, CL_FALSE, 64, 16, true, 128,
     400, 0, true},
    {"arm", "Cortex-A76", "ARM", "OpenCL 3.0 PoCL", "", CL_DEVICE_TYPE_CPU, 4, 4, CL_TRUE, 4096, 512, false,
     1024, 4096, 0, false},
};

/* A layer cannot be handed anything but globals. */
static struct _cl_icd_dispatch dispatch;
static const struct _cl_icd_dispatch *below;
static const pose *posed;
static const char *folder;

/* What a program or kernel is known by; never freed, since a dump ends with its process. */
typedef struct known {
    struct known *next;
    const void *object;
    char *name; /* a program's source, until it is written; a kernel's name */
    int number;
} known;
static known *programs, *kernels;
static int numbers;

static known *find(known *list, const void *object) {
    while (list && list->object != object)
        list = list->next;
    return list;
}

static void remember(known **list, const void *object, const char *name, int number) {
    known *k = malloc(sizeof *k);
    if (k) {
        *k = (known){*list, object, strdup(name), number};
        *list = k;
    }
}

__attribute__((format(printf, 3, 4))) static void write_to(const char *name, const char *mode,
                                                           const char *format, ...) {
    char path[4096];
    va_list words;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    if (!file)
        return;
    va_start(words, format);
    vfprintf(file, format, words);
    va_end(words);
    fclose(file);
}

static cl_int answer(const void *value, size_t bytes, size_t room, void *to, size_t *needed) {
    if (needed)
        *needed = bytes;
    if (to && room < bytes)
        return CL_INVALID_VALUE;
    if (to)
        memcpy(to, value, bytes);
    return CL_SUCCESS;
}

static const char *words_of(cl_device_info what) {
    switch (what) {
    case CL_DEVICE_NAME:
        return posed->name;
    case CL_DEVICE_VENDOR:
        return posed->vendor;
    case CL_DEVICE_VERSION:
        return posed->version;
    case CL_DEVICE_EXTENSIONS:
        return posed->extensions;
    case CL_DEVICE_PROFILE:
        return posed->embedded ? "EMBEDDED_PROFILE" : "FULL_PROFILE";
    default:
        return NULL;
    }
}

/* Questions of vendors' extensions, which Khronos' headers do not have. */
enum { WAVEFRONT_WIDTH_AMD = 0x4043, SUB_GROUP_SIZES_INTEL = 0x4108 };

/* Numbers of the size that the question has; 0: not one of the pose's. */
static size_t number_of(cl_device_info what, cl_ulong *n) {
    switch (what) {
    case CL_DEVICE_TYPE:
        *n = posed->type;
        return sizeof(cl_device_type);
    case CL_DEVICE_MAX_COMPUTE_UNITS:
        *n = posed->units;
        return sizeof(cl_uint);
    case CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT:
    case CL_DEVICE_PREFERRED_VECTOR_WIDTH_FLOAT:
        *n = posed->width;
        return sizeof(cl_uint);
    case CL_DEVICE_HOST_UNIFIED_MEMORY:
        *n = posed->unified;
        return sizeof(cl_bool);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        *n = posed->group;
        return sizeof(size_t);
    case CL_DEVICE_LOCAL_MEM_SIZE:
        *n = posed->local << 10;
        return sizeof(cl_ulong);
    case CL_DEVICE_LOCAL_MEM_TYPE:
        *n = posed->own_local ? CL_LOCAL : CL_GLOBAL;
        return sizeof(cl_device_local_mem_type);
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
        *n = posed->buffer << 20;
        return sizeof(cl_ulong);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
        *n = posed->all << 20;
        return sizeof(cl_ulong);
    case WAVEFRONT_WIDTH_AMD:
        *n = posed->subgroup;
        return sizeof(cl_uint);
    case SUB_GROUP_SIZES_INTEL:
        *n = posed->subgroup;
        return sizeof(size_t);
    default:
        return 0;
    }
}

/* Little-endian: the lower bytes of a number are the smaller number. */
static CL_API_ENTRY cl_int CL_API_CALL get_device_info(cl_device_id device, cl_device_info what, size_t room,
                                                       void *to, size_t *needed) {
    cl_ulong n = 0;
    const char *words = words_of(what);
    size_t bytes = number_of(what, &n), sizes[3] = {posed->group, posed->group, posed->group};
    if (words)
        return answer(words, strlen(words) + 1, room, to, needed);
    if (bytes)
        return answer(&n, bytes, room, to, needed);
    if (what == CL_DEVICE_MAX_WORK_ITEM_SIZES)
        return answer(sizes, sizeof sizes, room, to, needed);
    return below->clGetDeviceInfo(device, what, room, to, needed);
}

/* Bytes of all buffers that there are. */
static atomic_ullong held;

static void CL_CALLBACK give_back(cl_mem mem, void *bytes) {
    (void)mem;
    held -= (uintptr_t)bytes;
}

static CL_API_ENTRY cl_mem CL_API_CALL create_buffer(cl_context context, cl_mem_flags flags, size_t bytes,
                                                     void *host, cl_int *code) {
    cl_mem mem = NULL;
    cl_int why = bytes > posed->buffer << 20       ? CL_INVALID_BUFFER_SIZE
                 : held + bytes > posed->all << 20 ? CL_MEM_OBJECT_ALLOCATION_FAILURE
                                                   : CL_SUCCESS;
    if (why == CL_SUCCESS)
        mem = below->clCreateBuffer(context, flags, bytes, host, &why);
    if (mem) {
        held += bytes;
        below->clSetMemObjectDestructorCallback(mem, give_back, (void *)bytes);
    }
    if (code)
        *code = why;
    return mem;
}

/* The library's programs are one text. An embedded device has no 64-bit integers: what names them, after the
 * preprocessor, does not compile. */
static CL_API_ENTRY cl_program CL_API_CALL create_program(cl_context context, cl_uint count,
                                                          const char **texts, const size_t *lengths,
                                                          cl_int *code) {
    const char *both[] = {"#define ulong no_64_bit_integers\n#line 1\n", texts[0]};
    const size_t both_lengths[] = {strlen(both[0]), lengths && lengths[0] ? lengths[0] : strlen(texts[0])};
    cl_program p = posed->embedded && count == 1
                       ? below->clCreateProgramWithSource(context, 2, both, both_lengths, code)
                       : below->clCreateProgramWithSource(context, count, texts, lengths, code);
    if (p && folder)
        remember(&programs, p, texts[0], 0);
    return p;
}

static CL_API_ENTRY cl_int CL_API_CALL build_program(cl_program p, cl_uint count, const cl_device_id *devices,
                                                     const char *options,
                                                     void(CL_CALLBACK *done)(cl_program, void *),
                                                     void *user) {
    char name[64];
    known *k = find(programs, p);
    if (!folder || !k)
        return below->clBuildProgram(p, count, devices, options, done, user);
    k->number = ++numbers;
    snprintf(name, sizeof name, "%d-%03d.cl", (int)getpid(), k->number);
    write_to(name, "w", "%s", k->name);
    snprintf(name, sizeof name, "%d-%03d.opt", (int)getpid(), k->number);
    write_to(name, "w", "%s\n", options ? options : "");
    return CL_SUCCESS;
}

/* A kernel that does nothing and stands for the one that was not built. */
static cl_kernel nothing(cl_context context, cl_int *code) {
    static cl_program p;
    const char *text = "kernel void nothing(void) {}";
    if (!p) {
        p = below->clCreateProgramWithSource(context, 1, &text, NULL, code);
        below->clBuildProgram(p, 0, NULL, "", NULL, NULL);
    }
    return below->clCreateKernel(p, "nothing", code);
}

static CL_API_ENTRY cl_kernel CL_API_CALL create_kernel(cl_program p, const char *name, cl_int *code) {
    cl_context context = NULL;
    const known *k = find(programs, p);
    if (!folder || !k)
        return below->clCreateKernel(p, name, code);
    below->clGetProgramInfo(p, CL_PROGRAM_CONTEXT, sizeof(cl_context), &context, NULL);
    cl_kernel kernel = nothing(context, code);
    if (kernel)
        remember(&kernels, kernel, name, k->number);
    return kernel;
}

static CL_API_ENTRY cl_int CL_API_CALL set_argument(cl_kernel kernel, cl_uint index, size_t bytes,
                                                    const void *value) {
    return find(kernels, kernel) ? CL_SUCCESS : below->clSetKernelArg(kernel, index, bytes, value);
}

static CL_API_ENTRY cl_int CL_API_CALL enqueue_kernel(cl_command_queue queue, cl_kernel kernel,
                                                      cl_uint dimensions, const size_t *offset,
                                                      const size_t *global, const size_t *group,
                                                      cl_uint count, const cl_event *waits, cl_event *event) {
    size_t items = 1;
    const known *k = find(kernels, kernel);
    for (cl_uint d = 0; group && d < dimensions; ++d)
        items *= group[d];
    if (items > posed->group)
        return CL_INVALID_WORK_GROUP_SIZE;
    if (!k)
        return below->clEnqueueNDRangeKernel(queue, kernel, dimensions, offset, global, group, count, waits,
                                             event);
    write_to("launches", "a", "%d-%03d %s %zu\n", (int)getpid(), k->number, k->name, items);
    return below->clEnqueueMarkerWithWaitList(queue, count, waits, event);
}

/* Of a dump, where nobody computes: results of `clsplat bench` that are still as it poisons them, all bits
 * set, become zeros between their guards, so that it goes on to the next row. Elements are of 4 bytes, or as
 * CLSPLAT_POSE_ELEMENT says if they are more than a row has one number of. */
static CL_API_ENTRY cl_int CL_API_CALL read_buffer(cl_command_queue queue, cl_mem mem, cl_bool blocking,
                                                   size_t offset, size_t bytes, void *to, cl_uint count,
                                                   const cl_event *waits, cl_event *event) {
    enum { GUARD = 256, NUMBERS = 1024 }; /* of src/tuning/make.c; of the rows of a dump, at most */
    const char *element = getenv("CLSPLAT_POSE_ELEMENT");
    cl_int code = below->clEnqueueReadBuffer(queue, mem, blocking, offset, bytes, to, count, waits, event);
    size_t size = element && bytes > 4 * (2 * GUARD + NUMBERS) ? (size_t)atoi(element) : 4, set = 0;
    while (code == CL_SUCCESS && set < bytes && ((unsigned char *)to)[set] == 0xFF)
        ++set;
    if (set == bytes && bytes > 2 * GUARD * size)
        memset((char *)to + GUARD * size, 0, bytes - 2 * GUARD * size);
    return code;
}

CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t size, void *value,
                                               size_t *size_needed) {
    const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
    if (what != CL_LAYER_API_VERSION)
        return CL_INVALID_VALUE;
    return answer(&version, sizeof version, size, value, size_needed);
}

CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint count, const cl_icd_dispatch *target, cl_uint *own_count,
                                            const cl_icd_dispatch **own) {
    const char *wanted = getenv("CLSPLAT_POSE");
    if (count < sizeof dispatch / sizeof dispatch.clGetPlatformIDs)
        return CL_INVALID_VALUE;
    for (size_t i = 0; wanted && i < sizeof poses / sizeof *poses; ++i)
        if (strcmp(wanted, poses[i].pose) == 0)
            posed = &poses[i];
    below = target;
    dispatch = *target;
    folder = getenv("CLSPLAT_POSE_DUMP");
    if (posed) {
        dispatch.clGetDeviceInfo = get_device_info;
        dispatch.clCreateBuffer = create_buffer;
        dispatch.clCreateProgramWithSource = create_program;
        dispatch.clBuildProgram = build_program;
        dispatch.clCreateKernel = create_kernel;
        dispatch.clSetKernelArg = set_argument;
        dispatch.clEnqueueNDRangeKernel = enqueue_kernel;
        if (folder)
            dispatch.clEnqueueReadBuffer = read_buffer;
    }
    *own = &dispatch;
    *own_count = (cl_uint)(sizeof dispatch / sizeof dispatch.clGetPlatformIDs);
    return CL_SUCCESS;
}
