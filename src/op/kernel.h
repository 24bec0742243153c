/* From an operation's arguments to a kernel and its launch: what all variants share. */
#ifndef CLSPLAT_OP_KERNEL_H
#define CLSPLAT_OP_KERNEL_H

#include "base/text.h"
#include "op/op.h"
#include "op/variant.h"
#include "runtime/program.h"
#include "tune/space.h"

/* The build options of one kernel: " -DNAME=value" each. */
typedef struct kernel_options {
    text text;
    uint32_t group;  /* WG */
    uint32_t vector; /* W */
    bool wide;       /* INDEX is ulong */
} kernel_options;

/* WG (64, or what the device allows), W (the device's vector width), and INDEX once all tensors are known. */
void options_begin(kernel_options *o, const clsplat_device *device);
/* The same with WG and W as they are tuned: plain_space. */
extern const tune_space plain_space;
void options_plain(kernel_options *o, const queue *q);
/* The same for a variant in register tiles (cl/shared/wide.clh), whose work-groups are single work-items:
 * wide_space. Returns the rows per work-item, TILE: fewer where there are few rows in all. */
extern const tune_space wide_space;
size_t options_wide(kernel_options *o, const queue *q, size_t rows);
/* The value of a parameter for the launch at hand. */
uint32_t tuned_value(const queue *q, const tune_space *space, size_t parameter);
/* A definition for each parameter that is not left to the shape. */
void options_tuned(kernel_options *o, const queue *q, const tune_space *space);
void options_number(kernel_options *o, const char *name, size_t value);
/* NAME_TYPE, and widens INDEX if the tensor reaches beyond 32 bits. */
void options_tensor(kernel_options *o, const char *name, const op_tensor *tensor);
/* Widens INDEX if an array of this many elements is too large for 32 bits. */
void options_elements(kernel_options *o, double elements);

/* A splat set's COVARIANCE and D. */
void options_splats(kernel_options *o, const op_splats *splats);

/* Builds or finds the kernel, frees the options' text, and begins a launch with it. */
clsplat_status options_launch(kernel_options *o, clsplat_device *device, const char *source,
                              const char *kernel, launch *l);

/* The same for a tensor that may be absent: then the kernel knows it by NAME 0 instead of 1, and its two
 * arguments are nothing. */
void options_optional(kernel_options *o, const char *name, const op_tensor *tensor);

/* Whether work-groups may have so many items, along one dimension. */
bool limits_allow_group(const clsplat_limits *limits, uint32_t items);
/* Bytes of local memory that a group should take at most; 0: it has none of its own. A device of 64 KiB or
 * more tells what a compute unit has (AMD, Intel): half of it, so that a second group lives beside the first.
 * One of less tells what a group may have (NVIDIA, Mali). */
size_t limits_local_share(const clsplat_limits *limits);

/* For kernels that keep tiles in registers: a larger file of them where there is a choice and it is needed.
 */
void options_registers(kernel_options *o, const clsplat_device *device);
/* For those that spill all the same where 32 items share a file: 16 of them. */
void options_narrow(kernel_options *o, const clsplat_device *device);
/* The same, and EAGER of cl/shared/local_tile.clh. */
void options_eager(kernel_options *o, const clsplat_device *device);

/* Whether so many items may meet in so many bytes of local memory of their own. */
bool limits_have_groups(const clsplat_limits *limits, uint32_t items, size_t bytes);

/* EVEN: whether rows of so many columns, and these tensors' rows as they lie, are whole vectors of W
 * (cl/shared/even.clh), on a device whose work-items read side by side. The numbers of one access. */
size_t options_even(kernel_options *o, const clsplat_device *device, size_t columns,
                    const op_tensor *const *tensors, size_t count);
/* WG as given, W as options_begin. GROUP_ITEMS share a row in most kernels for GPUs. */
enum { GROUP_ITEMS = 128 };
/* SHARE: how many items of such a group have a row of so many columns, so that few columns are no share of
 * 128 and its meetings; groups are whole. */
size_t options_share(kernel_options *o, size_t rows, size_t columns);
void options_group_of(kernel_options *o, const clsplat_device *device, uint32_t group);

/* Bytes of all elements, for the profile; 0 for an absent tensor. */
double tensor_bytes(const op_tensor *tensor);

/* CPUs with vectors of 4 floats or more, for which cl/shared/wide.clh is written: its vectors of 16 are four
 * registers there. Not a GPU with vectors and without local memory of its own, as Mali is. */
bool limits_are_wide(const clsplat_limits *limits);

/* Whether distances from a common centre are exact enough for these splats: cancellation costs about spread²
 * ulp of 1. */
#define SPREAD_LIMIT 16.0
bool splats_are_close(const op_splats *splats);
/* And their columns fill vectors. */
bool splats_are_centred(const op_splats *splats);
/* The same for distances from the origin. */
bool splats_are_near(const op_splats *splats);

/* NVIDIA's matrix units (cl/shared/mma.clh), and Hopper's own instructions for them (cl/shared/wgmma.clh). */
bool limits_have_mma(const clsplat_limits *limits);
bool limits_have_wgmma(const clsplat_limits *limits);
/* Whether a tensor may be their operand: 16 bits, rows that can be copied 16 bytes at a time. */
bool tensor_suits_mma(const op_tensor *tensor);
/* Whether rows may be stored four numbers at a time. */
bool tensor_suits_fours(const op_tensor *tensor);
/* Whether means may be rounded to tokens of that type: it moves them by 2⁻⁹ (2⁻¹² in F16) of their distance
 * from the centre. In BF16 results were off by 0.5 % for means up to 13 widths away, and by up to 1.4 %
 * for 16. */
bool splats_suit_mma(const op_splats *splats, clsplat_dtype tokens);

/* The words of a tune_shape. */
void shape_words(tune_shape *shape, clsplat_dtype type, const char *form);
const char *splats_form(const op_splats *splats);

/* Multiply-adds of one φ, counted as two flops each. */
double splat_flops(const op_splats *splats);

/* The two arguments of a tensor: its buffer `name` and its layout as an INDEX4, `name`_at. */
void launch_tensor(launch *l, const kernel_options *o, const char *name, const op_tensor *tensor);

/* A number of the kernel's INDEX type. */
void launch_index(launch *l, const kernel_options *o, const char *name, size_t number);

/* Which splats a head has: per_head and first_head. */
void launch_splat_heads(launch *l, const op_splats *splats);

/* A splat set's arguments, in the order all kernels have them. */
void launch_splats(launch *l, const op_splats *splats);

#endif
