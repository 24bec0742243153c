/* The original system's presets. Its long_context had five levels and four counts; the fifth is that of its
 * README. */
#include <clsplat/splats.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"

enum { MOST_LEVELS = 5 };

static const struct {
    clsplat_preset shown;
    const char *levels[MOST_LEVELS];
    size_t counts[MOST_LEVELS];
    double weights[MOST_LEVELS];
    bool grows; /* counts of all levels but the last grow with the tokens, from 1,000 to 4,000 */
} presets[] = {
    {{"standard_text", "text of a few thousand tokens", 4, 64},
     {"Token", "Phrase", "Section", "Document"},
     {100, 50, 20, 5},
     {0.4, 0.3, 0.2, 0.1},
     false},
    {{"long_context", "thousands of tokens and more", 5, 128},
     {"Token", "Phrase", "Section", "Document", "Global"},
     {200, 100, 50, 20, 5},
     {0.3, 0.25, 0.2, 0.15, 0.1},
     true},
    {{"interpretable", "few splats, to look at", 3, 32},
     {"Token", "Phrase", "Section"},
     {50, 20, 5},
     {0.5, 0.3, 0.2},
     false},
    {{"memory_efficient", "little memory", 2, 32}, {"Token", "Document"}, {50, 10}, {0.7, 0.3}, false},
    {{"high_speed", "little time", 2, 16}, {"Token", "Document"}, {30, 5}, {0.7, 0.3}, false},
    {{"code_understanding", "source code", 5, 64},
     {"Token", "Expression", "Block", "Function", "Module"},
     {100, 50, 20, 10, 5},
     {0.3, 0.25, 0.2, 0.15, 0.1},
     false},
    {{"document_qa", "questions about documents", 5, 64},
     {"Token", "Sentence", "Paragraph", "Section", "Document"},
     {100, 50, 20, 10, 5},
     {0.3, 0.25, 0.2, 0.15, 0.1},
     false},
};
enum { PRESETS = sizeof presets / sizeof *presets };

const clsplat_preset *clsplat_preset_at(size_t index) {
    return index < PRESETS ? &presets[index].shown : NULL;
}

static size_t count_for(size_t preset, size_t level, size_t tokens) {
    size_t count = presets[preset].counts[level], last = presets[preset].shown.levels - 1;
    if (presets[preset].grows && level < last)
        count = count * (tokens < 1000 ? 1000 : tokens > 4000 ? 4000 : tokens) / 1000;
    return tokens && count > tokens ? tokens : count;
}

static clsplat_status fill(clsplat *lib, size_t preset, size_t tokens, clsplat_hierarchy *h) {
    size_t levels = presets[preset].shown.levels;
    *h = (clsplat_hierarchy){.names = calloc(levels, sizeof *h->names),
                             .counts = calloc(levels, sizeof *h->counts),
                             .weights = calloc(levels, sizeof *h->weights)};
    bool memory = h->names && h->counts && h->weights;
    for (size_t l = 0; memory && l < levels; ++l) {
        h->names[l] = text_copy(presets[preset].levels[l]);
        h->counts[l] = count_for(preset, l, tokens);
        h->weights[l] = presets[preset].weights[l];
        memory = h->names[l] != NULL;
        h->levels = l + 1;
    }
    if (memory)
        return CLSPLAT_OK;
    clsplat_hierarchy_free(h);
    return log_error(lib, CLSPLAT_MEMORY, "no memory for %zu levels", levels);
}

clsplat_status clsplat_hierarchy_preset(clsplat *lib, const char *name, size_t tokens,
                                        clsplat_hierarchy *hierarchy) {
    text names = {0};
    *hierarchy = (clsplat_hierarchy){0};
    for (size_t i = 0; i < PRESETS; ++i) {
        if (strcmp(presets[i].shown.name, name) == 0) {
            text_free(&names);
            return fill(lib, i, tokens, hierarchy);
        }
        text_add(&names, i ? ", %s" : "%s", presets[i].shown.name);
    }
    clsplat_status status = log_error(lib, CLSPLAT_INVALID, "there is no preset '%s'; there are %s",
                                      text_show(name).bytes, text_ok(&names) ? names.data : "others");
    text_free(&names);
    return status;
}
