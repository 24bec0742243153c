#include "splats/tokens.h"

#include <math.h>
#include <stdlib.h>

#include "base/half.h"
#include "runtime/tensor.h"

clsplat_status tokens_open(clsplat *lib, clsplat_tensor q, clsplat_tensor k, bool shared,
                           token_source *source) {
    clsplat_status status = CLSPLAT_OK;
    *source = (token_source){.q = q, .k = k, .shared = shared};
    TRY(tensor_check_place(lib, "k", &source->k, true));
    if (!q.host && !q.buffer)
        return CLSPLAT_OK;
    TRY(tensor_check_place(lib, "q", &source->q, true));
    TRY(tensor_check_queries(lib, &source->q, &source->k));
fail:
    return status;
}

size_t tokens_heads(const token_source *source) {
    return source->shared ? 1 : source->q.host ? source->q.shape[1] : source->k.shape[1];
}

/* What a tensor adds to each head of the set. */
static size_t tokens_of(const token_source *source, const clsplat_tensor *t) {
    return t->host ? t->shape[0] * (source->shared ? t->shape[1] : 1) * t->shape[2] : 0;
}

size_t tokens_count(const token_source *source) {
    return tokens_of(source, &source->k) + (source->keys_only ? 0 : tokens_of(source, &source->q));
}

/* Where a token lies: keys come first, then queries; in each batch, head, row. */
typedef struct token_place {
    const clsplat_tensor *tensor;
    size_t batch, head, row;
} token_place;

static token_place place_of(const token_source *source, size_t head, size_t index) {
    size_t keys = tokens_of(source, &source->k);
    bool is_key = index < keys;
    const clsplat_tensor *t = is_key ? &source->k : &source->q;
    size_t place = is_key ? index : index - keys, row = place % t->shape[2], sequence = place / t->shape[2];
    if (source->shared)
        return (token_place){t, sequence / t->shape[1], sequence % t->shape[1], row};
    return (token_place){t, sequence, head / (tokens_heads(source) / t->shape[1]), row};
}

static void load(const token_place *place, float *to) {
    const clsplat_tensor *t = place->tensor;
    size_t at =
        t->offset + place->batch * t->stride[0] + place->head * t->stride[1] + place->row * t->stride[2];
    for (size_t d = 0; d < t->shape[3]; ++d) {
        if (t->dtype == CLSPLAT_F32)
            to[d] = ((const float *)t->host)[at + d];
        else if (t->dtype == CLSPLAT_F16)
            to[d] = half_from_f16(((const uint16_t *)t->host)[at + d]);
        else
            to[d] = half_from_bf16(((const uint16_t *)t->host)[at + d]);
    }
}

clsplat_status tokens_sample(clsplat *lib, const token_source *source, size_t head, random_state *random,
                             size_t count, float *tokens) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = source->k.shape[3], *chosen = malloc(count * sizeof *chosen);
    if (!chosen)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a sample of %zu tokens", count);
    random_sample(random, tokens_count(source), count, chosen);
    for (size_t i = 0; i < count && status == CLSPLAT_OK; ++i) {
        token_place place = place_of(source, head, chosen[i]);
        float *token = tokens + i * dim;
        load(&place, token);
        for (size_t d = 0; d < dim && status == CLSPLAT_OK; ++d)
            if (!isfinite(token[d]))
                status = log_error(lib, CLSPLAT_INVALID,
                                   "%s holds %f at [%zu, %zu, %zu, %zu]; every number must be finite",
                                   place.tensor == &source->k ? "k" : "q", (double)token[d], place.batch,
                                   place.head, place.row, d);
    }
    free(chosen);
    return status;
}
