#include "report/look.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op/tree/forest.h"
#include "runtime/buffer.h"

/* What a layer's look needs on the device, and brings back. */
typedef struct bench {
    queue q;
    const look_source *from;
    look *l;
    size_t layer;
    op_forest forest;                  /* levels 0: exact attention */
    op_tensor near, exact;             /* [1,H,count,Dv] */
    op_tensor lse, exact_keys, expect; /* [1,H,count,1] */
    op_tensor squares;                 /* [1,H,count,2] */
} bench;

clsplat_status look_create(clsplat *lib, look shape, const uint32_t *positions, look *l) {
    size_t rows = shape.layers * shape.heads * shape.count;
    *l = shape;
    l->positions = malloc((shape.count + 1) * sizeof *positions);
    l->rows = calloc(rows + 1, sizeof *l->rows);
    l->apart = calloc(shape.layers * shape.kv_heads * shape.keys + 1, 1);
    if (!l->positions || !l->rows || !l->apart) {
        look_free(l);
        return log_error(lib, CLSPLAT_MEMORY,
                         "there is no memory for a look at %zu queries of %zu heads in %zu layers",
                         shape.count, shape.heads, shape.layers);
    }
    memcpy(l->positions, positions, shape.count * sizeof *positions);
    return shape.chunk ? look_walk_choose(lib, l) : CLSPLAT_OK;
}

void look_free(look *l) {
    for (size_t i = 0; l->walks && i < l->layers * l->heads * l->walked; ++i)
        free(l->walks[i].nodes);
    free(l->walks);
    free(l->walked_queries);
    free(l->positions);
    free(l->rows);
    free(l->apart);
    *l = (look){0};
}

look_row *look_at(const look *l, size_t layer, size_t head, size_t query) {
    return &l->rows[(layer * l->heads + head) * l->count + query];
}

look_walk *look_walk_at(const look *l, size_t layer, size_t head, size_t walk) {
    return &l->walks[(layer * l->heads + head) * l->walked + walk];
}

static clsplat_status create_result(bench *b, clsplat_dtype dtype, size_t columns, op_tensor *t) {
    size_t heads = b->l->heads, rows = b->l->count;
    *t = (op_tensor){.dtype = dtype,
                     .shape = {1, heads, rows, columns},
                     .stride = {heads * rows * columns, rows * columns, columns}};
    return buffer_create(b->q.device, 4 * t->stride[0], &t->mem);
}

static void release_result(bench *b, op_tensor *t) {
    if (t->mem)
        buffer_release(b->q.device, 4 * t->stride[0], &t->mem);
}

static void release(bench *b) {
    op_tensor *all[] = {&b->near, &b->exact, &b->lse, &b->exact_keys, &b->expect, &b->squares};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        release_result(b, all[i]);
    forest_release(b->q.device, &b->forest);
}

static bool walks(const bench *b) {
    return b->forest.levels > 0;
}

static clsplat_status prepare(bench *b) {
    clsplat_status status = CLSPLAT_OK;
    size_t columns = b->from->v.shape[3];
    TRY(create_result(b, CLSPLAT_F32, columns, &b->exact));
    TRY(create_result(b, CLSPLAT_F32, 1, &b->lse));
    if (!b->l->chunk || b->from->window)
        return CLSPLAT_OK;
    TRY(create_result(b, CLSPLAT_F32, columns, &b->near));
    TRY(create_result(b, CLSPLAT_I32, 1, &b->exact_keys));
    TRY(create_result(b, CLSPLAT_F32, 1, &b->expect));
    TRY(create_result(b, CLSPLAT_F32, 2, &b->squares));
    op_tensor k = b->from->k, v = b->from->v;
    k.dtype = v.dtype = b->from->trees;
    b->forest = forest_shape(&k, &v, b->l->keys, b->l->chunk, b->from->sparse_topk);
    TRY(forest_create(b->q.device, &b->forest));
    TRY(forest_clear(&b->q, &b->forest));
    TRY(op_gather(
        &b->q, &(op_gather_args){
                   .forest = &b->forest, .k = b->from->k, .v = b->from->v, .key_bias = b->from->key_bias}));
fail:
    return status;
}

/* The keys that query i sees: [*first, *first + the result). */
static size_t sees(const bench *b, size_t i, size_t *first) {
    size_t end = b->l->causal ? b->l->positions[i] + 1 : b->l->keys, window = b->from->window;
    *first = window && end > window ? end - window : 0;
    return end - *first;
}

static clsplat_status attend_exactly(bench *b, size_t i) {
    size_t first, count = sees(b, i, &first);
    op_softmax_args args = {.q = op_slice(b->from->q, 2, i, 1),
                            .k = op_slice(b->from->k, 2, first, count),
                            .v = op_slice(b->from->v, 2, first, count),
                            .key_bias = op_slice(b->from->key_bias, 2, first, count),
                            .out = op_slice(b->exact, 2, i, 1),
                            .lse = op_slice(b->lse, 2, i, 1),
                            .scale = b->from->scale,
                            .diagonal = OP_SEES_ALL};
    return op_softmax(&b->q, &args);
}

static op_near_far_args near_far_of(bench *b, size_t i) {
    size_t first, count = sees(b, i, &first),
                  own = b->l->causal ? (count - 1) / b->l->chunk * b->l->chunk : 0;
    return (op_near_far_args){.forest = &b->forest,
                              .q = op_slice(b->from->q, 2, i, 1),
                              .k = op_slice(b->from->k, 2, own, count - own),
                              .v = op_slice(b->from->v, 2, own, count - own),
                              .key_bias = op_slice(b->from->key_bias, 2, own, count - own),
                              .out = op_slice(b->near, 2, i, 1),
                              .lse = op_slice(b->lse, 2, i, 1),
                              .exact_keys = op_slice(b->exact_keys, 2, i, 1),
                              .error_estimate = op_slice(b->expect, 2, i, 1),
                              .scale = b->from->scale,
                              .diagonal = b->l->causal ? (int32_t)b->l->positions[i] : OP_SEES_ALL,
                              .keys = count,
                              .first_key = own,
                              .tolerance = b->from->tolerance,
                              .sparse_topk = b->from->sparse_topk};
}

static clsplat_status attend_near_far(bench *b, size_t i) {
    op_near_far_args args = near_far_of(b, i);
    return op_near_far(&b->q, &args);
}

static clsplat_status walk_all(bench *b) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t i = 0; i < b->l->walked; ++i) {
        op_near_far_args args = near_far_of(b, b->l->walked_queries[i]);
        TRY(look_walk_query(&b->q, b->l, b->layer, i, &args));
    }
fail:
    return status;
}

static clsplat_status bring(bench *b, const op_tensor *t, void **host) {
    *host = malloc(4 * t->stride[0]);
    if (!*host)
        return log_error(b->q.device->lib, CLSPLAT_MEMORY,
                         "there is no memory for the results of %zu queries", t->shape[2]);
    return queue_download(&b->q,
                          (queue_copy){.mem = t->mem, .host = *host, .row = 4 * t->stride[0], .rows = 1});
}

/* Errors, and keys one by one. */
static clsplat_status judge(bench *b) {
    clsplat_status status = CLSPLAT_OK;
    size_t rows = b->l->heads * b->l->count;
    void *squares = NULL, *exact_keys = NULL, *expect = NULL;
    TRY(op_distance(&b->q, &(op_distance_args){.a = b->near, .b = b->exact, .squares = b->squares.mem}));
    TRY(bring(b, &b->squares, &squares));
    TRY(bring(b, &b->exact_keys, &exact_keys));
    TRY(bring(b, &b->expect, &expect));
    for (size_t i = 0; i < rows; ++i) {
        look_row *row = &look_at(b->l, b->layer, 0, 0)[i];
        const float *two = (const float *)squares + 2 * i;
        row->exact = (uint32_t)((const int32_t *)exact_keys)[i];
        row->expected = ((const float *)expect)[i];
        row->size = two[1];
        row->actual = two[1] > 0 ? sqrtf(two[0] / two[1]) : 0;
    }
fail:
    free(squares);
    free(exact_keys);
    free(expect);
    return status;
}

/* Which keys stand apart: see cl/tree/forest.clh. */
static clsplat_status find_apart(bench *b) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = &b->forest;
    size_t bytes[FOREST_BUFFERS];
    forest_sizes(f, bytes);
    size_t words = bytes[8] / 4 / f->heads, list = (words - f->chunks - 1) / f->chunks;
    uint32_t *apart = malloc(bytes[8]);
    if (!apart)
        return log_error(b->q.device->lib, CLSPLAT_MEMORY,
                         "there is no memory for the keys apart of %zu heads", f->heads);
    TRY(queue_download(&b->q, (queue_copy){.mem = f->apart, .host = apart, .row = bytes[8], .rows = 1}));
    for (size_t head = 0; list && head < f->heads; ++head) {
        const uint32_t *before = apart + head * words;
        uint8_t *flags = b->l->apart + (b->layer * f->heads + head) * b->l->keys;
        for (size_t chunk = 0; chunk < f->chunks; ++chunk)
            for (size_t i = 0; i < list && i < before[chunk + 1] - before[chunk]; ++i) {
                size_t key = chunk * f->chunk + before[f->chunks + 1 + chunk * list + i];
                if (key < b->l->keys)
                    flags[key] = 1;
            }
    }
fail:
    free(apart);
    return status;
}

/* Scores of the queries [begin, begin + count) of a key head's query heads become shares. */
static void weigh_rows(bench *b, size_t kv, size_t begin, size_t count, size_t width, float *scores) {
    look *l = b->l;
    size_t group = l->heads / l->kv_heads, first;
    const uint8_t *apart = walks(b) ? l->apart + (b->layer * l->kv_heads + kv) * l->keys : NULL;
    const float *bias = b->from->bias ? b->from->bias + kv * l->keys : NULL;
    for (size_t i = 0; i < group * count; ++i, scores += width) {
        look_row *row = look_at(l, b->layer, kv * group + i / count, begin + i % count);
        row->visible = (uint32_t)sees(b, begin + i % count, &first);
        size_t end = first + row->visible,
               own = l->causal && l->chunk ? (end - 1) / l->chunk * l->chunk : end;
        if (!walks(b))
            row->exact = row->visible;
        for (size_t j = first; j < end; ++j)
            scores[j] = scores[j] * b->from->scale + (bias ? bias[j] : 0);
        look_weigh(l, scores, first, own, apart, row);
    }
}

/* Queries whose scores go to the device's memory at once. */
static size_t batch_of(const look *l) {
    enum { NUMBERS = 1 << 24 };
    size_t rows = NUMBERS / (l->keys * (l->heads / l->kv_heads));
    return rows < 1 ? 1 : rows > l->count ? l->count : rows;
}

static clsplat_status weigh_head(bench *b, size_t kv, cl_mem mem, float *scores) {
    clsplat_status status = CLSPLAT_OK;
    look *l = b->l;
    size_t group = l->heads / l->kv_heads, first;
    for (size_t i = 0, count, batch = batch_of(l); i < l->count; i += count) {
        count = l->count - i < batch ? l->count - i : batch;
        size_t width = sees(b, i + count - 1, &first) + first;
        op_tensor k = op_slice(op_slice(b->from->k, 1, kv, 1), 2, 0, width);
        k.shape[1] = group;
        k.stride[1] = 0;
        op_gemm_args args = {.a = op_slice(op_slice(b->from->q, 1, kv * group, group), 2, i, count),
                             .b = k,
                             .c = {.mem = mem,
                                   .dtype = CLSPLAT_F32,
                                   .shape = {1, group, count, width},
                                   .stride = {group * count * width, count * width, width}}};
        TRY(op_gemm(&b->q, &args));
        TRY(queue_download(
            &b->q, (queue_copy){.mem = mem, .host = scores, .row = 4 * group * count * width, .rows = 1}));
        weigh_rows(b, kv, i, count, width, scores);
    }
fail:
    return status;
}

static clsplat_status weigh(bench *b) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = b->q.device;
    size_t bytes = 4 * batch_of(b->l) * (b->l->heads / b->l->kv_heads) * b->l->keys;
    cl_mem mem = NULL;
    float *scores = malloc(bytes);
    if (!scores)
        return log_error(device->lib, CLSPLAT_MEMORY, "there is no memory for the scores of %zu keys",
                         b->l->keys);
    TRY(buffer_create(device, bytes, &mem));
    for (size_t kv = 0; kv < b->l->kv_heads; ++kv)
        TRY(weigh_head(b, kv, mem, scores));
fail:
    if (mem)
        buffer_release(device, bytes, &mem);
    free(scores);
    return status;
}

clsplat_status look_layer(clsplat_device *device, look *l, size_t layer, const look_source *source) {
    clsplat_status status = CLSPLAT_OK;
    bench b = {.from = source, .l = l, .layer = layer};
    queue_begin(device, 0, NULL, &b.q);
    TRY(prepare(&b));
    for (size_t i = 0; i < l->count; ++i) {
        TRY(attend_exactly(&b, i));
        if (walks(&b))
            TRY(attend_near_far(&b, i));
    }
    if (walks(&b)) {
        TRY(judge(&b));
        TRY(find_apart(&b));
        TRY(walk_all(&b));
    }
    TRY(weigh(&b));
fail:
    release(&b);
    return status;
}

look_sum look_sum_up(const look *l, size_t layer, size_t first_head, size_t heads) {
    look_sum s = {0};
    double size = 0, rows = (double)(heads * l->count);
    for (size_t i = 0; i < heads * l->count; ++i) {
        const look_row *row = &look_at(l, layer, first_head, 0)[i];
        s.expected += (double)row->expected * (double)row->expected * (double)row->size;
        s.actual += (double)row->actual * (double)row->actual * (double)row->size;
        size += (double)row->size;
        s.visible += row->visible;
        s.exact += row->exact;
        s.own += (double)row->own / rows;
        s.apart += (double)row->apart / rows;
        s.entropy += (double)row->entropy / rows;
    }
    s.expected = size > 0 ? sqrt(s.expected / size) : 0;
    s.actual = size > 0 ? sqrt(s.actual / size) : 0;
    return s;
}
