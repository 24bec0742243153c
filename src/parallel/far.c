/* Near-far attention over ranks: a Barnes–Hut tree whose lower parts stay with whoever has their keys.
 *
 *   1. Every rank grows the trees of its own chunks. Keys that stand apart, the nodes of whole chunks, and
 * for covariances one sum of each piece of the sequence, go to all; the nodes above are made anew everywhere.
 *   2. Rows attend with what is there. What they would open by the errors that they accept, and is not there,
 *      is fetched: nodes below a chunk, then keys of leaves. Rows that missed anything attend again, until
 * none does. Where all is there that a row opens, its numbers are those of one process, of the same trees.
 *
 * The first time no lower node of another rank is there, and rows cost as little as they do with nothing
 * opened; the second time most have all; a third is for those that expect too large an error and accept less.
 *
 * Source: the locally essential tree of Warren and Salmon 1992, by what rows ask for instead of by bounds. */
#include "parallel/far.h"

#include <stdlib.h>
#include <string.h>

#include "attention/attend.h"
#include "attention/near_far.h"
#include "attention/stage.h"
#include "op/tree/wanted.h"
#include "runtime/buffer.h"

/* Rows that attend together, and a share of the error they accept that is beyond all rounding. */
enum { BLOCK_ROWS = 2048 };
static const float ease = 0.97f;

typedef struct far {
    ranks_call *call;
    attend_call checked; /* strides, scale */
    stage_box heads;     /* batch entries and key heads of the forest */
    size_t group;
    queue q;
    far_forest forest;
    op_tensor k, v, key_bias; /* of the run that is on the device */
    cl_mem kept, here, wanted;
    size_t kept_bytes, here_bytes, wanted_bytes;
    cl_uint *marks;
    char *done; /* blocks of rows, over both runs */
} far;

static size_t first_of(const clsplat_run runs[CLSPLAT_RUNS], int run) {
    return run ? runs[0].count : 0;
}

/* The keys of a run, where this rank's tensors have them. */
static clsplat_status bring_keys(far *a, int run) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &a->checked.tensors;
    const clsplat_part *part = &a->call->part;
    stage_box box = a->heads;
    box.begin[2] = first_of(part->keys, run);
    box.count[2] = part->keys[run].count;
    TRY(stage_in(&a->q, WORKSPACE_K, &t->k, box, &a->k));
    TRY(stage_in(&a->q, WORKSPACE_V, &t->v, box, &a->v));
    TRY(stage_in(&a->q, WORKSPACE_BIAS, &t->key_bias, box, &a->key_bias));
fail:
    return status;
}

static clsplat_status gather(far *a, int run, op_gather_phase phase) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_run keys = a->call->part.keys[run];
    if (keys.count == 0)
        return CLSPLAT_OK;
    TRY(bring_keys(a, run));
    op_gather_args args = {.forest = &a->forest.f,
                           .first_chunk = keys.begin / a->forest.f.chunk,
                           .k = a->k,
                           .v = a->v,
                           .key_bias = a->key_bias,
                           .phases = (unsigned)phase};
    TRY(op_gather(&a->q, &args));
fail:
    return status;
}

/* Keys and values of all ranks, of which only the shapes are here. */
static void describe_all(const far *a, op_tensor *k, op_tensor *v) {
    const clsplat_attention_tensors *t = &a->checked.tensors;
    *k = (op_tensor){.dtype = t->k.dtype,
                     .shape = {a->heads.count[0], a->heads.count[1], a->call->keys, t->k.shape[3]}};
    *v = (op_tensor){.dtype = t->v.dtype,
                     .shape = {a->heads.count[0], a->heads.count[1], a->call->keys, t->v.shape[3]}};
}

/* What is made of all chunks alike everywhere; no key is looked at. */
static clsplat_status gather_all(far *a, op_gather_phase phase) {
    op_gather_args args = {.forest = &a->forest.f, .phases = (unsigned)phase};
    describe_all(a, &args.k, &args.v);
    return op_gather(&a->q, &args);
}

/* A forest without a key: kernels read whole blocks, and where nothing is yet there are no keys. */
static clsplat_status plant(far *a) {
    clsplat_status status = CLSPLAT_OK;
    op_tensor k, v;
    describe_all(a, &k, &v);
    op_forest f = forest_shape(&k, &v, a->call->keys, a->call->chunk, 0);
    size_t bytes[FOREST_BUFFERS];
    forest_sizes(&f, bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i) {
        TRY(workspace_take(a->q.device, (workspace_slot)(WORKSPACE_FOREST + i), bytes[i],
                           forest_buffer(&f, i)));
        if (bytes[i] > 0)
            TRY(queue_fill(&a->q, *forest_buffer(&f, i), 0, bytes[i], 0.0f));
    }
    TRY(far_open(a->call, &a->q, &f, &a->forest));
fail:
    return status;
}

static clsplat_status find_apart(far *a) {
    clsplat_status status = CLSPLAT_OK;
    for (int run = 0; run < CLSPLAT_RUNS; ++run)
        TRY(gather(a, run, OP_GATHER_FIND));
    TRY(far_bring_down(&a->q, &a->forest, FAR_APART_BUFFER));
fail:
    return status;
}

static clsplat_status grow_own(far *a) {
    clsplat_status status = CLSPLAT_OK;
    TRY(far_bring_up(&a->q, &a->forest, FAR_APART_BUFFER));
    TRY(gather_all(a, OP_GATHER_COUNT));
    for (int run = 0; run < CLSPLAT_RUNS; ++run)
        TRY(gather(a, run, OP_GATHER_CHUNKS));
    TRY(far_bring_down(&a->q, &a->forest, FAR_ALL_BUFFERS));
fail:
    return status;
}

static clsplat_status grow_above(far *a) {
    clsplat_status status = CLSPLAT_OK;
    TRY(far_bring_up(&a->q, &a->forest, FAR_ALL_BUFFERS));
    TRY(gather_all(a, OP_GATHER_ABOVE));
    TRY(far_bring_down(&a->q, &a->forest, FAR_NODE_BUFFERS));
fail:
    return status;
}

/* The trees of all, as far as every rank has them. Collective. */
static clsplat_status grow(far *a) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_ranks *r = a->call->ranks;
    TRY(clsplat_ranks_agree(r, plant(a)));
    TRY(clsplat_ranks_agree(r, find_apart(a)));
    TRY(far_tell_all(&a->forest, FAR_LISTS));
    TRY(clsplat_ranks_agree(r, grow_own(a)));
    TRY(far_tell_all(&a->forest, FAR_APART));
    TRY(far_tell_all(&a->forest, FAR_CHUNKS));
    TRY(far_average(&a->forest));
    TRY(clsplat_ranks_agree(r, grow_above(a)));
fail:
    return status;
}

/* Rows [begin, begin + count) of a run, as the operation is to take them. */
static clsplat_status bring_rows(far *a, int run, clsplat_run rows, stage_box *box, op_near_far_args *n) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &a->checked.tensors;
    clsplat_run all = a->call->part.queries[run];
    clsplat_tensor lse = {.shape = {0, 0, 0, 1}};
    *box = (stage_box){
        {a->heads.begin[0], a->heads.begin[1] * a->group, first_of(a->call->part.queries, run) + rows.begin},
        {a->heads.count[0], a->heads.count[1] * a->group, rows.count}};
    *n = (op_near_far_args){.forest = &a->forest.f,
                            .scale = a->checked.attention.scale,
                            .diagonal = OP_SEES_ALL,
                            .keys = a->call->keys,
                            .first_key = a->call->part.keys[run].begin,
                            .tolerance = a->checked.attention.tolerance};
    if (a->call->attention.causal) {
        n->diagonal =
            (int32_t)((int64_t)a->call->keys - (int64_t)a->call->queries + (int64_t)(all.begin + rows.begin));
        n->k = a->k;
        n->v = a->v;
        n->key_bias = a->key_bias;
    }
    TRY(stage_in(&a->q, WORKSPACE_Q, &t->q, *box, &n->q));
    TRY(stage_result(a->q.device, WORKSPACE_OUT, &t->out, *box, &n->out));
    TRY(stage_result(a->q.device, WORKSPACE_LSE, &lse, *box, &n->lse));
    if (t->exact_keys.host)
        TRY(stage_result(a->q.device, WORKSPACE_EXACT_KEYS, &t->exact_keys, *box, &n->exact_keys));
    if (t->error_estimate.host)
        TRY(stage_result(a->q.device, WORKSPACE_ERROR_ESTIMATE, &t->error_estimate, *box,
                         &n->error_estimate));
fail:
    return status;
}

/* Attends, and takes the results if nothing was missed. */
static clsplat_status attend_rows(far *a, int run, clsplat_run rows, char *done) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &a->checked.tensors;
    op_wanted_args w = {.kept = a->kept, .here = a->here, .wanted = a->wanted, .ease = ease};
    bool missing = false;
    stage_box box;
    TRY(bring_rows(a, run, rows, &box, &w.forward));
    TRY(op_wanted(&a->q, &w));
    TRY(queue_download(&a->q,
                       (queue_copy){.mem = a->wanted, .host = a->marks, .row = a->wanted_bytes, .rows = 1}));
    TRY(far_miss(&a->forest, a->marks, &missing));
    if (missing)
        return CLSPLAT_OK;
    TRY(stage_out(&a->q, &w.forward.out, &t->out, box));
    TRY(stage_out(&a->q, &w.forward.lse, &t->lse, box));
    TRY(stage_out(&a->q, &w.forward.exact_keys, &t->exact_keys, box));
    TRY(stage_out(&a->q, &w.forward.error_estimate, &t->error_estimate, box));
    *done = 1;
fail:
    return status;
}

/* All rows that have not been done. `left`: whether some are left. */
static clsplat_status attend_all(far *a, int *left) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention *asked = &a->call->attention;
    char *done = a->done;
    *left = 0;
    TRY(far_bring_up(&a->q, &a->forest, FAR_ALL_BUFFERS));
    TRY(queue_upload(&a->q,
                     (queue_copy){.mem = a->here, .host = a->forest.here, .row = a->here_bytes, .rows = 1}));
    for (int run = 0; run < CLSPLAT_RUNS; ++run) {
        size_t rows = a->call->part.queries[run].count;
        if (rows > 0 && asked->causal && a->call->part.keys[run].count > 0)
            TRY(bring_keys(a, run));
        for (size_t begin = 0; begin < rows; begin += BLOCK_ROWS, ++done) {
            size_t count = rows - begin < BLOCK_ROWS ? rows - begin : BLOCK_ROWS;
            if (!*done)
                TRY(attend_rows(a, run, (clsplat_run){begin, count}, done));
            *left += !*done;
            if (asked->progress && !asked->progress(asked->progress_user, a->call->done))
                TRY(log_error(a->q.device->lib, CLSPLAT_CANCELLED, "stopped by the caller"));
        }
    }
fail:
    return status;
}

static clsplat_status make_room(far *a) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = &a->forest.f;
    size_t rows = ranks_rows(a->call->part.queries), heads = f->batch * f->heads;
    a->kept_bytes = heads * a->group * BLOCK_ROWS * OP_KEPT * sizeof(float);
    a->here_bytes = heads * f->chunks * sizeof(cl_uint);
    a->wanted_bytes = heads * f->first_block[f->levels] * sizeof(cl_uint);
    a->marks = malloc(a->wanted_bytes);
    a->done = calloc(rows / BLOCK_ROWS + CLSPLAT_RUNS + 1, 1);
    if (!a->marks || !a->done)
        TRY(log_error(a->q.device->lib, CLSPLAT_MEMORY, "no memory for the marks of %zu nodes",
                      8 * a->wanted_bytes));
    TRY(buffer_create(a->q.device, a->kept_bytes, &a->kept));
    TRY(buffer_create(a->q.device, a->here_bytes, &a->here));
    TRY(buffer_create(a->q.device, a->wanted_bytes, &a->wanted));
fail:
    return status;
}

/* Batch entries and key heads of `heads`. Collective. */
static clsplat_status attend_heads(far *a) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_ranks *r = a->call->ranks;
    TRY(grow(a));
    TRY(clsplat_ranks_agree(r, make_room(a)));
    for (int left = 1, mine = 0; left;) {
        TRY(clsplat_ranks_agree(r, attend_all(a, &mine)));
        TRY_MPI(r, MPI_Allreduce(&mine, &left, 1, MPI_INT, MPI_MAX, r->comm));
        if (left)
            TRY(far_fetch(&a->forest));
        a->call->done += 0.3 * (1 - a->call->done);
    }
fail:
    buffer_release(a->q.device, a->kept_bytes, &a->kept);
    buffer_release(a->q.device, a->here_bytes, &a->here);
    buffer_release(a->q.device, a->wanted_bytes, &a->wanted);
    free(a->marks);
    free(a->done);
    a->marks = NULL;
    a->done = NULL;
    far_close(&a->forest);
    return status;
}

/* Where a rank has no rows of one side, one that nobody reads stands for them. */
static clsplat_status check(far *a, int *whole) {
    clsplat_status status = CLSPLAT_OK;
    ranks_call *c = a->call;
    clsplat_attention_tensors t = c->tensors;
    clsplat_attention attention = c->attention;
    static float nobody;
    if (ranks_rows(c->part.keys) == 0) {
        t.k.shape[2] = t.v.shape[2] = 1;
        t.k.host = t.v.host = &nobody;
        t.key_bias = (clsplat_tensor){0};
    }
    if (ranks_rows(c->part.queries) == 0) {
        t.q.shape[2] = 1;
        t.q.host = &nobody;
        t.out = clsplat_tensor_host(CLSPLAT_F32, t.q.shape[0], t.q.shape[1], 1, t.v.shape[3], &nobody);
        t.lse = t.exact_keys = t.error_estimate = (clsplat_tensor){0};
    }
    attention.chunk = c->chunk;
    TRY(attend_check(c->device, attention, t, true, &a->checked));
    attend_call all = a->checked;
    all.tensors.k.shape[2] = all.tensors.v.shape[2] = c->keys;
    *whole = near_far_fits(&c->device->info.limits, &all);
fail:
    return status;
}

clsplat_status far_attend(ranks_call *c) {
    clsplat_status status = CLSPLAT_OK;
    far a = {.call = c};
    int mine = 0, whole = 0;
    TRY(clsplat_ranks_agree(c->ranks, check(&a, &mine)));
    TRY_MPI(c->ranks, MPI_Allreduce(&mine, &whole, 1, MPI_INT, MPI_MIN, c->ranks->comm));
    const size_t *k = a.checked.tensors.k.shape;
    a.group = a.checked.tensors.q.shape[1] / k[1];
    attend_begin(c->device, &a.checked, 0, NULL, &a.q);
    a.heads.count[0] = whole ? k[0] : 1;
    a.heads.count[1] = whole ? k[1] : 1;
    for (size_t b = 0; b < k[0]; b += a.heads.count[0])
        for (size_t h = 0; h < k[1]; h += a.heads.count[1]) {
            a.heads.begin[0] = b;
            a.heads.begin[1] = h;
            TRY(attend_heads(&a));
        }
fail:
    return status;
}
