/* Attention of tensors in host memory: what fits the device goes through in one piece, what does not
 * is cut along batch, heads, queries and keys. Blocks of keys meet by the merging of states: in out and
 * lse for softmax attention, in the splats' carry for Gaussian attention. */
#include <math.h>

#include "attention/attend.h"
#include "attention/carry.h"
#include "attention/gaussian.h"
#include "attention/near_far.h"
#include "attention/stage.h"

/* Multiply-adds of one launch: about a second on two CPU cores, so that progress can be shown and the
 * call be cancelled; and on NVIDIA's devices, whose multiprocessors all have 128 lanes. */
static double work_per_block(const clsplat_limits *limits) {
    return limits->nvidia_capability ? 1e11 * limits->compute_units : 2e10;
}

/* How much of each dimension one block has. */
typedef struct block_size {
    size_t batch, kv_heads, queries, keys;
} block_size;

/* The walk over the blocks. */
typedef struct walk {
    const attend_call *call;
    size_t batch, kv_heads, group, queries, keys; /* of the whole; group = H / Hk */
    block_size size;
    stage_box by_key, by_query;           /* the current block */
    gaussian_call block;                  /* its tensors on the device */
    op_tensor exact_keys, error_estimate; /* near and far: likewise */
    op_forest forest;                     /* of the current heads */
    op_splats splats;                     /* with its first head */
    queue queue;
    double done, total; /* for progress, in rows or pairs of rows */
} walk;

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static double block_bytes(const clsplat_tensor *t, double rows) {
    return t->host ? rows * (double)t->shape[3] * (double)clsplat_dtype_size(t->dtype) : 0;
}

/* Near and far: of a forest, the largest buffer and all together. */
static void forest_bytes(const walk *w, double *largest, double *total) {
    const clsplat_attention_tensors *t = &w->call->tensors;
    op_tensor k = {.shape = {w->size.batch, w->size.kv_heads, w->keys, t->k.shape[3]}},
              v = {.shape = {w->size.batch, w->size.kv_heads, w->keys, t->v.shape[3]}};
    size_t bytes[FOREST_BUFFERS];
    op_forest forest =
        forest_shape(&k, &v, w->keys, w->call->attention.chunk, w->call->attention.sparse_topk);
    forest_sizes(&forest, bytes);
    *largest = *total = 0;
    for (int i = 0; i < FOREST_BUFFERS; ++i) {
        *largest = fmax(*largest, (double)bytes[i]);
        *total += (double)bytes[i];
    }
}

static bool memory_fits(const walk *w, const clsplat_limits *limits) {
    const clsplat_attention_tensors *t = &w->call->tensors;
    double heads = (double)(w->size.batch * w->size.kv_heads);
    double queries = heads * (double)w->group * (double)w->size.queries, keys = heads * (double)w->size.keys;
    double bytes[] = {
        block_bytes(&t->q, queries),
        block_bytes(&t->k, keys),
        block_bytes(&t->v, keys),
        block_bytes(&t->key_bias, keys),
        4 * queries * (double)t->v.shape[3],
        4 * queries,
        0, /* a forest's */
    };
    double total = w->call->attention.method == CLSPLAT_NEAR_FAR ? 8 * queries : 0, forest;
    if (w->call->attention.method == CLSPLAT_NEAR_FAR) {
        forest_bytes(w, &bytes[6], &forest);
        total += forest - bytes[6];
    }
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; ++i) {
        if (bytes[i] > (double)limits->max_allocation)
            return false;
        total += bytes[i];
    }
    return total <= (double)limits->global_memory / 2;
}

static bool is_quick(const walk *w, const clsplat_limits *limits) {
    const clsplat_attention_tensors *t = &w->call->tensors;
    double sources = w->call->splats ? 2 * (double)w->call->splats->count : (double)w->size.keys;
    if (w->call->attention.method == CLSPLAT_NEAR_FAR)
        sources /= 4;
    double rows = (double)(w->size.batch * w->size.kv_heads * w->group) * (double)w->size.queries;
    return w->size.queries <= 256 ||
           rows * sources * (double)(t->q.shape[3] + t->v.shape[3]) <= work_per_block(limits);
}

static bool heads_fit(const walk *w, const clsplat_limits *limits) {
    const clsplat_attention_tensors *t = &w->call->tensors;
    if (!w->call->splats)
        return true;
    gaussian_call whole = {.splats = w->call->splats};
    whole.q.shape[1] = t->q.shape[1];
    whole.k.shape[1] = t->k.shape[1];
    whole.v.shape[3] = t->v.shape[3];
    return gaussian_heads_fit(limits, &whole, w->size.batch, w->size.kv_heads);
}

static size_t half_of(size_t n) {
    return (n + 1) / 2;
}

/* Halves what is cheapest to cut until a block fits, or cannot be cut further. Queries and keys of causal
 * Gaussian blocks advance together, in multiples of the chunk. */
static void choose_size(walk *w, const clsplat_limits *limits) {
    bool together = w->call->splats && w->call->attention.causal,
         whole = w->call->attention.method == CLSPLAT_NEAR_FAR;
    block_size *s = &w->size;
    *s = (block_size){w->batch, w->kv_heads, together ? smaller(w->queries, w->keys) : w->queries, w->keys};
    for (;;) {
        bool fits = memory_fits(w, limits), quick = is_quick(w, limits),
             small = heads_fit(w, limits) && fits && quick;
        if (small)
            return;
        if (s->batch > 1)
            s->batch = half_of(s->batch);
        else if (s->kv_heads > 1)
            s->kv_heads = half_of(s->kv_heads);
        else if (together && s->keys > GAUSSIAN_CHUNK) {
            s->keys = (half_of(s->keys) + GAUSSIAN_CHUNK - 1) / GAUSSIAN_CHUNK * GAUSSIAN_CHUNK;
            s->queries = smaller(s->queries, s->keys);
        } else if (!together && s->queries > 1 && (whole || !quick || s->queries >= s->keys))
            s->queries = half_of(s->queries);
        else if (!together && !whole && s->keys > 1)
            s->keys = half_of(s->keys);
        else
            return; /* whoever allocates will say what is too large */
    }
}

static clsplat_status advance(walk *w, double rows) {
    const clsplat_attention *a = &w->call->attention;
    w->done += rows;
    if (!a->progress || a->progress(a->progress_user, fmin(w->done / w->total, 1)))
        return CLSPLAT_OK;
    return log_error(w->queue.device->lib, CLSPLAT_CANCELLED, "stopped by the caller");
}

static void place(stage_box *box, size_t begin, size_t count) {
    box->begin[2] = begin;
    box->count[2] = count;
}

static clsplat_status bring_keys(walk *w, size_t begin, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &w->call->tensors;
    attend_keys none = {0}, *left = w->call->left ? w->call->left : &none;
    place(&w->by_key, begin, count);
    if (!left->k.mem || left->begin != begin || left->k.shape[2] != count) {
        left->k.mem = NULL;
        TRY(stage_in(&w->queue, WORKSPACE_V, &t->v, w->by_key, &left->v));
        TRY(stage_in(&w->queue, WORKSPACE_BIAS, &t->key_bias, w->by_key, &left->key_bias));
        TRY(stage_in(&w->queue, WORKSPACE_K, &t->k, w->by_key, &left->k));
        left->begin = begin;
    }
    w->block.k = left->k;
    w->block.v = left->v;
    w->block.key_bias = left->key_bias;
fail:
    return status;
}

static clsplat_status bring_queries(walk *w, size_t begin, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &w->call->tensors;
    clsplat_tensor lse = {
        .shape = {0, 0, 0, 1}}; /* the kernels write one, whether the caller wants it or not */
    place(&w->by_query, begin, count);
    TRY(stage_in(&w->queue, WORKSPACE_Q, &t->q, w->by_query, &w->block.q));
    TRY(stage_result(w->queue.device, WORKSPACE_OUT, &t->out, w->by_query, &w->block.out));
    TRY(stage_result(w->queue.device, WORKSPACE_LSE, &lse, w->by_query, &w->block.lse));
    if (t->exact_keys.host)
        TRY(stage_result(w->queue.device, WORKSPACE_EXACT_KEYS, &t->exact_keys, w->by_query, &w->exact_keys));
    if (t->error_estimate.host)
        TRY(stage_result(w->queue.device, WORKSPACE_ERROR_ESTIMATE, &t->error_estimate, w->by_query,
                         &w->error_estimate));
fail:
    return status;
}

static clsplat_status take_results(walk *w) {
    clsplat_status status = CLSPLAT_OK;
    TRY(stage_out(&w->queue, &w->block.out, &w->call->tensors.out, w->by_query));
    TRY(stage_out(&w->queue, &w->block.lse, &w->call->tensors.lse, w->by_query));
    TRY(stage_out(&w->queue, &w->exact_keys, &w->call->tensors.exact_keys, w->by_query));
    TRY(stage_out(&w->queue, &w->error_estimate, &w->call->tensors.error_estimate, w->by_query));
fail:
    return status;
}

/* The diagonal as the current block counts its queries and keys. */
static int32_t block_diagonal(const walk *w) {
    if (!w->call->attention.causal)
        return OP_SEES_ALL;
    int64_t d = (int64_t)w->call->diagonal + (int64_t)w->by_query.begin[2] - (int64_t)w->by_key.begin[2];
    return d >= OP_SEES_ALL ? OP_SEES_ALL : d < -OP_SEES_ALL ? -OP_SEES_ALL : (int32_t)d;
}

static clsplat_status softmax_block(walk *w, bool accumulate) {
    const gaussian_call *b = &w->block;
    op_softmax_args args = {.q = b->q,
                            .k = b->k,
                            .v = b->v,
                            .key_bias = b->key_bias,
                            .out = b->out,
                            .lse = b->lse,
                            .scale = w->call->attention.scale,
                            .diagonal = block_diagonal(w),
                            .window = w->call->window,
                            .accumulate = accumulate};
    return op_softmax(&w->queue, &args);
}

static clsplat_status softmax_heads(walk *w) {
    clsplat_status status = CLSPLAT_OK;
    bool whole = w->size.keys == w->keys;
    if (whole)
        TRY(bring_keys(w, 0, w->keys));
    for (size_t i = 0; i < w->queries; i += w->size.queries) {
        size_t queries = smaller(w->size.queries, w->queries - i);
        TRY(bring_queries(w, i, queries));
        for (size_t j = 0; j < w->keys; j += w->size.keys) {
            size_t keys = smaller(w->size.keys, w->keys - j);
            if (!whole)
                TRY(bring_keys(w, j, keys));
            TRY(softmax_block(w, j > 0));
        }
        TRY(take_results(w));
        TRY(advance(w, (double)(w->by_key.count[0] * w->by_key.count[1] * queries)));
    }
fail:
    return status;
}

static clsplat_status near_far_heads(walk *w) {
    clsplat_status status = CLSPLAT_OK;
    TRY(bring_keys(w, 0, w->keys));
    TRY(near_far_plant(&w->queue, w->call, w->block.k, w->block.v, w->block.key_bias, &w->forest));
    for (size_t i = 0; i < w->queries; i += w->size.queries) {
        size_t queries = smaller(w->size.queries, w->queries - i);
        TRY(bring_queries(w, i, queries));
        op_near_far_args args = near_far_args(w->call, &w->forest);
        args.q = w->block.q;
        args.k = w->block.k;
        args.v = w->block.v;
        args.key_bias = w->block.key_bias;
        args.out = w->block.out;
        args.lse = w->block.lse;
        args.exact_keys = w->exact_keys;
        args.error_estimate = w->error_estimate;
        args.diagonal = block_diagonal(w);
        TRY(op_near_far(&w->queue, &args));
        TRY(take_results(w));
        TRY(advance(w, (double)(w->by_key.count[0] * w->by_key.count[1] * queries)));
    }
fail:
    return status;
}

static clsplat_status accumulate_heads(walk *w) {
    clsplat_status status = CLSPLAT_OK;
    double heads = (double)(w->by_key.count[0] * w->by_key.count[1]);
    for (size_t j = 0; j < w->keys; j += w->size.keys) {
        size_t keys = smaller(w->size.keys, w->keys - j);
        TRY(bring_keys(w, j, keys));
        w->block.q.shape[1] = w->by_query.count[1]; /* all that accumulating has to know of the queries */
        TRY(gaussian_accumulate(&w->queue, &w->block, j == 0));
        TRY(clsplat_device_finish(w->queue.device));
        TRY(advance(w, heads * (double)keys));
    }
    if (w->call->half == ATTEND_ACCUMULATE)
        TRY(carry_down(&w->queue, &w->block, w->call, w->by_key));
fail:
    return status;
}

static clsplat_status gaussian_heads(walk *w) {
    clsplat_status status = CLSPLAT_OK;
    double heads = (double)(w->by_key.count[0] * w->by_key.count[1]);
    TRY(w->call->half == ATTEND_QUERY ? carry_up(&w->queue, &w->block, w->call, w->by_key)
                                      : accumulate_heads(w));
    for (size_t i = 0; i < w->queries; i += w->size.queries) {
        size_t queries = smaller(w->size.queries, w->queries - i);
        TRY(bring_queries(w, i, queries));
        TRY(gaussian_query(&w->queue, &w->block));
        TRY(take_results(w));
        TRY(advance(w, heads * (double)queries));
    }
fail:
    return status;
}

/* Blocks of keys, each with the queries whose last key it has. */
static clsplat_status causal_heads(walk *w) {
    clsplat_status status = CLSPLAT_OK;
    double heads = (double)(w->by_key.count[0] * w->by_key.count[1]);
    size_t sees_none = w->call->diagonal < 0 ? smaller((size_t)-w->call->diagonal, w->queries) : 0;
    place(&w->by_query, 0, sees_none);
    stage_fill(&w->call->tensors.out, w->by_query, 0.0f);
    stage_fill(&w->call->tensors.lse, w->by_query, -INFINITY);
    if (w->call->half == ATTEND_QUERY)
        TRY(carry_up(&w->queue, &w->block, w->call, w->by_key));
    for (size_t j = 0, i = sees_none; j < w->keys; j += w->size.keys) {
        size_t keys = smaller(w->size.keys, w->keys - j);
        int64_t end = (int64_t)(j + keys) - w->call->diagonal;
        size_t queries = end > (int64_t)i ? (size_t)end - i : 0;
        TRY(bring_keys(w, j, keys));
        TRY(bring_queries(w, i, queries));
        w->block.diagonal = block_diagonal(w);
        TRY(gaussian_causal(&w->queue, &w->block, j == 0 && w->call->half == ATTEND_WHOLE));
        TRY(take_results(w));
        TRY(clsplat_device_finish(w->queue.device));
        TRY(advance(w, heads * (double)(keys + queries)));
        i += queries;
    }
fail:
    return status;
}

static clsplat_status attend_heads(walk *w, size_t batch, size_t kv_head) {
    size_t batches = smaller(w->size.batch, w->batch - batch),
           heads = smaller(w->size.kv_heads, w->kv_heads - kv_head);
    w->by_key = (stage_box){{batch, kv_head, 0}, {batches, heads, 0}};
    w->by_query = (stage_box){{batch, kv_head * w->group, 0}, {batches, heads * w->group, 0}};
    if (w->call->attention.method == CLSPLAT_NEAR_FAR)
        return near_far_heads(w);
    if (!w->call->splats)
        return softmax_heads(w);
    w->splats = *w->call->splats;
    w->splats.first_head += kv_head * w->group;
    w->block =
        (gaussian_call){.splats = &w->splats, .mixing = w->call->attention.mixing, .diagonal = OP_SEES_ALL};
    if (w->call->half == ATTEND_ACCUMULATE)
        return accumulate_heads(w);
    return w->call->attention.causal ? causal_heads(w) : gaussian_heads(w);
}

clsplat_status attend_blocks(clsplat_device *device, const attend_call *call) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &call->tensors;
    walk w = {.call = call,
              .batch = t->q.shape[0],
              .kv_heads = t->k.shape[1],
              .group = t->q.shape[1] / t->k.shape[1],
              .queries = t->q.shape[2],
              .keys = t->k.shape[2]};
    w.total = (double)(w.batch * w.kv_heads) * (double)(w.queries + (call->splats ? w.keys : 0));
    choose_size(&w, &device->info.limits);
    attend_begin(device, call, 0, NULL, &w.queue);
    for (size_t b = 0; b < w.batch; b += w.size.batch)
        for (size_t h = 0; h < w.kv_heads; h += w.size.kv_heads)
            TRY(attend_heads(&w, b, h));
fail:
    return status;
}
