/* The story of a model that reads a text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/near_far.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/eval.h"
#include "cli/make_report.h"
#include "cli/report.h"
#include "model/attention.h"
#include "model/session.h"
#include "runtime/buffer.h"

enum { TEXT_LIMIT = 1 << 30 }; /* bytes */

/* The bar: reading, then looking. */
static const double READ = 0.7;

typedef struct reading {
    language l;
    language_tokens tokens;
    clsplat_session *session;
    query_keeper keeper;
    uint32_t *positions;
    size_t count;
    float *log_likelihood; /* [tokens − 1] */
    eval_cost cost;
} reading;

static clsplat_status load_text(reading *r, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = r->l.c->lib;
    char *bytes = NULL;
    size_t count = 0;
    TRY(file_load(lib, path, TEXT_LIMIT, &bytes, &count));
    TRY(language_encode(&r->l, bytes, count, false, &r->tokens));
    if (r->tokens.count < 2)
        TRY(log_error(lib, CLSPLAT_INVALID, "%s: has %zu tokens; a report needs 2", path, r->tokens.count));
    if (r->tokens.count > r->l.context) {
        log_warning(lib, "%s: has %zu tokens; the report is of the first %zu (--context N takes more)", path,
                    r->tokens.count, r->l.context);
        r->tokens.count = r->l.context;
    }
    r->log_likelihood = calloc(r->tokens.count, sizeof *r->log_likelihood);
    if (!r->log_likelihood)
        TRY(log_error(lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", r->tokens.count));
fail:
    free(bytes);
    return status;
}

static clsplat_status read_text(reading *r) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = r->l.c->lib;
    attention_shape shape = session_shape(r->l.model, r->tokens.count);
    const char *lacking = attention_lacks(&(attention_form){.scales = true, .hides_mass = true}, &shape);
    if (lacking)
        TRY(log_error(lib, CLSPLAT_UNSUPPORTED, "a report is not there for a model %s", lacking));
    TRY(session_open(r->l.model, r->tokens.count, &r->l.attention, NULL, true, &r->session));
    TRY(query_keeper_create(lib, &shape, r->l.model->activations, r->positions, r->count, &r->keeper));
    r->session->keeper = &r->keeper;
    clsplat_profile_set(r->l.device, true);
    TRY(eval_score(&r->l, r->session, r->tokens, r->log_likelihood, NULL, (language_span){0, READ},
                   &r->cost));
    clsplat_profile_set(r->l.device, false);
fail:
    return status;
}

/* Each token's text; what is half a character goes with the token that completes it. */
static clsplat_status tell_words(reading *r, story *s, double *bytes) {
    clsplat_status status = CLSPLAT_OK;
    language_stream stream = {.previous = -1};
    size_t count = r->tokens.count;
    s->starts = calloc(count + 1, sizeof *s->starts);
    s->surprise = calloc(count + 1, sizeof *s->surprise);
    if (!s->starts || !s->surprise)
        TRY(log_error(r->l.c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", count));
    text_add_bytes(&s->words, "", 0);
    for (size_t i = 0; i < count; ++i) {
        TRY(language_stream_add(&r->l, &stream, r->tokens.list[i]));
        size_t ready = i + 1 < count ? language_stream_ready(&stream) : stream.held.length;
        text_add_bytes(&s->words, stream.held.data, ready);
        language_stream_drop(&stream, ready);
        s->starts[i + 1] = s->words.length;
        if (i > 0)
            s->surprise[i] = -r->log_likelihood[i - 1] / (float)M_LN2;
    }
    *bytes = (double)(s->words.length - s->starts[1]);
    if (!text_ok(&s->words))
        TRY(log_error(r->l.c->lib, CLSPLAT_MEMORY, "there is no memory for the text"));
fail:
    text_free(&stream.held);
    return status;
}

static clsplat_status tell_run(reading *r, story *s) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session_statistics statistics;
    const clsplat_model_info *info = r->l.info;
    double nats = 0, bytes = 0;
    TRY(tell_words(r, s, &bytes));
    for (size_t i = 0; i + 1 < r->tokens.count; ++i)
        nats -= (double)r->log_likelihood[i];
    s->bits_per_byte = bytes > 0 ? nats / M_LN2 / bytes : NAN;
    TRY(clsplat_session_statistics_read(r->session, &statistics));
    TRY(clsplat_profile_read(r->l.device, &s->kernels, &s->kernel_count));
    report_count_kernels(s);
    s->seconds = r->cost.seconds;
    s->visible = statistics.visible_keys;
    s->exact = statistics.exact_keys;
    s->peak = clsplat_device_memory(r->l.device).peak;
    uint64_t cache = r->tokens.count * info->token_bytes, known = info->weight_bytes + statistics.bytes;
    s->memory[0].name = "weights";
    s->memory[0].bytes = info->weight_bytes;
    s->memory[1].name = "keys and values";
    s->memory[1].bytes = cache;
    s->memory[2].name = "trees and lists";
    s->memory[2].bytes = statistics.bytes > cache ? statistics.bytes - cache : 0;
    s->memory[3].name = "between layers, workspaces";
    s->memory[3].bytes = s->peak > known ? s->peak - known : 0;
fail:
    return status;
}

/* The kept queries of a layer, on the device. */
static clsplat_status bring_queries(reading *r, size_t layer, op_tensor *q) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = r->l.info->heads, dim = r->l.info->head_dim, numbers = heads * r->count * dim,
           each = clsplat_dtype_size(r->keeper.dtype);
    *q = (op_tensor){.dtype = r->keeper.dtype,
                     .shape = {1, heads, r->count, dim},
                     .stride = {numbers, r->count * dim, dim}};
    TRY(buffer_create_from(r->l.device, numbers * each, r->keeper.queries + layer * numbers * each, &q->mem));
fail:
    return status;
}

static clsplat_status look_closer(reading *r, story *s) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *config = &r->l.model->config;
    look_source from = {.scale = config->score_scale,
                        .tolerance = r->l.attention.tolerance,
                        .sparse_topk = r->l.attention.sparse_topk,
                        .trees = near_far_tree_dtype(r->l.model->cache, r->l.attention.tolerance)};
    double begin = clock_seconds();
    for (size_t i = 0; i < config->layers; ++i) {
        from.k = op_slice(r->session->k[i], 2, 0, s->look.keys);
        from.v = op_slice(r->session->v[i], 2, 0, s->look.keys);
        from.window = config->windowed[i] ? config->window : 0;
        TRY(bring_queries(r, i, &from.q));
        status = look_layer(r->l.device, &s->look, i, &from);
        buffer_release(r->l.device, from.q.stride[0] * clsplat_dtype_size(from.q.dtype), &from.q.mem);
        TRY(status);
        if (!progress_step(&r->l.c->progress, READ + (1 - READ) * (double)(i + 1) / (double)config->layers))
            return CLSPLAT_CANCELLED;
    }
    s->look_seconds = clock_seconds() - begin;
fail:
    return status;
}

/* Which queries, and how much of them. */
static clsplat_status prepare(cli *c, const report_request *request, reading *r, story *s) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_model_info *info = r->l.info;
    size_t heads = info->layers * info->heads;
    look shape = {.layers = info->layers,
                  .heads = info->heads,
                  .kv_heads = info->kv_heads,
                  .keys = r->tokens.count - 1,
                  .top = report_top(heads),
                  .causal = true};
    TRY(report_choose(c, request->rows, shape.keys, heads, &r->positions, &r->count));
    shape.count = r->count;
    if (r->l.attention.method == CLSPLAT_MODEL_NEAR_FAR) {
        shape.chunk = r->l.attention.chunk;
        TRY(near_far_choose(r->l.device, r->l.attention.tolerance, r->l.attention.sparse_topk,
                            r->tokens.count, &shape.chunk));
    }
    TRY(look_create(c->lib, shape, r->positions, &s->look));
fail:
    return status;
}

clsplat_status report_model(cli *c, report_request *request, const char *model, const char *path, story *s) {
    clsplat_status status = CLSPLAT_OK;
    reading r = {0};
    text what = {0};
    if (!request->model.attention)
        request->model.attention = strdup("near-far");
    TRY(language_open(c, &request->model, model, &r.l));
    if (r.l.attention.method != CLSPLAT_MODEL_NEAR_FAR && r.l.attention.method != CLSPLAT_MODEL_EXACT)
        TRY(cli_misuse(c, "--attention: a report is of near-far or of softmax"));
    TRY(load_text(&r, path));
    TRY(prepare(c, request, &r, s));
    TRY(read_text(&r));
    s->layer_word = "layer";
    s->tolerance = r.l.attention.tolerance;
    snprintf(s->device, sizeof s->device, "%s", clsplat_device_describe(r.l.device)->name);
    TRY(tell_run(&r, s));
    TRY(look_closer(&r, s));
    text_add(&what, "What %s attends to as it reads %zu tokens, %s; %zu tokens recorded; on %s", model,
             s->look.keys, s->look.chunk ? "near exactly and far through trees of splats" : "exactly",
             r.count, s->device);
    s->title = text_copy(path);
    s->what = what.data;
    if (!s->title || !text_ok(&what))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for the report"));
fail:
    if (!s->what)
        text_free(&what);
    query_keeper_free(&r.keeper);
    clsplat_session_close(&r.session);
    language_free(&r.tokens);
    free(r.positions);
    free(r.log_likelihood);
    language_close(&r.l);
    return status;
}
