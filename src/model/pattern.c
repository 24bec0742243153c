#include "model/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { WINDOW_LIMIT = 1 << 30, SPLATS_LIMIT = 1 << 14, CHUNK_LIMIT = 1 << 14 };

static clsplat_status take(const json_place *at, const char *kind, size_t layer, model_config *c) {
    bool splat = strcmp(kind, "splat") == 0, window = strcmp(kind, "window") == 0,
         near_far = strcmp(kind, "near_far") == 0;
    if (!splat && !window && !near_far && strcmp(kind, "softmax") != 0)
        return json_refuse(at, CLSPLAT_FORMAT, "attention",
                           "has '%s'; what there is: softmax, window, splat, near_far, hybrid and linear",
                           text_show(kind).bytes);
    c->splatted[layer] = splat;
    c->near_far[layer] = near_far;
    c->windowed[layer] = splat || window;
    return CLSPLAT_OK;
}

static clsplat_status read_kinds(const json_place *at, model_config *c) {
    static const struct {
        const char *name, *kinds[3];
    } presets[] = {{"hybrid", {"splat", "splat", "softmax"}}, {"linear", {"splat", "splat", "near_far"}}};
    clsplat_status status = CLSPLAT_OK;
    const json_t *kinds = json_object_get(at->object, "attention");
    const char *one = json_is_string(kinds) ? json_string_value(kinds) : kinds ? NULL : "softmax";
    size_t count = json_array_size(kinds);
    if (!one && count == 0)
        return json_refuse(at, CLSPLAT_FORMAT, "attention", "must be a kind, or a list of kinds");
    for (size_t i = 0; i < c->layers; ++i) {
        const char *kind = one ? one : json_string_value(json_array_get(kinds, i % count));
        for (size_t p = 0; one && p < sizeof presets / sizeof *presets; ++p)
            if (strcmp(one, presets[p].name) == 0)
                kind = presets[p].kinds[i % 3];
        TRY(take(at, kind ? kind : "", i, c));
    }
fail:
    return status;
}

/* Keys of the original system, and what else decides. */
static clsplat_status read_adaptation(const json_place *at, bool encoder, model_adaptation *a) {
    static const char *const known[] = {"enable_adaptation",
                                        "adaptation_frequency",
                                        "adaptation_tokens",
                                        "consecutive_batches",
                                        "max_adaptations_per_cycle",
                                        "death_threshold",
                                        "mitosis_threshold",
                                        "birth_threshold",
                                        "least_gain",
                                        "enough"};
    clsplat_status status = CLSPLAT_OK;
    json_place in = {at->lib, at->path, "adaptation.", json_object_get(at->object, "adaptation")};
    bool enabled = true;
    size_t steps = 100, tokens = 256, patience = a->patience;
    const char *key;
    json_t *value;
    if (!json_has(at, "adaptation"))
        return CLSPLAT_OK;
    if (!json_is_object(in.object))
        return json_refuse(at, CLSPLAT_FORMAT, "adaptation", "must be an object");
    json_object_foreach((json_t *)in.object, key, value) {
        size_t i = 0, count = sizeof known / sizeof *known;
        while (i < count && strcmp(known[i], key) != 0)
            ++i;
        if (i == count)
            return json_refuse(&in, CLSPLAT_FORMAT, key,
                               "is not one that adaptation knows: see `man clsplat`");
    }
    TRY(json_bool(&in, "enable_adaptation", &enabled));
    TRY(json_size(&in, "adaptation_frequency", JSON_OPTIONAL, 0, SIZE_MAX, &steps));
    TRY(json_size(&in, "adaptation_tokens", JSON_OPTIONAL, 0, SIZE_MAX, &tokens));
    TRY(json_size(&in, "consecutive_batches", JSON_OPTIONAL, 1, INT32_MAX, &patience));
    TRY(json_size(&in, "max_adaptations_per_cycle", JSON_OPTIONAL, 1, SPLATS_LIMIT, &a->most));
    TRY(json_double(&in, "death_threshold", JSON_OPTIONAL, 0, 1, &a->death_threshold));
    TRY(json_double(&in, "mitosis_threshold", JSON_OPTIONAL, 0, 1, &a->mitosis_threshold));
    TRY(json_double(&in, "birth_threshold", JSON_OPTIONAL, -1e9, 0, &a->birth_threshold));
    TRY(json_double(&in, "least_gain", JSON_OPTIONAL, 0, 1, &a->least_gain));
    TRY(json_double(&in, "enough", JSON_OPTIONAL, 0, 1e9, &a->enough));
    a->steps = enabled ? steps : 0;
    a->tokens = enabled ? tokens : 0;
    if (encoder && enabled && (steps || tokens))
        return json_refuse(at, CLSPLAT_UNSUPPORTED, "adaptation",
                           "is for models that write: leave it away, or set is_decoder to true");
    a->patience = (unsigned)patience;
fail:
    return status;
}

clsplat_status pattern_load(const json_place *at, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    c->window = 256;
    c->splats = c->splat_chunk = 128;
    c->adaptation = (model_adaptation){.most = 8,
                                       .patience = 3,
                                       .death_threshold = 0.01,
                                       .mitosis_threshold = 0.1,
                                       .least_gain = 5e-3,
                                       .enough = 0.05};
    c->near_far_tolerance = 0.1;
    c->splatted = calloc(c->layers, sizeof *c->splatted);
    c->near_far = calloc(c->layers, sizeof *c->near_far);
    if (!c->splatted || !c->near_far)
        return log_error(at->lib, CLSPLAT_MEMORY, "%s: no memory for its layers", at->path);
    TRY(read_kinds(at, c));
    TRY(json_size(at, "sliding_window", JSON_OPTIONAL, 1, WINDOW_LIMIT, &c->window));
    TRY(json_size(at, "splats", JSON_OPTIONAL, 1, SPLATS_LIMIT, &c->splats));
    TRY(json_size(at, "splat_chunk", JSON_OPTIONAL, 1, CHUNK_LIMIT, &c->splat_chunk));
    TRY(json_double(at, "near_far_tolerance", JSON_OPTIONAL, 0, 1e9, &c->near_far_tolerance));
    TRY(json_size(at, "near_far_chunk", JSON_OPTIONAL, 0, CHUNK_LIMIT, &c->near_far_chunk));
    TRY(read_adaptation(at, c->layer.encoder, &c->adaptation));
fail:
    return status;
}

const char *pattern_kind(const model_config *c, size_t layer) {
    return pattern_is_splatted(c, layer)       ? "splat"
           : c->near_far && c->near_far[layer] ? "near_far"
           : c->windowed[layer]                ? "window"
                                               : "softmax";
}

bool pattern_is_splatted(const model_config *c, size_t layer) {
    return c->splatted && c->splatted[layer];
}

bool pattern_has_splats(const model_config *c) {
    for (size_t i = 0; i < c->layers; ++i)
        if (pattern_is_splatted(c, i))
            return true;
    return false;
}
