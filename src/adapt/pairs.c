/* ln g_ij = ln Σ_s e^(e_is + κ_js) + b_j − ln Σ, e_is = ln w + ln a + φ_s(q_i), κ_js = φ_s(k_j). The sums
 * over splats are one attention of the keys to the splats for many rows at once: with values V_s[i] = e^(e_is
 * − max e_i) and states that leave ln w + ln a out, key j reads
 *
 *     out_j[i] = Σ_s e^κ_js V_s[i] / Σ_s e^κ_js        lse_j = ln Σ_s e^κ_js
 *
 * so that ln A_ij = ln out_j[i] + lse_j + max e_i. Where float32 has lost the sum, and the pair counts, it is
 * computed again from its terms. */
#include "adapt/pairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/buffer.h"

enum {
    BLOCK = 32,
    KEYS = 1024
}; /* rows that share a pass over keys and splats; keys whose log-densities come from the device at once */

static const float lost = 1e-30f;      /* sums below it may lack terms that float32 has not */
static const float log_lost = -69.08f; /* ln of that */

typedef struct pairs_call {
    layer *layer;
    const op_splats *splats;
    op_splats one; /* those of the query head at work */
    size_t count, spacing;
    float *query;                              /* e [B·H][count][S] */
    float *own;                                /* ln w + ln a [Hs][S] */
    cl_mem state_lse, state_value;             /* [S], [S][BLOCK] */
    cl_mem out, lse, scores;                   /* [M][BLOCK], [M], [BLOCK][M] */
    float *value, *on_keys, *normaliser, *key; /* [S][BLOCK], [M][BLOCK], [M], κ [KEYS][S] */
    float *log_p, *log_g;                      /* [BLOCK][M] of one query head */
    float top[BLOCK];                          /* max e_i */
} pairs_call;

static clsplat_status no_memory(const layer *l) {
    return log_error(l->device->lib, CLSPLAT_MEMORY, "no memory for pairs of rows and %zu keys", l->keys);
}

static clsplat_status log_densities(const pairs_call *c, const op_splats *splats, size_t batch, size_t heads,
                                    op_tensor x, float *to) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t bytes = 4 * batch * heads * x.shape[2] * splats->count;
    op_log_density_args args = {.splats = splats, .heads = heads, .x = x};
    TRY(buffer_create(l->device, bytes, &args.log_density));
    TRY(op_log_density(&l->queue, &args));
    TRY(queue_download(&l->queue,
                       (queue_copy){.mem = args.log_density, .host = to, .row = bytes, .rows = 1}));
fail:
    buffer_release(l->device, bytes, &args.log_density);
    return status;
}

/* The set's own logarithms in its order on the device. */
static clsplat_status fetch_own(const pairs_call *c) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t splats = c->splats->count, sets = c->splats->heads, levels = c->splats->levels;
    float *level = malloc(levels * sizeof *level);
    uint32_t *begin = malloc((levels + 1) * sizeof *begin);
    if (!level || !begin) {
        status = no_memory(l);
        goto fail;
    }
    const struct {
        cl_mem mem;
        void *host;
        size_t bytes;
    } parts[] = {{c->splats->log_weight, c->own, 4 * sets * splats},
                 {c->splats->level_log_weight, level, 4 * levels},
                 {c->splats->level_begin, begin, 4 * (levels + 1)}};
    for (size_t i = 0; i < 3; ++i)
        TRY(queue_download(
            &l->queue,
            (queue_copy){.mem = parts[i].mem, .host = parts[i].host, .row = parts[i].bytes, .rows = 1}));
    for (size_t set = 0; set < sets; ++set)
        for (size_t n = 0; n < levels; ++n)
            for (size_t s = begin[n]; s < begin[n + 1]; ++s)
                c->own[set * splats + s] += level[n];
fail:
    free(begin);
    free(level);
    return status;
}

/* e of the rows. */
static clsplat_status weigh_queries(const pairs_call *c) {
    clsplat_status status = CLSPLAT_OK;
    const layer *l = c->layer;
    size_t splats = c->splats->count, sets = c->splats->heads;
    op_tensor x = l->on_q;
    x.offset += l->first_row * x.stride[2];
    x.stride[2] *= l->step * c->spacing;
    x.shape[2] = c->count;
    TRY(fetch_own(c));
    TRY(log_densities(c, c->splats, l->batch, l->heads, x, c->query));
    for (size_t row = 0; row < l->batch * l->heads * c->count; ++row) {
        const float *own = c->own + (sets > 1 ? row / c->count % l->heads : 0) * splats;
        for (size_t s = 0; s < splats; ++s)
            c->query[row * splats + s] += own[s];
    }
fail:
    return status;
}

static float largest(const float *x, size_t count) {
    float most = -INFINITY;
    for (size_t i = 0; i < count; ++i)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* ln Σ_s e^(a_s + b_s) with the largest sum taken out: where the product of the two has vanished. */
static double log_sum(const float *a, const float *b, size_t count) {
    double top = -INFINITY, sum = 0;
    for (size_t s = 0; s < count; ++s)
        top = fmax(top, (double)a[s] + (double)b[s]);
    if (!(top > -INFINITY))
        return -INFINITY;
    for (size_t s = 0; s < count; ++s)
        sum += exp((double)a[s] + (double)b[s] - top);
    return top + log(sum);
}

/* One head of a tensor [B,H,n,columns], alone. */
static op_tensor head_of(op_tensor t, size_t batch, size_t head) {
    return op_slice(op_slice(t, 0, batch, 1), 1, head, 1);
}

static op_tensor dense(cl_mem mem, size_t rows, size_t columns) {
    return (op_tensor){.mem = mem,
                       .dtype = CLSPLAT_F32,
                       .shape = {1, 1, rows, columns},
                       .stride = {rows * columns, rows * columns, columns}};
}

static size_t kv_head_of(const layer *l, size_t head) {
    return head % l->heads / (l->heads / l->kv_heads);
}

static clsplat_status copy_up(const pairs_call *c, cl_mem mem, const float *host, size_t numbers) {
    return queue_upload(&c->layer->queue,
                        (queue_copy){.mem = mem, .host = (void *)host, .row = 4 * numbers, .rows = 1});
}

static clsplat_status copy_down(const pairs_call *c, cl_mem mem, float *host, size_t numbers) {
    return queue_download(&c->layer->queue,
                          (queue_copy){.mem = mem, .host = host, .row = 4 * numbers, .rows = 1});
}

/* What the splats hold for the keys to read: e of the rows first … first + rows − 1 of the head. */
static clsplat_status load_states(pairs_call *c, size_t head, size_t first, size_t rows) {
    clsplat_status status = CLSPLAT_OK;
    size_t splats = c->splats->count;
    const float *query = c->query + (head * c->count + first) * splats;
    memset(c->value, 0, splats * BLOCK * sizeof *c->value);
    for (size_t i = 0; i < rows; ++i) {
        c->top[i] = largest(query + i * splats, splats);
        for (size_t s = 0; s < splats; ++s)
            c->value[s * BLOCK + i] = expf(query[i * splats + s] - c->top[i]);
    }
    TRY(copy_up(c, c->state_value, c->value, splats * BLOCK));
    const float *own = c->own + c->one.first_head * splats;
    for (size_t s = 0; s < splats; ++s)
        c->value[s] = -own[s];
    TRY(copy_up(c, c->state_lse, c->value, splats));
fail:
    return status;
}

/* on_keys and normaliser of all keys; and the scaled scores of the rows, to log_p. */
static clsplat_status run_block(pairs_call *c, size_t head, size_t first, size_t rows) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t step = l->step * c->spacing;
    op_tensor k = head_of(l->on_k, head / l->heads, kv_head_of(l, head));
    op_tensor q = head_of(l->on_q, head / l->heads, head % l->heads);
    op_read_args read = {.splats = &c->one,
                         .kv_heads = 1,
                         .mixing = CLSPLAT_JOINT,
                         .q = k,
                         .out = dense(c->out, l->keys, BLOCK),
                         .lse = dense(c->lse, l->keys, 1),
                         .state = {.lse = c->state_lse, .value = c->state_value, .segments = 1}};
    q.offset += (l->first_row + first * step) * q.stride[2];
    q.stride[2] *= step;
    q.shape[2] = rows;
    TRY(load_states(c, head, first, rows));
    TRY(op_read(&l->queue, &read));
    TRY(op_gemm(&l->queue, &(op_gemm_args){.a = q, .b = k, .c = dense(c->scores, rows, l->keys)}));
    TRY(copy_down(c, c->out, c->on_keys, l->keys * BLOCK));
    TRY(copy_down(c, c->lse, c->normaliser, l->keys));
    TRY(copy_down(c, c->scores, c->log_p, rows * l->keys));
fail:
    return status;
}

/* Subtracts ln Σ e^x. False: there is nothing but −inf. */
static bool normalise(float *x, size_t count) {
    float top = largest(x, count);
    double sum = 0;
    if (!(top > -INFINITY))
        return false;
    for (size_t j = 0; j < count; ++j)
        sum += (double)expf(x[j] - top);
    float all = top + (float)log(sum);
    for (size_t j = 0; j < count; ++j)
        x[j] -= all;
    return true;
}

/* Logarithms of one row: log_p normalised, log_g not yet. False: it sees no key. */
static bool take_row(const pairs_call *c, size_t head, size_t i, size_t count) {
    const layer *l = c->layer;
    float *p = c->log_p + i * l->keys, *g = c->log_g + i * l->keys;
    const float *bias =
        l->key_bias ? l->key_bias + (head / l->heads * l->kv_heads + kv_head_of(l, head)) * l->keys : NULL;
    for (size_t j = 0; j < count; ++j) {
        float sum = c->on_keys[j * BLOCK + i], b = bias ? bias[j] : 0;
        p[j] = p[j] * l->scale + b;
        g[j] = (sum > lost ? logf(sum) : log_lost) + c->normaliser[j] + c->top[i] + b;
    }
    return normalise(p, count);
}

/* Whether pair (i, j) has been lost and says something: log_g is at most what it is then. */
static bool is_missing(const pairs_call *c, size_t i, size_t j, float most) {
    enum { OF_P = -30, OF_G = 40 }; /* e^-30 of a row's attention is nothing */
    size_t at = i * c->layer->keys + j;
    return !(c->on_keys[j * BLOCK + i] > lost) && c->log_g[at] > -INFINITY &&
           (c->log_p[at] > OF_P || c->log_g[at] > most - OF_G);
}

/* The pairs of a row that are missing, key block by key block. */
static clsplat_status mend_row(const pairs_call *c, size_t head, size_t first, size_t i, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    const layer *l = c->layer;
    size_t splats = c->splats->count;
    const float *query = c->query + (head * c->count + first + i) * splats;
    float most = largest(c->log_g + i * l->keys, count);
    const float *bias =
        l->key_bias ? l->key_bias + (head / l->heads * l->kv_heads + kv_head_of(l, head)) * l->keys : NULL;
    for (size_t begin = 0, end; begin < count; begin = end) {
        bool there = false;
        end = begin + KEYS < count ? begin + KEYS : count;
        for (size_t j = begin; j < end; ++j) {
            if (!is_missing(c, i, j, most))
                continue;
            if (!there)
                TRY(log_densities(
                    c, &c->one, 1, 1,
                    op_slice(head_of(l->on_k, head / l->heads, kv_head_of(l, head)), 2, begin, end - begin),
                    c->key));
            there = true;
            c->log_g[i * l->keys + j] =
                (float)log_sum(query, c->key + (j - begin) * splats, splats) + (bias ? bias[j] : 0);
        }
    }
fail:
    return status;
}

static pair_row sum_row(const float *log_p, const float *log_g, size_t count) {
    pair_row row = {.seen = true};
    for (size_t j = 0; j < count; ++j) {
        float p = expf(log_p[j]), g = expf(log_g[j]), middle = logf(0.5f * (p + g));
        if (p > 0) {
            row.attention_entropy -= (double)(p * log_p[j]);
            row.kullback_leibler += (double)p * (double)(log_p[j] - log_g[j]);
            row.jensen_shannon += 0.5 * (double)p * (double)(log_p[j] - middle);
        }
        if (g > 0) {
            row.form_entropy -= (double)(g * log_g[j]);
            row.jensen_shannon += 0.5 * (double)g * (double)(log_g[j] - middle);
        }
    }
    return row;
}

/* One query head: all keys, some rows after the other. */
static clsplat_status measure_head(pairs_call *c, size_t head, pair_row *rows) {
    clsplat_status status = CLSPLAT_OK;
    const layer *l = c->layer;
    c->one = *c->splats;
    c->one.first_head = c->one.heads > 1 ? head % l->heads : 0;
    for (size_t first = 0, some; first < c->count; first += some) {
        some = c->count - first < BLOCK ? c->count - first : BLOCK;
        TRY(run_block(c, head, first, some));
        for (size_t i = 0; i < some; ++i) {
            size_t count = layer_visible(l, (first + i) * c->spacing);
            if (!take_row(c, head, i, count))
                continue;
            TRY(mend_row(c, head, first, i, count));
            if (normalise(c->log_g + i * l->keys, count))
                rows[first + i] = sum_row(c->log_p + i * l->keys, c->log_g + i * l->keys, count);
        }
    }
fail:
    return status;
}

static clsplat_status pairs_open(layer *l, clsplat_splats *set, pairs_call *c) {
    clsplat_status status = CLSPLAT_OK;
    TRY(splats_upload(l->device, set, &c->splats));
    size_t splats = c->splats->count;
    c->query = malloc(l->batch * l->heads * c->count * splats * sizeof *c->query);
    c->own = malloc(c->splats->heads * splats * sizeof *c->own);
    c->value = malloc(splats * BLOCK * sizeof *c->value);
    c->on_keys = malloc(l->keys * BLOCK * sizeof *c->on_keys);
    c->normaliser = malloc(l->keys * sizeof *c->normaliser);
    c->key = malloc(KEYS * splats * sizeof *c->key);
    c->log_p = malloc(BLOCK * l->keys * sizeof *c->log_p);
    c->log_g = malloc(BLOCK * l->keys * sizeof *c->log_g);
    if (!c->query || !c->own || !c->value || !c->on_keys || !c->normaliser || !c->key || !c->log_p ||
        !c->log_g)
        return no_memory(l);
    TRY(buffer_create(l->device, 4 * splats, &c->state_lse));
    TRY(buffer_create(l->device, 4 * splats * BLOCK, &c->state_value));
    TRY(buffer_create(l->device, 4 * l->keys * BLOCK, &c->out));
    TRY(buffer_create(l->device, 4 * l->keys, &c->lse));
    TRY(buffer_create(l->device, 4 * l->keys * BLOCK, &c->scores));
fail:
    return status;
}

static void pairs_close(pairs_call *c) {
    clsplat_device *device = c->layer->device;
    size_t splats = c->splats ? c->splats->count : 0, keys = c->layer->keys;
    buffer_release(device, 4 * splats, &c->state_lse);
    buffer_release(device, 4 * splats * BLOCK, &c->state_value);
    buffer_release(device, 4 * keys * BLOCK, &c->out);
    buffer_release(device, 4 * keys, &c->lse);
    buffer_release(device, 4 * keys * BLOCK, &c->scores);
    free(c->query);
    free(c->own);
    free(c->value);
    free(c->on_keys);
    free(c->normaliser);
    free(c->key);
    free(c->log_p);
    free(c->log_g);
}

clsplat_status pairs_measure(layer *l, clsplat_splats *set, size_t count, size_t spacing, pair_row *rows) {
    clsplat_status status = CLSPLAT_OK;
    pairs_call c = {.layer = l, .count = count, .spacing = spacing};
    TRY(pairs_open(l, set, &c));
    TRY(weigh_queries(&c));
    for (size_t head = 0; head < l->batch * l->heads; ++head)
        TRY(measure_head(&c, head, rows + head * count));
fail:
    pairs_close(&c);
    return status;
}
