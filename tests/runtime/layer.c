/* A layer for ocl-icd (OPENCL_LAYERS) under which every device lacks what CLSPLAT_TEST_LACKS names: its
 * compiler
 * ("compiler") or itself ("device"). */
#include <CL/cl_layer.h>
#include <stdlib.h>
#include <string.h>

/* A layer cannot be handed anything but globals. */
static struct _cl_icd_dispatch dispatch;
static const struct _cl_icd_dispatch *below;

static cl_device_info lacking(void) {
    const char *lacks = getenv("CLSPLAT_TEST_LACKS");
    return lacks && strcmp(lacks, "device") == 0 ? CL_DEVICE_AVAILABLE : CL_DEVICE_COMPILER_AVAILABLE;
}

static CL_API_ENTRY cl_int CL_API_CALL get_device_info(cl_device_id device, cl_device_info what, size_t size,
                                                       void *value, size_t *size_needed) {
    cl_int code = below->clGetDeviceInfo(device, what, size, value, size_needed);
    if (code == CL_SUCCESS && value && what == lacking())
        *(cl_bool *)value = CL_FALSE;
    return code;
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

CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint count, const cl_icd_dispatch *target, cl_uint *own_count,
                                            const cl_icd_dispatch **own) {
    if (count < sizeof dispatch / sizeof dispatch.clGetPlatformIDs)
        return CL_INVALID_VALUE;
    below = target;
    dispatch = *target;
    dispatch.clGetDeviceInfo = get_device_info;
    *own = &dispatch;
    *own_count = (cl_uint)(sizeof dispatch / sizeof dispatch.clGetPlatformIDs);
    return CL_SUCCESS;
}
