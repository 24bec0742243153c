#include "runtime/program.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <clsplat/clsplat.h>

#include "base/clock.h"
#include "base/text.h"
#include "runtime/build_log.h"
#include "runtime/cache.h"
#include "runtime/causes.h"
#include "runtime/describe.h"
#include "runtime/pocl.h"
#include "runtime/ptx.h"
#include "runtime/quirks.h"
#include "runtime/trace.h"

typedef struct built_kernel {
    struct built_kernel *next;
    cl_kernel kernel;
    char *name;
    bool launched; /* program_launched */
} built_kernel;

typedef struct program {
    struct program *next;
    char *identity; /* the source's name, a newline, the options as the driver gets them */
    uint64_t hash;  /* of the identity */
    cl_program program;
    bool cached; /* it came from the cache, or is in it by now */
    built_kernel *kernels;
} program;

/* Settings of drivers that change what comes out of their compilers. */
static const char *const compiler_environment[] = {"POCL_BINARY_SPECIALIZE_WG", "POCL_EXTRA_BUILD_FLAGS",
                                                   "POCL_MAX_WORK_GROUP_SIZE", "POCL_WORK_GROUP_METHOD"};

static const char *options_of(const program *p) {
    return strchr(p->identity, '\n') + 1;
}

static void add_part(text *key, const char *part) {
    text_add_bytes(key, part ? part : "", part ? strlen(part) + 1 : 1);
}

static void add_device_part(text *key, cl_device_id id, cl_device_info what) {
    char *s = device_string(id, what);
    add_part(key, s);
    free(s);
}

static void add_platform_version(text *key, cl_device_id id) {
    cl_platform_id platform = NULL;
    char version[1024] = "";
    if (clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL) == CL_SUCCESS)
        clGetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof version - 1, version, NULL);
    add_part(key, version);
}

/* Everything that changes the binary. */
static text cache_key(const clsplat_device *device, const char *source, const char *options) {
    text key = {0};
    add_part(&key, "program");
    add_part(&key, clsplat_version());
    add_part(&key, source);
    add_part(&key, options);
    add_part(&key, device->info.platform);
    add_platform_version(&key, device->id);
    add_device_part(&key, device->id, CL_DEVICE_NAME);
    add_device_part(&key, device->id, CL_DEVICE_VENDOR);
    add_device_part(&key, device->id, CL_DEVICE_VERSION);
    add_device_part(&key, device->id, CL_DRIVER_VERSION);
    for (size_t i = 0; i < sizeof compiler_environment / sizeof *compiler_environment; ++i)
        add_part(&key, getenv(compiler_environment[i]));
    return key;
}

static clsplat_status build_failed(clsplat_device *device, embedded_source source, const char *options,
                                   cl_program built, cl_int code) {
    char *log = build_log_read(built, device->id, source.text);
    text folder = {0};
    bool unusable = pocl_folder_problem(&folder);
    clsplat_status status =
        log_error(device->lib, CLSPLAT_BUILD, "%s does not compile on %s%s: %s (%d)%s%s, options %.500s\n%s",
                  source.name, device->info.name, causes_find().words, cl_error_name(code), (int)code,
                  unusable ? ". " : "", unusable && folder.data ? folder.data : "", options,
                  log ? log : "without a build log");
    text_free(&folder);
    free(log);
    return status;
}

/* The position of the device among those of the program; `count` if it is not there. */
static cl_uint device_position(cl_program built, cl_device_id id, cl_uint count) {
    cl_device_id *ids = calloc(count, sizeof *ids);
    cl_uint i = count;
    if (ids && clGetProgramInfo(built, CL_PROGRAM_DEVICES, count * sizeof *ids, ids, NULL) == CL_SUCCESS)
        for (i = 0; i < count && ids[i] != id;)
            ++i;
    free(ids);
    return i;
}

/* The binary for one device, even if the caller's context has several, with a 0 behind it; NULL if the driver
 * gives none. */
static unsigned char *program_binary(cl_program built, cl_device_id id, size_t *bytes) {
    cl_uint count = 0;
    unsigned char *binary = NULL;
    if (clGetProgramInfo(built, CL_PROGRAM_NUM_DEVICES, sizeof count, &count, NULL) != CL_SUCCESS ||
        count == 0)
        return NULL;
    cl_uint at = device_position(built, id, count);
    size_t *sizes = calloc(count, sizeof *sizes);
    unsigned char **binaries = calloc(count, sizeof *binaries);
    if (at < count && sizes && binaries &&
        clGetProgramInfo(built, CL_PROGRAM_BINARY_SIZES, count * sizeof *sizes, sizes, NULL) == CL_SUCCESS &&
        sizes[at] > 0 && (binaries[at] = binary = calloc(sizes[at] + 1, 1))) {
        *bytes = sizes[at];
        if (clGetProgramInfo(built, CL_PROGRAM_BINARIES, count * sizeof *binaries, binaries, NULL) !=
            CL_SUCCESS) {
            free(binary);
            binary = NULL;
        }
    }
    free(binaries);
    free(sizes);
    return binary;
}

/* Replaces a program by the one that its own PTX makes once its comments are opened: runtime/ptx.h. */
static clsplat_status open_ptx(clsplat_device *device, embedded_source source, const char *options,
                               cl_program *built) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes = 0;
    cl_int code = CL_SUCCESS, loaded = CL_SUCCESS;
    cl_program p = NULL;
    char *ptx = (char *)program_binary(*built, device->id, &bytes);
    text opened = ptx ? ptx_opened(ptx) : (text){0};
    if (opened.failed)
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for the PTX of %s", source.name));
    if (opened.length == 0)
        goto fail;
    p = clCreateProgramWithBinary(device->context, 1, &device->id, &opened.length,
                                  (const unsigned char **)&opened.data, &loaded, &code);
    if (code != CL_SUCCESS || loaded != CL_SUCCESS)
        TRY(cl_failed(device->lib, "clCreateProgramWithBinary", code ? code : loaded));
    code = clBuildProgram(p, 1, &device->id, "", NULL, NULL);
    if (code != CL_SUCCESS)
        TRY(build_failed(device, source, options, p, code));
    clReleaseProgram(*built);
    *built = p;
    p = NULL;
fail:
    if (p)
        clReleaseProgram(p);
    text_free(&opened);
    free(ptx);
    return status;
}

static clsplat_status build_source(clsplat_device *device, embedded_source source, const char *options,
                                   cl_program *built) {
    cl_int code = CL_SUCCESS;
    double start = clock_seconds();
    cl_program p = clCreateProgramWithSource(device->context, 1, (const char **)&source.text, NULL, &code);
    if (code != CL_SUCCESS)
        return cl_failed(device->lib, "clCreateProgramWithSource", code);
    code = clBuildProgram(p, 1, &device->id, options, NULL, NULL);
    if (code != CL_SUCCESS) {
        clsplat_status status = build_failed(device, source, options, p, code);
        clReleaseProgram(p);
        return status;
    }
    clsplat_status status =
        strstr(source.text, PTX_MARK) ? open_ptx(device, source, options, &p) : CLSPLAT_OK;
    if (status != CLSPLAT_OK) {
        clReleaseProgram(p);
        return status;
    }
    log_info(device->lib, "%s built in %.2f s, options %s", source.name, clock_seconds() - start, options);
    *built = p;
    return CLSPLAT_OK;
}

/* NULL if there is no binary, or the driver does not want it. */
static cl_program build_cached(clsplat_device *device, const char *source, const char *options) {
    text key = cache_key(device, source, options);
    void *bytes = NULL;
    size_t count = 0;
    cl_program p = NULL;
    cl_int code = CL_INVALID_BINARY, loaded = CL_SUCCESS;
    if (text_ok(&key) && cache_get(device->lib, key.data, key.length, &bytes, &count))
        p = clCreateProgramWithBinary(device->context, 1, &device->id, &count, (const unsigned char **)&bytes,
                                      &loaded, &code);
    if (p && (code != CL_SUCCESS || loaded != CL_SUCCESS ||
              clBuildProgram(p, 1, &device->id, options, NULL, NULL) != CL_SUCCESS)) {
        clReleaseProgram(p);
        p = NULL;
    }
    free(bytes);
    text_free(&key);
    return p;
}

/* To be called once a kernel was made: some drivers compile only then. */
static void save(clsplat_device *device, const char *source, program *p) {
    size_t bytes = 0;
    if (!cache_wanted())
        return;
    unsigned char *binary = program_binary(p->program, device->id, &bytes);
    text key = cache_key(device, source, options_of(p));
    if (binary && text_ok(&key))
        cache_put(device->lib, key.data, key.length, binary, bytes);
    p->cached = true;
    text_free(&key);
    free(binary);
}

/* What OpenCL gives a group, or the kernels that declare theirs in PTX (runtime/ptx.h). */
static cl_ulong local_memory_of(const clsplat_device *device, embedded_source source) {
    cl_ulong most = device->info.limits.local_memory;
    bool declares = device->info.limits.nvidia_capability == 90 && strstr(source.text, PTX_MARK);
    return declares && most < PTX_LOCAL_MEMORY ? PTX_LOCAL_MEMORY : most;
}

/* Drivers that let it pass fail at the launch, and some then take the context with them. */
static clsplat_status check_local_memory(const clsplat_device *device, embedded_source source,
                                         cl_kernel kernel, const char *name) {
    cl_ulong bytes = 0, most = local_memory_of(device, source);
    cl_int code =
        clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (code != CL_SUCCESS || most == 0 || bytes <= most)
        return CLSPLAT_OK;
    return log_error(device->lib, CLSPLAT_UNSUPPORTED,
                     "kernel %s takes %llu bytes of local memory; %s has %llu", name,
                     (unsigned long long)bytes, device->info.name, (unsigned long long)most);
}

static clsplat_status create_kernel(clsplat_device *device, embedded_source source, program *p,
                                    const char *name, cl_kernel *kernel) {
    clsplat_status status = CLSPLAT_OK;
    cl_int code = CL_SUCCESS;
    *kernel = clCreateKernel(p->program, name, &code);
    if (code != CL_SUCCESS && p->cached) { /* the binary holds less than its source: not to be trusted */
        cl_program fresh = NULL;
        TRY(build_source(device, source, options_of(p), &fresh));
        clReleaseProgram(p->program);
        p->program = fresh;
        p->cached = false;
        *kernel = clCreateKernel(fresh, name, &code);
    }
    if (code == CL_INVALID_KERNEL_NAME && (device->quirks & QUIRK_TRUSTS_FOLDER) && strstr(source.text, name))
        return pocl_folder_damaged(device->lib, name, source.name);
    if (code != CL_SUCCESS) {
        char call[128];
        snprintf(call, sizeof call, KERNEL_CALL " of %s in %s", name, source.name);
        return cl_failed(device->lib, call, code);
    }
    TRY(check_local_memory(device, source, *kernel, name));
    if (!p->cached)
        save(device, source.text, p);
fail:
    return status;
}

static clsplat_status add_kernel(clsplat_device *device, embedded_source source, program *p, const char *name,
                                 cl_kernel *kernel) {
    clsplat_status status = CLSPLAT_OK;
    built_kernel *k = calloc(1, sizeof *k);
    if (!k || !(k->name = text_copy(name)))
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for kernel %s", name));
    TRY(create_kernel(device, source, p, name, &k->kernel));
    k->next = p->kernels;
    p->kernels = k;
    *kernel = k->kernel;
    return CLSPLAT_OK;
fail:
    if (k && k->kernel)
        clReleaseKernel(k->kernel);
    if (k)
        free(k->name);
    free(k);
    return status;
}

static clsplat_status add_program(clsplat_device *device, embedded_source source, const char *identity,
                                  uint64_t hash, program **added) {
    clsplat_status status = CLSPLAT_OK;
    program *p = calloc(1, sizeof *p);
    if (!p || !(p->identity = text_copy(identity)))
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for program %s", source.name));
    p->hash = hash;
    p->program = build_cached(device, source.text, options_of(p));
    p->cached = p->program != NULL;
    if (!p->program)
        TRY(build_source(device, source, options_of(p), &p->program));
    p->next = device->programs;
    device->programs = p;
    *added = p;
    return CLSPLAT_OK;
fail:
    if (p)
        free(p->identity);
    free(p);
    return status;
}

static program *find_program(const clsplat_device *device, const char *identity, uint64_t hash) {
    program *p = device->programs;
    while (p && (p->hash != hash || strcmp(p->identity, identity) != 0))
        p = p->next;
    return p;
}

static cl_kernel find_kernel(const program *p, const char *name) {
    const built_kernel *k = p->kernels;
    while (k && strcmp(k->name, name) != 0)
        k = k->next;
    return k ? k->kernel : NULL;
}

/* Kernels keep their parameters' names where launch_check.h looks at them. */
#ifdef NDEBUG
#define NAMES ""
#else
#define NAMES " -cl-kernel-arg-info"
#endif

/* A program or kernel that was not there yet, built or out of the cache, is a step of the trace. */
clsplat_status program_kernel_text(clsplat_device *device, embedded_source source, const char *kernel,
                                   const char *options, cl_kernel *out) {
    clsplat_status status = CLSPLAT_OK;
    text identity = {0};
    text_add(&identity, "%s\n-cl-std=CL1.2" NAMES "%s%s %s", source.name,
             device->info.limits.fast_fma ? " -DCLSPLAT_FMA=1" : "",
             /* processors take 100 cycles and more over a number below 2⁻¹²⁶, and results need none */
             device->info.limits.cpu ? " -cl-denorms-are-zero" : "", options);
    if (!text_ok(&identity))
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for the build options of %s", source.name));
    uint64_t hash = XXH3_64bits(identity.data, identity.length);
    program *p = find_program(device, identity.data, hash);
    bool known = p && find_kernel(p, kernel);
    double began = clock_seconds();
    if (!p)
        TRY(add_program(device, source, identity.data, hash, &p));
    *out = find_kernel(p, kernel);
    if (!*out)
        TRY(add_kernel(device, source, p, kernel, out));
    if (!known)
        trace_step(device->lib, source.name, began);
fail:
    text_free(&identity);
    return status;
}

const char *program_source(const char *name) {
    for (size_t i = 0; i < embedded_source_count; ++i)
        if (strcmp(embedded_sources[i].name, name) == 0)
            return embedded_sources[i].text;
    return NULL;
}

clsplat_status program_kernel(clsplat_device *device, const char *source, const char *kernel,
                              const char *options, cl_kernel *out) {
    const char *words = program_source(source);
    assert(words);
    return program_kernel_text(device, (embedded_source){source, words}, kernel, options, out);
}

bool *program_launched(const clsplat_device *device, cl_kernel kernel) {
    for (program *p = device->programs; p; p = p->next)
        for (built_kernel *k = p->kernels; k; k = k->next)
            if (k->kernel == kernel)
                return &k->launched;
    return NULL;
}

static void release_kernels(program *p) {
    for (built_kernel *k = p->kernels, *next; k; k = next) {
        next = k->next;
        clReleaseKernel(k->kernel);
        free(k->name);
        free(k);
    }
}

void program_release_all(clsplat_device *device) {
    for (program *p = device->programs, *next; p; p = next) {
        next = p->next;
        release_kernels(p);
        clReleaseProgram(p->program);
        free(p->identity);
        free(p);
    }
    device->programs = NULL;
}
