/* Texts as vectors, and what an encoder makes of tokens. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "model/block.h"
#include "model/encoder.h"

void clsplat_embedding_defaults_sized(clsplat_embedding *defaults) {
    clsplat_embedding own = {.attention = clsplat_model_attention_defaults()};
    sized_write(&own, sizeof own, defaults);
}

/* Texts on their way, sorted by length, longest first. */
typedef struct embedding {
    clsplat_model *model;
    const clsplat_embedding *how;
    token_list *tokens; /* [count], as the caller has them */
    const token_list **sorted;
    size_t count, cut;
} embedding;

static clsplat_status no_memory(const clsplat_model *m, size_t count) {
    return log_error(m->device->lib, CLSPLAT_MEMORY, "no memory for %zu texts", count);
}

/* Longer texts lose what stands before the tokens at their end. */
static clsplat_status encode(embedding *e, const clsplat_text *words, token_list *to) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model *m = e->model;
    const char *prompt = m->pooling.prompt;
    const token_list *end = &m->tokenizer->end;
    size_t longest = m->info.longest;
    text whole = {0};
    if (prompt) {
        text_add(&whole, "%s", prompt);
        text_add_bytes(&whole, words->words, words->bytes);
        if (!text_ok(&whole))
            TRY(no_memory(m, e->count));
    }
    TRY(tokenizer_encode(m->tokenizer, prompt ? whole.data : words->words,
                         prompt ? whole.length : words->bytes, true, &to->tokens, &to->count));
    if (to->count > longest) {
        size_t kept = end->count < longest ? end->count : longest;
        memmove(to->tokens + longest - kept, to->tokens + to->count - kept, kept * sizeof *to->tokens);
        to->count = longest;
        ++e->cut;
    }
    if (to->count == 0)
        TRY(log_error(m->device->lib, CLSPLAT_INVALID,
                      "a text is empty, and this model's tokeniser puts nothing around it"));
fail:
    text_free(&whole);
    return status;
}

/* Of equal lengths the caller's order stays. */
static int compare(const void *a, const void *b) {
    const token_list *x = *(const token_list *const *)a, *y = *(const token_list *const *)b;
    return x->count != y->count ? (x->count < y->count ? 1 : -1) : x < y ? -1 : x > y;
}

static clsplat_status prepare(embedding *e, const clsplat_text *texts) {
    clsplat_status status = CLSPLAT_OK;
    e->tokens = calloc(e->count, sizeof *e->tokens);
    e->sorted = malloc(e->count * sizeof *e->sorted);
    if (!e->tokens || !e->sorted)
        return no_memory(e->model, e->count);
    for (size_t i = 0; i < e->count; ++i) {
        e->sorted[i] = &e->tokens[i];
        TRY(encode(e, &texts[i], &e->tokens[i]));
    }
    qsort(e->sorted, e->count, sizeof *e->sorted, compare);
    if (e->cut)
        log_warning(e->model->device->lib,
                    "%zu of %zu texts are longer than the model's %zu tokens and are cut", e->cut, e->count,
                    e->model->info.longest);
fail:
    return status;
}

/* The mean is what attention makes of equal scores: every head of the rows has its own columns. */
static clsplat_status pool_mean(queue *q, const clsplat_model *m, const encoder_group *g, op_tensor rows,
                                op_tensor to) {
    const model_config *c = &m->config;
    size_t dim = c->hidden / c->heads;
    op_tensor x = encoder_heads(g, rows, 0, c->heads, dim), out = block_heads(to, 0, c->heads, dim);
    out.shape[0] = g->count;
    out.shape[2] = 1;
    out.stride[0] = out.stride[2];
    op_tensor lse = m->scratch.lse;
    lse.shape[0] = g->count;
    lse.shape[2] = 1;
    lse.stride[0] = c->heads;
    lse.stride[1] = 1;
    return op_softmax(q, &(op_softmax_args){.q = op_slice(x, 2, 0, 1),
                                            .k = x,
                                            .v = x,
                                            .key_bias = encoder_bias(g, m->scratch.key_bias, c->heads),
                                            .out = out,
                                            .lse = lse,
                                            .diagonal = OP_SEES_ALL});
}

/* One row of every text. */
static clsplat_status pool_row(queue *q, const encoder_pass *pass, op_tensor rows, op_tensor to, bool last) {
    clsplat_status status = CLSPLAT_OK;
    size_t at = 0;
    for (size_t i = 0; i < pass->group_count; ++i)
        for (size_t k = 0; k < pass->groups[i].count; ++k, ++at) {
            size_t row = pass->groups[i].first_row + k * pass->groups[i].length +
                         (last ? pass->texts[at]->count - 1 : 0);
            TRY(op_norm(q, &(op_norm_args){.x = op_slice(rows, 2, row, 1), .out = op_slice(to, 2, at, 1)}));
        }
fail:
    return status;
}

static clsplat_status pool(queue *q, const embedding *e, const encoder_pass *pass) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model *m = e->model;
    clsplat_pooling kind = e->how->pooling == CLSPLAT_POOLING_FOLDER ? m->pooling.kind : e->how->pooling;
    op_tensor rows = m->scratch.h, to = op_slice(m->scratch.pooled, 2, 0, pass->count);
    if (kind == CLSPLAT_POOLING_MEAN) {
        size_t at = 0;
        for (size_t i = 0; i < pass->group_count; at += pass->groups[i++].count)
            TRY(pool_mean(q, m, &pass->groups[i], rows, op_slice(to, 2, at, pass->groups[i].count)));
    } else {
        TRY(pool_row(q, pass, rows, to, kind == CLSPLAT_POOLING_LAST));
    }
    /* x / ‖x‖ = √C⁻¹ x / √(mean x²) */
    if (e->how->normalise || m->pooling.normalised)
        TRY(op_norm(q, &(op_norm_args){.x = to, .weight = m->scratch.unit, .out = to, .epsilon = 1e-24f}));
fail:
    return status;
}

/* Of a pass's texts, to where the caller has them. */
static clsplat_status hand_out(queue *q, const embedding *e, const encoder_pass *pass, float *vectors) {
    clsplat_status status = CLSPLAT_OK;
    size_t hidden = e->model->config.hidden;
    float *found = malloc(pass->count * hidden * sizeof *found);
    if (!found)
        return no_memory(e->model, e->count);
    TRY(queue_download(q, (queue_copy){.mem = e->model->scratch.pooled.mem,
                                       .host = found,
                                       .row = 4 * pass->count * hidden,
                                       .rows = 1}));
    for (size_t i = 0; i < pass->count; ++i)
        memcpy(vectors + (size_t)(pass->texts[i] - e->tokens) * hidden, found + i * hidden, 4 * hidden);
fail:
    free(found);
    return status;
}

static clsplat_status run_all(embedding *e, float *vectors) {
    clsplat_status status = CLSPLAT_OK;
    encoder_pass pass;
    queue q;
    queue_begin(e->model->device, 0, NULL, &q);
    for (size_t at = 0; at < e->count; at += pass.count) {
        encoder_lay_out(e->model, e->sorted + at, e->count - at, &pass);
        TRY(encoder_run(&q, e->model, &e->how->attention, &pass));
        TRY(pool(&q, e, &pass));
        TRY(hand_out(&q, e, &pass, vectors));
        if (e->how->progress &&
            !e->how->progress(e->how->progress_user, (double)(at + pass.count) / (double)e->count))
            return log_error(e->model->device->lib, CLSPLAT_CANCELLED, "stopped by the caller");
    }
fail:
    return status;
}

clsplat_status clsplat_model_embed_sized(clsplat_model *model, const clsplat_embedding *how_given,
                                         const clsplat_text *texts, size_t count, float *vectors) {
    clsplat_embedding how = clsplat_embedding_defaults();
    clsplat_status status = CLSPLAT_OK;
    embedding e = {.model = model, .how = &how, .count = count};
    assert(model && (count == 0 || (texts && vectors)));
    TRY(SIZED_READ(model->device->lib, how, how_given));
    TRY(encoder_check(model, &how.attention));
    if (count == 0)
        return CLSPLAT_OK;
    TRY(prepare(&e, texts));
    TRY(run_all(&e, vectors));
fail:
    for (size_t i = 0; e.tokens && i < count; ++i)
        free(e.tokens[i].tokens);
    free(e.tokens);
    free(e.sorted);
    return status;
}

static clsplat_status check_tokens(const clsplat_model *m, const int32_t *tokens, size_t count, bool logits) {
    clsplat *lib = m->device->lib;
    if (count == 0 || count > m->context)
        return log_error(lib, CLSPLAT_INVALID,
                         "a text of %zu tokens is not from 1 to the model's context of %zu", count,
                         m->context);
    for (size_t i = 0; i < count; ++i)
        if (tokens[i] < 0 || (size_t)tokens[i] >= m->config.vocabulary)
            return log_error(lib, CLSPLAT_INVALID, "token %zu is %d, outside the vocabulary of %zu", i,
                             (int)tokens[i], m->config.vocabulary);
    if (logits && !m->info.head)
        return log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "this model of type %s has no head that guesses tokens: take one that was saved with it "
            "(…ForMaskedLM)",
            m->config.family);
    return CLSPLAT_OK;
}

/* The head writes over rows, piece by piece. */
static clsplat_status download_logits(queue *q, const clsplat_model *m, size_t count, float *logits) {
    clsplat_status status = CLSPLAT_OK;
    size_t vocabulary = m->config.vocabulary;
    for (size_t i = 0, part; i < count; i += part) {
        part = count - i < m->scratch.logit_rows ? count - i : m->scratch.logit_rows;
        op_tensor to = op_slice(m->scratch.logits, 2, 0, part);
        TRY(block_logits(q, m, op_slice(m->scratch.h, 2, i, part), to));
        TRY(queue_download(
            q, (queue_copy){
                   .mem = to.mem, .host = logits + i * vocabulary, .row = 4 * part * vocabulary, .rows = 1}));
    }
fail:
    return status;
}

clsplat_status clsplat_model_read_sized(clsplat_model *model, const clsplat_model_attention *attention_given,
                                        const int32_t *tokens, size_t count, float *rows, float *logits) {
    clsplat_model_attention attention = clsplat_model_attention_defaults();
    clsplat_status status = CLSPLAT_OK;
    const token_list list = {.tokens = (int32_t *)tokens, .count = count}, *lists[] = {&list};
    encoder_pass pass;
    queue q;
    TRY(SIZED_READ(model->device->lib, attention, attention_given));
    TRY(encoder_check(model, &attention));
    TRY(check_tokens(model, tokens, count, logits != NULL));
    queue_begin(model->device, 0, NULL, &q);
    encoder_lay_out(model, lists, 1, &pass);
    TRY(encoder_run(&q, model, &attention, &pass));
    if (rows) {
        op_tensor from = op_slice(model->scratch.h, 2, 0, count),
                  to = op_slice(model->scratch.pooled, 2, 0, count);
        TRY(op_norm(&q, &(op_norm_args){.x = from, .out = to}));
        TRY(queue_download(
            &q,
            (queue_copy){.mem = to.mem, .host = rows, .row = 4 * count * model->config.hidden, .rows = 1}));
    }
    if (logits)
        TRY(download_logits(&q, model, count, logits));
fail:
    return status;
}
