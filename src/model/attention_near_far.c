#include <math.h>
#include <stdlib.h>

#include "attention/near_far.h"
#include "model/attention.h"
#include "model/scratch.h"
#include "runtime/buffer.h"

/* What a session keeps for near-far attention. */
typedef struct near_far_state {
    size_t layers, heads, capacity;
    size_t length; /* tokens whose counts are there */
    size_t processes;
    const bool *windowed;
    op_forest *forests; /* [layers]; those of windowed layers have no buffers */
    op_tensor
        exact;      /* I32 [layers,H,capacity,1]: keys of each query that were exact; 0 if it was not asked */
    double counted; /* keys attended in windowed layers, and beside the trees */
} near_far_state;

static void near_far_close(clsplat_device *device, void **state) {
    near_far_state *s = *state;
    if (!s)
        return;
    for (size_t i = 0; s->forests && i < s->layers; ++i)
        forest_release(device, &s->forests[i]);
    if (s->exact.mem)
        buffer_release(device, 4 * s->exact.shape[0] * s->exact.stride[0], &s->exact.mem);
    free(s->forests);
    free(s);
    *state = NULL;
}

/* Zeros, so that queries that a last layer is not asked for count as none. */
static clsplat_status create_counts(clsplat_device *device, near_far_state *s) {
    clsplat_status status = CLSPLAT_OK;
    size_t head = s->capacity, layer = s->heads * head;
    int32_t *zeros = calloc(s->layers * layer, sizeof *zeros);
    if (!zeros)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory to count the keys of %zu tokens",
                         s->capacity);
    s->exact = (op_tensor){
        .dtype = CLSPLAT_I32, .shape = {s->layers, s->heads, s->capacity, 1}, .stride = {layer, head, 1}};
    TRY(buffer_create_from(device, 4 * s->layers * layer, zeros, &s->exact.mem));
fail:
    free(zeros);
    return status;
}

/* In F16 trees take half the memory, and half the time on their way from it,
 * which is what decoding consists of; they err by 2⁻¹², far less than closed nodes do from FINE on. */
clsplat_dtype near_far_tree_dtype(clsplat_dtype cache, float tolerance) {
    static const float FINE = 0.005f;
    return tolerance >= FINE && cache == CLSPLAT_F32 ? CLSPLAT_F16 : cache;
}

static clsplat_status near_far_open(clsplat_device *device, const attention_shape *shape,
                                    const clsplat_model_attention *parameters, void **state) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    op_tensor k = {.dtype = near_far_tree_dtype(shape->cache, parameters->tolerance),
                   .shape = {1, shape->kv_heads, shape->room, shape->head_dim}};
    size_t chunk = parameters->chunk;
    TRY(near_far_choose(device, parameters->tolerance, parameters->sparse_topk, shape->capacity, &chunk));
    near_far_state *s = calloc(1, sizeof *s);
    *state = s;
    if (!s || !(s->forests = calloc(shape->layers, sizeof *s->forests)))
        TRY(log_error(device->lib, CLSPLAT_MEMORY, "no memory for a session"));
    s->layers = shape->layers;
    s->heads = shape->heads;
    s->capacity = shape->capacity;
    s->processes = shape->processes;
    s->windowed = shape->windowed;
    TRY(create_counts(device, s));
    queue_begin(device, 0, NULL, &q);
    for (size_t i = 0; i < s->layers; ++i) {
        s->forests[i] = forest_shape(&k, &k, shape->room, chunk, parameters->sparse_topk);
        if (s->windowed[i])
            continue;
        TRY(forest_create(device, &s->forests[i]));
        TRY(forest_clear(&q, &s->forests[i]));
    }
fail:
    if (status != CLSPLAT_OK)
        near_far_close(device, state);
    return status;
}

/* Chunks that these tokens complete. */
static clsplat_status near_far_append(queue *q, void *state, size_t layer, size_t first, op_tensor k,
                                      op_tensor v) {
    near_far_state *s = state;
    const op_forest *forest = &s->forests[layer];
    size_t chunk = forest->chunk, begin = first / chunk, end = k.shape[2] / chunk;
    if (s->windowed[layer] || begin == end)
        return CLSPLAT_OK;
    op_gather_args args = {.forest = forest,
                           .first_chunk = begin,
                           .k = op_slice(k, 2, begin * chunk, (end - begin) * chunk),
                           .v = op_slice(v, 2, begin * chunk, (end - begin) * chunk)};
    return op_gather(q, &args);
}

static clsplat_status near_far_attend(queue *q, void *state, const clsplat_model_attention *parameters,
                                      const attention_step *step) {
    near_far_state *s = state;
    const op_forest *forest = &s->forests[step->layer];
    size_t queries = step->q.shape[2], visible = step->first + queries;
    s->length = visible;
    if (s->windowed[step->layer]) {
        for (size_t i = step->first; i < visible; ++i)
            s->counted +=
                (double)s->heads * fmin((double)(i + 1), (double)step->window) / (double)s->processes;
        return attention_softmax(q, step, step->window);
    }
    size_t own = step->first - step->first % forest->chunk;
    op_near_far_args args = {.forest = forest,
                             .q = step->q,
                             .k = op_slice(step->k, 2, own, visible - own),
                             .v = op_slice(step->v, 2, own, visible - own),
                             .out = step->out,
                             .lse = step->lse,
                             .exact_keys =
                                 op_slice(op_slice(s->exact, 0, step->layer, 1), 2, step->first, queries),
                             .scale = 1 / sqrtf((float)step->q.shape[3]),
                             .diagonal = (int32_t)step->first,
                             .keys = visible,
                             .first_key = own,
                             .tolerance = parameters->tolerance,
                             .sparse_topk = parameters->sparse_topk};
    return op_near_far(q, &args);
}

/* The chunks that are whole, through the trees. */
static clsplat_status near_far_past(queue *q, void *state, const clsplat_model_attention *parameters,
                                    const attention_step *step, size_t held, size_t *keys) {
    near_far_state *s = state;
    const op_forest *forest = &s->forests[step->layer];
    size_t queries = step->q.shape[2];
    *keys = held - held % forest->chunk;
    s->length = step->first + queries;
    if (*keys == 0)
        return CLSPLAT_OK;
    op_near_far_args args = {.forest = forest,
                             .q = step->q,
                             .out = step->out,
                             .lse = step->lse,
                             .exact_keys =
                                 op_slice(op_slice(s->exact, 0, step->layer, 1), 2, step->first, queries),
                             .scale = 1 / sqrtf((float)step->q.shape[3]),
                             .diagonal = OP_SEES_ALL,
                             .keys = *keys,
                             .tolerance = parameters->tolerance,
                             .sparse_topk = parameters->sparse_topk};
    return op_near_far(q, &args);
}

static clsplat_status near_far_rewind(queue *q, void *state, size_t length) {
    near_far_state *s = state;
    s->length = length;
    if (length > 0)
        return CLSPLAT_OK;
    s->counted = 0;
    return queue_fill(q, s->exact.mem, 0, 4 * s->exact.shape[0] * s->exact.stride[0], 0.0f);
}

static clsplat_status near_far_count(queue *q, void *state, double *exact_keys) {
    clsplat_status status = CLSPLAT_OK;
    near_far_state *s = state;
    size_t rows = s->layers * s->heads;
    int32_t *counts = malloc((rows * s->length + 1) * sizeof *counts);
    if (!counts)
        return log_error(q->device->lib, CLSPLAT_MEMORY, "no memory for the counts of %zu tokens", s->length);
    *exact_keys = s->counted;
    TRY(queue_download(q, (queue_copy){.mem = s->exact.mem,
                                       .mem_pitch = 4 * s->capacity,
                                       .host = counts,
                                       .host_pitch = 4 * s->length,
                                       .row = 4 * s->length,
                                       .rows = s->length ? rows : 0}));
    for (size_t i = 0; i < rows * s->length; ++i)
        *exact_keys += counts[i];
fail:
    free(counts);
    return status;
}

const attention_form attention_near_far = {.name = "near-far",
                                           .open = near_far_open,
                                           .append = near_far_append,
                                           .attend = near_far_attend,
                                           .divides = true,
                                           .attend_past = near_far_past,
                                           .rewind = near_far_rewind,
                                           .count = near_far_count,
                                           .close = near_far_close};
