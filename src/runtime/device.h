/* An opened device: the one struct that everything above OpenCL hangs from. */
#ifndef CLSPLAT_RUNTIME_DEVICE_H
#define CLSPLAT_RUNTIME_DEVICE_H

#include <clsplat/device.h>

#include "base/log.h"

/* Where a workspace of an operation lives between calls. A slot grows to the largest request and is
 * reused; the order of calls on one device (see queue.h) keeps two users of a slot apart. */
typedef enum workspace_slot {
    WORKSPACE_STATE_LSE,
    WORKSPACE_STATE_VALUE,
    WORKSPACE_CARRY,
    WORKSPACE_PART_LSE,
    WORKSPACE_PART_VALUE,
    WORKSPACE_PACKED_MEAN,
    WORKSPACE_PACKED_VALUE,
    WORKSPACE_PACKED_TERM,
    WORKSPACE_QUERY_RESPONSE,
    WORKSPACE_KEY_RESPONSE,
    WORKSPACE_NODE_MEANS,
    WORKSPACE_NODE_VALUES,
    WORKSPACE_NODE_VARIANCES,
    WORKSPACE_NODE_NUMBERS,
    WORKSPACE_Q,
    WORKSPACE_K,
    WORKSPACE_V,
    WORKSPACE_BIAS,
    WORKSPACE_OUT,
    WORKSPACE_LSE,
    WORKSPACE_EXACT_KEYS,
    WORKSPACE_ERROR_ESTIMATE,
    WORKSPACE_DOUT, /* the backward pass: its tensors, the states of dout, and what rows and keys weigh */
    WORKSPACE_DQ,
    WORKSPACE_DK,
    WORKSPACE_DV,
    WORKSPACE_DBIAS,
    WORKSPACE_GRAD_STATS,
    WORKSPACE_GRAD_WEIGHTS,
    WORKSPACE_GRAD_PART_LSE,
    WORKSPACE_GRAD_PART_VALUE,
    WORKSPACE_GRAD_STATE_LSE,
    WORKSPACE_GRAD_STATE_VALUE,
    WORKSPACE_GRAD_CARRY,
    WORKSPACE_GRAD_MOMENTS,
    WORKSPACE_GRAD_LIFTS,
    WORKSPACE_BACK, /* of near and far, and the slots after it: op/near_far_backward.c */
    WORKSPACE_BACK_LAST = WORKSPACE_BACK + 11,
    WORKSPACE_FOREST, /* and the slots after it: an op_forest's buffers */
    WORKSPACE_FOREST_LAST = WORKSPACE_FOREST + 8,
    WORKSPACE_SLOTS
} workspace_slot;

typedef struct workspace {
    cl_mem mem;
    size_t bytes;
} workspace;

/* See runtime/trail.h. */
typedef struct trail {
    cl_event *events;
    const char **names;
    size_t count, capacity;
    cl_int code; /* of the first command that failed and was not told of yet; CL_SUCCESS: none */
    const char *failed;
    uint64_t failures; /* told so far: what was on the device before the last may be wrong */
} trail;

struct program;
struct profile;
struct choices;

struct clsplat_device {
    clsplat *lib;
    struct clsplat_device *next; /* of the library handle's */
    uint64_t serial; /* never two alike in one process's library handle: what was uploaded where */
    clsplat_device_info info;
    unsigned quirks; /* bits of quirk_flag, from runtime/quirks.h */
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    bool in_order;            /* what the queue promises */
    bool queue_profiles;      /* CL_QUEUE_PROFILING_ENABLE */
    trail trail;              /* the commands enqueued through this handle */
    struct program *programs; /* built so far: a list */
    struct profile *profile;
    workspace workspaces[WORKSPACE_SLOTS];
    clsplat_memory memory;
    const char *preferred; /* the row that an operation takes if it has one of this name that fits: for
                              comparing  rows; NULL: op_dispatch's choice */
    struct choices
        *choices; /* what the operations' tables chose so far, and how to let go of it (op/choose.h) */
    void (*forget_choices)(struct clsplat_device *device);
    uint32_t clblast[6];    /* what op/gemm_clblast.c told CLBlast about this device last; 0s: nothing */
    void (*on_close)(void); /* makes another library let go of the context; NULL: none has been used */
};

/* The open device of that serial; NULL if it has been closed. */
clsplat_device *device_of_serial(clsplat *lib, uint64_t serial);

/* The sentence for an OpenCL error code: "clEnqueueNDRangeKernel: CL_INVALID_WORK_GROUP_SIZE (-54)". Memory
 * exhaustion becomes MEMORY; that a kernel asks for more items, registers or local memory than there are
 * UNSUPPORTED, where it is made or launched (elsewhere CL_OUT_OF_RESOURCES is how some drivers tell of a
 * crash); everything else OPENCL. */
#define LAUNCH_CALL "clEnqueueNDRangeKernel"
#define KERNEL_CALL "clCreateKernel"
clsplat_status cl_failed(clsplat *lib, const char *call, cl_int code);
const char *cl_error_name(cl_int code);

#define TRY_CL(lib, call)                                                                                    \
    do {                                                                                                     \
        cl_int code_ = (call);                                                                               \
        if (code_ != CL_SUCCESS) {                                                                           \
            status = cl_failed((lib), #call, code_);                                                         \
            goto fail;                                                                                       \
        }                                                                                                    \
    } while (0)

#endif
