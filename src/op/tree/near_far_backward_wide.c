#include <math.h>

#include "op/tree/near_far_backward.h"
#include "runtime/buffer.h"

enum { BLOCK = 16, ROWS = 128 };

const tune_space near_far_back_wide_space = {1, {{"SPAN", {0, 8, 16, 32, 64}}}, NULL};

static op_near_far_args forward_of(const op_near_far_backward_args *a) {
    return (op_near_far_args){.forest = a->forest, .q = a->q, .diagonal = a->diagonal};
}

bool near_far_back_turns(const clsplat_limits *limits, const op_forest *f) {
    return limits_are_wide(limits) && f->dim % BLOCK == 0 && f->value_dim % BLOCK == 0 && f->dim <= 256 &&
           f->value_dim <= 256;
}

/* Causal rows must be the last of the keys' positions: own chunks are found by them. */
bool near_far_back_wide_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_backward_args *a = args;
    op_near_far_args forward = forward_of(a);
    return near_far_back_turns(limits, a->forest) && near_far_group(&forward) <= ROWS &&
           a->sparse_topk == 0 &&
           (a->diagonal == OP_SEES_ALL ||
            (int64_t)a->diagonal == (int64_t)a->k.shape[2] - (int64_t)a->q.shape[2]) &&
           a->dq.dtype == CLSPLAT_F32 && a->dk.dtype == CLSPLAT_F32 && a->dv.dtype == CLSPLAT_F32 &&
           (!a->dkey_bias.mem || a->dkey_bias.dtype == CLSPLAT_F32);
}

static size_t span_of(const queue *q, const op_near_far_backward_args *a) {
    op_near_far_args forward = forward_of(a);
    size_t span = tuned_value(q, &near_far_back_wide_space, 0);
    if (span == 0)
        span = ROWS;
    while (span > 1 &&
           (span * near_far_group(&forward) > ROWS || span > a->forest->chunk || span / 2 >= a->q.shape[2]))
        span /= 2;
    return span;
}

/* Two work-items for each compute unit, over all heads; each has sums of its own, of which they may together
 * have a share of the memory only. */
size_t near_far_back_ranges(const clsplat_limits *limits, const op_forest *forest, size_t tiles) {
    size_t bytes[BACK_BUFFERS], heads = forest->batch * forest->heads;
    near_far_back_sizes(forest, 0, bytes);
    double sums = fmax((double)bytes[BACK_SLOTS], (double)bytes[BACK_NODES]),
           room = fmin((double)limits->max_allocation, (double)limits->global_memory / 16) / sums;
    size_t wanted = (2 * limits->compute_units + heads - 1) / heads;
    wanted = wanted < tiles ? wanted : tiles;
    return room < (double)wanted ? (size_t)fmax(room, 1) : wanted;
}

static void wide_options(kernel_options *o, const near_far_back *p, size_t ranges) {
    size_t bytes[BACK_BUFFERS];
    options_near_far_back(o, p, true);
    near_far_back_sizes(p->a->forest, 0, bytes);
    for (int i = BACK_SLOTS; i <= BACK_VARIANCES; ++i)
        options_elements(o, (double)ranges * (double)bytes[i] / sizeof(float));
}

/* For kernels that know the forest alone. */
static void forest_options(kernel_options *o, const near_far_back *p, size_t ranges) {
    size_t bytes[BACK_BUFFERS];
    *o = (kernel_options){.group = 1};
    options_forest(o, p->a->forest);
    options_number(o, "ROW_SUMS", 1);
    near_far_back_sizes(p->a->forest, 0, bytes);
    for (int i = BACK_SLOTS; i < BACK_BUFFERS; ++i)
        options_elements(o, (double)ranges * (double)bytes[i] / sizeof(float));
}

/* The forest turned round. */
static clsplat_status turn(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    size_t slots = f->chunks * f->chunk + forest_apart_room(f), blocks = f->first_block[f->levels],
           above = blocks - f->first_block[f->top];
    const struct {
        size_t blocks;
        cl_mem columns, values;
        near_far_back_buffer rows;
    } parts[] = {{slots / BLOCK, f->keys, f->values, BACK_KEY_ROWS},
                 {blocks, f->means, f->mean_values, BACK_MEAN_ROWS}};
    kernel_options o;
    launch l;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
        forest_options(&o, p, 1);
        TRY(options_launch(&o, p->q->device, "near_far_back_turn.cl", "near_far_back_turn", &l));
        launch_mem(&l, "columns", parts[i].columns);
        launch_mem(&l, "values", parts[i].values);
        launch_mem(&l, "rows", p->mem[parts[i].rows]);
        launch_mem(&l, "lanes", p->mem[parts[i].rows + 1]);
        TRY(launch_run(&l, p->q, grid_of(parts[i].blocks, f->heads, f->batch, 1), (work){0}));
    }
    forest_options(&o, p, 1);
    TRY(options_launch(&o, p->q->device, "near_far_back_turn.cl", "near_far_back_turn_variances", &l));
    launch_mem(&l, "variances", f->variances);
    launch_mem(&l, "rows", p->mem[BACK_VARIANCE_ROWS]);
    TRY(launch_run(&l, p->q, grid_of(above, f->heads, f->batch, 1), (work){0}));
fail:
    return status;
}

/* The rows [begin, begin + count) of a batch entry, in `parts` equal parts that stand for batch entries. */
static op_tensor part_of(const op_tensor *t, size_t batch, size_t begin, size_t count, size_t parts) {
    op_tensor part = *t;
    if (!t->mem)
        return part;
    part = op_slice(op_slice(*t, 0, batch, 1), 2, begin, count);
    part.shape[0] = parts;
    part.shape[2] = count / parts;
    part.stride[0] = part.shape[2] * part.stride[2];
    return part;
}

/* Rows [first, first + count) and the keys of their own chunks, from `begin` to end − 1; several whole
 * chunks, or one. */
static clsplat_status own_part(const near_far_back *p, size_t batch, size_t first, size_t count, size_t begin,
                               size_t end) {
    const op_near_far_backward_args *a = p->a;
    size_t parts = count == end - begin && count % a->forest->chunk == 0 ? count / a->forest->chunk : 1,
           keys = end - begin;
    op_softmax_backward_args args = {.q = part_of(&a->q, batch, first, count, parts),
                                     .k = part_of(&a->k, batch, begin, keys, parts),
                                     .v = part_of(&a->v, batch, begin, keys, parts),
                                     .key_bias = part_of(&a->key_bias, batch, begin, keys, parts),
                                     .out = part_of(&p->forward.out, batch, first, count, parts),
                                     .lse = part_of(&p->forward.lse, batch, first, count, parts),
                                     .dout = part_of(&a->dout, batch, first, count, parts),
                                     .dq = part_of(&a->dq, batch, first, count, parts),
                                     .dk = part_of(&a->dk, batch, begin, keys, parts),
                                     .dv = part_of(&a->dv, batch, begin, keys, parts),
                                     .dkey_bias = part_of(&a->dkey_bias, batch, begin, keys, parts),
                                     .scale = a->scale,
                                     .diagonal = (int32_t)((keys - count) / parts),
                                     .joint = true};
    return op_softmax_backward(p->q, &args);
}

/* What the rows and the keys of their own chunks give each other: dq begins with it, and dk and dv of the
 * keys from `first_own` on. */
static clsplat_status own_chunks(const near_far_back *p, size_t *first_own) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    size_t keys = a->k.shape[2], queries = a->q.shape[2], chunk = a->forest->chunk,
           unseeing = queries > keys ? queries - keys : 0, offset = keys > queries ? keys - queries : 0;
    *first_own = keys;
    if (a->diagonal == OP_SEES_ALL)
        return CLSPLAT_OK;
    *first_own = offset / chunk * chunk;
    for (size_t b = 0; b < a->q.shape[0]; ++b)
        for (size_t at = offset, next; at < keys; at = next) {
            size_t begin = at / chunk * chunk;
            next = at == begin && keys - at >= chunk ? keys / chunk * chunk : begin + chunk;
            next = next < keys ? next : keys;
            TRY(own_part(p, b, at - offset + unseeing, next - at, begin, next));
        }
fail:
    return status;
}

static clsplat_status by_tiles(const near_far_back *p, size_t span, size_t ranges) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    kernel_options o;
    launch l;
    wide_options(&o, p, ranges);
    options_number(&o, "SPAN", span);
    options_number(&o, "GROUP", near_far_group(&p->forward));
    TRY(options_launch(&o, p->q->device, "near_far_back_wide.cl", "near_far_back_wide", &l));
    launch_near_far_inputs(&l, &o, &p->forward);
    launch_tensor(&l, &o, "out", &p->forward.out);
    launch_tensor(&l, &o, "lse", &p->forward.lse);
    launch_mem(&l, "kept", p->mem[BACK_KEPT]);
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_tensor(&l, &o, "dq", &a->dq);
    launch_mem(&l, "covariance_terms", p->mem[BACK_COVARIANCE_TERMS]);
    launch_mem(&l, "key_rows", p->mem[BACK_KEY_ROWS]);
    launch_mem(&l, "value_lanes", p->mem[BACK_VALUE_LANES]);
    launch_mem(&l, "mean_rows", p->mem[BACK_MEAN_ROWS]);
    launch_mem(&l, "mean_value_lanes", p->mem[BACK_MEAN_VALUE_LANES]);
    launch_mem(&l, "variance_rows", p->mem[BACK_VARIANCE_ROWS]);
    launch_near_far_sums(&l, p);
    TRY(launch_run(&l, p->q, grid_of(ranges, a->forest->heads, a->forest->batch, 1),
                   near_far_work(&p->forward)));
fail:
    return status;
}

/* The ranges' sums together, in their order. */
static clsplat_status add_ranges(const near_far_back *p, size_t ranges) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes[BACK_BUFFERS];
    near_far_back_sizes(p->a->forest, 0, bytes);
    for (int i = BACK_SLOTS; i <= BACK_VARIANCES && ranges > 1; ++i) {
        kernel_options o;
        launch l;
        forest_options(&o, p, ranges);
        TRY(options_launch(&o, p->q->device, "near_far_back_turn.cl", "near_far_back_add", &l));
        launch_uint(&l, "ranges", (uint32_t)ranges);
        launch_mem(&l, "sums", p->mem[i]);
        TRY(launch_run(&l, p->q, grid_of(bytes[i] / sizeof(float) / BLOCK, 1, 1, 1),
                       (work){.bytes = (double)(ranges + 1) * (double)bytes[i]}));
    }
fail:
    return status;
}

static clsplat_status give(const near_far_back *p, size_t first_own) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    kernel_options o;
    launch l;
    forest_options(&o, p, 1);
    options_near_far_keys(&o, a);
    TRY(options_launch(&o, p->q->device, "near_far_back_give.cl", "near_far_back_give", &l));
    launch_uint(&l, "first_own", (uint32_t)first_own);
    launch_forest_shape(&l, a->forest);
    TRY(run_near_far_keys(&l, &o, p));
fail:
    return status;
}

clsplat_status near_far_back_wide_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = args;
    op_near_far_args forward = forward_of(a);
    size_t span = span_of(q, a), tiles = near_far_tiles(&forward, span), first_own,
           ranges = near_far_back_ranges(&q->device->info.limits, a->forest, tiles);
    near_far_back p = {.turned = true};
    q->tuned = NULL; /* of this row: the plain kernels among the following have a space of their own */
    TRY(near_far_back_begin(q, a, ranges, &p));
    TRY(near_far_back_again(&p, "wide"));
    TRY(turn(&p));
    TRY(own_chunks(&p, &first_own));
    TRY(by_tiles(&p, span, ranges));
    TRY(add_ranges(&p, ranges));
    TRY(near_far_back_down(&p));
    TRY(give(&p, first_own));
fail:
    return status;
}
