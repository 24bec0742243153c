/* What the splats of a head do, from what is kept of every row and every sampled key. */
#include <math.h>
#include <stdlib.h>

#include "adapt/herd.h"

static clsplat_status allocate(const herd *h, herd_look *look) {
    const layer *l = h->layer;
    size_t count = h->people.count, keys = l->batch * h->state_heads * h->tokens;
    look->use = calloc(count, sizeof *look->use);
    look->blame = calloc(count, sizeof *look->blame);
    look->entropy = calloc(count, sizeof *look->entropy);
    look->leave_one_out = calloc(count, sizeof *look->leave_one_out);
    look->row_square = calloc(l->batch * l->heads * l->rows, sizeof *look->row_square);
    look->nearest = malloc(keys * sizeof *look->nearest);
    look->reach = malloc(keys * sizeof *look->reach);
    if (look->use && look->blame && look->entropy && look->leave_one_out && look->row_square &&
        look->nearest && look->reach)
        return CLSPLAT_OK;
    return log_error(l->device->lib, CLSPLAT_MEMORY, "no memory to look at %zu splats", count);
}

/* Squared errors of the rows. Returns: how many rows the head has. */
static size_t look_at_rows(const herd *h, size_t head, herd_look *look) {
    const layer *l = h->layer;
    size_t served = 0;
    for (size_t q = 0; q < l->batch * l->heads; ++q) {
        if (!herd_serves(h, head, q))
            continue;
        served += l->rows;
        for (size_t t = q * l->rows; t < (q + 1) * l->rows; ++t) {
            look->row_square[t] = h->row_square[t];
            look->row_total += look->row_square[t];
        }
    }
    return served;
}

/* −ln(1 − p), to 1e-9 of itself. */
static double lost_without(double share) {
    return share < 1e-3 ? share * (1 + share * (0.5 + share * (1.0 / 3))) : -log1p(-fmin(share, 1 - 1e-12));
}

/* Of one column: shares p of every row, Σ p, Σ p square, −Σ ln(1 − p) and the entropy of p over the rows. */
static void look_at_splat(const herd *h, size_t head, size_t column, size_t rows, herd_look *look) {
    const layer *l = h->layer;
    double use = 0, logs = 0;
    for (size_t q = 0; q < l->batch * l->heads; ++q) {
        if (!herd_serves(h, head, q))
            continue;
        const float *log_weight = h->log_weight + (q * h->people.capacity + column) * l->rows;
        for (size_t t = 0; t < l->rows; ++t) {
            double log_share = (double)log_weight[t] - h->lse[q * l->rows + t];
            if (!(log_share > -25)) /* 1e-11 of a row */
                continue;
            double share = fmin(exp(log_share), 1);
            use += share;
            logs += share * log_share;
            look->blame[column] += share * look->row_square[q * l->rows + t];
            look->leave_one_out[column] += lost_without(share);
        }
    }
    look->entropy[column] = use > 0 ? log(use) - logs / use : 0;
    look->use[column] = use / (double)rows;
    look->leave_one_out[column] /= (double)rows;
    look->blame[column] /= look->row_total > 0 ? look->row_total : 1;
}

/* The head of keys, of [B,Hk], that a head of states is of. */
static size_t key_head(const herd *h, size_t writer) {
    size_t kv_heads = h->layer->kv_heads;
    return writer / h->state_heads * kv_heads + writer % h->state_heads / (h->state_heads / kv_heads);
}

static void look_at_tokens(const herd *h, size_t head, herd_look *look) {
    const layer *l = h->layer;
    size_t group = l->heads / h->state_heads;
    for (size_t i = 0; i < l->batch * h->state_heads * h->tokens; ++i) {
        look->nearest[i] = SIZE_MAX;
        look->reach[i] = -INFINITY;
    }
    for (size_t w = 0; w < l->batch * h->state_heads; ++w) {
        size_t *nearest = look->nearest + w * h->tokens;
        float *reach = look->reach + w * h->tokens;
        if (h->people.heads > 1 && w % h->state_heads * group != head)
            continue;
        for (size_t c = 0; c < h->people.count; ++c) {
            const float *cover = h->cover + (w * h->people.capacity + c) * h->tokens;
            for (size_t t = 0; t < h->tokens; ++t)
                if (nearest[t] == SIZE_MAX || cover[t] > reach[t])
                    reach[t] = cover[t], nearest[t] = c;
        }
        for (size_t t = 0; t < h->tokens; ++t)
            if (layer_is_padding(l, key_head(h, w), t * h->spacing))
                reach[t] = -INFINITY, nearest[t] = SIZE_MAX;
    }
}

clsplat_status herd_look_at(const herd *h, size_t head, herd_look *look) {
    clsplat_status status = CLSPLAT_OK;
    *look = (herd_look){0};
    TRY(allocate(h, look));
    size_t rows = look_at_rows(h, head, look);
    for (size_t c = 0; c < h->people.count; ++c)
        look_at_splat(h, head, c, rows, look);
    look_at_tokens(h, head, look);
    return CLSPLAT_OK;
fail:
    herd_look_free(look);
    return status;
}

void herd_look_free(herd_look *look) {
    free(look->use);
    free(look->blame);
    free(look->entropy);
    free(look->leave_one_out);
    free(look->row_square);
    free(look->nearest);
    free(look->reach);
    *look = (herd_look){0};
}
