#include "model/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { WINDOW_LIMIT = 1 << 30, SPLATS_LIMIT = 1 << 14, CHUNK_LIMIT = 1 << 14 };

static clsplat_status take(const json_place *at, const char *kind, size_t layer, model_config *c) {
    bool splat = strcmp(kind, "splat") == 0, window = strcmp(kind, "window") == 0;
    if (strcmp(kind, "near_far") == 0)
        return json_refuse(
            at, CLSPLAT_UNSUPPORTED, "attention",
            "has near_far, which is not trained; train softmax there, and run it with --attention near-far");
    if (!splat && !window && strcmp(kind, "softmax") != 0)
        return json_refuse(at, CLSPLAT_FORMAT, "attention",
                           "has '%s'; what there is: softmax, window, splat and hybrid",
                           text_show(kind).bytes);
    c->splatted[layer] = splat;
    c->windowed[layer] = splat || window;
    return CLSPLAT_OK;
}

static clsplat_status read_kinds(const json_place *at, model_config *c) {
    static const char *const hybrid[] = {"splat", "splat", "softmax"};
    clsplat_status status = CLSPLAT_OK;
    const json_t *kinds = json_object_get(at->object, "attention");
    const char *one = json_is_string(kinds) ? json_string_value(kinds) : kinds ? NULL : "softmax";
    size_t count = json_array_size(kinds);
    if (!one && count == 0)
        return json_refuse(at, CLSPLAT_FORMAT, "attention", "must be a kind, or a list of kinds");
    for (size_t i = 0; i < c->layers; ++i) {
        const char *kind = one && strcmp(one, "hybrid") == 0 ? hybrid[i % 3]
                           : one                             ? one
                                 : json_string_value(json_array_get(kinds, i % count));
        TRY(take(at, kind ? kind : "", i, c));
    }
fail:
    return status;
}

clsplat_status pattern_load(const json_place *at, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    c->window = 256;
    c->splats = c->splat_chunk = 128;
    c->splatted = calloc(c->layers, sizeof *c->splatted);
    if (!c->splatted)
        return log_error(at->lib, CLSPLAT_MEMORY, "%s: no memory for its layers", at->path);
    TRY(read_kinds(at, c));
    TRY(json_size(at, "sliding_window", JSON_OPTIONAL, 1, WINDOW_LIMIT, &c->window));
    TRY(json_size(at, "splats", JSON_OPTIONAL, 1, SPLATS_LIMIT, &c->splats));
    TRY(json_size(at, "splat_chunk", JSON_OPTIONAL, 1, CHUNK_LIMIT, &c->splat_chunk));
fail:
    return status;
}
