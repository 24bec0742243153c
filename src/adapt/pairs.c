/* ln g_ij = ln Σ_s e^(e_is + κ_js) + b_j − ln Σ, e_is = ln w + ln a + φ_s(q_i), κ_js = φ_s(k_j): responses
 * come from the device; the sums over splats are a product of two matrices, of e^(e − max e) and e^(κ − max
 * κ), rows in blocks. */
#include "adapt/pairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/buffer.h"

enum {
    BLOCK = 32,
    KEYS = 1024
}; /* rows that share a pass over the splats; keys that come from the device at once */

typedef struct pairs_call {
    layer *layer;
    const op_splats *splats;
    size_t count, spacing;
    float *query, *key;    /* e [B·H][count][S], and κ [KEYS][S] of some keys and one head */
    double *left;          /* [S][BLOCK] */
    double *log_p, *log_g; /* [count][M] of one query head */
} pairs_call;

static clsplat_status no_memory(const layer *l) {
    return log_error(l->device->lib, CLSPLAT_MEMORY, "no memory for pairs of rows and %zu keys", l->keys);
}

static clsplat_status respond(const pairs_call *c, size_t batch, size_t heads, op_tensor x, float *to) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t bytes = 4 * batch * heads * x.shape[2] * c->splats->count;
    op_respond_args args = {.splats = c->splats, .heads = heads, .x = x};
    TRY(buffer_create(l->device, bytes, &args.response));
    TRY(op_respond(&l->queue, &args));
    TRY(queue_download(&l->queue, (queue_copy){.mem = args.response, .host = to, .row = bytes, .rows = 1}));
fail:
    buffer_release(l->device, bytes, &args.response);
    return status;
}

/* e of the rows; the set's own logarithms in its order on the device. */
static clsplat_status weigh_queries(const pairs_call *c) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = c->layer;
    size_t splats = c->splats->count, sets = c->splats->heads, levels = c->splats->levels;
    float *own = malloc(sets * splats * sizeof *own), *level = malloc(levels * sizeof *level);
    uint32_t *begin = malloc((levels + 1) * sizeof *begin);
    op_tensor x = l->on_q;
    x.offset += l->first_row * x.stride[2];
    x.stride[2] *= l->step * c->spacing;
    x.shape[2] = c->count;
    if (!own || !level || !begin) {
        status = no_memory(l);
        goto fail;
    }
    TRY(respond(c, l->batch, l->heads, x, c->query));
    const struct {
        cl_mem mem;
        void *host;
        size_t bytes;
    } parts[] = {{c->splats->log_weight, own, 4 * sets * splats},
                 {c->splats->level_log_weight, level, 4 * levels},
                 {c->splats->level_begin, begin, 4 * (levels + 1)}};
    for (size_t i = 0; i < 3; ++i)
        TRY(queue_download(
            &l->queue,
            (queue_copy){.mem = parts[i].mem, .host = parts[i].host, .row = parts[i].bytes, .rows = 1}));
    for (size_t row = 0; row < l->batch * l->heads * c->count; ++row) {
        size_t set = sets > 1 ? row / c->count % l->heads : 0;
        for (size_t n = 0; n < levels; ++n)
            for (size_t s = begin[n]; s < begin[n + 1]; ++s)
                c->query[row * splats + s] += own[set * splats + s] + level[n];
    }
fail:
    free(begin);
    free(level);
    free(own);
    return status;
}

static double largest(const float *x, size_t count) {
    float most = -INFINITY;
    for (size_t i = 0; i < count; ++i)
        most = x[i] > most ? x[i] : most;
    return (double)most;
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

/* ln A of the rows first … first + rows − 1 of a query head at keys begin … begin + keys − 1, to log_g. */
static void multiply(const pairs_call *c, size_t head, size_t first, size_t rows, size_t begin, size_t keys,
                     const float *key) {
    size_t splats = c->splats->count;
    const float *query = c->query + (head * c->count + first) * splats;
    double top[BLOCK] = {0};
    memset(c->left, 0, splats * BLOCK * sizeof *c->left);
    for (size_t i = 0; i < rows; ++i) {
        top[i] = largest(query + i * splats, splats);
        for (size_t s = 0; s < splats; ++s)
            c->left[s * BLOCK + i] = (double)expf(query[i * splats + s] - (float)top[i]);
    }
    for (size_t j = 0; j < keys; ++j) {
        const float *k = key + j * splats;
        double sum[BLOCK] = {0}, most = largest(k, splats);
        for (size_t s = 0; s < splats; ++s) {
            double right = (double)expf(k[s] - (float)most);
            for (size_t i = 0; i < BLOCK; ++i)
                sum[i] += c->left[s * BLOCK + i] * right;
        }
        for (size_t i = 0; i < rows; ++i)
            c->log_g[(first + i) * c->layer->keys + begin + j] =
                sum[i] > 1e-20 ? log(sum[i]) + top[i] + most : log_sum(query + i * splats, k, splats);
    }
}

/* Softmax's logits of one row. */
static void logits(const pairs_call *c, size_t head, size_t i) {
    const layer *l = c->layer;
    size_t kv = head / l->heads * l->kv_heads + head % l->heads / (l->heads / l->kv_heads);
    const float *q = l->q + (head * l->queries + l->first_row + i * c->spacing * l->step) * l->dim;
    for (size_t j = 0; j < layer_visible(l, i * c->spacing); ++j) {
        const float *k = l->k + (kv * l->keys + j) * l->dim;
        double sum = 0, bias = l->key_bias ? (double)l->key_bias[kv * l->keys + j] : 0;
        for (size_t d = 0; d < l->dim; ++d)
            sum += (double)q[d] * (double)k[d];
        c->log_p[i * l->keys + j] = sum * (double)l->scale + bias;
        c->log_g[i * l->keys + j] += bias;
    }
}

/* Subtracts ln Σ e^x. False: there is nothing but −inf. */
static bool normalise(double *x, size_t count) {
    double top = -INFINITY, sum = 0;
    for (size_t j = 0; j < count; ++j)
        top = fmax(top, x[j]);
    if (!(top > -INFINITY))
        return false;
    for (size_t j = 0; j < count; ++j)
        sum += exp(x[j] - top);
    for (size_t j = 0; j < count; ++j)
        x[j] -= top + log(sum);
    return true;
}

static pair_row sum_row(double *log_p, double *log_g, size_t count) {
    pair_row row = {0};
    row.seen = normalise(log_p, count) && normalise(log_g, count);
    for (size_t j = 0; row.seen && j < count; ++j) {
        double p = exp(log_p[j]), g = exp(log_g[j]), middle = log(0.5 * (p + g));
        if (p > 0) {
            row.attention_entropy -= p * log_p[j];
            row.kullback_leibler += p * (log_p[j] - log_g[j]);
            row.jensen_shannon += 0.5 * p * (log_p[j] - middle);
        }
        if (g > 0) {
            row.form_entropy -= g * log_g[j];
            row.jensen_shannon += 0.5 * g * (log_g[j] - middle);
        }
    }
    return row;
}

/* κ of some keys for one query head. */
static clsplat_status fetch_keys(const pairs_call *c, size_t head, size_t begin, size_t keys) {
    const layer *l = c->layer;
    op_splats own = *c->splats;
    pairs_call one = *c;
    op_tensor x = op_slice(l->on_k, 2, begin, keys);
    own.first_head = own.heads > 1 ? head % l->heads : 0;
    one.splats = &own;
    x = op_slice(x, 0, head / l->heads, 1);
    return respond(&one, 1, 1, op_slice(x, 1, head % l->heads / (l->heads / l->kv_heads), 1), c->key);
}

/* One query head: all keys in turns. */
static clsplat_status measure_head(const pairs_call *c, size_t head, pair_row *rows) {
    clsplat_status status = CLSPLAT_OK;
    const layer *l = c->layer;
    for (size_t begin = 0; begin < l->keys; begin += KEYS) {
        size_t keys = l->keys - begin < KEYS ? l->keys - begin : KEYS;
        TRY(fetch_keys(c, head, begin, keys));
        for (size_t first = 0; first < c->count; first += BLOCK) {
            size_t some = c->count - first < BLOCK ? c->count - first : BLOCK;
            multiply(c, head, first, some, begin, keys, c->key);
        }
    }
    for (size_t i = 0; i < c->count; ++i) {
        logits(c, head, i);
        rows[i] = sum_row(c->log_p + i * l->keys, c->log_g + i * l->keys, layer_visible(l, i * c->spacing));
    }
fail:
    return status;
}

clsplat_status pairs_measure(layer *l, clsplat_splats *set, size_t count, size_t spacing, pair_row *rows) {
    clsplat_status status = CLSPLAT_OK;
    pairs_call c = {.layer = l, .count = count, .spacing = spacing};
    TRY(splats_upload(l->device, set, &c.splats));
    size_t splats = c.splats->count;
    c.query = malloc(l->batch * l->heads * count * splats * sizeof *c.query);
    c.key = malloc(KEYS * splats * sizeof *c.key);
    c.left = malloc(splats * BLOCK * sizeof *c.left);
    c.log_p = malloc(count * l->keys * sizeof *c.log_p);
    c.log_g = malloc(count * l->keys * sizeof *c.log_g);
    if (!c.query || !c.key || !c.left || !c.log_p || !c.log_g) {
        status = no_memory(l);
        goto fail;
    }
    TRY(weigh_queries(&c));
    for (size_t head = 0; head < l->batch * l->heads; ++head)
        TRY(measure_head(&c, head, rows + head * count));
fail:
    free(c.log_g);
    free(c.log_p);
    free(c.left);
    free(c.key);
    free(c.query);
    return status;
}
