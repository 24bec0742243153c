/* What each splat has at each looked-at row: states of the keys that a row sees first, and of those that each
 * further row sees besides, from the device; merged along the rows here, by the rule of op/op.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/layer.h"
#include "runtime/buffer.h"

typedef struct states_call {
    layer *layer;
    const op_splats *splats;
    size_t heads, columns; /* Hw; of values: 1 if they are not wanted */
    float *lse, *value;    /* [B,Hw,rows,S], [B,Hw,rows,S,columns]; NULL: not wanted */
    float *out, *row_lse;  /* of the rows' attention, [B,H,rows,columns] and [B,H,rows]; NULL: not wanted */
} states_call;

static clsplat_status no_memory(const layer *l, size_t splats) {
    return log_error(l->device->lib, CLSPLAT_MEMORY, "no memory for what %zu splats have at %zu rows", splats,
                     l->rows);
}

/* `numbers` for each head and segment, to rows `first` and following of `host`. */
static clsplat_status fetch(const states_call *c, cl_mem mem, size_t segments, size_t numbers, size_t first,
                            float *host) {
    size_t each = 4 * segments * numbers, pitch = 4 * c->layer->rows * numbers;
    return queue_download(&c->layer->queue, (queue_copy){.mem = mem,
                                                         .mem_pitch = each,
                                                         .host = host + first * numbers,
                                                         .host_pitch = pitch,
                                                         .row = each,
                                                         .rows = c->layer->batch * c->heads});
}

/* Attention of the rows to states of all keys. */
static clsplat_status read_rows(const states_call *c, op_state state) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t rows = l->batch * l->heads * l->rows;
    op_read_args args = {.splats = c->splats,
                         .kv_heads = l->kv_heads,
                         .mixing = CLSPLAT_JOINT,
                         .q = layer_rows_of(l, l->on_q, 0),
                         .out = layer_result(l, l->out, l->rows, c->columns),
                         .lse = layer_result(l, l->lse, l->rows, 1),
                         .state = state};
    TRY(op_read(&l->queue, &args));
    TRY(queue_download(&l->queue,
                       (queue_copy){.mem = l->out, .host = c->out, .row = 4 * rows * c->columns, .rows = 1}));
    TRY(queue_download(&l->queue,
                       (queue_copy){.mem = l->lse, .host = c->row_lse, .row = 4 * rows, .rows = 1}));
fail:
    return status;
}

/* The states of `segments` segments of keys from `begin` on become those of the rows from `first` on. */
static clsplat_status write_segments(const states_call *c, size_t begin, size_t segment, size_t segments,
                                     size_t first) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t count = l->batch * c->heads * segments * c->splats->count;
    op_write_args args = {.splats = c->splats,
                          .heads = c->heads,
                          .segment = segment,
                          .k = op_slice(l->on_k, 2, begin, segment * segments),
                          .v = op_slice(l->on_v, 2, begin, segment * segments),
                          .key_bias = op_slice(l->on_bias, 2, begin, segment * segments),
                          .state = {.segments = segments}};
    args.v.shape[3] = c->columns;
    TRY(buffer_create(l->device, 4 * count, &args.state.lse));
    TRY(buffer_create(l->device, 4 * count * c->columns, &args.state.value));
    TRY(op_write(&l->queue, &args));
    if (c->lse)
        TRY(fetch(c, args.state.lse, segments, c->splats->count, first, c->lse));
    if (c->value)
        TRY(fetch(c, args.state.value, segments, c->splats->count * c->columns, first, c->value));
    if (c->out)
        TRY(read_rows(c, args.state));
fail:
    buffer_release(l->device, 4 * count * c->columns, &args.state.value);
    buffer_release(l->device, 4 * count, &args.state.lse);
    return status;
}

/* One splat's state and what it had before, at the next row. */
static void merge_one(const states_call *c, size_t at, size_t before) {
    size_t dv = c->columns;
    double first = (double)c->lse[before], own = (double)c->lse[at], top = fmax(first, own);
    if (!(top > -INFINITY))
        return;
    double shrunk = exp(fmin(first, own) - top), sum = 1 + shrunk;
    double share = (first > own ? 1 : shrunk) / sum;
    c->lse[at] = (float)(top + log(sum));
    for (size_t d = 0; c->value && d < dv; ++d) {
        float *value = c->value + at * dv + d;
        *value = (float)(share * (double)c->value[before * dv + d] + (1 - share) * (double)*value);
    }
}

/* Row t has its own segment; it gets all before. */
static void merge_along(const states_call *c) {
    const layer *l = c->layer;
    size_t each = c->splats->count;
    for (size_t h = 0; h < l->batch * c->heads; ++h)
        for (size_t t = h * l->rows + 1; t < (h + 1) * l->rows; ++t)
            for (size_t at = t * each; at < (t + 1) * each; ++at)
                merge_one(c, at, at - each);
}

/* Every row has what the first has. */
static void repeat_along(const states_call *c) {
    const layer *l = c->layer;
    size_t each = c->splats->count, values = each * c->columns;
    for (size_t h = 0; h < l->batch * c->heads; ++h)
        for (size_t t = h * l->rows + 1; t < (h + 1) * l->rows; ++t) {
            memcpy(c->lse + t * each, c->lse + h * l->rows * each, each * sizeof *c->lse);
            if (c->value)
                memcpy(c->value + t * values, c->value + h * l->rows * values, values * sizeof *c->value);
        }
}

/* What the splats of a query head have gathered, and their own logarithms, to φ of its rows. */
static void add_states(const states_call *c, size_t query_head, const float *own, float *log_weight) {
    const layer *l = c->layer;
    size_t splats = c->splats->count, each = l->rows * splats;
    size_t b = query_head / l->heads, h = query_head % l->heads;
    const float *lse = c->lse + (b * c->heads + h / (l->heads / c->heads)) * each;
    own += c->splats->heads > 1 ? h * splats : 0;
    log_weight += query_head * each;
    for (size_t t = 0; t < l->rows; ++t)
        for (size_t s = 0; s < splats; ++s)
            log_weight[t * splats + s] += lse[t * splats + s] + own[s];
}

/* Log-weights at the rows: φ(q), to which Λ is added, and what the set knows of itself. */
static clsplat_status weigh(const states_call *c, float *log_weight) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t splats = c->splats->count, all = l->batch * l->heads * l->rows * splats, sets = c->splats->heads;
    float *own = malloc(sets * splats * sizeof *own);
    op_log_density_args args = {.splats = c->splats, .heads = l->heads, .x = l->on_q};
    args.x.offset += l->first_row * args.x.stride[2];
    args.x.stride[2] *= l->step;
    args.x.shape[2] = l->rows;
    if (!own)
        return no_memory(l, splats);
    TRY(buffer_create(l->device, 4 * all, &args.log_density));
    TRY(op_log_density(&l->queue, &args));
    TRY(queue_download(&l->queue,
                       (queue_copy){.mem = args.log_density, .host = log_weight, .row = 4 * all, .rows = 1}));
    TRY(queue_download(
        &l->queue,
        (queue_copy){.mem = c->splats->log_weight, .host = own, .row = 4 * sets * splats, .rows = 1}));
    for (size_t i = 0; i < l->batch * l->heads; ++i)
        add_states(c, i, own, log_weight);
fail:
    buffer_release(l->device, 4 * all, &args.log_density);
    free(own);
    return status;
}

/* Where values are not wanted some are summed all the same; the fast rows of op_write take 16 at once. */
static size_t few_columns(const layer *l) {
    return l->value_dim % 16 == 0 ? 16 : 1;
}

/* What is there already may do: its pages have been touched. */
static bool find_room(float **numbers, size_t *room, size_t count) {
    if (*numbers && *room >= count)
        return true;
    free(*numbers);
    *numbers = malloc(count * sizeof **numbers);
    *room = *numbers ? count : 0;
    return *numbers != NULL;
}

/* Without `states` only the attention of the rows, where all of them see all keys. */
static clsplat_status measure(states_call *c, clsplat_splats *set, bool values, layer_states *states) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    c->heads = layer_state_heads(l, set);
    c->columns = values || c->out ? l->value_dim : few_columns(l);
    TRY(splats_upload(l->device, set, &c->splats));
    size_t numbers = l->batch * c->heads * l->rows * c->splats->count;
    if (states) {
        states->splats = c->splats->count;
        states->state_heads = c->heads;
        c->lse = malloc(numbers * sizeof *c->lse);
        if (!c->lse ||
            !find_room(&states->log_weight, &states->room,
                       l->batch * l->heads * l->rows * c->splats->count) ||
            (values && !find_room(&states->value, &states->value_room, numbers * l->value_dim))) {
            status = no_memory(l, c->splats->count);
            goto fail;
        }
        c->value = values ? states->value : NULL;
    }
    TRY(write_segments(c, 0, l->causal ? l->head_keys : l->keys, 1, 0));
    if (!states)
        goto fail;
    if (l->causal && l->rows > 1)
        TRY(write_segments(c, l->head_keys, l->step, l->rows - 1, 1));
    if (l->causal)
        merge_along(c);
    else
        repeat_along(c);
    TRY(weigh(c, states->log_weight));
fail:
    free(c->lse);
    if (status != CLSPLAT_OK && states)
        layer_states_free(states);
    return status;
}

clsplat_status layer_measure(layer *l, clsplat_splats *set, bool values, layer_states *states) {
    return measure(&(states_call){.layer = l}, set, values, states);
}

/* Where all rows see all keys one write of the keys serves both. */
clsplat_status layer_evaluate(layer *l, clsplat_splats *set, float *out, float *lse, layer_states *states) {
    clsplat_status status = CLSPLAT_OK;
    if (states)
        *states = (layer_states){0};
    if (!l->causal)
        return measure(&(states_call){.layer = l, .out = out, .row_lse = lse}, set, false, states);
    TRY(layer_attend(l, set, out, lse));
    if (states)
        TRY(layer_measure(l, set, false, states));
fail:
    return status;
}

void layer_states_free(layer_states *states) {
    free(states->log_weight);
    free(states->value);
    *states = (layer_states){0};
}

clsplat_status layer_cover(layer *l, clsplat_splats *set, size_t spacing, float **log_density) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = layer_state_heads(l, set), count = (l->keys + spacing - 1) / spacing;
    op_log_density_args args = {.heads = heads, .x = l->on_k};
    args.x.stride[2] *= spacing;
    args.x.shape[2] = count;
    TRY(splats_upload(l->device, set, &args.splats));
    size_t all = l->batch * heads * count * args.splats->count;
    *log_density = malloc(all * sizeof **log_density);
    if (!*log_density)
        return no_memory(l, args.splats->count);
    TRY(buffer_create(l->device, 4 * all, &args.log_density));
    TRY(op_log_density(&l->queue, &args));
    TRY(queue_download(
        &l->queue, (queue_copy){.mem = args.log_density, .host = *log_density, .row = 4 * all, .rows = 1}));
    buffer_release(l->device, 4 * all, &args.log_density);
    return CLSPLAT_OK;
fail:
    if (args.log_density)
        buffer_release(l->device, 4 * l->batch * heads * count * args.splats->count, &args.log_density);
    free(*log_density);
    *log_density = NULL;
    return status;
}
