/* Softmax attention: blocks of keys and values pass round the ring of ranks. At step t a rank has the block
 * of the rank t places before it, computes with it, sends it on and receives the next one. What comes out is
 * merged on the host, in the order of the steps; sums in double, since as many roundings as there are ranks
 * come together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attend.h"
#include "parallel/ranks.h"

/* The keys, values and biases of one rank, densely packed one behind the other, as they are sent. */
typedef struct block {
    char *bytes;
    clsplat_part part; /* of whoever the rows are */
    size_t rows;
} block;

typedef struct ring {
    ranks_call *call;
    block now, next;
    size_t row_bytes;      /* of a key, its value and its bias, over batch and heads */
    float *out, *lse;      /* what one block of keys says of one run of queries */
    double *sums;          /* [B,H,rows,Dv], relative to tops; so far */
    double *tops, *masses; /* [B,H,rows]: ln of the sum of weights is top + ln mass */
} ring;

static block block_of(const ranks_call *c, int rank, char *bytes) {
    block b = {.bytes = bytes};
    b.part = clsplat_ranks_part(c->attention, c->queries, c->keys, (size_t)c->ranks->count, (size_t)rank);
    b.rows = ranks_rows(b.part.keys);
    return b;
}

/* The rows [begin, begin + count) of a tensor in host memory. */
static clsplat_tensor rows_from(clsplat_tensor t, size_t begin, size_t count) {
    if (t.stride[0] == 0 && t.stride[1] == 0 && t.stride[2] == 0) {
        t.stride[2] = t.shape[3];
        t.stride[1] = t.stride[2] * t.shape[2];
        t.stride[0] = t.stride[1] * t.shape[1];
    }
    t.offset += begin * t.stride[2];
    t.shape[2] = count;
    return t;
}

/* A tensor of this rank's as rows of a block, there. Returns: the place behind it. */
static char *pack(clsplat_tensor t, size_t rows, char *to) {
    size_t row = t.shape[3] * clsplat_dtype_size(t.dtype);
    if (rows == 0 || !t.host)
        return to;
    t = rows_from(t, 0, rows);
    for (size_t b = 0; b < t.shape[0]; ++b)
        for (size_t h = 0; h < t.shape[1]; ++h)
            for (size_t i = 0; i < rows; ++i, to += row) {
                size_t at = t.offset + b * t.stride[0] + h * t.stride[1] + i * t.stride[2];
                memcpy(to, (const char *)t.host + at * clsplat_dtype_size(t.dtype), row);
            }
    return to;
}

/* The part of a block that is a tensor like `like`, and the place behind it. */
static clsplat_tensor unpack(const block *b, const clsplat_tensor *like, char **at) {
    clsplat_tensor t = {.dtype = like->dtype,
                        .shape = {like->shape[0], like->shape[1], b->rows, like->shape[3]},
                        .host = *at};
    *at += t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3] * clsplat_dtype_size(t.dtype);
    return t;
}

/* What the rows of a run know by now of the keys of all blocks before, and of this one. */
static void merge(ring *r, size_t first, size_t count) {
    const size_t *q = r->call->tensors.q.shape;
    size_t columns = r->call->tensors.v.shape[3], rows = q[2];
    for (size_t i = 0; i < q[0] * q[1] * count; ++i) {
        size_t row = i / count * rows + first + i % count;
        double lse = (double)r->lse[i], top = r->tops[row];
        if (lse == -INFINITY)
            continue;
        double above = fmax(top, lse), shrink = exp(top - above), weight = exp(lse - above);
        if (isnan(lse)) /* it stays in its own row */
            above = shrink = weight = NAN;
        r->tops[row] = above;
        r->masses[row] = r->masses[row] * shrink + weight;
        for (size_t d = 0; d < columns; ++d)
            r->sums[row * columns + d] =
                r->sums[row * columns + d] * shrink + weight * (double)r->out[i * columns + d];
    }
}

/* One run of queries over one run of keys, if they see any of them. */
static clsplat_status attend_runs(ring *r, const clsplat_attention_tensors *keys, size_t query_run,
                                  size_t key_run) {
    clsplat_status status = CLSPLAT_OK;
    ranks_call *c = r->call;
    clsplat_run q = c->part.queries[query_run], k = r->now.part.keys[key_run];
    int64_t diagonal = (int64_t)c->keys - (int64_t)c->queries + (int64_t)q.begin - (int64_t)k.begin;
    if (q.count == 0 || k.count == 0 ||
        (c->attention.causal && diagonal + (int64_t)q.count <= 0)) /* the last query sees none of them */
        return CLSPLAT_OK;
    size_t first = query_run ? c->part.queries[0].count : 0;
    size_t first_key = key_run ? r->now.part.keys[0].count : 0;
    const size_t *shape = c->tensors.q.shape;
    clsplat_attention_tensors t = {
        .q = rows_from(c->tensors.q, first, q.count),
        .k = rows_from(keys->k, first_key, k.count),
        .v = rows_from(keys->v, first_key, k.count),
        .out = clsplat_tensor_host(CLSPLAT_F32, shape[0], shape[1], q.count, keys->v.shape[3], r->out),
        .lse = clsplat_tensor_host(CLSPLAT_F32, shape[0], shape[1], q.count, 1, r->lse)};
    if (keys->key_bias.host)
        t.key_bias = rows_from(keys->key_bias, first_key, k.count);
    clsplat_attention attention = c->attention;
    attention.causal = false; /* the diagonal says it */
    attention.progress = ranks_progress;
    attention.progress_user = c;
    attend_call call;
    TRY(attend_check(c->device, attention, t, true, &call));
    call.attention.causal = c->attention.causal;
    call.diagonal = c->attention.causal && diagonal < (int64_t)k.count ? (int32_t)diagonal : OP_SEES_ALL;
    if (call.diagonal == OP_SEES_ALL)
        call.attention.causal = false;
    TRY(attend_blocks(c->device, &call));
    merge(r, first, q.count);
fail:
    return status;
}

static clsplat_status attend_block(ring *r) {
    clsplat_status status = CLSPLAT_OK;
    ranks_call *c = r->call;
    char *at = r->now.bytes;
    clsplat_attention_tensors keys = {0};
    keys.k = unpack(&r->now, &c->tensors.k, &at);
    keys.v = unpack(&r->now, &c->tensors.v, &at);
    if (c->tensors.key_bias.shape[0])
        keys.key_bias = unpack(&r->now, &c->tensors.key_bias, &at);
    for (size_t i = 0; i < CLSPLAT_RUNS * CLSPLAT_RUNS; ++i) {
        TRY(attend_runs(r, &keys, i / CLSPLAT_RUNS, i % CLSPLAT_RUNS));
        c->done += 1;
    }
fail:
    return status;
}

static void take_results(const ring *r) {
    const clsplat_attention_tensors *t = &r->call->tensors;
    const size_t *q = t->q.shape;
    size_t columns = t->v.shape[3];
    clsplat_tensor out = rows_from(t->out, 0, q[2]), lse = rows_from(t->lse, 0, q[2]);
    for (size_t row = 0; row < q[0] * q[1] * q[2]; ++row) {
        size_t place[] = {row / q[2] / q[1], row / q[2] % q[1], row % q[2]};
        size_t at = out.offset, at_lse = lse.offset;
        for (int d = 0; d < 3; ++d) {
            at += place[d] * out.stride[d];
            at_lse += place[d] * lse.stride[d];
        }
        double mass = r->masses[row];
        for (size_t d = 0; d < columns; ++d)
            ((float *)out.host)[at + d] = mass == 0 ? 0.0f : (float)(r->sums[row * columns + d] / mass);
        if (lse.host)
            ((float *)lse.host)[at_lse] = mass == 0 ? -INFINITY : (float)(r->tops[row] + log(mass));
    }
}

static clsplat_status make_room(ring *r) {
    const ranks_call *c = r->call;
    const clsplat_attention_tensors *t = &c->tensors;
    size_t heads = t->q.shape[0] * t->q.shape[1], rows = heads * ranks_rows(c->part.queries);
    size_t key_heads = t->k.shape[0] * t->k.shape[1], most = 0;
    r->row_bytes = key_heads * (t->k.shape[3] * clsplat_dtype_size(t->k.dtype) +
                                t->v.shape[3] * clsplat_dtype_size(t->v.dtype) +
                                (t->key_bias.shape[0] ? clsplat_dtype_size(t->key_bias.dtype) : 0));
    for (int i = 0; i < c->ranks->count; ++i) {
        size_t keys = block_of(c, i, NULL).rows;
        most = keys > most ? keys : most;
    }
    r->now = block_of(c, c->ranks->own, malloc(most * r->row_bytes));
    r->next.bytes = malloc(most * r->row_bytes);
    r->out = malloc((rows * t->v.shape[3] + 1) * sizeof *r->out);
    r->lse = malloc((rows + 1) * sizeof *r->lse);
    r->sums = calloc(rows * t->v.shape[3] + 1, sizeof *r->sums);
    r->tops = calloc(rows + 1, sizeof *r->tops);
    r->masses = calloc(rows + 1, sizeof *r->masses);
    if (!r->now.bytes || !r->next.bytes || !r->out || !r->lse || !r->sums || !r->tops || !r->masses)
        return log_error(c->ranks->lib, CLSPLAT_MEMORY,
                         "no memory for two blocks of %zu keys and what %zu rows know of them", most, rows);
    for (size_t i = 0; i < rows; ++i)
        r->tops[i] = -INFINITY;
    return CLSPLAT_OK;
}

/* The block that is here is computed with while it is sent on and the next one comes. */
static clsplat_status step(ring *r, int t) {
    clsplat_status status = CLSPLAT_OK, mine, arrived = CLSPLAT_OK;
    const ranks_call *c = r->call;
    int ranks = c->ranks->count, own = c->ranks->own;
    bool last = t + 1 == ranks;
    r->next = block_of(c, (own + ranks - t - 1 + ranks) % ranks, r->next.bytes);
    exchange e = {.ranks = c->ranks,
                  .out = r->now.bytes,
                  .out_bytes = r->now.rows * r->row_bytes,
                  .to = (own + 1) % ranks,
                  .in = r->next.bytes,
                  .in_bytes = r->next.rows * r->row_bytes,
                  .from = (own + ranks - 1) % ranks};
    if (!last)
        exchange_begin(&e);
    mine = attend_block(r);
    if (!last)
        arrived = exchange_end(&e);
    TRY(clsplat_ranks_agree(c->ranks, mine != CLSPLAT_OK ? mine : arrived));
    block now = r->now;
    r->now = r->next;
    r->next = now;
fail:
    return status;
}

clsplat_status ring_attend(ranks_call *c) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &c->tensors;
    ring r = {.call = c};
    c->steps = (double)(c->ranks->count * CLSPLAT_RUNS * CLSPLAT_RUNS);
    TRY(clsplat_ranks_agree(c->ranks, make_room(&r)));
    pack(t->key_bias, r.now.rows, pack(t->v, r.now.rows, pack(t->k, r.now.rows, r.now.bytes)));
    for (int i = 0; i < c->ranks->count; ++i)
        TRY(step(&r, i));
    if (ranks_rows(c->part.queries) > 0)
        take_results(&r);
fail:
    free(r.now.bytes);
    free(r.next.bytes);
    free(r.out);
    free(r.lse);
    free(r.sums);
    free(r.tops);
    free(r.masses);
    return status;
}
