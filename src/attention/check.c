#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "attention/attend.h"
#include "attention/near_far.h"
#include "base/sized.h"
#include "op/families.h"
#include "runtime/buffer.h"
#include "runtime/tensor.h"
#include "splats/splats.h"

enum { DIM_LIMIT = 1024, ROW_LIMIT = INT32_MAX };

static bool is_absent(const clsplat_tensor *t) {
    return !t->host && !t->buffer;
}

static clsplat_status check_shapes(clsplat *lib, const clsplat_attention_tensors *t) {
    clsplat_status status = CLSPLAT_OK;
    size_t batch = t->q.shape[0], heads = t->q.shape[1], queries = t->q.shape[2], dim = t->q.shape[3];
    size_t kv_heads = t->k.shape[1], keys = t->k.shape[2], value_dim = t->v.shape[3];
    TRY(tensor_check_shape(lib, "k", &t->k, (size_t[]){batch, kv_heads, keys, dim}));
    TRY(tensor_check_shape(lib, "v", &t->v, (size_t[]){batch, kv_heads, keys, value_dim}));
    if (!is_absent(&t->key_bias))
        TRY(tensor_check_shape(lib, "key_bias", &t->key_bias, (size_t[]){batch, kv_heads, keys, 1}));
    TRY(tensor_check_shape(lib, "out", &t->out, (size_t[]){batch, heads, queries, value_dim}));
    if (!is_absent(&t->lse))
        TRY(tensor_check_shape(lib, "lse", &t->lse, (size_t[]){batch, heads, queries, 1}));
    if (heads % kv_heads)
        return log_error(lib, CLSPLAT_SHAPE, "q has %zu heads, which is not a multiple of the %zu heads of k",
                         heads, kv_heads);
    if (dim > DIM_LIMIT || value_dim > DIM_LIMIT)
        return log_error(lib, CLSPLAT_SHAPE, "q and k have %zu columns and v %zu; at most %d are supported",
                         dim, value_dim, DIM_LIMIT);
    if (queries > ROW_LIMIT || keys > ROW_LIMIT)
        return log_error(lib, CLSPLAT_SHAPE, "%zu queries and %zu keys; at most %d are supported", queries,
                         keys, ROW_LIMIT);
fail:
    return status;
}

static clsplat_status check_parameters(clsplat *lib, const clsplat_attention *a,
                                       const clsplat_attention_tensors *t) {
    if (!isnan(a->scale) && !isfinite(a->scale))
        return log_error(lib, CLSPLAT_INVALID,
                         "scale is infinite; it must be a finite number, or NaN for 1/sqrt(D)");
    if (a->mixing != CLSPLAT_JOINT && a->mixing != CLSPLAT_PER_LEVEL)
        return log_error(lib, CLSPLAT_INVALID, "there is no mixing %d", (int)a->mixing);
    if (a->method > CLSPLAT_WINDOW || a->method < CLSPLAT_SOFTMAX)
        return log_error(lib, CLSPLAT_INVALID, "there is no method %d", (int)a->method);
    if ((a->method == CLSPLAT_SPLATS) != (a->splats != NULL))
        return log_error(lib, CLSPLAT_INVALID, "%s",
                         a->splats ? "splats are given, but the method is another; set CLSPLAT_SPLATS, or "
                                     "leave splats NULL"
                                   : "the method CLSPLAT_SPLATS needs splats");
    if (a->method == CLSPLAT_WINDOW && (!a->causal || a->window == 0))
        return log_error(lib, CLSPLAT_INVALID, "%s",
                         a->causal ? "the window is 0 keys; it is at least 1"
                                   : "a window is of the keys before a query: set causal");
    if (!a->splats)
        return CLSPLAT_OK;
    clsplat_splats_shape s = clsplat_splats_get(a->splats).shape;
    if (s.dim != t->q.shape[3])
        return log_error(lib, CLSPLAT_SHAPE, "the splats have %zu dimensions, q and k have %zu columns",
                         s.dim, t->q.shape[3]);
    if (s.heads != 1 && s.heads != t->q.shape[1])
        return log_error(lib, CLSPLAT_SHAPE,
                         "the splats are for %zu heads, q has %zu; 1 (shared) would fit too", s.heads,
                         t->q.shape[1]);
    return CLSPLAT_OK;
}

const op_family *attend_family(clsplat_method method) {
    return method == CLSPLAT_NEAR_FAR ? &op_near_far_family
           : method == CLSPLAT_SPLATS ? &op_read_family
                                      : &op_softmax_family;
}

static clsplat_status check_variant(clsplat *lib, const clsplat_attention *a) {
    clsplat_status status = CLSPLAT_OK;
    const op_family *family = attend_family(a->method);
    text names = {0};
    if (a->variant && !op_lists(family, a->variant, &names))
        status = log_error(lib, CLSPLAT_INVALID, "%s has no variant `%s`; there are %s", family->name,
                           a->variant, text_ok(&names) ? names.data : "others");
    text_free(&names);
    return status;
}

/* The results that only near and far has. */
static clsplat_status check_extras(clsplat *lib, attend_call *call, bool on_host) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention_tensors *t = &call->tensors;
    struct {
        const char *name;
        clsplat_tensor *tensor;
        bool counts;
    } extras[] = {{"exact_keys", &t->exact_keys, true}, {"error_estimate", &t->error_estimate, false}};
    for (size_t i = 0; i < sizeof extras / sizeof *extras; ++i) {
        clsplat_tensor *extra = extras[i].tensor;
        if (is_absent(extra))
            continue;
        if (call->attention.method != CLSPLAT_NEAR_FAR)
            return log_error(lib, CLSPLAT_INVALID,
                             "%s is a result of near and far only; set CLSPLAT_NEAR_FAR, or leave it absent",
                             extras[i].name);
        if (extras[i].counts != (extra->dtype == CLSPLAT_I32))
            return log_error(lib, CLSPLAT_INVALID, "%s must be of type %s", extras[i].name,
                             extras[i].counts ? "CLSPLAT_I32" : "CLSPLAT_F32, F16 or BF16");
        TRY(tensor_lay_out(lib, extras[i].name, extra, on_host));
        TRY(tensor_check_shape(lib, extras[i].name, extra,
                               (size_t[]){t->q.shape[0], t->q.shape[1], t->q.shape[2], 1}));
    }
fail:
    return status;
}

clsplat_status attend_read(clsplat *lib, const clsplat_attention *attention_given,
                           const clsplat_attention_tensors *tensors_given, clsplat_attention *attention,
                           clsplat_attention_tensors *tensors) {
    clsplat_status status = CLSPLAT_OK;
    *attention = clsplat_attention_defaults();
    *tensors = (clsplat_attention_tensors){0};
    TRY(sized_read(lib, "attention", attention_given, attention, sizeof *attention));
    TRY(sized_read(lib, "tensors", tensors_given, tensors, sizeof *tensors));
fail:
    return status;
}

clsplat_status attend_check(clsplat_device *device, clsplat_attention attention,
                            clsplat_attention_tensors tensors, bool on_host, attend_call *call) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = device->lib;
    *call = (attend_call){.attention = attention, .tensors = tensors};
    clsplat_attention_tensors *t = &call->tensors;
    TRY(tensor_check_place(lib, "q", &t->q, on_host));
    TRY(tensor_check_place(lib, "k", &t->k, on_host));
    TRY(tensor_check_place(lib, "v", &t->v, on_host));
    TRY(tensor_check_place(lib, "out", &t->out, on_host));
    if (!is_absent(&t->key_bias))
        TRY(tensor_check_place(lib, "key_bias", &t->key_bias, on_host));
    if (!is_absent(&t->lse))
        TRY(tensor_check_place(lib, "lse", &t->lse, on_host));
    TRY(check_extras(lib, call, on_host));
    TRY(check_shapes(lib, t));
    TRY(check_parameters(lib, &attention, t));
    TRY(check_variant(lib, &attention));
    if (attention.method == CLSPLAT_NEAR_FAR)
        TRY(near_far_check(device, call));
    if (isnan(attention.scale))
        call->attention.scale = 1.0f / sqrtf((float)t->q.shape[3]);
    call->diagonal = attention.causal ? (int32_t)t->k.shape[2] - (int32_t)t->q.shape[2] : OP_SEES_ALL;
    if (attention.method == CLSPLAT_WINDOW && attention.window < t->k.shape[2]) /* otherwise it hides none */
        call->window = (uint32_t)attention.window;
    if (attention.splats)
        TRY(splats_upload(device, attention.splats, &call->splats));
fail:
    return status;
}
