#include "op/kernel.h"

static const char *const dtype_names[] = {
    [CLSPLAT_F32] = "F32", [CLSPLAT_F16] = "F16", [CLSPLAT_BF16] = "BF16"};

void options_begin(kernel_options *o, const clsplat_device *device) {
    const clsplat_limits *limits = &device->info.limits;
    *o = (kernel_options){.group = limits->max_work_group < 64 ? limits->max_work_group : 64};
    options_number(o, "WG", o->group);
    options_number(o, "W", limits->vector_width_float >= 16 ? 16 : limits->vector_width_float >= 8 ? 8 : 4);
}

size_t options_wide(kernel_options *o, size_t rows) {
    size_t tile = rows >= 256 ? 128 : rows > 32 ? 64 : 32;
    *o = (kernel_options){.group = 1};
    options_number(o, "TILE", tile);
    return tile;
}

void options_number(kernel_options *o, const char *name, size_t value) {
    text_add(&o->text, " -D%s=%zu", name, value);
}

void options_elements(kernel_options *o, double elements) {
    if (elements > (double)UINT32_MAX)
        o->wide = true;
}

void options_tensor(kernel_options *o, const char *name, const op_tensor *tensor) {
    text_add(&o->text, " -D%s_TYPE=%s", name, dtype_names[tensor->dtype]);
    double end = (double)tensor->offset + (double)tensor->shape[3];
    for (int d = 0; d < 3; ++d)
        end += (double)tensor->stride[d] * (double)(tensor->shape[d] - 1);
    options_elements(o, end);
}

void options_splats(kernel_options *o, const op_splats *splats) {
    options_number(o, "D", splats->dim);
    options_number(o, "COVARIANCE", splats->covariance);
    double factor = splats->covariance == CLSPLAT_FULL ? (double)splats->dim : 1;
    options_elements(o, (double)splats->heads * (double)splats->count * (double)splats->dim * factor);
}

clsplat_status options_launch(kernel_options *o, clsplat_device *device, const char *source,
                              const char *kernel, launch *l) {
    clsplat_status status = CLSPLAT_OK;
    cl_kernel built = NULL;
    text_add(&o->text, " -DINDEX=%s", o->wide ? "ulong" : "uint");
    if (!text_ok(&o->text))
        status = log_error(device->lib, CLSPLAT_MEMORY, "no memory for the build options of %s", source);
    else
        status = program_kernel(device, source, kernel, o->text.data, &built);
    text_free(&o->text);
    *l = launch_of(built, kernel);
    return status;
}

void launch_tensor(launch *l, const kernel_options *o, const op_tensor *tensor) {
    launch_mem(l, tensor->mem);
    if (o->wide) {
        cl_ulong at[4] = {tensor->offset, tensor->stride[0], tensor->stride[1], tensor->stride[2]};
        launch_bytes(l, at, sizeof at);
    } else {
        cl_uint at[4] = {(cl_uint)tensor->offset, (cl_uint)tensor->stride[0], (cl_uint)tensor->stride[1],
                         (cl_uint)tensor->stride[2]};
        launch_bytes(l, at, sizeof at);
    }
}

double tensor_bytes(const op_tensor *tensor) {
    double count = tensor->mem ? (double)clsplat_dtype_size(tensor->dtype) : 0;
    for (int d = 0; d < 4; ++d)
        count *= (double)tensor->shape[d];
    return count;
}

bool limits_are_wide(const clsplat_limits *limits) {
    return limits->vector_width_float >= 8 && limits->local_memory == 0;
}

bool splats_are_centred(const op_splats *splats) {
    return splats->covariance != CLSPLAT_FULL && splats->dim % 16 == 0 && splats->spread <= SPREAD_LIMIT;
}

double splat_flops(const op_splats *splats) {
    double dim = (double)splats->dim;
    switch (splats->covariance) {
    case CLSPLAT_ISOTROPIC:
        return 2 * dim;
    case CLSPLAT_DIAGONAL:
        return 4 * dim;
    case CLSPLAT_FULL:
        return dim * (dim + 3);
    }
    return 0;
}

void launch_splats(launch *l, const op_splats *splats) {
    launch_uint(l, (uint32_t)splats->count);
    launch_uint(l, splats->heads > 1);
    launch_uint(l, (uint32_t)splats->first_head);
    launch_mem(l, splats->mean);
    launch_mem(l, splats->inverse);
    launch_mem(l, splats->centre);
}
