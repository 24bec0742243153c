#include "attention/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/gaussian.h"
#include "base/clock.h"
#include "base/half.h"
#include "base/random.h"
#include "op/families.h"
#include "op/tree/forest.h"
#include "runtime/buffer.h"
#include "splats/splats.h"

enum { GUARD = 256 }; /* elements */

static bool has_splats(probe_kind kind) {
    return kind == PROBE_WRITE || kind == PROBE_READ || kind == PROBE_RESPOND || kind == PROBE_READ_CAUSAL;
}

double probe_pairs(probe_kind kind, const probe_shape *s) {
    double heads = (double)(s->batch * s->heads);
    double rows = kind == PROBE_WRITE ? (double)s->keys : (double)s->queries;
    return heads * rows * (double)(has_splats(kind) ? s->splats : s->keys);
}

/* Tokens before heads, since heads run side by side. */
bool probe_shrink(probe_kind kind, probe_shape *s) {
    enum { FEW = 256, LEAST = 32 };
    size_t *tokens = s->keys > s->queries ? &s->keys : &s->queries;
    if (has_splats(kind))
        tokens = kind == PROBE_WRITE ? &s->keys : &s->queries;
    size_t *smaller = *tokens > FEW     ? tokens
                      : s->batch > 1    ? &s->batch
                      : s->heads > 1    ? &s->heads
                      : *tokens > LEAST ? tokens
                                        : NULL;
    if (smaller)
        *smaller /= 2;
    return smaller != NULL;
}

static void store(clsplat_dtype dtype, void *bytes, size_t i, float value) {
    if (dtype == CLSPLAT_F32)
        ((float *)bytes)[i] = value;
    else
        ((uint16_t *)bytes)[i] = dtype == CLSPLAT_F16 ? half_to_f16(value) : half_to_bf16(value);
}

static float load(clsplat_dtype dtype, const void *bytes, size_t i) {
    if (dtype == CLSPLAT_F32)
        return ((const float *)bytes)[i];
    uint16_t bits = ((const uint16_t *)bytes)[i];
    return dtype == CLSPLAT_F16 ? half_from_f16(bits) : half_from_bf16(bits);
}

/* A buffer of NaN in every type (bytes 0xFF), with random numbers between the guards unless it is a result.
 */
static clsplat_status add_buffer(probe *p, probe_buffer b, cl_mem *mem) {
    clsplat_status status = CLSPLAT_OK;
    size_t size = clsplat_dtype_size(b.dtype);
    random_state random = random_stream(1, p->count);
    b.bytes = (b.before + b.count + GUARD) * size;
    char *bytes = malloc(b.bytes);
    if (!bytes)
        return log_error(p->device->lib, CLSPLAT_MEMORY, "no memory for %zu numbers to tune with", b.count);
    memset(bytes, 0xFF, b.bytes);
    for (size_t i = 0; i < b.count && !b.result; ++i) {
        float x = b.least + (b.most - b.least) * (float)random_uniform(&random);
        store(b.dtype, bytes, b.before + i, b.columns && i % b.columns >= b.wide ? x / 8 : x);
    }
    TRY(buffer_create_from(p->device, b.bytes, bytes, &b.mem));
    p->buffers[p->count++] = b;
    *mem = b.mem;
fail:
    free(bytes);
    return status;
}

static probe_buffer buffer_of(clsplat_dtype dtype, const size_t shape[4], op_tensor *t) {
    size_t head = shape[2] * shape[3];
    *t = (op_tensor){.dtype = dtype,
                     .shape = {shape[0], shape[1], shape[2], shape[3]},
                     .offset = GUARD,
                     .stride = {shape[1] * head, head, shape[3]}};
    return (probe_buffer){
        .dtype = dtype, .before = GUARD, .count = shape[0] * shape[1] * head, .least = -1, .most = 1};
}

static clsplat_status add_tensor(probe *p, clsplat_dtype dtype, const size_t shape[4], bool result,
                                 op_tensor *t) {
    probe_buffer b = buffer_of(dtype, shape, t);
    b.result = result;
    return add_buffer(p, b, &t->mem);
}

/* Vectors near a few directions, as queries and keys of models are. */
static clsplat_status add_directed(probe *p, clsplat_dtype dtype, const size_t shape[4], op_tensor *t) {
    probe_buffer b = buffer_of(dtype, shape, t);
    b.least = -4;
    b.most = 4;
    b.columns = shape[3];
    b.wide = shape[3] / 8 + 1;
    return add_buffer(p, b, &t->mem);
}

/* An array of floats that a kernel takes from its beginning. */
static clsplat_status add_array(probe *p, size_t count, bool result, cl_mem *mem) {
    return add_buffer(p, (probe_buffer){.dtype = CLSPLAT_F32, .count = count, .result = result, .least = -4},
                      mem);
}

static clsplat_status add_splats(probe *p, const probe_shape *s, const op_splats **ready) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_shape shape = {s->covariance, s->heads, s->splats, s->dim, 1};
    random_state random = random_seed(2);
    TRY(clsplat_splats_create(p->device->lib, shape, &p->splats));
    float *mean = clsplat_splats_get(p->splats).mean;
    for (size_t i = 0; i < s->heads * s->splats * s->dim; ++i)
        mean[i] = 2 * (float)random_uniform(&random) - 1;
    TRY(clsplat_splats_changed(p->splats));
    TRY(splats_upload(p->device, p->splats, ready));
fail:
    return status;
}

static clsplat_status make_softmax(probe *p, const probe_shape *s, bool causal) {
    clsplat_status status = CLSPLAT_OK;
    op_softmax_args *a = &p->args.softmax;
    p->family = &op_softmax_family;
    *a = (op_softmax_args){.scale = 1 / sqrtf((float)s->dim), .diagonal = OP_SEES_ALL};
    if (causal)
        a->diagonal = (int32_t)s->keys - (int32_t)s->queries;
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->dim}, false, &a->q));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->keys, s->dim}, false, &a->k));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->keys, s->value_dim}, false, &a->v));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->value_dim}, true, &a->out));
    TRY(add_tensor(p, CLSPLAT_F32, (size_t[]){s->batch, s->heads, s->queries, 1}, true, &a->lse));
fail:
    return status;
}

static clsplat_status make_write(probe *p, const probe_shape *s) {
    clsplat_status status = CLSPLAT_OK;
    op_write_args *a = &p->args.write;
    p->family = &op_write_family;
    *a = (op_write_args){.heads = s->heads};
    TRY(add_splats(p, s, &a->splats));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->keys, s->dim}, false, &a->k));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->keys, s->value_dim}, false, &a->v));
    gaussian_call call = {.splats = a->splats, .q = a->k, .k = a->k, .v = a->v};
    size_t segments = gaussian_segments(&p->device->info.limits, &call);
    a->segment = (s->keys + segments - 1) / segments;
    a->state.segments = (s->keys + a->segment - 1) / a->segment;
    size_t states = s->batch * s->heads * a->state.segments * s->splats;
    TRY(add_array(p, states, true, &a->state.lse));
    TRY(add_array(p, states * s->value_dim, true, &a->state.value));
fail:
    return status;
}

static clsplat_status make_respond(probe *p, const probe_shape *s) {
    clsplat_status status = CLSPLAT_OK;
    op_respond_args *a = &p->args.respond;
    p->family = &op_respond_family;
    *a = (op_respond_args){.heads = s->heads};
    TRY(add_splats(p, s, &a->splats));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->dim}, false, &a->x));
    TRY(add_array(p, s->batch * s->heads * s->queries * s->splats, true, &a->response));
fail:
    return status;
}

/* Causal: as many keys as queries, and a state in front of each chunk of them. */
static clsplat_status make_read(probe *p, const probe_shape *s, bool causal) {
    clsplat_status status = CLSPLAT_OK;
    op_read_args *a = &p->args.read;
    size_t heads = s->batch * s->heads, responses = heads * s->queries * s->splats;
    p->family = &op_read_family;
    *a = (op_read_args){.kv_heads = s->heads, .causal = causal, .chunk = GAUSSIAN_CHUNK};
    a->state.segments = causal ? (s->queries + a->chunk - 1) / a->chunk : 1;
    size_t states = heads * a->state.segments * s->splats;
    TRY(add_splats(p, s, &a->splats));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->dim}, false, &a->q));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->value_dim}, true, &a->out));
    TRY(add_tensor(p, CLSPLAT_F32, (size_t[]){s->batch, s->heads, s->queries, 1}, true, &a->lse));
    TRY(add_array(p, states, false, &a->state.lse));
    TRY(add_array(p, states * s->value_dim, false, &a->state.value));
    if (causal) {
        TRY(add_array(p, responses, false, &a->query_response));
        TRY(add_array(p, responses, false, &a->key_response));
        TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->value_dim}, false, &a->v));
    }
fail:
    return status;
}

/* Causal, over trees. Of 4,096 keys in 64 columns a row has about an eighth exactly. */
static clsplat_status make_near_far(probe *p, const probe_shape *s) {
    clsplat_status status = CLSPLAT_OK;
    op_near_far_args *a = &p->args.near_far;
    size_t kv_heads = s->heads % 2 ? s->heads : s->heads / 2;
    queue q;
    p->family = &op_near_far_family;
    *a = (op_near_far_args){.forest = &p->forest,
                            .scale = 1 / sqrtf((float)s->dim),
                            .diagonal = (int32_t)s->keys - (int32_t)s->queries,
                            .keys = s->keys,
                            .tolerance = clsplat_attention_defaults().tolerance};
    TRY(add_directed(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->dim}, &a->q));
    TRY(add_directed(p, s->dtype, (size_t[]){s->batch, kv_heads, s->keys, s->dim}, &a->k));
    TRY(add_directed(p, s->dtype, (size_t[]){s->batch, kv_heads, s->keys, s->value_dim}, &a->v));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->value_dim}, true, &a->out));
    TRY(add_tensor(p, CLSPLAT_F32, (size_t[]){s->batch, s->heads, s->queries, 1}, true, &a->lse));
    p->forest = forest_shape(&a->k, &a->v, s->keys, forest_chunk(&p->device->info.limits, s->keys, 0), 0);
    TRY(forest_create(p->device, &p->forest));
    queue_begin(p->device, 0, NULL, &q);
    TRY(forest_clear(&q, &p->forest));
    TRY(op_gather(&q, &(op_gather_args){.forest = &p->forest, .k = a->k, .v = a->v}));
fail:
    return status;
}

static clsplat_status make_gemm(probe *p, const probe_shape *s) {
    clsplat_status status = CLSPLAT_OK;
    op_gemm_args *a = &p->args.gemm;
    p->family = &op_gemm_family;
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->dim}, false, &a->a));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->keys, s->dim}, false, &a->b));
    TRY(add_tensor(p, s->dtype, (size_t[]){s->batch, s->heads, s->queries, s->keys}, true, &a->c));
fail:
    return status;
}

clsplat_status probe_create(clsplat_device *device, probe_kind kind, const probe_shape *shape, probe *made) {
    *made = (probe){.device = device};
    switch (kind) {
    case PROBE_SOFTMAX:
    case PROBE_SOFTMAX_CAUSAL:
        return make_softmax(made, shape, kind == PROBE_SOFTMAX_CAUSAL);
    case PROBE_WRITE:
        return make_write(made, shape);
    case PROBE_READ:
    case PROBE_READ_CAUSAL:
        return make_read(made, shape, kind == PROBE_READ_CAUSAL);
    case PROBE_RESPOND:
        return make_respond(made, shape);
    case PROBE_NEAR_FAR:
        return make_near_far(made, shape);
    case PROBE_GEMM:
        return make_gemm(made, shape);
    }
    return CLSPLAT_OK;
}

void probe_free(probe *p) {
    if (!p->device)
        return;
    clsplat_device_finish(p->device);
    clsplat_splats_destroy(&p->splats);
    forest_release(p->device, &p->forest);
    for (size_t i = 0; i < p->count; ++i)
        buffer_release(p->device, p->buffers[i].bytes, &p->buffers[i].mem);
    *p = (probe){0};
}

clsplat_status probe_run(probe *p, const op_variant *variant, const tune_point *point, size_t times,
                         double *seconds) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    TRY(clsplat_device_finish(p->device));
    double begun = clock_seconds();
    queue_begin(p->device, 0, NULL, &q);
    q.strict = point && tune_point_index(variant->space, point) != 0; /* the default is what any call runs */
    for (size_t i = 0; i < times; ++i)
        TRY(op_run(&q, variant, point, &p->args));
    TRY(clsplat_device_finish(p->device));
    *seconds = (clock_seconds() - begun) / (double)times;
fail:
    return status;
}

clsplat_status probe_poison(probe *p) {
    clsplat_status status = CLSPLAT_OK;
    const uint32_t bits =
        UINT32_MAX; /* NaN in every type, as the guards are, which may share the last 4 bytes */
    float nan;
    queue q;
    memcpy(&nan, &bits, sizeof nan);
    queue_begin(p->device, 0, NULL, &q);
    for (size_t i = 0; i < p->count; ++i) {
        const probe_buffer *b = &p->buffers[i];
        size_t size = clsplat_dtype_size(b->dtype);
        if (b->result)
            TRY(queue_fill(&q, b->mem, b->before * size, (b->count * size + 3) / 4 * 4, nan));
    }
fail:
    return status;
}

static clsplat_status check_buffer(probe *p, const probe_buffer *b, const char *bytes, float *values) {
    size_t size = clsplat_dtype_size(b->dtype), begin = b->before * size, end = begin + b->count * size;
    for (size_t i = 0; i < b->bytes; ++i)
        if ((i < begin || i >= end) && bytes[i] != (char)0xFF)
            return log_error(p->device->lib, CLSPLAT_OPENCL, "it writes outside of its results");
    for (size_t i = 0; i < b->count; ++i) {
        values[i] = load(b->dtype, bytes, b->before + i);
        if (!isfinite(values[i]))
            return log_error(p->device->lib, CLSPLAT_OPENCL, "a result is not finite");
    }
    return CLSPLAT_OK;
}

static clsplat_status read_buffer(probe *p, const probe_buffer *b, float *values) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = malloc(b->bytes);
    queue q;
    if (!bytes)
        return log_error(p->device->lib, CLSPLAT_MEMORY, "no memory for %zu bytes of results", b->bytes);
    queue_begin(p->device, 0, NULL, &q);
    TRY(queue_download(&q, (queue_copy){.mem = b->mem, .host = bytes, .row = b->bytes, .rows = 1}));
    TRY(check_buffer(p, b, bytes, values));
fail:
    free(bytes);
    return status;
}

clsplat_status probe_results(probe *p, float **values) {
    clsplat_status status = CLSPLAT_OK;
    size_t count = 0;
    for (size_t i = 0; i < p->count; ++i)
        count += p->buffers[i].result ? p->buffers[i].count : 0;
    *values = malloc(count * sizeof **values);
    if (!*values)
        return log_error(p->device->lib, CLSPLAT_MEMORY, "no memory for %zu results", count);
    float *at = *values;
    for (size_t i = 0; i < p->count; ++i)
        if (p->buffers[i].result) {
            TRY(read_buffer(p, &p->buffers[i], at));
            at += p->buffers[i].count;
        }
    return CLSPLAT_OK;
fail:
    free(*values);
    *values = NULL;
    return status;
}

double probe_error(const probe *p, const float *values, const float *reference) {
    double worst = 0;
    for (size_t i = 0; i < p->count; ++i) {
        size_t count = p->buffers[i].result ? p->buffers[i].count : 0;
        double error = 0, norm = 0;
        for (size_t j = 0; j < count; ++j) {
            double difference = (double)values[j] - (double)reference[j];
            error += difference * difference;
            norm += (double)reference[j] * (double)reference[j];
        }
        if (error > 0)
            worst = fmax(worst, sqrt(error / norm));
        values += count;
        reference += count;
    }
    return worst;
}
