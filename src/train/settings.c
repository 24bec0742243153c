#include "train/settings.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "format/json.h"

static const double PI = 3.14159265358979323846;
enum { CONTEXT_LIMIT = 1 << 24, COUNT_LIMIT = 1 << 30 };

train_settings train_settings_defaults(void) {
    return (train_settings){.context = 512,
                            .batch = 8,
                            .accumulate = 1,
                            .rate = 3e-3,
                            .final_rate = 0.05,
                            .warmup = 0.05,
                            .cooldown = 0.2,
                            .shape = TRAIN_COSINE,
                            .decay = 0.1,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .epsilon = 1e-8,
                            .clip = 1,
                            .mlm_probability = 0.15,
                            .steps = 1000};
}

/* Keys of whole numbers and of others, and where they go. */
static const struct size_key {
    const char *name;
    size_t offset, least, most;
} sizes[] = {{"context", offsetof(train_settings, context), 2, CONTEXT_LIMIT},
             {"batch_size", offsetof(train_settings, batch), 1, COUNT_LIMIT},
             {"gradient_accumulation", offsetof(train_settings, accumulate), 1, COUNT_LIMIT},
             {"steps", offsetof(train_settings, steps), 0, SIZE_MAX}};
static const struct number_key {
    const char *name;
    size_t offset;
    double least, most;
} numbers[] = {{"learning_rate", offsetof(train_settings, rate), 0, 10},
               {"final_rate", offsetof(train_settings, final_rate), 0, 1},
               {"warmup", offsetof(train_settings, warmup), 0, 1},
               {"cooldown", offsetof(train_settings, cooldown), 0, 1},
               {"weight_decay", offsetof(train_settings, decay), 0, 10},
               {"beta1", offsetof(train_settings, beta1), 0, 0.999999},
               {"beta2", offsetof(train_settings, beta2), 0, 0.999999},
               {"epsilon", offsetof(train_settings, epsilon), 0, 1},
               {"clip", offsetof(train_settings, clip), 0, 1e9},
               {"mlm_probability", offsetof(train_settings, mlm_probability), 0, 1},
               {"seconds", offsetof(train_settings, seconds), 0, 1e9}};
static const char *const shapes[] = {"cosine", "wsd", "constant"}, *const types[] = {"auto", "f32", "bf16"};
enum {
    SIZES = sizeof sizes / sizeof *sizes,
    NUMBERS = sizeof numbers / sizeof *numbers,
    SHAPES = sizeof shapes / sizeof *shapes,
    TYPES = sizeof types / sizeof *types
};

static bool is_known(const char *key) {
    for (size_t i = 0; i < SIZES; ++i)
        if (strcmp(sizes[i].name, key) == 0)
            return true;
    for (size_t i = 0; i < NUMBERS; ++i)
        if (strcmp(numbers[i].name, key) == 0)
            return true;
    return strcmp(key, "seed") == 0 || strcmp(key, "schedule") == 0 || strcmp(key, "dtype") == 0;
}

static clsplat_status read_shape(const json_place *at, train_settings *s) {
    clsplat_status status = CLSPLAT_OK;
    const char *name = shapes[s->shape];
    size_t i = 0;
    TRY(json_word(at, "schedule", JSON_OPTIONAL, &name));
    while (i < SHAPES && strcmp(shapes[i], name) != 0)
        ++i;
    if (i == SHAPES)
        return json_refuse(at, CLSPLAT_FORMAT, "schedule", "must be cosine, wsd or constant");
    s->shape = (train_shape)i;
fail:
    return status;
}

bool train_type_named(const char *name, train_type *type) {
    size_t i = 0;
    while (i < TYPES && strcmp(types[i], name) != 0)
        ++i;
    if (i < TYPES)
        *type = (train_type)i;
    return i < TYPES;
}

static clsplat_status read_type(const json_place *at, train_settings *s) {
    clsplat_status status = CLSPLAT_OK;
    const char *name = types[s->type];
    TRY(json_word(at, "dtype", JSON_OPTIONAL, &name));
    if (!train_type_named(name, &s->type))
        return json_refuse(at, CLSPLAT_FORMAT, "dtype", "must be auto, f32 or bf16");
fail:
    return status;
}

clsplat_status train_settings_read(clsplat *lib, const char *path, const json_t *object, train_settings *s) {
    clsplat_status status = CLSPLAT_OK;
    json_place at = {.lib = lib, .path = path, .prefix = "training.", .object = object};
    const char *key;
    json_t *value;
    size_t seed = (size_t)s->seed;
    json_object_foreach((json_t *)object, key, value) {
        if (!is_known(key))
            return json_refuse(&at, CLSPLAT_FORMAT, key, "is not one that training knows: see `man clsplat`");
    }
    for (size_t i = 0; i < SIZES; ++i)
        TRY(json_size(&at, sizes[i].name, JSON_OPTIONAL, sizes[i].least, sizes[i].most,
                      (size_t *)((char *)s + sizes[i].offset)));
    for (size_t i = 0; i < NUMBERS; ++i)
        TRY(json_double(&at, numbers[i].name, JSON_OPTIONAL, numbers[i].least, numbers[i].most,
                        (double *)((char *)s + numbers[i].offset)));
    TRY(json_size(&at, "seed", JSON_OPTIONAL, 0, SIZE_MAX, &seed));
    s->seed = seed;
    TRY(read_shape(&at, s));
    TRY(read_type(&at, s));
fail:
    return status;
}

json_t *train_settings_write(const train_settings *s) {
    json_t *object = json_object();
    int failed = object ? 0 : -1;
    for (size_t i = 0; i < SIZES; ++i)
        failed |= json_object_set_new(
            object, sizes[i].name,
            json_integer((json_int_t) * (const size_t *)((const char *)s + sizes[i].offset)));
    for (size_t i = 0; i < NUMBERS; ++i)
        failed |= json_object_set_new(object, numbers[i].name,
                                      json_real(*(const double *)((const char *)s + numbers[i].offset)));
    failed |= json_object_set_new(object, "seed", json_integer((json_int_t)s->seed));
    failed |= json_object_set_new(object, "schedule", json_string(shapes[s->shape]));
    failed |= json_object_set_new(object, "dtype", json_string(types[s->type]));
    if (failed) {
        json_decref(object);
        return NULL;
    }
    return object;
}

double train_rate(const train_settings *s, double done) {
    double rise = s->warmup > 0 ? fmin(1, done / s->warmup) : 1, fall = 1;
    done = fmin(done, 1);
    if (s->shape == TRAIN_COSINE)
        fall = s->final_rate + (1 - s->final_rate) * 0.5 * (1 + cos(PI * done));
    if (s->shape == TRAIN_WSD && done > 1 - s->cooldown)
        fall = s->final_rate + (1 - s->final_rate) * (1 - done) / s->cooldown;
    return s->rate * rise * fall;
}
