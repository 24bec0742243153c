#include "op/kernel.h"

#include <assert.h>
#include <stdio.h>

#include "runtime/quirks.h"

static void options_group(kernel_options *o, const clsplat_device *device, uint32_t group, uint32_t width) {
    const clsplat_limits *limits = &device->info.limits;
    uint32_t most = limits->max_work_group < 64 ? limits->max_work_group : 64;
    uint32_t widest = limits->vector_width_float >= 16 ? 16 : limits->vector_width_float >= 8 ? 8 : 4;
    *o = (kernel_options){.group = group ? group : most, .vector = width ? width : widest};
    options_number(o, "WG", o->group);
    options_number(o, "W", o->vector);
}

void options_begin(kernel_options *o, const clsplat_device *device) {
    options_group(o, device, 0, 0);
}

static bool plain_allows(const clsplat_limits *limits, const tune_point *point) {
    return point->value[0] <= limits->max_work_group && point->value[0] <= limits->max_work_item_sizes[0];
}

const tune_space plain_space = {2, {{"WG", {0, 16, 32, 128, 256}}, {"W", {0, 4, 8, 16}}}, plain_allows};

void options_plain(kernel_options *o, const queue *q) {
    options_group(o, q->device, tuned_value(q, &plain_space, 0), tuned_value(q, &plain_space, 1));
}

/* Register tiles of fewer than 4 vectors leave multiply-adds idle; more than 24 registers of 32 leave none
 * for the rest. A vector of 16 floats is one of AVX-512 and four of NEON; with 8 floats a register, where
 * AVX2 has 16, spilling the odd vector was measured to be no loss. */
static bool wide_allows(const clsplat_limits *limits, const tune_point *point) {
    uint32_t vectors = point->value[1] * point->value[2];
    return vectors >= 4 && vectors <= (limits->vector_width_float >= 8 ? 24 : 6);
}

const tune_space wide_space = {
    3, {{"TILE", {0, 32, 64, 128, 256}}, {"RT", {4, 2, 6, 8}}, {"LANES", {4, 2, 3, 6, 8}}}, wide_allows};

size_t options_wide(kernel_options *o, const queue *q, size_t rows) {
    size_t tile = tuned_value(q, &wide_space, 0), high = tuned_value(q, &wide_space, 1);
    if (tile == 0)
        tile = rows >= 256 ? 128 : rows > 32 ? 64 : 32;
    while (tile > 32 && tile / 2 >= rows)
        tile /= 2;
    tile -= tile % high;
    *o = (kernel_options){.group = 1};
    options_number(o, "TILE", tile);
    options_number(o, "RT", high);
    options_number(o, "LANES", tuned_value(q, &wide_space, 2));
    return tile;
}

uint32_t tuned_value(const queue *q, const tune_space *space, size_t parameter) {
    return q->tuned ? q->tuned[parameter] : space->parameters[parameter].values[0];
}

void options_tuned(kernel_options *o, const queue *q, const tune_space *space) {
    for (size_t p = 0; p < space->count; ++p)
        if (tuned_value(q, space, p))
            options_number(o, space->parameters[p].name, tuned_value(q, space, p));
}

void options_number(kernel_options *o, const char *name, size_t value) {
    text_add(&o->text, " -D%s=%zu", name, value);
}

void options_elements(kernel_options *o, double elements) {
    if (elements > (double)UINT32_MAX)
        o->wide = true;
}

void options_tensor(kernel_options *o, const char *name, const op_tensor *tensor) {
    text_add(&o->text, " -D%s_TYPE=%s", name, op_dtype_name(tensor->dtype));
    double end = (double)tensor->offset + (double)tensor->shape[3];
    for (int d = 0; d < 3; ++d)
        end += (double)tensor->stride[d] * (double)(tensor->shape[d] - 1);
    options_elements(o, end);
}

void options_optional(kernel_options *o, const char *name, const op_tensor *tensor) {
    options_number(o, name, tensor->mem != NULL);
    if (tensor->mem)
        options_tensor(o, name, tensor);
}

size_t options_share(kernel_options *o, size_t rows, size_t columns) {
    enum { FEW = 32, EACH = 16 }; /* columns of an item */
    bool few = o->group % FEW == 0 && columns <= FEW * EACH && rows % (o->group / FEW) == 0;
    size_t share = few ? FEW : o->group;
    options_number(o, "SHARE", share);
    return share;
}

static bool lies_at(const op_tensor *t, size_t multiple) {
    return t->offset % multiple == 0 && t->stride[0] % multiple == 0 && t->stride[1] % multiple == 0 &&
           t->stride[2] % multiple == 0;
}

size_t options_even(kernel_options *o, const clsplat_device *device, size_t columns,
                    const op_tensor *const *tensors, size_t count) {
    bool even = device->info.limits.local_memory > 0 && columns % o->vector == 0;
    for (size_t i = 0; i < count; ++i)
        even = even && (!tensors[i]->mem || lies_at(tensors[i], o->vector));
    options_number(o, "EVEN", even);
    return even ? o->vector : 1;
}

bool limits_allow_group(const clsplat_limits *limits, uint32_t items) {
    return items <= limits->max_work_group && items <= limits->max_work_item_sizes[0];
}

size_t limits_local_share(const clsplat_limits *limits) {
    return (size_t)(limits->local_memory >= 64 << 10 ? limits->local_memory / 2 : limits->local_memory);
}

void options_registers(kernel_options *o, const clsplat_device *device) {
    if (device->quirks & QUIRK_LARGE_REGISTERS)
        text_add(&o->text, " -cl-intel-256-GRF-per-thread");
}

void options_narrow(kernel_options *o, const clsplat_device *device) {
    if (device->quirks & QUIRK_LARGE_REGISTERS && device->info.limits.subgroup == 16)
        text_add(&o->text, " -Dkernel=__attribute__((intel_reqd_sub_group_size(16)))__kernel");
}

void options_eager(kernel_options *o, const clsplat_device *device) {
    options_registers(o, device);
    options_number(o, "EAGER", device->info.limits.nvidia_capability > 0);
}

bool limits_have_groups(const clsplat_limits *limits, uint32_t items, size_t bytes) {
    return limits->local_memory > 0 && limits->local_memory >= bytes && limits_allow_group(limits, items);
}

void options_group_of(kernel_options *o, const clsplat_device *device, uint32_t group) {
    options_group(o, device, group, 0);
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

void launch_tensor(launch *l, const kernel_options *o, const char *name, const op_tensor *tensor) {
    launch_mem(l, name, tensor->mem);
    if (o->wide) {
        cl_ulong at[4] = {tensor->offset, tensor->stride[0], tensor->stride[1], tensor->stride[2]};
        launch_layout(l, name, at, sizeof at);
    } else {
        cl_uint at[4] = {(cl_uint)tensor->offset, (cl_uint)tensor->stride[0], (cl_uint)tensor->stride[1],
                         (cl_uint)tensor->stride[2]};
        launch_layout(l, name, at, sizeof at);
    }
}

void launch_index(launch *l, const kernel_options *o, const char *name, size_t number) {
    cl_ulong wide = number;
    if (o->wide)
        launch_bytes(l, name, &wide, sizeof wide);
    else
        launch_uint(l, name, (uint32_t)number);
}

double tensor_bytes(const op_tensor *tensor) {
    double count = tensor->mem != NULL;
    for (int d = 0; d < 4; ++d)
        count *= (double)tensor->shape[d];
    return op_dtype_bytes(tensor->dtype, count);
}

bool limits_are_wide(const clsplat_limits *limits) {
    return limits->cpu && limits->vector_width_float >= 4 && limits->local_memory == 0;
}

bool splats_are_close(const op_splats *splats) {
    return splats->covariance != CLSPLAT_FULL && splats->spread <= SPREAD_LIMIT;
}

bool splats_are_centred(const op_splats *splats) {
    return splats_are_close(splats) && splats->dim % 16 == 0;
}

bool splats_are_near(const op_splats *splats) {
    return splats->covariance == CLSPLAT_ISOTROPIC && splats->distance <= SPREAD_LIMIT;
}

bool limits_have_mma(const clsplat_limits *limits) {
    return limits->nvidia_capability >= 80 && limits->max_work_group >= 256 &&
           limits->local_memory >= 48 << 10;
}

bool limits_have_wgmma(const clsplat_limits *limits) {
    return limits_have_mma(limits) && limits->nvidia_capability == 90;
}

bool tensor_suits_mma(const op_tensor *t) {
    return (t->dtype == CLSPLAT_F16 || t->dtype == CLSPLAT_BF16) && lies_at(t, 8);
}

bool tensor_suits_fours(const op_tensor *t) {
    return lies_at(t, 4);
}

bool splats_suit_mma(const op_splats *splats, clsplat_dtype tokens) {
    return splats->covariance == CLSPLAT_ISOTROPIC && splats_are_centred(splats) && splats->dim <= 128 &&
           (tokens == CLSPLAT_F16 || splats->spread <= 14);
}

void shape_words(tune_shape *shape, clsplat_dtype type, const char *form) {
    snprintf(shape->type, sizeof shape->type, "%s", op_dtype_name(type));
    snprintf(shape->form, sizeof shape->form, "%s", form);
}

static_assert(COVARIANCE_ISOTROPIC == CLSPLAT_ISOTROPIC && COVARIANCE_DIAGONAL == CLSPLAT_DIAGONAL &&
                  COVARIANCE_FULL == CLSPLAT_FULL,
              "kernels know a covariance by its number");

const char *splats_form(const op_splats *splats) {
    static const char *const names[] = {
        [CLSPLAT_ISOTROPIC] = "isotropic", [CLSPLAT_DIAGONAL] = "diagonal", [CLSPLAT_FULL] = "full"};
    return names[splats->covariance];
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

void launch_splat_heads(launch *l, const op_splats *splats) {
    launch_uint(l, "per_head", splats->heads > 1);
    launch_uint(l, "first_head", (uint32_t)splats->first_head);
}

void launch_splats(launch *l, const op_splats *splats) {
    launch_uint(l, "splats", (uint32_t)splats->count);
    launch_splat_heads(l, splats);
    launch_mem(l, "mean", splats->mean);
    launch_mem(l, "inverse", splats->inverse);
    launch_mem(l, "centre", splats->centre);
}
