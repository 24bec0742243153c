#include "model/model.h"
#include "base/sized.h"
#include "model/encoder_splats.h"
#include "model/pattern.h"

#include <assert.h>
#include <stdlib.h>

enum { CHUNK_LIMIT = 1 << 16, CONTEXT_LIMIT = 1 << 30 };

void clsplat_model_options_defaults_sized(clsplat_model_options *defaults) {
    clsplat_model_options own = {0};
    sized_write(&own, sizeof own, defaults);
}

static clsplat_status check_options(clsplat *lib, const clsplat_model_options *o) {
    if (o->activations > CLSPLAT_BF16 || o->cache > CLSPLAT_BF16)
        return log_error(lib, CLSPLAT_INVALID, "the types of activations and cache must be F32, F16 or BF16");
    if (o->chunk > CHUNK_LIMIT)
        return log_error(lib, CLSPLAT_INVALID, "a chunk of %zu tokens is above %d", o->chunk, CHUNK_LIMIT);
    if (o->context > CONTEXT_LIMIT)
        return log_error(lib, CLSPLAT_INVALID, "a context of %zu tokens is above %d", o->context,
                         CONTEXT_LIMIT);
    return CLSPLAT_OK;
}

static clsplat_status choose_context(clsplat *lib, const char *folder, size_t wanted, clsplat_model *m) {
    m->context = wanted ? wanted : m->config.context;
    if (m->context > m->config.context && m->config.positions)
        return log_error(lib, CLSPLAT_UNSUPPORTED, "%s: it has learned %zu positions; %zu were asked for",
                         folder, m->config.context, wanted);
    if (m->context > m->config.context && m->config.context_is_end)
        return log_error(lib, CLSPLAT_UNSUPPORTED,
                         "%s: beyond its %zu tokens, dynamic scaling of positions would turn all keys anew, "
                         "which is not supported; %zu were asked for",
                         folder, m->config.context, wanted);
    return CLSPLAT_OK;
}

/* A GPU wants long products and few launches: as many tokens as a text has, if workspaces of so many take a
 * small part of its memory. */
static size_t choose_chunk(const clsplat_model *m, size_t wanted) {
    enum { LEAST = 512, MOST = 8192, SHARE = 64 };
    const clsplat_limits *limits = &m->device->info.limits;
    const model_config *c = &m->config;
    size_t chunk = LEAST, numbers = 4 * c->hidden + 3 * c->intermediate + 4 * c->heads * c->head_dim;
    if (wanted || limits->cpu || c->layer.encoder)
        return wanted ? wanted : LEAST;
    while (chunk < MOST && chunk < m->context &&
           2 * chunk * numbers * sizeof(cl_float) <= limits->global_memory / SHARE)
        chunk *= 2;
    return chunk;
}

/* A whole text has to go through an encoder's layers at once; several short ones should. */
static size_t rows_at_once(const clsplat_model *m, size_t wanted) {
    enum { CHUNKS = 4 };
    size_t chunk = choose_chunk(m, wanted);
    if (!m->config.layer.encoder)
        return chunk;
    return CHUNKS * chunk > m->context ? CHUNKS * chunk : m->context;
}

/* Layers whose cache grows with the text: of splats that do not adapt the last tokens are enough. */
static size_t growing_layers(const model_config *c) {
    size_t layers = 0;
    for (size_t i = 0; i < c->layers; ++i)
        layers += !pattern_is_splatted(c, i) || c->adaptation.tokens;
    return layers;
}

static void describe(clsplat_model *m) {
    const model_config *c = &m->config;
    size_t longest = m->pooling.longest ? m->pooling.longest : m->context;
    m->info = (clsplat_model_info){
        .family = c->family,
        .layers = c->layers,
        .hidden = c->hidden,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .intermediate = c->intermediate,
        .vocabulary = c->vocabulary,
        .context = c->context,
        .window = c->window,
        .parameters = m->weights.parameters,
        .weight_bytes = m->weights.bytes,
        .token_bytes =
            2 * (uint64_t)growing_layers(c) * c->kv_heads * c->head_dim * clsplat_dtype_size(m->cache),
        .begin = c->begin,
        .ends = c->ends,
        .end_count = c->end_count,
        .encoder = c->layer.encoder,
        .head = m->weights.head[0].mem != NULL,
        .longest = longest < m->context ? longest : m->context,
        .mask = !c->layer.encoder ? -1
                : c->mask >= 0    ? c->mask
                                  : tokenizer_mask(m->tokenizer),
    };
}

clsplat_status clsplat_model_open_sized(clsplat_device *device, const char *folder,
                                        const clsplat_model_options *options_given, clsplat_model **model) {
    clsplat_model_options options = clsplat_model_options_defaults();
    clsplat_status status = CLSPLAT_OK;
    assert(device && folder && model);
    clsplat *lib = device->lib;
    clsplat_model *m = calloc(1, sizeof *m);
    *model = NULL;
    if (!m)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory to open it", folder);
    m->device = device;
    TRY(SIZED_READ(lib, options, options_given));
    m->activations = options.activations;
    m->cache = options.cache;
    TRY(check_options(lib, &options));
    TRY(model_config_load(lib, folder, &m->config));
    TRY(choose_context(lib, folder, options.context, m));
    TRY(tokenizer_open(lib, folder, m->config.vocabulary, &m->tokenizer));
    TRY(model_weights_load(device, folder, &m->config, &options, &m->weights));
    if (m->config.layer.encoder)
        TRY(model_pooling_load(lib, folder, &m->pooling));
    TRY(model_scratch_create(device, &m->config, rows_at_once(m, options.chunk), m->activations,
                             m->weights.head[0].mem != NULL, &m->scratch));
    if (m->config.layer.encoder)
        TRY(encoder_splats_open(m, &m->splats));
    describe(m);
    *model = m;
    return CLSPLAT_OK;
fail:
    clsplat_model_close(&m);
    return status;
}

void clsplat_model_close(clsplat_model **model) {
    if (!model || !*model)
        return;
    clsplat_model *m = *model;
    encoder_splats_close(m->device, &m->splats);
    model_scratch_free(m->device, &m->scratch);
    model_weights_free(m->device, &m->weights);
    tokenizer_close(&m->tokenizer);
    model_pooling_free(&m->pooling);
    model_config_free(&m->config);
    free(m);
    *model = NULL;
}

const clsplat_model_info *clsplat_model_describe(const clsplat_model *model) {
    return &model->info;
}

clsplat_device *clsplat_model_device(const clsplat_model *model) {
    return model->device;
}

bool clsplat_model_is_end(const clsplat_model *model, int32_t token) {
    for (size_t i = 0; i < model->config.end_count; ++i)
        if (model->config.ends[i] == token)
            return true;
    return false;
}

clsplat_status clsplat_model_encode(const clsplat_model *model, const char *words, size_t bytes, bool special,
                                    int32_t **tokens, size_t *count) {
    return tokenizer_encode(model->tokenizer, words, bytes, special, tokens, count);
}

clsplat_status clsplat_model_decode(const clsplat_model *model, const int32_t *tokens, size_t count,
                                    char **words, size_t *bytes) {
    return tokenizer_decode(model->tokenizer, tokens, count, words, bytes);
}

clsplat_status clsplat_model_decode_next(const clsplat_model *model, int32_t previous, int32_t token,
                                         char **words, size_t *bytes) {
    return tokenizer_decode_next(model->tokenizer, previous, token, words, bytes);
}

void clsplat_model_free(void *list) {
    free(list);
}
