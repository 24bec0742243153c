#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/json.h"
#include "format/json_text.h"
#include "runtime/queue.h"

static const char state_name[] = "training.safetensors", model_name[] = "model.safetensors", version[] = "1";

/* What a file holds of every parameter; the weights alone are a model. */
enum { WEIGHT, FIRST, SECOND, KINDS };
static const char *const prefixes[KINDS] = {"weight.", "first.", "second."};

/* Of splats that adapt: number and birth [splats,2], numbers given [heads]. */
enum { LIVES = 2 };
static const char *const lives[LIVES] = {"adaptation.lives", "adaptation.named"};

static bool has(const char *folder, const char *name) {
    text path = {0};
    text_add(&path, "%s/%s", folder, name);
    bool there = text_ok(&path) && file_is_there(path.data);
    text_free(&path);
    return there;
}

bool checkpoint_is_there(const char *folder) {
    return has(folder, state_name);
}

bool checkpoint_is_model(const char *folder) {
    return has(folder, model_name) || has(folder, "model.safetensors.index.json");
}

/* A file in the making: entry i is a part of a parameter's weights or moments. */
typedef struct entry {
    cl_mem mem;           /* NULL: its bytes are with the output */
    size_t offset, bytes; /* in the buffer */
} entry;

typedef struct listing {
    const trainee *t;
    queue q;
    safetensors_output *outputs;
    char (*names)[160];
    entry *entries;
    int32_t *lives; /* what `lives` names, one after the other; NULL: no splats adapt */
    size_t count;
} listing;

static void add_parts(listing *l, const train_parameter *p, int kind, bool state) {
    cl_mem mems[KINDS] = {p->weight.mem, p->first, p->second};
    size_t offset = 0;
    for (size_t i = 0; mems[kind] && i < p->parts->count; ++i) { /* what is frozen has no moments */
        const safetensors_entry *e = p->parts->parts[i].entry;
        safetensors_output *o = &l->outputs[l->count];
        snprintf(l->names[l->count], sizeof *l->names, "%s%s", state ? prefixes[kind] : "", e->name);
        *o = (safetensors_output){.name = l->names[l->count], .dtype = "F32", .rank = e->rank};
        memcpy(o->shape, e->shape, sizeof e->shape);
        l->entries[l->count++] = (entry){mems[kind], offset, (size_t)e->bytes};
        offset += (size_t)e->bytes;
    }
}

static clsplat_status listing_make(const trainee *t, bool state, listing *l) {
    size_t most = t->count * PARTS_MOST * KINDS + LIVES;
    *l = (listing){.t = t};
    queue_begin(t->device, 0, NULL, &l->q);
    l->outputs = calloc(most, sizeof *l->outputs);
    l->names = calloc(most, sizeof *l->names);
    l->entries = calloc(most, sizeof *l->entries);
    if (!l->outputs || !l->names || !l->entries)
        return log_error(t->device->lib, CLSPLAT_MEMORY, "no memory for the list of a model's tensors");
    for (int kind = 0; kind < (state ? KINDS : 1); ++kind)
        for (size_t i = 0; i < t->count; ++i)
            add_parts(l, &t->parameters[i], kind, state);
    return CLSPLAT_OK;
}

static clsplat_status add_lives(listing *l, const train_adapting *a) {
    size_t splats, heads;
    if (!a->t)
        return CLSPLAT_OK;
    train_adapting_count(a, &splats, &heads);
    l->lives = malloc((2 * splats + heads) * sizeof *l->lives);
    if (!l->lives)
        return log_error(l->t->device->lib, CLSPLAT_MEMORY, "no memory for who %zu splats are", splats);
    for (size_t i = 0; i < splats; ++i) {
        l->lives[2 * i] = (int32_t)a->life[i].number;
        l->lives[2 * i + 1] = (int32_t)a->life[i].born;
    }
    for (size_t i = 0; i < heads; ++i)
        l->lives[2 * splats + i] = (int32_t)a->named[i];
    const safetensors_output outputs[LIVES] = {
        {.name = lives[0], .dtype = "I32", .rank = 2, .shape = {splats, 2}, .data = l->lives},
        {.name = lives[1], .dtype = "I32", .rank = 1, .shape = {heads}, .data = l->lives + 2 * splats}};
    const size_t numbers[LIVES] = {2 * splats, heads};
    for (size_t i = 0; i < LIVES; ++i) {
        l->outputs[l->count] = outputs[i];
        l->entries[l->count++] = (entry){.bytes = numbers[i] * sizeof *l->lives};
    }
    return CLSPLAT_OK;
}

static void listing_free(listing *l) {
    free(l->lives);
    free(l->outputs);
    free(l->names);
    free(l->entries);
}

static clsplat_status write_entry(void *user, size_t index, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    listing *l = user;
    const entry *e = &l->entries[index];
    clsplat *lib = l->t->device->lib;
    if (!e->mem)
        return file_write(lib, file, l->outputs[index].data, e->bytes);
    void *bytes = malloc(e->bytes);
    if (!bytes)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for '%s'", file->path, l->outputs[index].name);
    TRY(queue_download(
        &l->q,
        (queue_copy){.mem = e->mem, .mem_offset = e->offset, .host = bytes, .row = e->bytes, .rows = 1}));
    TRY(file_write(lib, file, bytes, e->bytes));
fail:
    free(bytes);
    return status;
}

/* `adapting`: NULL for the weights alone. */
static clsplat_status save(const trainee *t, const char *folder, const train_adapting *adapting,
                           const char *const (*metadata)[2], size_t pairs) {
    clsplat_status status = CLSPLAT_OK;
    listing l = {0};
    text path = {0};
    text_add(&path, "%s/%s", folder, adapting ? state_name : model_name);
    if (!text_ok(&path))
        TRY(log_error(t->device->lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    TRY(listing_make(t, adapting != NULL, &l));
    if (adapting)
        TRY(add_lives(&l, adapting));
    safetensors_parts parts = {.tensors = l.outputs, .count = l.count, .write = write_entry, .user = &l};
    TRY(safetensors_save_parts(t->device->lib, path.data, &parts, metadata, pairs));
fail:
    listing_free(&l);
    text_free(&path);
    return status;
}

clsplat_status checkpoint_save_model(const trainee *t, const char *folder) {
    static const char *const metadata[][2] = {{"format", "pt"}};
    return save(t, folder, NULL, metadata, 1);
}

clsplat_status checkpoint_save(const trainee *t, const char *folder, const train_settings *settings,
                               train_progress progress, const train_adapting *adapting) {
    clsplat_status status = CLSPLAT_OK;
    char step[32], seconds[64], read[32], cycle[32];
    json_t *object = train_settings_write(settings);
    char *words = json_write(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    snprintf(step, sizeof step, "%" PRIu64, progress.step);
    snprintf(seconds, sizeof seconds, "%.17g", progress.seconds);
    snprintf(read, sizeof read, "%016" PRIx64, progress.text);
    snprintf(cycle, sizeof cycle, "%u", adapting->cycle);
    const char *const metadata[][2] = {{"version", version}, {"step", step},
                                       {"seconds", seconds}, {"settings", words ? words : ""},
                                       {"text", read},       {"cycle", cycle}};
    if (!words)
        TRY(log_error(t->device->lib, CLSPLAT_MEMORY, "%s: no memory for its settings", folder));
    TRY(save(t, folder, adapting, metadata, sizeof metadata / sizeof *metadata));
    TRY(checkpoint_save_model(t, folder));
fail:
    free(words);
    json_decref(object);
    return status;
}

static clsplat_status open_state(clsplat *lib, const char *folder, safetensors **file) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0};
    text_add(&path, "%s/%s", folder, state_name);
    if (!text_ok(&path))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    TRY(safetensors_open(lib, path.data, file));
fail:
    text_free(&path);
    return status;
}

/* A metadata value that must be there. */
static clsplat_status value_of(clsplat *lib, const safetensors *file, const char *key, const char **value) {
    *value = safetensors_metadata(file, key);
    return *value
               ? CLSPLAT_OK
               : log_error(lib, CLSPLAT_FORMAT, "%s: its metadata have no %s; it is none that training wrote",
                           safetensors_path(file), key);
}

clsplat_status checkpoint_look(clsplat *lib, const char *folder, train_settings *settings,
                               train_progress *progress) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *file = NULL;
    json_t *object = NULL;
    const char *found, *step, *seconds, *words, *read;
    char *end;
    TRY(open_state(lib, folder, &file));
    TRY(value_of(lib, file, "version", &found));
    TRY(value_of(lib, file, "step", &step));
    TRY(value_of(lib, file, "seconds", &seconds));
    TRY(value_of(lib, file, "settings", &words));
    if (strcmp(found, version) != 0)
        TRY(log_error(lib, CLSPLAT_UNSUPPORTED, "%s: is of version %s; this program goes on from version %s",
                      safetensors_path(file), text_show(found).bytes, version));
    progress->step = strtoull(step, &end, 10);
    bool whole = *step && !*end;
    read = safetensors_metadata(file, "text"); /* files of before have none */
    progress->text = read ? strtoull(read, NULL, 16) : 0;
    progress->seconds = strtod(seconds, &end);
    if (!whole || !*seconds || *end || !(progress->seconds >= 0))
        TRY(log_error(lib, CLSPLAT_FORMAT, "%s: its step or its seconds are no number",
                      safetensors_path(file)));
    TRY(json_text_read(lib, safetensors_path(file), words, strlen(words), &object));
    *settings = train_settings_defaults();
    TRY(train_settings_read(lib, safetensors_path(file), object, settings));
fail:
    json_decref(object);
    safetensors_close(&file);
    return status;
}

static clsplat_status load_entry(listing *l, safetensors *file, size_t index) {
    clsplat_status status = CLSPLAT_OK;
    const entry *to = &l->entries[index];
    clsplat *lib = l->t->device->lib;
    const safetensors_entry *from = safetensors_find(file, l->outputs[index].name);
    const void *bytes = NULL;
    if (!from || strcmp(from->dtype, "F32") != 0 || from->bytes != to->bytes)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: tensor '%s' is missing, or of another size than the model's",
                         safetensors_path(file), l->outputs[index].name);
    TRY(safetensors_map(lib, file, from, &bytes));
    TRY(queue_upload(
        &l->q,
        (queue_copy){
            .mem = to->mem, .mem_offset = to->offset, .host = (void *)bytes, .row = to->bytes, .rows = 1}));
fail:
    return status;
}

clsplat_status checkpoint_load(const trainee *t, const char *folder) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *file = NULL;
    listing l = {0};
    TRY(open_state(t->device->lib, folder, &file));
    TRY(listing_make(t, true, &l));
    for (size_t i = 0; i < l.count; ++i)
        TRY(load_entry(&l, file, i));
fail:
    listing_free(&l);
    safetensors_close(&file);
    return status;
}

static void take_lives(train_adapting *a, const int32_t *life, const int32_t *named) {
    size_t splats, heads;
    train_adapting_count(a, &splats, &heads);
    for (size_t i = 0; i < splats; ++i)
        a->life[i] = (splat_life){.number = (uint32_t)life[2 * i], .born = (uint32_t)life[2 * i + 1]};
    for (size_t i = 0; i < heads; ++i)
        a->named[i] = (uint32_t)named[i];
}

clsplat_status checkpoint_load_lives(clsplat *lib, const char *folder, train_adapting *adapting) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *file = NULL;
    const void *bytes[LIVES] = {NULL};
    size_t splats, heads;
    TRY(open_state(lib, folder, &file));
    train_adapting_count(adapting, &splats, &heads);
    const size_t numbers[LIVES] = {2 * splats, heads};
    const char *cycle = safetensors_metadata(file, "cycle");
    if (!cycle || !safetensors_find(file, lives[0]))
        goto fail; /* written before splats had lives there */
    for (size_t i = 0; i < LIVES; ++i) {
        const safetensors_entry *from = safetensors_find(file, lives[i]);
        if (!from || strcmp(from->dtype, "I32") != 0 || from->count != numbers[i])
            TRY(log_error(lib, CLSPLAT_FORMAT,
                          "%s: tensor '%s' is missing, or of another size than the model's splats",
                          safetensors_path(file), lives[i]));
        TRY(safetensors_map(lib, file, from, &bytes[i]));
    }
    take_lives(adapting, bytes[0], bytes[1]);
    adapting->cycle = (unsigned)strtoul(cycle, NULL, 10);
fail:
    safetensors_close(&file);
    return status;
}
