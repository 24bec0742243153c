#include "train/create.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "format/blocks.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/config.h"

enum { TENSORS_PER_LAYER = 24, TENSORS_BESIDE = 4, PIECE = 1 << 14 };

clsplat_status train_save_json(clsplat *lib, const char *folder, const char *name, const json_t *object) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0};
    file_writer file = {.descriptor = -1};
    char *words = json_write(object, JSON_INDENT(2));
    text_add(&path, "%s/%s", folder, name);
    if (!words || !text_ok(&path))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory to write %s", folder, name));
    TRY(file_create(lib, path.data, &file));
    TRY(file_write(lib, &file, words, strlen(words)));
    TRY(file_write(lib, &file, "\n", 1));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    text_free(&path);
    free(words);
    return status;
}

static bool is_type(const json_t *c, const char *name) {
    const char *type = json_string_value(json_object_get(c, "model_type"));
    return type && strcmp(type, name) == 0;
}

/* An encoder (is_decoder false) is one that other programs know, too, unless its layers differ. No token is
 * for padding, so that all learn; of the 256 bytes, 255 stands for what is hidden: texts in UTF-8 have none.
 */
static int fill_encoder(json_t *c, bool typed) {
    enum { BYTES = 256, MASK = 255 };
    int failed = 0;
    if (json_object_get(c, "is_decoder") == json_false() && !typed)
        failed |= json_object_set_new(c, "model_type", json_string("eurobert"));
    if (json_object_get(c, "is_decoder") != json_false() && !is_type(c, "eurobert"))
        return failed;
    if (json_integer_value(json_object_get(c, "vocab_size")) == BYTES && !json_object_get(c, "mask_token_id"))
        failed |= json_object_set_new(c, "mask_token_id", json_integer(MASK));
    if (!json_object_get(c, "pad_token_id"))
        failed |= json_object_set_new(c, "pad_token_id", json_null());
    return failed;
}

/* What the original system's keys leave open. */
static clsplat_status fill(json_t *c) {
    static const char *const defaults =
        "{\"model_type\": \"llama\", \"vocab_size\": 256, \"hidden_size\": 256, \"num_hidden_layers\": 6, "
        "\"num_attention_heads\": 4, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-5, "
        "\"max_position_embeddings\": 4096, \"initializer_range\": 0.02, \"tie_word_embeddings\": true, "
        "\"attention_bias\": false, \"mlp_bias\": false, \"dtype\": \"float32\", \"bos_token_id\": 0, "
        "\"eos_token_id\": 0, \"rope_theta\": 500000.0}";
    json_t *more = json_loads(defaults, 0, NULL);
    json_int_t hidden;
    bool typed = json_object_get(c, "model_type") != NULL;
    int failed = json_object_del(c, "training") && false;
    failed |= json_object_update_missing(c, more);
    json_decref(more);
    failed |= fill_encoder(c, typed);
    hidden = json_integer_value(json_object_get(c, "hidden_size"));
    if (!json_object_get(c, "intermediate_size")) /* 8/3 of the width, in whole vectors */
        failed |= json_object_set_new(c, "intermediate_size", json_integer((hidden * 8 / 3 + 31) / 32 * 32));
    if (json_object_get(c, "attention") && !typed) /* other programs do not know such layers */
        failed |= json_object_set_new(c, "model_type", json_string("clsplat"));
    if (!json_object_get(c, "architectures") && is_type(c, "llama"))
        failed |= json_object_set_new(c, "architectures", json_pack("[s]", "LlamaForCausalLM"));
    if (!json_object_get(c, "architectures") && is_type(c, "eurobert"))
        failed |= json_object_set_new(c, "architectures", json_pack("[s]", "EuroBertForMaskedLM"));
    return failed ? CLSPLAT_MEMORY : CLSPLAT_OK;
}

/* The tensors in the making. */
typedef struct creation {
    clsplat *lib;
    const model_folder *from; /* NULL: all is drawn */
    const char *prefix;       /* that names have here, and perhaps not there */
    uint64_t seed;
    double deviation;
    char (*names)[128];
    safetensors_output *outputs;
    float *starts,
        *rises; /* what a tensor's numbers are but for what is drawn: the first, and what each has more */
    double *deviations;
    size_t count;
} creation;

static void add(creation *c, const char *prefix, const char *name, const char *suffix, size_t rows,
                size_t columns, float start) {
    if (!name)
        return;
    snprintf(c->names[c->count], sizeof *c->names, "%s%s%s", prefix, name, suffix);
    c->outputs[c->count] = (safetensors_output){
        .name = c->names[c->count], .dtype = "F32", .rank = columns ? 2 : 1, .shape = {rows, columns}};
    c->deviations[c->count] = columns ? c->deviation : 0;
    c->starts[c->count++] = start;
}

static void add_linear(creation *c, const char *prefix, const char *name, size_t rows, size_t columns,
                       bool bias) {
    add(c, prefix, name, ".weight", rows, columns, 0);
    if (bias)
        add(c, prefix, name, ".bias", rows, 0, 0);
}

/* Tokens begin with a quarter of the one before in them where all is drawn, and with nothing of it in a
 * model that is taken over. */
static void add_shift(creation *c, const model_config *m, const char *prefix) {
    size_t all = (m->heads + 2 * m->kv_heads) * m->head_dim;
    add(c, prefix, m->names->splat_shift, ".weight", all, 0, c->from ? 0 : 0.25f);
}

/* Splats begin anywhere, as wide as normalised tokens are apart, and a key far away with a sixteenth of the
 * weight that one near by has: a part in attention at first is what they learn by. What is written falls to
 * 1/e after 128 tokens in the first head and 8,192 in the last. */
static void add_splats(creation *c, const model_config *m, const char *prefix) {
    const model_names *n = m->names;
    const float near = 1.0f / 128, far = 1.0f / 8192;
    size_t count = m->kv_heads * m->splats;
    if (!m->layer.encoder)
        add_shift(c, m, prefix);
    add(c, prefix, n->splat_mean, ".weight", count, m->head_dim, 0);
    c->deviations[c->count - 1] = 1;
    add(c, prefix, n->splat_precision, ".weight", count, m->head_dim, -0.5f * logf((float)m->head_dim));
    c->deviations[c->count - 1] = 0;
    add(c, prefix, n->splat_amplitude, ".weight", count, 0, 0);
    add(c, prefix, n->splat_strength, ".weight", m->kv_heads, m->hidden, 0);
    c->deviations[c->count - 1] = 0;
    add(c, prefix, n->splat_strength, ".bias", m->kv_heads, 0, -logf(16));
    if (m->layer.encoder)
        return;
    add(c, prefix, n->splat_decay, ".weight", m->kv_heads, m->hidden, 0);
    c->deviations[c->count - 1] = 0;
    add(c, prefix, n->splat_decay, ".bias", m->kv_heads, 0, logf(expm1f(near)));
    c->rises[c->count - 1] = m->kv_heads > 1 ? logf(far / near) / (float)(m->kv_heads - 1) : 0;
}

static void add_layer(creation *c, const model_config *m, const char *prefix, size_t layer) {
    const model_names *n = m->names;
    size_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    float one = 1 - m->layer.offset;
    add(c, prefix, n->attention_norm, ".weight", m->hidden, 0, one);
    add_linear(c, prefix, n->q, q, m->hidden, m->qkv_bias);
    add_linear(c, prefix, n->k, kv, m->hidden, m->qkv_bias);
    add_linear(c, prefix, n->v, kv, m->hidden, m->qkv_bias);
    add_linear(c, prefix, n->out, m->hidden, q, m->out_bias);
    if (m->splatted && m->splatted[layer])
        add_splats(c, m, prefix);
    add(c, prefix, n->mlp_norm, ".weight", m->hidden, 0, one);
    add_linear(c, prefix, n->gate, m->intermediate, m->hidden, m->mlp_bias);
    add_linear(c, prefix, n->up, m->intermediate, m->hidden, m->mlp_bias);
    add_linear(c, prefix, n->down, m->hidden, m->intermediate, m->mlp_bias);
}

static void add_all(creation *c, const model_config *m) {
    const model_names *n = m->names;
    char prefix[64];
    add(c, n->prefixes[0], n->embedding, ".weight", m->vocabulary, m->hidden, 0);
    for (size_t i = 0; i < m->layers; ++i) {
        int above = snprintf(prefix, sizeof prefix, "%s", n->prefixes[0]);
        snprintf(prefix + above, sizeof prefix - (size_t)above, n->layer, i);
        add_layer(c, m, prefix, i);
    }
    add(c, n->prefixes[0], n->norm, ".weight", m->hidden, 0, 1 - m->layer.offset);
    if (!m->tied)
        add(c, "", n->head, ".weight", m->vocabulary, m->hidden, 0);
}

/* The tensor's numbers there, if it has to be copied. */
static clsplat_status find_source(const creation *c, const safetensors_output *t, const block_type **type,
                                  const char **bytes) {
    const void *found = NULL;
    size_t above = strlen(c->prefix);
    model_tensor source = model_folder_find(c->from, t->name);
    if (!source.entry && strncmp(t->name, c->prefix, above) == 0)
        source = model_folder_find(c->from, t->name + above);
    const safetensors_entry *e = source.entry;
    bool same =
        e && e->rank == t->rank && e->shape[0] == t->shape[0] && (t->rank == 1 || e->shape[1] == t->shape[1]);
    if (!same && strstr(t->name, ".splat_"))
        return CLSPLAT_OK;
    *type = same ? block_type_named(e->dtype) : NULL;
    if (!*type || (*type)->numbers != 1)
        return log_error(c->lib, CLSPLAT_FORMAT,
                         "%s: tensor '%s' is missing, or not of the shape or type that is taken over",
                         model_folder_path(c->from), t->name);
    clsplat_status status = model_folder_map(c->lib, c->from, &source, &found);
    *bytes = found;
    return status;
}

static clsplat_status write_tensor(void *user, size_t index, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    const creation *c = user;
    const safetensors_output *t = &c->outputs[index];
    const block_type *type = NULL;
    const char *source = NULL;
    size_t count = (size_t)t->shape[0] * (t->rank == 2 ? (size_t)t->shape[1] : 1);
    random_state random = random_stream(c->seed, index);
    double deviation = c->deviations[index];
    float *piece = malloc(PIECE * sizeof *piece);
    if (!piece)
        return log_error(c->lib, CLSPLAT_MEMORY, "no memory to write a tensor");
    if (c->from)
        TRY(find_source(c, t, &type, &source));
    for (size_t at = 0; at < count; at += PIECE) {
        size_t part = count - at < PIECE ? count - at : PIECE;
        if (source)
            blocks_read(type, source + at * type->bytes, part, piece);
        for (size_t i = 0; !source && i < part; ++i)
            piece[i] = c->starts[index] + (float)(at + i) * c->rises[index] +
                       (deviation != 0 ? (float)(deviation * random_normal(&random)) : 0);
        TRY(file_write(c->lib, file, piece, part * sizeof *piece));
    }
fail:
    free(piece);
    return status;
}

static clsplat_status save_weights(clsplat *lib, const char *folder, const model_config *m,
                                   const model_folder *from, uint64_t seed, double deviation) {
    static const char *const metadata[][2] = {{"format", "pt"}};
    clsplat_status status = CLSPLAT_OK;
    size_t most = m->layers * TENSORS_PER_LAYER + TENSORS_BESIDE;
    text path = {0};
    creation c = {
        .lib = lib, .from = from, .prefix = m->names->prefixes[0], .seed = seed, .deviation = deviation};
    safetensors_parts parts = {.write = write_tensor, .user = &c};
    c.names = calloc(most, sizeof *c.names);
    c.outputs = calloc(most, sizeof *c.outputs);
    c.starts = calloc(most, sizeof *c.starts);
    c.rises = calloc(most, sizeof *c.rises);
    c.deviations = calloc(most, sizeof *c.deviations);
    text_add(&path, "%s/model.safetensors", folder);
    if (!c.names || !c.outputs || !c.starts || !c.rises || !c.deviations || !text_ok(&path))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", folder));
    add_all(&c, m);
    parts.tensors = c.outputs;
    parts.count = c.count;
    TRY(safetensors_save_parts(lib, path.data, &parts, metadata, 1));
fail:
    text_free(&path);
    free(c.names);
    free(c.outputs);
    free(c.starts);
    free(c.rises);
    free(c.deviations);
    return status;
}

static clsplat_status check_kind(clsplat *lib, const char *path, const model_config *m, size_t context) {
    for (size_t i = 0; m->splatted && !m->layer.encoder && i < m->layers; ++i)
        if (m->splatted[i] && context % m->splat_chunk != 0)
            return log_error(
                lib, CLSPLAT_INVALID,
                "%s: windows of %zu tokens (training.context, --context) are no multiple of splat_chunk, %zu",
                path, context, m->splat_chunk);
    if (m->positions || m->layer.qk != QK_AS_THEY_ARE || m->layer.sums || !m->names->q ||
        !m->names->attention_norm)
        return log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "%s: key model_type is '%s'; from nothing, models of type llama, mistral, qwen2, eurobert and "
            "clsplat are trained",
            path, m->family);
    return CLSPLAT_OK;
}

/* A configuration that was refused leaves nothing. */
static void remove_config(const char *folder) {
    text path = {0};
    text_add(&path, "%s/config.json", folder);
    if (text_ok(&path))
        unlink(path.data);
    text_free(&path);
    rmdir(folder);
}

clsplat_status train_create(clsplat *lib, const char *folder, const char *path, const json_t *config,
                            const train_settings *settings, const model_folder *from) {
    clsplat_status status = CLSPLAT_OK;
    model_config m = {0};
    char *made = text_copy(folder);
    json_t *copy = json_deep_copy(config);
    double deviation = 0.02;
    bool written = false;
    if (!copy || !made || (!from && fill(copy) != CLSPLAT_OK))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its configuration", path));
    TRY(json_double(&(json_place){lib, path, "", copy}, "initializer_range", JSON_OPTIONAL, 0, 1,
                    &deviation));
    file_make_folder(made);
    written = true;
    TRY(train_save_json(lib, folder, "config.json", copy));
    TRY(model_config_load(lib, folder, &m));
    if (!m.layer.encoder && json_object_get(copy, "is_decoder") == json_false())
        TRY(log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "%s: key is_decoder is false, and model_type '%s' is a decoder's: leave model_type away, or "
            "choose eurobert or clsplat",
            path, m.family));
    TRY(check_kind(lib, path, &m, settings->context));
    TRY(save_weights(lib, folder, &m, from, settings->seed, deviation));
fail:
    if (status != CLSPLAT_OK && written)
        remove_config(folder);
    model_config_free(&m);
    json_decref(copy);
    free(made);
    return status;
}
