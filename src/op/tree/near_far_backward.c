#include "op/tree/near_far_backward.h"

#include <math.h>
#include <string.h>

#include "op/families.h"
#include "runtime/buffer.h"

void near_far_back_sizes(const op_forest *f, size_t rows, size_t bytes[BACK_BUFFERS]) {
    size_t heads = f->batch * f->heads, slots = f->chunks * f->chunk + forest_apart_room(f),
           nodes = f->first_block[f->levels] * 16, below = f->first_block[f->top] * 16,
           runs = heads * (f->chunks / OP_FOREST_RUN), notes = rows * f->chunks,
           columns = f->dim + f->value_dim;
    const size_t numbers[BACK_BUFFERS] = {[BACK_OUT] = rows * f->value_dim,
                                          [BACK_LSE] = rows,
                                          [BACK_KEPT] = rows * OP_KEPT,
                                          [BACK_ROWS] = rows * OP_BACK_ROW_NUMBERS,
                                          [BACK_COVARIANCE_TERMS] = rows * f->value_dim,
                                          [BACK_SLOTS] = heads * slots * (columns + 1),
                                          [BACK_NODES] = heads * nodes * (columns + OP_BACK_NODE_MORE),
                                          [BACK_VARIANCES] = heads * (nodes - below) * f->dim,
                                          [BACK_RUN_MASSES] = runs,
                                          [BACK_RUN_SUMS] = runs * f->dim * f->value_dim,
                                          [BACK_RUN_SLOPES] = runs * f->dim * near_far_back_strips(f),
                                          [BACK_HASHES] = 2 * heads * f->chunks * f->chunk,
                                          [BACK_PLACES] = heads * f->chunks * f->chunk,
                                          [BACK_BELOW] = heads * below * f->dim,
                                          [BACK_NOTES] = notes,
                                          [BACK_SPREADS] = notes,
                                          [BACK_SPREADS_BACK] = notes,
                                          [BACK_KEY_ROWS] = heads * slots * f->dim,
                                          [BACK_VALUE_LANES] = heads * slots * f->value_dim,
                                          [BACK_MEAN_ROWS] = heads * nodes * f->dim,
                                          [BACK_MEAN_VALUE_LANES] = heads * nodes * f->value_dim,
                                          [BACK_VARIANCE_ROWS] = heads * (nodes - below) * f->dim};
    for (int i = 0; i < BACK_BUFFERS; ++i)
        bytes[i] = numbers[i] * sizeof(cl_float);
}

static bool is_sum(int buffer) {
    return buffer >= BACK_SLOTS && buffer <= BACK_VARIANCES;
}

static bool is_wanted(int buffer, bool turned, bool noted) {
    return buffer == BACK_BELOW                                  ? !turned && !noted
           : buffer == BACK_KEPT                                 ? !noted
           : buffer >= BACK_NOTES && buffer <= BACK_SPREADS_BACK ? noted
                                                                 : turned || buffer < BACK_KEY_ROWS;
}

void op_near_far_backward_bytes(const clsplat_limits *limits, const op_forest *f, size_t rows,
                                double *largest, double *total) {
    size_t bytes[BACK_BUFFERS];
    bool turned = near_far_back_turns(limits, f), noted = near_far_back_notes(limits, f, rows);
    double ranges = turned ? (double)near_far_back_ranges(limits, f, rows) : 1;
    near_far_back_sizes(f, rows, bytes);
    *largest = *total = 0;
    for (int i = 0; i < BACK_BUFFERS; ++i) {
        if (!is_wanted(i, turned, noted))
            continue;
        double all = (is_sum(i) ? ranges : 1) * (double)bytes[i];
        *largest = all > *largest ? all : *largest;
        *total += all;
    }
}

static_assert(WORKSPACE_BACK_LAST - WORKSPACE_BACK + 1 == (int)BACK_BUFFERS,
              "a slot of workspaces for each buffer");

/* A dense tensor of a row's results in float32. */
static op_tensor rows_of(const op_tensor *q, size_t columns, cl_mem mem) {
    size_t head = q->shape[2] * columns;
    return (op_tensor){.mem = mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {q->shape[0], q->shape[1], q->shape[2], columns},
                       .stride = {q->shape[1] * head, head, columns}};
}

/* Whether the caller has what the forward pass left. */
static bool is_given(const near_far_back *p) {
    return p->noted ? p->a->notes : p->a->kept;
}

clsplat_status near_far_back_begin(queue *q, const op_near_far_backward_args *a, size_t ranges,
                                   near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes[BACK_BUFFERS];
    p->q = q;
    p->a = a;
    near_far_back_sizes(a->forest, a->q.shape[0] * a->q.shape[1] * a->q.shape[2], bytes);
    for (int i = 0; i < BACK_BUFFERS; ++i) {
        bool sums = is_sum(i);
        if ((is_given(p) && (i <= BACK_KEPT || i == BACK_NOTES)) || !is_wanted(i, p->turned, p->noted))
            continue;
        TRY(workspace_take(q->device, (workspace_slot)(WORKSPACE_BACK + i), (sums ? ranges : 1) * bytes[i],
                           &p->mem[i]));
        if (sums)
            TRY(queue_fill(q, p->mem[i], 0, ranges * bytes[i], 0.0f));
    }
    if (is_given(p))
        p->mem[p->noted ? BACK_NOTES : BACK_KEPT] = p->noted ? a->notes : a->kept;
    p->forward = (op_near_far_args){
        .forest = a->forest,
        .q = a->q,
        .k = a->k,
        .v = a->v,
        .key_bias = a->key_bias,
        .out = is_given(p) ? a->out : rows_of(&a->q, a->forest->value_dim, p->mem[BACK_OUT]),
        .lse = is_given(p) ? a->lse : rows_of(&a->q, 1, p->mem[BACK_LSE]),
        .kept = p->noted ? NULL : p->mem[BACK_KEPT],
        .notes = p->noted ? p->mem[BACK_NOTES] : NULL,
        .scale = a->scale,
        .diagonal = a->diagonal,
        .keys = a->k.shape[2],
        .tolerance = a->tolerance,
        .sparse_topk = a->sparse_topk};
fail:
    return status;
}

clsplat_status near_far_back_again(near_far_back *p, const char *row) {
    const clsplat_limits *limits = &p->q->device->info.limits;
    const op_variant *variant = op_row(&op_near_far_family, row, limits, &p->forward);
    if (!variant)
        variant = op_row(&op_near_far_family, "plain", limits, &p->forward);
    return is_given(p) ? CLSPLAT_OK : op_run(p->q, variant, NULL, &p->forward);
}

void options_near_far_back(kernel_options *o, const near_far_back *p, bool alone) {
    options_plain(o, p->q);
    options_narrow(o, p->q->device);
    if (alone && limits_are_wide(&p->q->device->info.limits)) {
        text_free(&o->text);
        *o = (kernel_options){.group = 1};
        options_number(o, "WG", 1);
    }
    options_near_far_back_add(o, p);
}

void options_near_far_back_add(kernel_options *o, const near_far_back *p) {
    size_t bytes[BACK_BUFFERS];
    options_near_far(o, &p->forward);
    options_number(o, "ROW_SUMS", p->turned);
    options_number(o, "STRIP", p->a->forest->value_dim / near_far_back_strips_of(p));
    options_tensor(o, "DOUT", &p->a->dout);
    options_tensor(o, "DQ", &p->a->dq);
    near_far_back_sizes(p->a->forest, p->a->q.shape[0] * p->a->q.shape[1] * p->a->q.shape[2], bytes);
    for (int i = 0; i < BACK_BUFFERS; ++i)
        options_elements(o, (double)bytes[i] / sizeof(cl_float));
}

clsplat_status near_far_back_open(const near_far_back *p, kernel_options *o, const char *source,
                                  const char *kernel, launch *l) {
    clsplat_status status = options_launch(o, p->q->device, source, kernel, l);
    if (status == CLSPLAT_OK)
        launch_near_far_inputs(l, o, &p->forward);
    return status;
}

void launch_near_far_sums(launch *l, const near_far_back *p) {
    launch_mem(l, "slot_sums", p->mem[BACK_SLOTS]);
    launch_mem(l, "node_sums", p->mem[BACK_NODES]);
    launch_mem(l, "variance_sums", p->mem[BACK_VARIANCES]);
}

void near_far_back_launch_rows(launch *l, const kernel_options *o, const near_far_back *p) {
    launch_tensor(l, o, "out", &p->forward.out);
    launch_tensor(l, o, "lse", &p->forward.lse);
    if (!p->noted)
        launch_mem(l, "kept", p->mem[BACK_KEPT]);
    launch_tensor(l, o, "dout", &p->a->dout);
    launch_tensor(l, o, "dq", &p->a->dq);
    launch_mem(l, "row_numbers", p->mem[BACK_ROWS]);
    launch_mem(l, "covariance_terms", p->mem[BACK_COVARIANCE_TERMS]);
}

static clsplat_status by_rows(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    kernel_options o;
    launch l;
    options_near_far_back(&o, p, false);
    if (!limits_are_wide(&p->q->device->info.limits))
        options_eager(&o, p->q->device);
    TRY(near_far_back_open(p, &o, "near_far_back_rows.cl", "near_far_back_rows", &l));
    near_far_back_launch_rows(&l, &o, p);
    TRY(launch_run(&l, p->q, grid_of(a->q.shape[2], a->q.shape[1], a->q.shape[0], o.group),
                   near_far_work(&p->forward)));
fail:
    return status;
}

/* Of one head the nodes from leaves up, slots, or slots of keys apart: a work-item each, or several of a
 * group for those of which there are few. */
static clsplat_status by_items(const near_far_back *p, const char *kernel, size_t items, bool few) {
    enum { LANES = 16 };
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    kernel_options o;
    launch l;
    if (items == 0)
        return CLSPLAT_OK;
    options_near_far_back(&o, p, true);
    size_t lanes = LANES;
    while (o.group % lanes) /* lanes of a node meet at barriers */
        lanes /= 2;
    options_number(&o, "LANES", lanes);
    TRY(near_far_back_open(p, &o, "near_far_back_nodes.cl", kernel, &l));
    launch_mem(&l, "kept", p->mem[BACK_KEPT]);
    launch_tensor(&l, &o, "dout", &p->a->dout);
    launch_mem(&l, "row_numbers", p->mem[BACK_ROWS]);
    launch_near_far_sums(&l, p);
    if (strcmp(kernel, "near_far_back_nodes") == 0)
        launch_mem(&l, "below", p->mem[BACK_BELOW]);
    TRY(launch_run(&l, p->q, grid_of(few ? items * lanes : items, f->heads, f->batch, o.group),
                   near_far_work(&p->forward)));
fail:
    return status;
}

static size_t nodes_of(const op_forest *f, size_t level) {
    return (f->chunks * f->chunk + forest_size(f, level) - 1) / forest_size(f, level);
}

static clsplat_status by_nodes(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    size_t nodes = 0;
    for (size_t level = 0; level < f->levels; ++level)
        nodes += nodes_of(f, level);
    TRY(by_items(p, "near_far_back_nodes", nodes, true));
    TRY(by_items(p, "near_far_back_slots", f->chunks * f->chunk, false));
    TRY(by_items(p, "near_far_back_apart", forest_apart_room(f), true));
fail:
    return status;
}

static clsplat_status down(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    kernel_options o;
    launch l;
    for (size_t level = f->levels - 1; level > f->top && !p->noted; --level) {
        options_near_far_back(&o, p, true);
        TRY(options_launch(&o, p->q->device, "near_far_back_down.cl", "near_far_back_down", &l));
        launch_uint(&l, "level", (uint32_t)level);
        launch_near_far_inputs(&l, &o, &p->forward);
        launch_near_far_sums(&l, p);
        TRY(launch_run(&l, p->q, grid_of(nodes_of(f, level), f->heads, f->batch, o.group), (work){0}));
    }
    for (size_t level = 0; level < f->top && !p->turned; ++level) {
        options_near_far_back(&o, p, true);
        TRY(options_launch(&o, p->q->device, "near_far_back_down.cl", "near_far_back_inner", &l));
        launch_uint(&l, "level", (uint32_t)level);
        launch_near_far_inputs(&l, &o, &p->forward);
        launch_mem(&l, "run_sums", p->mem[BACK_RUN_SUMS]);
        launch_mem(&l, "run_slopes", p->mem[BACK_RUN_SLOPES]);
        launch_near_far_sums(&l, p);
        TRY(launch_run(&l, p->q, grid_of(nodes_of(f, level), f->heads, f->batch, o.group), (work){0}));
    }
    options_near_far_back(&o, p, true);
    TRY(near_far_back_open(p, &o, p->turned ? "near_far_back_chunks_wide.cl" : "near_far_back_down.cl",
                           p->turned ? "near_far_back_chunks_wide" : "near_far_back_chunks", &l));
    if (p->turned) {
        launch_mem(&l, "key_rows", p->mem[BACK_KEY_ROWS]);
        launch_mem(&l, "run_sums", p->mem[BACK_RUN_SUMS]);
        launch_mem(&l, "run_slopes", p->mem[BACK_RUN_SLOPES]);
    } else if (!p->noted)
        launch_mem(&l, "below", p->mem[BACK_BELOW]);
    launch_near_far_sums(&l, p);
    TRY(launch_run(&l, p->q,
                   grid_of(p->turned ? f->chunks : f->chunks * o.group, f->heads, f->batch, o.group),
                   (work){0}));
fail:
    return status;
}

clsplat_status near_far_back_down(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    TRY(near_far_back_runs(p));
    TRY(down(p));
    TRY(near_far_back_places(p));
fail:
    return status;
}

static clsplat_status run(queue *q, const void *args, bool noted) {
    clsplat_status status = CLSPLAT_OK;
    near_far_back p = {.noted = noted};
    TRY(near_far_back_begin(q, args, 1, &p));
    TRY(near_far_back_again(&p, noted ? "local" : "plain"));
    TRY(noted ? near_far_back_tiles(&p) : by_rows(&p));
    if (!noted)
        TRY(by_nodes(&p));
    TRY(near_far_back_down(&p));
    TRY(near_far_back_keys(&p));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    return run(q, args, false);
}

static bool local_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_backward_args *a = args;
    return near_far_back_notes(limits, a->forest, a->q.shape[0] * a->q.shape[1] * a->q.shape[2]);
}

static clsplat_status local_run(queue *q, const void *args) {
    return run(q, args, true);
}

static void shape_of(const void *args, tune_shape *shape) {
    const op_near_far_backward_args *a = args;
    op_near_far_args forward = {
        .forest = a->forest, .q = a->q, .diagonal = a->diagonal, .keys = a->k.shape[2]};
    op_near_far_family.shape(&forward, shape);
}

static const op_variant variants[] = {
    {"plain",
     "relative error of a gradient below 1e-4 in float32 against the same trees and the same opened set",
     op_fits_all, plain_run, "near_far_back_nodes.cl", &plain_space},
    {"local", "the same", local_fits, local_run, "near_far_back_local.cl", &tune_nothing},
    {"wide", "the same", near_far_back_wide_fits, near_far_back_wide_run, "near_far_back_wide.cl",
     &near_far_back_wide_space},
};
const op_family op_near_far_backward_family = {"near_far_backward", variants,
                                               sizeof variants / sizeof *variants, shape_of};

clsplat_status op_near_far_backward(queue *q, const op_near_far_backward_args *args) {
    return op_dispatch(q, &op_near_far_backward_family, args);
}
