/* The student's folder: the teacher's configuration with other kinds of attention, its weights, and new
 * splats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "format/gguf.h"
#include "format/json.h"
#include "model/head.h"
#include "model/pattern.h"
#include "train/create.h"
#include "train/distill.h"

enum { FILE_LIMIT = 16 << 20, KINDS_MOST = 64 };

static const char plan_name[] = "distill.json";
static const char *const learnings[] = {"splats", "projections", "all"};
static const char *const known[] = {"softmax", "window", "splat", "near_far"};

bool distill_learning_named(const char *name, distill_learning *learned) {
    for (size_t i = 0; i < sizeof learnings / sizeof *learnings; ++i)
        if (strcmp(name, learnings[i]) == 0) {
            *learned = (distill_learning)i;
            return true;
        }
    return false;
}

/* A student in the making. */
typedef struct student {
    clsplat *lib;
    const distill_change *change;
    distill_plan *plan;
    model_config config; /* the teacher's */
    json_t *root;        /* its config.json, which becomes the student's */
    model_folder *files; /* its tensors */
    bool tied;
    const char *kinds[KINDS_MOST];
    size_t count;
} student;

static const char *kind_named(const char *word, size_t length) {
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (strlen(known[i]) == length && strncmp(known[i], word, length) == 0)
            return known[i];
    return NULL;
}

static clsplat_status read_kinds(student *s) {
    const char *word = s->change->kinds;
    while (word && s->count < KINDS_MOST) {
        size_t length = strcspn(word, ",");
        s->kinds[s->count] = kind_named(word, length);
        if (!s->kinds[s->count++])
            break;
        word = word[length] ? word + length + 1 : NULL;
    }
    if (word || !s->count)
        return log_error(s->lib, CLSPLAT_INVALID,
                         "--attention: `%s` is no list of softmax, window, splat and near_far, as "
                         "splat,near_far",
                         text_show(s->change->kinds ? s->change->kinds : "").bytes);
    return CLSPLAT_OK;
}

/* "3" or "3-5". */
static bool read_range(const char **at, size_t *first, size_t *last) {
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    *first = *last = strtoul(*at, &end, 10);
    if (*end == '-' && end[1] >= '0' && end[1] <= '9')
        *last = strtoul(end + 1, &end, 10);
    *at = *end == ',' ? end + 1 : end;
    return (*end == '\0' || (*end == ',' && end[1])) && *first <= *last;
}

static clsplat_status read_layers(student *s) {
    distill_plan *plan = s->plan;
    const char *at = s->change->layers;
    plan->layers = s->config.layers;
    plan->replaced = calloc(plan->layers, sizeof *plan->replaced);
    if (!plan->replaced)
        return log_error(s->lib, CLSPLAT_MEMORY, "%s: no memory for its layers", plan->model);
    for (size_t i = 0; !at && i < plan->layers; ++i)
        plan->replaced[i] = true;
    while (at && *at) {
        size_t first, last;
        if (!read_range(&at, &first, &last) || last >= plan->layers)
            return log_error(s->lib, CLSPLAT_INVALID,
                             "--layers: `%s` does not name layers as 0,2-4; %s has %zu, from 0 on",
                             text_show(s->change->layers).bytes, plan->model, plan->layers);
        for (size_t i = first; i <= last; ++i)
            plan->replaced[i] = true;
    }
    for (size_t i = 0; i < plan->layers; ++i)
        plan->count += plan->replaced[i];
    plan->before = calloc(plan->count + 1, sizeof *plan->before);
    if (!plan->before)
        return log_error(s->lib, CLSPLAT_MEMORY, "%s: no memory for its layers", plan->model);
    return plan->count ? CLSPLAT_OK : log_error(s->lib, CLSPLAT_INVALID, "--layers: names no layer");
}

static const char *kind_of(const student *s, size_t layer) {
    return s->plan->replaced[layer] ? s->kinds[layer % s->count] : pattern_kind(&s->config, layer);
}

/* Whether a layer is of that kind, among those that are replaced or the others. */
static bool has(const student *s, const char *kind, bool replaced) {
    for (size_t i = 0; i < s->plan->layers; ++i)
        if (s->plan->replaced[i] == replaced && strcmp(kind_of(s, i), kind) == 0)
            return true;
    return false;
}

static clsplat_status check_teacher(const student *s) {
    const model_config *c = &s->config;
    if (c->qkv_bias || !c->names->q)
        return log_error(s->lib, CLSPLAT_UNSUPPORTED,
                         "%s: key model_type of config.json is '%s', %s, which models of type clsplat do not "
                         "have; models of type llama, mistral and clsplat are distilled",
                         s->plan->model, c->family,
                         c->qkv_bias ? "with biases of q, k and v" : "with q, k and v in one matrix");
    if (s->plan->learns == DISTILL_SPLATS && !has(s, "splat", true))
        return log_error(
            s->lib, CLSPLAT_INVALID,
            "--learn splats: no layer that is replaced has any; --learn projections lets their q, k "
            "and v learn");
    return CLSPLAT_OK;
}

/* What nothing would take. */
static clsplat_status check_said(const student *s) {
    const distill_change *c = s->change;
    const struct {
        const char *option;
        bool said;
        const char *kinds[2];
    } options[] = {{"--splats", c->splats, {"splat", "splat"}},
                   {"--chunk", c->chunk, {"splat", "near_far"}},
                   {"--window", c->window, {"window", "window"}},
                   {"--tolerance", c->tolerance >= 0, {"near_far", "near_far"}}};
    for (size_t i = 0; i < sizeof options / sizeof *options; ++i)
        if (options[i].said && !has(s, options[i].kinds[0], true) && !has(s, options[i].kinds[1], true))
            return log_error(s->lib, CLSPLAT_INVALID,
                             "%s: no layer becomes of kind %s (--attention); leave it away",
                             options[i].option, options[i].kinds[1]);
    return CLSPLAT_OK;
}

/* A number of all layers of a kind, if there are any: as it is said, else as layers that stay have it, else
 * left to config.json's default. */
static clsplat_status set_number(student *s, const char *kind, const char *key, const char *option,
                                 json_t *said, json_t *there) {
    bool stays = has(s, kind, false), there_are = stays || has(s, kind, true);
    clsplat_status status = CLSPLAT_OK;
    json_object_del(s->root, key);
    if (said && stays && !json_equal(said, there))
        status =
            log_error(s->lib, CLSPLAT_INVALID,
                      "%s: layers of kind %s stay, whose %s is another (key %s): leave the option away, or "
                      "replace these layers, too",
                      option, kind, option, key);
    else if (there_are && (said || stays) && json_object_set(s->root, key, said ? said : there) != 0)
        status = log_error(s->lib, CLSPLAT_MEMORY, "%s: no memory for its configuration", s->plan->folder);
    json_decref(said);
    json_decref(there);
    return status;
}

static json_t *count_of(size_t number) {
    return number ? json_integer((json_int_t)number) : NULL;
}

static clsplat_status set_numbers(student *s) {
    clsplat_status status = CLSPLAT_OK;
    const distill_change *change = s->change;
    const model_config *c = &s->config;
    TRY(set_number(s, "window", "sliding_window", "--window", count_of(change->window), count_of(c->window)));
    TRY(set_number(s, "splat", "splats", "--splats", count_of(change->splats), count_of(c->splats)));
    TRY(set_number(s, "splat", "splat_chunk", "--chunk", count_of(change->chunk), count_of(c->splat_chunk)));
    TRY(set_number(s, "near_far", "near_far_chunk", "--chunk", count_of(change->chunk),
                   json_integer((json_int_t)c->near_far_chunk)));
    TRY(set_number(s, "near_far", "near_far_tolerance", "--tolerance",
                   change->tolerance >= 0 ? json_real(change->tolerance) : NULL,
                   json_real(c->near_far_tolerance)));
fail:
    return status;
}

/* What families leave to their defaults is said; what only others read goes. */
static clsplat_status set_config(student *s) {
    static const char *const gone[] = {"architectures",      "auto_map",          "adaptation",
                                       "is_decoder",         "training",          "layer_types",
                                       "use_sliding_window", "max_window_layers", "torch_dtype"};
    const model_config *c = &s->config;
    json_t *kinds = json_array();
    int failed = 0;
    for (size_t i = 0; i < sizeof gone / sizeof *gone; ++i)
        json_object_del(s->root, gone[i]);
    for (size_t i = 0; i < c->layers; ++i)
        kinds = json_push(kinds, json_string(kind_of(s, i)));
    failed |= json_object_set_new(s->root, "attention", kinds);
    failed |= json_object_set_new(s->root, "model_type", json_string("clsplat"));
    failed |= json_object_set_new(s->root, "dtype", json_string("float32"));
    failed |= json_object_set_new(s->root, "num_key_value_heads", json_integer((json_int_t)c->kv_heads));
    failed |= json_object_set_new(s->root, "head_dim", json_integer((json_int_t)c->head_dim));
    failed |= json_object_set_new(s->root, "max_position_embeddings", json_integer((json_int_t)c->context));
    failed |= json_object_set_new(s->root, "rms_norm_eps", json_real((double)c->epsilon));
    failed |= json_object_set_new(s->root, "tie_word_embeddings", json_boolean(s->tied));
    return failed ? log_error(s->lib, CLSPLAT_MEMORY, "%s: no memory for its configuration", s->plan->folder)
                  : set_numbers(s);
}

static clsplat_status read_teacher(student *s) {
    clsplat_status status = CLSPLAT_OK;
    const model_names *n;
    const char *model = s->plan->model;
    char embedding[96], head[96];
    text path = {0};
    if (gguf_is(model))
        return log_error(
            s->lib, CLSPLAT_UNSUPPORTED,
            "%s: is a GGUF file; layers are fitted to a folder's weights: `clsplat convert %s -o "
            "FOLDER/model.safetensors --type f32` makes one",
            model, model);
    TRY(model_config_load(s->lib, model, &s->config));
    TRY(trainee_check(s->lib, model, &s->config));
    if (s->config.layer.encoder)
        TRY(log_error(
            s->lib, CLSPLAT_UNSUPPORTED,
            "%s: is an encoder; layers are fitted to models that write: `clsplat train` makes an encoder "
            "with such layers from nothing (is_decoder false)",
            model));
    text_add(&path, "%s/config.json", model);
    if (!text_ok(&path))
        TRY(log_error(s->lib, CLSPLAT_MEMORY, "%s: no memory for its path", model));
    TRY(json_file(s->lib, path.data, FILE_LIMIT, &s->root));
    TRY(model_folder_open(s->lib, model, &s->files));
    n = s->config.names;
    s->tied = s->config.tied;
    snprintf(embedding, sizeof embedding, "%s%s.weight", n->prefixes[0], n->embedding);
    snprintf(head, sizeof head, "%s.weight", n->head);
    TRY(model_head_tie(s->lib, s->files, embedding, head, &s->tied));
    for (size_t i = 0; n->sinks && model_folder_at(s->files, i).entry; ++i)
        if (strstr(model_folder_at(s->files, i).entry->name, n->sinks))
            TRY(log_error(s->lib, CLSPLAT_UNSUPPORTED,
                          "%s: its heads have sinks (%s), which models of type clsplat do not have", model,
                          n->sinks));
fail:
    text_free(&path);
    return status;
}

clsplat_status distill_create(clsplat *lib, const distill_change *change, const train_settings *settings,
                              distill_plan *plan) {
    clsplat_status status = CLSPLAT_OK;
    student s = {.lib = lib, .change = change, .plan = plan};
    TRY(read_teacher(&s));
    TRY(read_kinds(&s));
    TRY(read_layers(&s));
    TRY(check_teacher(&s));
    TRY(check_said(&s));
    TRY(set_config(&s));
    TRY(train_create(lib, plan->folder, plan->model, s.root, settings, s.files));
    TRY(corpus_take_tokenizer(lib, plan->model, plan->folder));
fail:
    model_folder_close(&s.files);
    json_decref(s.root);
    model_config_free(&s.config);
    return status;
}

clsplat_status distill_save(clsplat *lib, const distill_plan *plan) {
    clsplat_status status = CLSPLAT_OK;
    json_t *layers = json_array(), *before = json_array();
    for (size_t i = 0; i < plan->layers; ++i)
        if (plan->replaced[i])
            layers = json_push(layers, json_integer((json_int_t)i));
    for (size_t i = 0; i < plan->count; ++i)
        before = json_push(before, json_real(plan->before[i]));
    json_t *object =
        json_pack("{s:I, s:o, s:o, s:s, s:f, s:f, s:f}", "of", (json_int_t)plan->layers, "layers", layers,
                  "errors", before, "learn", learnings[plan->learns], "heads", plan->heads,
                  "teacher_bits_per_byte", plan->teacher, "measured_bytes", plan->held);
    if (!object)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for %s", plan->folder, plan_name));
    TRY(train_save_json(lib, plan->folder, plan_name, object));
fail:
    json_decref(object);
    return status;
}

static clsplat_status load_layers(const json_place *at, distill_plan *plan) {
    const json_t *layers = json_object_get(at->object, "layers"),
                 *before = json_object_get(at->object, "errors");
    size_t count = json_array_size(layers);
    plan->replaced = calloc(plan->layers, sizeof *plan->replaced);
    plan->before = calloc(count + 1, sizeof *plan->before);
    if (!plan->replaced || !plan->before)
        return log_error(at->lib, CLSPLAT_MEMORY, "%s: no memory for its layers", at->path);
    if (count == 0 || json_array_size(before) != count)
        return json_refuse(at, CLSPLAT_FORMAT, "layers",
                           "must be a list of layers, and errors one of theirs");
    for (size_t i = 0; i < count; ++i) {
        json_int_t layer = json_integer_value(json_array_get(layers, i));
        if (!json_is_integer(json_array_get(layers, i)) || layer < 0 || (size_t)layer >= plan->layers)
            return json_refuse(at, CLSPLAT_FORMAT, "layers", "has entry %zu that is no layer", i);
        plan->replaced[layer] = true;
        plan->before[i] = json_number_value(json_array_get(before, i));
    }
    for (size_t i = 0; i < plan->layers; ++i)
        plan->count += plan->replaced[i];
    return plan->count == count ? CLSPLAT_OK
                                : json_refuse(at, CLSPLAT_FORMAT, "layers", "names a layer twice");
}

clsplat_status distill_load(clsplat *lib, distill_plan *plan) {
    enum { LAYERS_MOST = 1 << 12 };
    clsplat_status status = CLSPLAT_OK;
    json_t *root = NULL;
    const char *learn = NULL;
    text path = {0};
    text_add(&path, "%s/%s", plan->folder, plan_name);
    if (!text_ok(&path))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", plan->folder));
    TRY(json_file(lib, path.data, FILE_LIMIT, &root));
    json_place at = {lib, path.data, "", root};
    TRY(json_size(&at, "of", JSON_NEEDED, 1, LAYERS_MOST, &plan->layers));
    TRY(json_word(&at, "learn", JSON_NEEDED, &learn));
    TRY(json_double(&at, "heads", JSON_NEEDED, 0, 1, &plan->heads));
    TRY(json_double(&at, "teacher_bits_per_byte", JSON_NEEDED, 0, 1e9, &plan->teacher));
    TRY(json_double(&at, "measured_bytes", JSON_NEEDED, 0, 1e18, &plan->held));
    if (!distill_learning_named(learn, &plan->learns))
        TRY(json_refuse(&at, CLSPLAT_FORMAT, "learn", "must be splats, projections or all"));
    TRY(load_layers(&at, plan));
fail:
    json_decref(root);
    text_free(&path);
    return status;
}

bool distill_is_there(const char *folder) {
    text path = {0};
    text_add(&path, "%s/%s", folder, plan_name);
    bool there = text_ok(&path) && file_is_there(path.data);
    text_free(&path);
    return there;
}

void distill_discard(const distill_plan *plan) {
    const char *const made[] = {"model.safetensors", "config.json", plan_name};
    for (size_t i = 0; i < sizeof made / sizeof *made; ++i) {
        text path = {0};
        text_add(&path, "%s/%s", plan->folder, made[i]);
        if (text_ok(&path))
            unlink(path.data);
        text_free(&path);
    }
    rmdir(plan->folder);
}

void distill_plan_free(distill_plan *plan) {
    free(plan->replaced);
    free(plan->before);
    *plan = (distill_plan){0};
}
