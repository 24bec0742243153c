/* A layer for ocl-icd (OPENCL_LAYERS) under which every device poses as another: CLSPLAT_POSE names a row of
 * the table below.
 *
 * Kernels run where they are really built, and what is larger than the pose allows is refused as its driver
 * would. With CLSPLAT_POSE_DUMP, a folder, nothing is built or run: what would have been is written there, a
 * program as NUMBER.cl and NUMBER.opt (its options), and for each launch a line "NUMBER KERNEL
 * ITEMS-OF-A-GROUP" in `launches`. */
#include <CL/cl_layer.h>
#include <stdarg.h>
#include <stdbool.h>
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
    cl_ulong buffer; /* MiB in one, of four times as much in all */
} pose;

#define AMD "cl_khr_fp64 cl_khr_fp16 cl_khr_subgroups cl_khr_int64_base_atomics cl_khr_byte_addressable_store"
#define INTEL "cl_khr_fp16 cl_khr_subgroups cl_intel_subgroups cl_intel_required_subgroup_size"
/* As their drivers describe them; compute units of a card in the middle of the series. */
static const pose poses[] = {
    {"amd", "gfx1030", "Advanced Micro Devices, Inc.", "OpenCL 2.0 ", AMD, CL_DEVICE_TYPE_GPU, 36, 1,
     CL_FALSE, 256, 64, true, 4096},
    {"intel", "Intel(R) Iris(R) Xe Graphics", "Intel(R) Corporation", "OpenCL 3.0 NEO ", INTEL,
     CL_DEVICE_TYPE_GPU, 96, 1, CL_TRUE, 256, 64, true, 4096},
    {"pvc", "Intel(R) Data Center GPU Max 1550", "Intel(R) Corporation", "OpenCL 3.0 NEO ", INTEL,
     CL_DEVICE_TYPE_GPU, 512, 1, CL_FALSE, 1024, 128, true, 4096},
    {"adreno", "QUALCOMM Adreno(TM)", "QUALCOMM", "OpenCL 2.0 Adreno(TM) 640", "cl_khr_fp16 cl_khr_subgroups",
     CL_DEVICE_TYPE_GPU, 2, 1, CL_TRUE, 1024, 32, true, 1024},
    {"mali", "Mali-G78", "ARM", "OpenCL 2.1 v1.r32p1", "cl_khr_fp16 cl_khr_subgroups", CL_DEVICE_TYPE_GPU, 14,
     4, CL_TRUE, 512, 32, false, 1024},
    {"v3d", "V3D 7.1.7", "Broadcom", "OpenCL 3.0 CLVK", "", CL_DEVICE_TYPE_GPU, 1, 1, CL_TRUE, 256, 16, true,
     128},
    {"least", "the least", "Nobody", "OpenCL 1.2 ", "", CL_DEVICE_TYPE_GPU, 4, 1, CL_FALSE, 64, 16, true,
     128},
    {"arm", "Cortex-A76", "ARM", "OpenCL 3.0 PoCL", "", CL_DEVICE_TYPE_CPU, 4, 4, CL_TRUE, 4096, 512, false,
     1024},
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
    default:
        return NULL;
    }
}

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
        *n = posed->buffer << 22;
        return sizeof(cl_ulong);
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

static CL_API_ENTRY cl_mem CL_API_CALL create_buffer(cl_context context, cl_mem_flags flags, size_t bytes,
                                                     void *host, cl_int *code) {
    if (bytes <= posed->buffer << 20)
        return below->clCreateBuffer(context, flags, bytes, host, code);
    if (code)
        *code = CL_INVALID_BUFFER_SIZE;
    return NULL;
}

static CL_API_ENTRY cl_program CL_API_CALL create_program(cl_context context, cl_uint count,
                                                          const char **texts, const size_t *lengths,
                                                          cl_int *code) {
    cl_program p = below->clCreateProgramWithSource(context, count, texts, lengths, code);
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
    }
    *own = &dispatch;
    *own_count = (cl_uint)(sizeof dispatch / sizeof dispatch.clGetPlatformIDs);
    return CL_SUCCESS;
}
