/* A layer for ocl-icd (OPENCL_LAYERS) that fails OpenCL on purpose, and counts what is never released.
 *
 *     OPENCL_LAYERS=…/faults.so CLSPLAT_FAULT=once:17 CLSPLAT_FAULT_REPORT=report.txt clsplat attend …
 *
 * CLSPLAT_FAULT is MODE:N[:ENTRY], N counted from 1 over all calls, or over those of one entry point:
 *     once    the Nth call fails
 *     from    the Nth and all after it
 *     drop    the Nth command (of those that give an event) never runs, its event fails, and the queue
 * goes on stop    the Nth command waits for an event that fails: what a driver makes of it is its own affair
 *     never   none does
 * The report has a line for every entry point that was called, and one for every kind of object: how many
 * references are left. A program in whose process the layer is may call faults_arm instead. Threads: any.
 * Where the loader knows no layers, LD_PRELOAD of the same file does the same. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_layer.h>
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { CONTEXT, QUEUE, MEM, PROGRAM, KERNEL, EVENT, KINDS } kind;
static const char *const kind_names[] = {"context", "queue", "mem", "program", "kernel", "event"};

enum { ENTRIES = 64 };
typedef enum mode { NEVER, ONCE, FROM, DROP, STOP } mode;
static const char *const mode_names[] = {"never", "once", "from", "drop", "stop"};

/* A layer cannot be handed anything but globals. */
static struct _cl_icd_dispatch own;
static const struct _cl_icd_dispatch *below;
static mode how;
static long at;
static char only[64];
static atomic_long calls, commands, alive[KINDS], injected;
static const char *names[ENTRIES];
static atomic_long counts[ENTRIES];

void faults_arm(const char *words);
long faults_calls(void);
long faults_commands(void);
long faults_injected(void);
long faults_alive(void);

/* "once:17:clFlush"; counting starts anew. */
void faults_arm(const char *words) {
    char name[16] = "never";
    long n = 0;
    only[0] = '\0';
    sscanf(words, "%15[a-z]:%ld:%63s", name, &n, only);
    for (int m = NEVER; m <= STOP; m++)
        if (strcmp(name, mode_names[m]) == 0)
            how = (mode)m;
    at = n;
    calls = commands = injected = 0;
}

long faults_calls(void) {
    return calls;
}
long faults_commands(void) {
    return commands;
}
long faults_injected(void) {
    return injected;
}
long faults_alive(void) {
    long sum = 0;
    for (int k = 0; k < KINDS; k++)
        sum += alive[k];
    return sum;
}

static void count_call(const char *name) {
    for (int i = 0; i < ENTRIES; i++) {
        if (!names[i])
            names[i] = name;
        if (names[i] == name) {
            counts[i]++;
            return;
        }
    }
}

/* Whether this call is to fail. */
static bool fails(const char *name) {
    count_call(name);
    if (only[0] && strcmp(only, name) != 0)
        return false;
    long n = ++calls;
    bool now = (how == ONCE && n == at) || (how == FROM && n >= at);
    injected += now;
    return now;
}

/* Whether this command is to fail while it runs. */
static bool breaks(const char *name) {
    if (only[0] && strcmp(only, name) != 0)
        return false;
    bool now = ++commands == at && (how == DROP || how == STOP);
    injected += now;
    return now;
}

static cl_int keep(kind k, cl_int code, long by) {
    if (code == CL_SUCCESS)
        alive[k] += by;
    return code;
}

/* Answers a status, and touches nothing. */
#define PLAIN(name, parameters, arguments)                                                                   \
    static CL_API_ENTRY cl_int CL_API_CALL my_##name parameters {                                            \
        return fails(#name) ? CL_OUT_OF_RESOURCES : below->name arguments;                                   \
    }

/* What nobody could release a second time is released all the same. */
#define RELEASE(name, type, k)                                                                               \
    static CL_API_ENTRY cl_int CL_API_CALL my_##name(type object) {                                          \
        bool failed = fails(#name);                                                                          \
        cl_int code = keep(k, below->name(object), -1);                                                      \
        return failed ? CL_OUT_OF_RESOURCES : code;                                                          \
    }

#define RETAIN(name, type, k)                                                                                \
    static CL_API_ENTRY cl_int CL_API_CALL my_##name(type object) {                                          \
        return fails(#name) ? CL_OUT_OF_RESOURCES : keep(k, below->name(object), 1);                         \
    }

#define CREATE(name, type, k, error, parameters, arguments)                                                  \
    static CL_API_ENTRY type CL_API_CALL my_##name parameters {                                              \
        type made = NULL;                                                                                    \
        cl_int code = error, *answer = &code;                                                                \
        if (!fails(#name)) {                                                                                 \
            made = below->name arguments;                                                                    \
            keep(k, made ? CL_SUCCESS : code, made != NULL);                                                 \
        }                                                                                                    \
        if (code_out)                                                                                        \
            *code_out = *answer;                                                                             \
        return made;                                                                                         \
    }

static cl_event open_event(cl_command_queue queue) {
    cl_context context = NULL;
    cl_int code = CL_SUCCESS;
    below->clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, &context, NULL);
    return below->clCreateUserEvent(context, &code);
}

/* An event of a command that failed, from nowhere. */
static cl_event failed_event(cl_command_queue queue) {
    cl_event event = open_event(queue);
    below->clSetUserEventStatus(event, CL_OUT_OF_RESOURCES);
    return event;
}

/* PoCL 3.1 waits for ever for an event that had failed before the command came, and inside of a call that
 * blocks. */
#define COMMAND(name, queue, blocks, parameters, arguments)                                                  \
    static CL_API_ENTRY cl_int CL_API_CALL my_##name parameters {                                            \
        cl_event gate = NULL;                                                                                \
        if (fails(#name))                                                                                    \
            return CL_OUT_OF_RESOURCES;                                                                      \
        if (event && breaks(#name)) {                                                                        \
            if (how == DROP || blocks) {                                                                     \
                *event = failed_event(queue);                                                                \
                return keep(EVENT, CL_SUCCESS, 1);                                                           \
            }                                                                                                \
            gate = open_event(queue);                                                                        \
            wait_count = 1;                                                                                  \
            waits = &gate;                                                                                   \
        }                                                                                                    \
        cl_int code = below->name arguments;                                                                 \
        if (gate) {                                                                                          \
            below->clSetUserEventStatus(gate, CL_OUT_OF_RESOURCES);                                          \
            below->clReleaseEvent(gate);                                                                     \
        }                                                                                                    \
        return keep(EVENT, code, event != NULL);                                                             \
    }
#define EVENTS cl_uint wait_count, const cl_event *waits, cl_event *event
#define PASS wait_count, waits, event

PLAIN(clGetPlatformIDs, (cl_uint room, cl_platform_id *ids, cl_uint *count), (room, ids, count))
PLAIN(clGetPlatformInfo, (cl_platform_id id, cl_platform_info what, size_t size, void *value, size_t *needed),
      (id, what, size, value, needed))
PLAIN(clGetDeviceIDs,
      (cl_platform_id id, cl_device_type type, cl_uint room, cl_device_id *ids, cl_uint *count),
      (id, type, room, ids, count))
PLAIN(clGetDeviceInfo, (cl_device_id id, cl_device_info what, size_t size, void *value, size_t *needed),
      (id, what, size, value, needed))
PLAIN(clGetCommandQueueInfo,
      (cl_command_queue q, cl_command_queue_info what, size_t size, void *value, size_t *needed),
      (q, what, size, value, needed))
PLAIN(clGetMemObjectInfo, (cl_mem mem, cl_mem_info what, size_t size, void *value, size_t *needed),
      (mem, what, size, value, needed))
PLAIN(clBuildProgram,
      (cl_program p, cl_uint count, const cl_device_id *ids, const char *options,
       void(CL_CALLBACK *notify)(cl_program, void *), void *user),
      (p, count, ids, options, notify, user))
PLAIN(clGetProgramInfo, (cl_program p, cl_program_info what, size_t size, void *value, size_t *needed),
      (p, what, size, value, needed))
PLAIN(clGetProgramBuildInfo,
      (cl_program p, cl_device_id id, cl_program_build_info what, size_t size, void *value, size_t *needed),
      (p, id, what, size, value, needed))
PLAIN(clSetKernelArg, (cl_kernel k, cl_uint index, size_t size, const void *value), (k, index, size, value))
PLAIN(clGetKernelWorkGroupInfo,
      (cl_kernel k, cl_device_id id, cl_kernel_work_group_info what, size_t size, void *value,
       size_t *needed),
      (k, id, what, size, value, needed))
PLAIN(clWaitForEvents, (cl_uint count, const cl_event *events), (count, events))
PLAIN(clGetEventInfo, (cl_event e, cl_event_info what, size_t size, void *value, size_t *needed),
      (e, what, size, value, needed))
PLAIN(clGetEventProfilingInfo, (cl_event e, cl_profiling_info what, size_t size, void *value, size_t *needed),
      (e, what, size, value, needed))
PLAIN(clFlush, (cl_command_queue q), (q))
PLAIN(clFinish, (cl_command_queue q), (q))

RETAIN(clRetainContext, cl_context, CONTEXT)
RETAIN(clRetainCommandQueue, cl_command_queue, QUEUE)
RETAIN(clRetainMemObject, cl_mem, MEM)
RETAIN(clRetainEvent, cl_event, EVENT)
RELEASE(clReleaseContext, cl_context, CONTEXT)
RELEASE(clReleaseCommandQueue, cl_command_queue, QUEUE)
RELEASE(clReleaseMemObject, cl_mem, MEM)
RELEASE(clReleaseProgram, cl_program, PROGRAM)
RELEASE(clReleaseKernel, cl_kernel, KERNEL)
RELEASE(clReleaseEvent, cl_event, EVENT)

CREATE(clCreateContext, cl_context, CONTEXT, CL_OUT_OF_RESOURCES,
       (const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
        void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *code_out),
       (properties, count, ids, notify, user, answer))
CREATE(clCreateCommandQueue, cl_command_queue, QUEUE, CL_OUT_OF_RESOURCES,
       (cl_context c, cl_device_id id, cl_command_queue_properties properties, cl_int *code_out),
       (c, id, properties, answer))
CREATE(clCreateBuffer, cl_mem, MEM, CL_MEM_OBJECT_ALLOCATION_FAILURE,
       (cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *code_out),
       (c, flags, size, host, answer))
CREATE(clCreateProgramWithSource, cl_program, PROGRAM, CL_OUT_OF_HOST_MEMORY,
       (cl_context c, cl_uint count, const char **texts, const size_t *lengths, cl_int *code_out),
       (c, count, texts, lengths, answer))
CREATE(clCreateProgramWithBinary, cl_program, PROGRAM, CL_INVALID_BINARY,
       (cl_context c, cl_uint count, const cl_device_id *ids, const size_t *lengths,
        const unsigned char **bytes, cl_int *loaded, cl_int *code_out),
       (c, count, ids, lengths, bytes, loaded, answer))
CREATE(clCreateKernel, cl_kernel, KERNEL, CL_OUT_OF_HOST_MEMORY,
       (cl_program p, const char *name, cl_int *code_out), (p, name, answer))

COMMAND(clEnqueueNDRangeKernel, q, false,
        (cl_command_queue q, cl_kernel k, cl_uint dimensions, const size_t *first, const size_t *size,
         const size_t *group, EVENTS),
        (q, k, dimensions, first, size, group, PASS))
COMMAND(clEnqueueFillBuffer, q, false,
        (cl_command_queue q, cl_mem mem, const void *pattern, size_t bytes, size_t offset, size_t size,
         EVENTS),
        (q, mem, pattern, bytes, offset, size, PASS))
COMMAND(clEnqueueMarkerWithWaitList, q, false, (cl_command_queue q, EVENTS), (q, PASS))
COMMAND(clEnqueueBarrierWithWaitList, q, false, (cl_command_queue q, EVENTS), (q, PASS))
COMMAND(clEnqueueWriteBuffer, q, block,
        (cl_command_queue q, cl_mem mem, cl_bool block, size_t offset, size_t size, const void *host, EVENTS),
        (q, mem, block, offset, size, host, PASS))
COMMAND(clEnqueueReadBuffer, q, block,
        (cl_command_queue q, cl_mem mem, cl_bool block, size_t offset, size_t size, void *host, EVENTS),
        (q, mem, block, offset, size, host, PASS))
COMMAND(clEnqueueWriteBufferRect, q, block,
        (cl_command_queue q, cl_mem mem, cl_bool block, const size_t *a, const size_t *b,
         const size_t *region, size_t c, size_t d, size_t e, size_t f, const void *host, EVENTS),
        (q, mem, block, a, b, region, c, d, e, f, host, PASS))
COMMAND(clEnqueueReadBufferRect, q, block,
        (cl_command_queue q, cl_mem mem, cl_bool block, const size_t *a, const size_t *b,
         const size_t *region, size_t c, size_t d, size_t e, size_t f, void *host, EVENTS),
        (q, mem, block, a, b, region, c, d, e, f, host, PASS))

static void report(void) {
    const char *path = getenv("CLSPLAT_FAULT_REPORT");
    FILE *to = path ? fopen(path, "w") : NULL;
    if (!to)
        return;
    for (int i = 0; i < ENTRIES && names[i]; i++)
        fprintf(to, "called %s %ld\n", names[i], (long)counts[i]);
    fprintf(to, "commands %ld\ninjected %ld\n", (long)commands, (long)injected);
    for (int k = 0; k < KINDS; k++)
        fprintf(to, "left %s %ld\n", kind_names[k], (long)alive[k]);
    fclose(to);
}

CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t size, void *value,
                                               size_t *size_needed) {
    const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
    if (what != CL_LAYER_API_VERSION || (value && size < sizeof version))
        return CL_INVALID_VALUE;
    if (value)
        memcpy(value, &version, sizeof version);
    if (size_needed)
        *size_needed = sizeof version;
    return CL_SUCCESS;
}

/* clang-format off */
#define ALL_ENTRIES(DO)                                                                                      \
    DO(clGetPlatformIDs) DO(clGetPlatformInfo) DO(clGetDeviceIDs) DO(clGetDeviceInfo)                        \
    DO(clCreateContext) DO(clRetainContext) DO(clReleaseContext)                                             \
    DO(clCreateCommandQueue) DO(clRetainCommandQueue) DO(clReleaseCommandQueue) DO(clGetCommandQueueInfo)    \
    DO(clCreateBuffer) DO(clRetainMemObject) DO(clReleaseMemObject) DO(clGetMemObjectInfo)                   \
    DO(clCreateProgramWithSource) DO(clCreateProgramWithBinary) DO(clReleaseProgram)                         \
    DO(clBuildProgram) DO(clGetProgramInfo) DO(clGetProgramBuildInfo)                                        \
    DO(clCreateKernel) DO(clReleaseKernel) DO(clSetKernelArg) DO(clGetKernelWorkGroupInfo)                   \
    DO(clWaitForEvents) DO(clGetEventInfo) DO(clGetEventProfilingInfo)                                       \
    DO(clRetainEvent) DO(clReleaseEvent) DO(clFlush) DO(clFinish)                                            \
    DO(clEnqueueNDRangeKernel) DO(clEnqueueFillBuffer)                                                       \
    DO(clEnqueueMarkerWithWaitList) DO(clEnqueueBarrierWithWaitList)                                         \
    DO(clEnqueueWriteBuffer) DO(clEnqueueReadBuffer) DO(clEnqueueWriteBufferRect) DO(clEnqueueReadBufferRect)
/* clang-format on */

static void begin(void) {
    const char *words = getenv("CLSPLAT_FAULT");
    if (words)
        faults_arm(words);
    atexit(report);
}

/* For LD_PRELOAD: the entry points under their own names. A loader that has the layer opens it for itself,
 * and nobody finds them. */
#define EXPORT(name) __asm__(".globl " #name "\n.type " #name ", %function\n.set " #name ", my_" #name);
ALL_ENTRIES(EXPORT)

__attribute__((constructor)) static void interpose(void) {
    static struct _cl_icd_dispatch next;
    void *found = dlsym(RTLD_DEFAULT, "clFlush"), *mine = NULL;
    memcpy(&mine, &(__typeof__(&my_clFlush)){my_clFlush}, sizeof mine);
    if (found != mine)
        return; /* a layer, or an object nobody asked for entry points */
#define FIND(name)                                                                                           \
    found = dlsym(RTLD_NEXT, #name);                                                                         \
    memcpy(&next.name, &found, sizeof found);
    ALL_ENTRIES(FIND)
    FIND(clCreateUserEvent)
    FIND(clSetUserEventStatus)
#undef FIND
    below = &next;
    begin();
}

/* A loader of other headers has more entries or fewer; those of OpenCL 1.2 come first. */
CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint count, const cl_icd_dispatch *target, cl_uint *own_count,
                                            const cl_icd_dispatch **layer) {
    const size_t mine = sizeof own / sizeof own.clGetPlatformIDs;
    *own_count = count < mine ? count : (cl_uint)mine;
    below = target;
    memcpy((void *)&own, (const void *)target, *own_count * sizeof own.clGetPlatformIDs);
#define TAKE(name) own.name = my_##name;
    ALL_ENTRIES(TAKE)
#undef TAKE
    *layer = &own;
    begin();
    return CL_SUCCESS;
}
