/* One attention call after its arguments have been checked. */
#ifndef CLSPLAT_ATTENTION_ATTEND_H
#define CLSPLAT_ATTENTION_ATTEND_H

#include <clsplat/attention.h>

#include "op/op.h"
#include "op/variant.h"

/* Gaussian attention in two halves, for keys that are in several places: what the splats know of these keys
 * goes to `carry`; queries read what `carry` knows of others', and, causal, of the keys up to their own. */
typedef enum attend_half { ATTEND_WHOLE, ATTEND_ACCUMULATE, ATTEND_QUERY } attend_half;

/* Keys that a call left on the device, and where in the sequence they begin: another call of the same tensors
 * takes them as they are. Absent: none. */
typedef struct attend_keys {
    op_tensor k, v, key_bias;
    size_t begin;
} attend_keys;

typedef struct attend_call {
    clsplat_attention attention;       /* scale is a number, chunk the one to take */
    clsplat_attention_tensors tensors; /* strides filled in; lse may be absent */
    const op_splats *splats;           /* method splats, otherwise NULL */
    uint32_t window;                   /* of softmax; 0: all keys */
    int32_t diagonal;                  /* M − N, or OP_SEES_ALL */
    attend_half half;
    attend_keys *left; /* of calls of one key head after each other; NULL: every call brings its keys */
    float *carry;      /* of a half: [B,Hw,S,Dv+2] in host memory, as op_scan keeps it */
} attend_call;

/* What a caller of whatever version gave. */
clsplat_status attend_read(clsplat *lib, const clsplat_attention *attention_given,
                           const clsplat_attention_tensors *tensors_given, clsplat_attention *attention,
                           clsplat_attention_tensors *tensors);

/* Checks everything that does not need the device. `on_host`: where all tensors must lie. */
clsplat_status attend_check(clsplat_device *device, clsplat_attention attention,
                            clsplat_attention_tensors tensors, bool on_host, attend_call *call);

/* The operation whose rows clsplat_attention.variant names. */
const op_family *attend_family(clsplat_method method);

/* A queue for the call's commands. */
void attend_begin(clsplat_device *device, const attend_call *call, cl_uint wait_count,
                  const cl_event *wait_list, queue *q);

/* The attention of tensors in host memory, through blocks on the device. Blocks. */
clsplat_status attend_blocks(clsplat_device *device, const attend_call *call);

#endif
