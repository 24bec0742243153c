#include "model/session.h"
#include "base/sized.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "model/decoder.h"
#include "model/splats_adapt.h"
#include "runtime/buffer.h"

void clsplat_model_attention_defaults_sized(clsplat_model_attention *defaults) {
    clsplat_model_attention own = {.window = 512, .tolerance = 0.02f};
    sized_write(&own, sizeof own, defaults);
}

void clsplat_sampling_defaults_sized(clsplat_sampling *defaults) {
    clsplat_sampling own = {.top_p = 1};
    sized_write(&own, sizeof own, defaults);
}

static clsplat *library(const clsplat_session *s) {
    return s->model->device->lib;
}

/* What a call wants beside the cache: host memory for logits, or a score of every target. */
typedef struct output_request {
    float *logits;
    const int32_t *targets;
} output_request;

static clsplat_status check_tokens(const clsplat_session *s, const int32_t *tokens, size_t count,
                                   const char *what) {
    for (size_t i = 0; i < count; ++i)
        if (tokens[i] < 0 || (size_t)tokens[i] >= s->model->config.vocabulary)
            return log_error(library(s), CLSPLAT_INVALID, "%s %zu is %d, outside the vocabulary of %zu", what,
                             i, (int)tokens[i], s->model->config.vocabulary);
    return CLSPLAT_OK;
}

static clsplat_status check_feed(const clsplat_session *s, const int32_t *tokens, size_t count,
                                 const int32_t *targets) {
    clsplat_status status = CLSPLAT_OK;
    if (count > s->capacity - s->length)
        return log_error(library(s), CLSPLAT_INVALID,
                         "%zu tokens do not fit a session of %zu that has read %zu", count, s->capacity,
                         s->length);
    TRY(check_tokens(s, tokens, count, "token"));
    if (targets)
        TRY(check_tokens(s, targets, count, "target"));
fail:
    return status;
}

static clsplat_status upload_list(queue *q, cl_mem mem, size_t first, const int32_t *list, size_t count) {
    return queue_upload(q, (queue_copy){.mem = mem,
                                        .mem_offset = 4 * first,
                                        .host = (void *)list,
                                        .row = 4 * count,
                                        .rows = count ? 1 : 0});
}

/* The head over a chunk's rows, a piece at a time; `at`: of the chunk within the call. */
static clsplat_status use_rows(queue *q, clsplat_session *s, op_tensor rows, size_t at,
                               const output_request *w) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model *m = s->model;
    size_t count = rows.shape[2], vocabulary = m->config.vocabulary;
    for (size_t i = 0; i < count; i += m->scratch.logit_rows) {
        size_t part = count - i < m->scratch.logit_rows ? count - i : m->scratch.logit_rows;
        op_tensor logits = op_slice(m->scratch.logits, 2, 0, part);
        TRY(decoder_logits(q, m, op_slice(rows, 2, i, part), logits));
        if (w->targets)
            TRY(op_score(q, &(op_score_args){.logits = logits,
                                             .targets = s->targets,
                                             .log_likelihood = s->log_likelihood,
                                             .greedy = s->greedy,
                                             .first = s->length + i}));
        if (w->logits)
            TRY(queue_download(q, (queue_copy){.mem = logits.mem,
                                               .host = w->logits + (at + i) * vocabulary,
                                               .row = 4 * part * vocabulary,
                                               .rows = 1}));
    }
fail:
    return status;
}

static clsplat_status read_tokens(clsplat_session *s, const int32_t *tokens, size_t count,
                                  const output_request *w) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    bool all = w->logits || w->targets;
    TRY(session_begin(s));
    TRY(check_feed(s, tokens, count, w->targets));
    queue_begin(s->model->device, 0, NULL, &q);
    TRY(upload_list(&q, s->ids, s->length, tokens, count));
    if (w->targets)
        TRY(upload_list(&q, s->targets, s->length, w->targets, count));
    for (size_t at = 0, part; at < count; at += part) {
        size_t room = splat_adapting_room(s->splats, s->length);
        part = count - at < s->model->scratch.rows ? count - at : s->model->scratch.rows;
        part = part < room ? part : room;
        if (s->divided) {
            part = part < s->divided->part ? part : s->divided->part;
            divided_begin(s->divided);
        }
        op_tensor rows;
        s->has_last = s->has_logits = false;
        TRY(decoder_run(&q, s, s->length, part,
                        all                  ? DECODER_ALL
                        : at + part == count ? DECODER_LAST
                                             : DECODER_NONE,
                        &rows));
        if (all)
            TRY(use_rows(&q, s, rows, at, w));
        if (s->divided)
            divided_end(s->divided, part);
        s->length += part;
        s->tokens += part;
        TRY(session_adapt(&q, s));
    }
    s->has_last = s->has_last || count > 0;
    TRY(queue_flush(&q));
fail:
    return status;
}

clsplat_status clsplat_session_feed(clsplat_session *session, const int32_t *tokens, size_t count,
                                    float *logits) {
    clsplat_status status = read_tokens(session, tokens, count, &(output_request){.logits = logits});
    return session_end(session, status, logits && count > 0);
}

static clsplat_status download_list(queue *q, cl_mem mem, size_t first, void *list, size_t count) {
    return queue_download(
        q, (queue_copy){
               .mem = mem, .mem_offset = 4 * first, .host = list, .row = 4 * count, .rows = count ? 1 : 0});
}

/* Neither a token nor a probability follows from logits that are no numbers. */
static clsplat_status refuse_logits(const clsplat_session *s, size_t token) {
    return log_error(library(s), CLSPLAT_NOT_FINITE,
                     "the logits after %zu tokens are not finite (NaN or infinite): %s", token,
                     s->model->activations == CLSPLAT_F16
                         ? "F16 ends at 65,504, which this model may exceed; run it in F32 or BF16"
                         : "a weight of the model is damaged, or too large");
}

clsplat_status clsplat_session_score(clsplat_session *session, const int32_t *tokens, const int32_t *targets,
                                     size_t count, float *log_likelihood, bool *greedy) {
    clsplat_status status = CLSPLAT_OK;
    size_t first = session->length;
    int32_t *flags = NULL;
    float *own = log_likelihood ? log_likelihood : malloc((count + 1) * sizeof *own);
    queue q;
    assert(targets || count == 0);
    if (!own)
        return session_end(
            session, log_error(library(session), CLSPLAT_MEMORY, "no memory for %zu scores", count), false);
    TRY(read_tokens(session, tokens, count, &(output_request){.targets = targets}));
    queue_begin(session->model->device, 0, NULL, &q);
    TRY(download_list(&q, session->log_likelihood, first, own, count));
    for (size_t i = 0; i < count; ++i)
        if (isnan(own[i]))
            TRY(refuse_logits(session, first + i + 1));
    if (greedy && count) {
        flags = malloc(count * sizeof *flags);
        if (!flags)
            TRY(log_error(library(session), CLSPLAT_MEMORY, "no memory for %zu answers", count));
        TRY(download_list(&q, session->greedy, first, flags, count));
        for (size_t i = 0; i < count; ++i)
            greedy[i] = flags[i] != 0;
    }
fail:
    if (own != log_likelihood)
        free(own);
    free(flags);
    return session_end(session, status, count > 0 && (log_likelihood || greedy));
}

static clsplat_status make_logits(queue *q, clsplat_session *s) {
    clsplat_status status = CLSPLAT_OK;
    if (!s->has_last)
        return log_error(library(s), CLSPLAT_INVALID,
                         "the session has no logits: feed it a token first, also after a rewind");
    if (s->has_logits)
        return CLSPLAT_OK;
    TRY(decoder_logits(q, s->model, s->last, s->logits));
    s->has_logits = true;
fail:
    return status;
}

clsplat_status clsplat_session_logits(clsplat_session *session, float *logits) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    TRY(session_begin(session));
    queue_begin(session->model->device, 0, NULL, &q);
    TRY(make_logits(&q, session));
    TRY(download_list(&q, session->logits.mem, 0, logits, session->model->config.vocabulary));
fail:
    return session_end(session, status, true);
}

static clsplat_status check_sampling(const clsplat_session *s, const clsplat_sampling *sampling) {
    if (!(sampling->temperature >= 0) || sampling->temperature > 1e6f)
        return log_error(library(s), CLSPLAT_INVALID, "a temperature of %g is not from 0 to 1e6",
                         (double)sampling->temperature);
    if (!(sampling->top_p > 0) || sampling->top_p > 1)
        return log_error(library(s), CLSPLAT_INVALID, "a top_p of %g is not above 0 and at most 1",
                         (double)sampling->top_p);
    return CLSPLAT_OK;
}

clsplat_status clsplat_session_sample_sized(clsplat_session *session, const clsplat_sampling *sampling_given,
                                            int32_t *token) {
    clsplat_sampling sampling = clsplat_sampling_defaults();
    clsplat_status status = CLSPLAT_OK;
    queue q;
    TRY(SIZED_READ(library(session), sampling, sampling_given));
    random_state random = random_stream(sampling.seed, session->length);
    float draw = (float)random_uniform(&random);
    TRY(check_sampling(session, &sampling));
    TRY(session_begin(session));
    queue_begin(session->model->device, 0, NULL, &q);
    TRY(make_logits(&q, session));
    TRY(op_sample(&q, &(op_sample_args){.logits = session->logits,
                                        .temperature = sampling.temperature,
                                        .top_k = sampling.top_k,
                                        .top_p = sampling.top_p,
                                        .draw = draw < 1 ? draw : 0,
                                        .token = session->token}));
    TRY(download_list(&q, session->token, 0, token, 1));
    if (*token < 0)
        TRY(refuse_logits(session, session->length));
fail:
    status = session_end(session, status, true);
    return session->divided && status == CLSPLAT_OK ? divided_token(session->divided, token) : status;
}

size_t clsplat_session_length(const clsplat_session *session) {
    return session->length;
}

size_t clsplat_session_reach(const clsplat_session *session) {
    return splat_store_reach(session->splats);
}

size_t clsplat_session_capacity(const clsplat_session *session) {
    return session->capacity;
}

clsplat_status clsplat_session_rewind(clsplat_session *session, size_t length) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    TRY(session_mend(session));
    if (length > session->length)
        TRY(log_error(library(session), CLSPLAT_INVALID, "a session of %zu tokens cannot go back to %zu",
                      session->length, length));
    if (length == session->length && length > 0)
        goto fail;
    if (length > 0 && length < clsplat_session_reach(session))
        TRY(log_error(library(session), CLSPLAT_INVALID,
                      "a session of %zu tokens with splat layers cannot go back to %zu: older keys than "
                      "those of token %zu "
                      "are in splats alone; it goes back to 0, or keeps all keys with adapt_every",
                      session->length, length, clsplat_session_reach(session)));
    queue_begin(session->model->device, 0, NULL, &q);
    TRY(session_shorten(&q, session, length));
    splat_adapting_rewind(session->splats, length);
    session->length = length;
    if (session->sure > length)
        session->sure = length;
    session->has_last = session->has_logits = false;
    if (length == 0) {
        session->tokens = 0;
        session->visible_keys = session->exact_keys = 0;
    }
fail:
    if (session->divided && session->length > session->divided->length) /* it failed on the way */
        session->length = session->sure = session->divided->length;
    return session->divided ? divided_agree(session->divided, status) : status;
}

clsplat_status clsplat_session_statistics_read_sized(clsplat_session *session,
                                                     clsplat_session_statistics *statistics) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    clsplat_session_statistics own = {.tokens = session->tokens,
                                      .visible_keys = session->visible_keys,
                                      .exact_keys = session->exact_keys,
                                      .bytes = session->bytes};
    TRY(session_begin(session));
    queue_begin(session->model->device, 0, NULL, &q);
    if (session->form->count)
        TRY(session->form->count(&q, session->state, &own.exact_keys));
    if (session->divided && session->form->attend_past) {
        own.exact_keys += session->divided->counted;
        TRY(divided_sum(session->divided, &own.exact_keys));
    }
fail:
    sized_write(&own, sizeof own, statistics);
    return session_end(session, status, false);
}
