/* The library as a guest in a program that has its own context, queue, buffers and events.
 *
 * q, k and v lie in one buffer, one behind the other. The program uploads it, and without waiting hands the
 * event of the upload to the attention and the event of the attention to the download. */
#include <clsplat/clsplat.h>
#include <math.h>
#include <stdio.h>

enum { TOKENS = 512, DIM = 16, NUMBERS = TOKENS * DIM };

typedef struct host_program {
    cl_context context;
    cl_command_queue queue; /* out-of-order: the events alone keep the order */
    cl_mem tokens;          /* q, k, v */
    cl_mem result;
} host_program;

/* The first device of the first platform that has one. */
static cl_device_id first_device(void) {
    cl_platform_id platforms[16];
    cl_device_id device = NULL;
    cl_uint count = 0;
    if (clGetPlatformIDs(16, platforms, &count) != CL_SUCCESS)
        return NULL;
    for (cl_uint i = 0; i < count && i < 16 && !device; ++i)
        if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, NULL) != CL_SUCCESS)
            device = NULL;
    return device;
}

static cl_int start(host_program *p) {
    cl_int code = CL_DEVICE_NOT_FOUND;
    cl_device_id device = first_device();
    if (device)
        p->context = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
    if (code == CL_SUCCESS)
        p->queue = clCreateCommandQueue(p->context, device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code);
    if (code == CL_INVALID_QUEUE_PROPERTIES) /* not every device has one */
        p->queue = clCreateCommandQueue(p->context, device, 0, &code);
    if (code == CL_SUCCESS)
        p->tokens = clCreateBuffer(p->context, CL_MEM_READ_ONLY, 3 * NUMBERS * sizeof(float), NULL, &code);
    if (code == CL_SUCCESS)
        p->result = clCreateBuffer(p->context, CL_MEM_WRITE_ONLY, NUMBERS * sizeof(float), NULL, &code);
    return code;
}

static void stop(host_program *p) {
    if (p->result)
        clReleaseMemObject(p->result);
    if (p->tokens)
        clReleaseMemObject(p->tokens);
    if (p->queue)
        clReleaseCommandQueue(p->queue);
    if (p->context)
        clReleaseContext(p->context);
}

static clsplat_status attend(clsplat_device *device, const host_program *p, cl_event uploaded,
                             cl_event *attended) {
    clsplat_attention_tensors tensors = {
        .q = clsplat_tensor_device(CLSPLAT_F32, 1, 1, TOKENS, DIM, p->tokens, 0),
        .k = clsplat_tensor_device(CLSPLAT_F32, 1, 1, TOKENS, DIM, p->tokens, NUMBERS),
        .v = clsplat_tensor_device(CLSPLAT_F32, 1, 1, TOKENS, DIM, p->tokens, 2 * NUMBERS),
        .out = clsplat_tensor_device(CLSPLAT_F32, 1, 1, TOKENS, DIM, p->result, 0)};
    return clsplat_attend_enqueue(device, clsplat_attention_defaults(), tensors, 1, &uploaded, attended);
}

/* Keys that are all alike weigh all values alike: every output is the mean of the values. */
static int check(const float *tokens, const float *result) {
    double mean = 0, worst = 0;
    for (int i = 0; i < TOKENS; ++i)
        mean += (double)tokens[2 * NUMBERS + i * DIM] / TOKENS;
    for (int i = 0; i < TOKENS; ++i)
        worst = fmax(worst, fabs((double)result[i * DIM] - mean));
    printf("%d tokens in the caller's buffers: every output is the mean of the values, to %.1e\n", TOKENS,
           worst);
    return worst < 1e-4 ? 0 : 1;
}

int main(void) {
    static float tokens[3 * NUMBERS], result[NUMBERS];
    for (int i = 0; i < 3 * NUMBERS; ++i)
        tokens[i] = i < NUMBERS ? cosf((float)i) : i < 2 * NUMBERS ? 0.5f : (float)(i % 97) / 97;

    host_program p = {0};
    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    cl_event uploaded = NULL, attended = NULL;
    clsplat_status status = clsplat_create(clsplat_options_defaults(), &lib);
    cl_int code = start(&p);
    if (code == CL_SUCCESS && !status)
        status = clsplat_device_adopt(lib, p.context, p.queue, &device);
    if (code == CL_SUCCESS && !status)
        code =
            clEnqueueWriteBuffer(p.queue, p.tokens, CL_FALSE, 0, sizeof tokens, tokens, 0, NULL, &uploaded);
    if (code == CL_SUCCESS && !status)
        status = attend(device, &p, uploaded, &attended);
    if (code == CL_SUCCESS && !status)
        code = clEnqueueReadBuffer(p.queue, p.result, CL_TRUE, 0, sizeof result, result, 1, &attended, NULL);

    int failed = code != CL_SUCCESS || status;
    if (failed)
        fprintf(stderr, "OpenCL code %d, library: %s\n", (int)code, lib ? clsplat_last_error(lib) : "");
    else
        failed = check(tokens, result);
    if (attended)
        clReleaseEvent(attended);
    if (uploaded)
        clReleaseEvent(uploaded);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    stop(&p);
    return failed;
}
