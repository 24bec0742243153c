#include "report/story.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "report/page.h"

void story_free(story *s) {
    free(s->title);
    free(s->what);
    look_free(&s->look);
    text_free(&s->words);
    free(s->starts);
    free(s->surprise);
    clsplat_profile_free(&s->kernels);
    *s = (story){0};
}

static page_fact fact(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
static page_fact fact(const char *name, const char *format, ...) {
    page_fact f = {.name = name};
    va_list values;
    va_start(values, format);
    vsnprintf(f.words, sizeof f.words, format, values);
    va_end(values);
    return f;
}

static void add_facts(const story *s, text *to) {
    const look *l = &s->look;
    page_fact facts[12];
    size_t count = 0;
    look_sum all = look_sum_up(l, 0, 0, l->layers * l->heads);
    facts[count++] = fact(s->starts ? "tokens" : "keys", "%zu", l->keys);
    facts[count++] = fact("layers × heads", "%zu × %zu", l->layers, l->heads);
    if (!isnan(s->bits_per_byte))
        facts[count++] = fact("bits per byte", "%.4f", s->bits_per_byte);
    if (l->chunk) {
        facts[count++] = fact("keys one by one", "%.2f %%",
                              s->visible > 0 ? 100 * s->exact / s->visible : 100 * all.exact / all.visible);
        facts[count++] = fact("tolerance", "%g", (double)s->tolerance);
        facts[count++] = fact("error expected", "%.4f", all.expected);
        facts[count++] = fact("true error", "%.4f", all.actual);
        facts[count++] = fact("keys of a tree", "%zu", l->chunk);
    }
    facts[count++] = fact("seconds", "%.3g", s->seconds);
    facts[count++] = fact("device memory, MiB", "%.1f", (double)s->peak / 1048576);
    page_facts(to, facts, count);
}

static const char walk_head[] =
    "<div class=\"choose\">\n"
    "<label>layer<select id=\"layer\"></select></label>\n<label>head<select id=\"head\"></select></label>\n"
    "<label>token<input id=\"token\" type=\"number\" min=\"0\" value=\"0\"></label>\n"
    "<button id=\"before\" type=\"button\">earlier</button>\n<button id=\"after\" "
    "type=\"button\">later</button>\n"
    "<label>colour<select id=\"paint\"><option value=\"attention\">attention</option><option "
    "value=\"surprise\">surprise</option></select></label>\n</div>\n"
    "<p id=\"said\" role=\"status\" aria-live=\"polite\">This part needs a script; all else does not.</p>\n"
    "<canvas id=\"strip\" role=\"img\" aria-label=\"where the weight lies\"></canvas>\n"
    "<p class=\"muted\" id=\"where\">tokens</p>\n"
    "<div id=\"tokens\" role=\"listbox\" tabindex=\"0\" aria-label=\"the text, token by token\"></div>\n"
    "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"the strongest keys\">\n<table "
    "id=\"attended\">\n"
    "<caption>Its strongest keys, by exact weight</caption>\n<thead><tr><th scope=\"col\">token</th><th "
    "scope=\"col\" "
    "class=\"words\">text</th><th scope=\"col\">how</th><th scope=\"col\">weight</th></tr></thead>\n<tbody>"
    "<tr><td></td><td></td><td></td><td></td></tr></tbody>\n</table>\n</div>\n";

static const char walk_matrix[] =
    "<section id=\"rows-section\" aria-labelledby=\"rows-title\">\n<h2 id=\"rows-title\">All recorded "
    "queries of this "
    "head</h2>\n<p>Rows are the recorded queries, columns 32 parts of the text; the darker, the more weight. "
    "Beside "
    "them, where there is one, the true error of each row against the tolerance. A click chooses a row.</p>\n"
    "<canvas id=\"matrix\" role=\"img\" aria-label=\"attention of the recorded queries to parts of the text; "
    "its "
    "numbers are in the table below\"></canvas>\n"
    "<details id=\"rows\">\n<summary>The numbers</summary>\n<div class=\"wide\" tabindex=\"0\" "
    "role=\"region\" "
    "aria-label=\"all recorded queries\">\n<table>\n<caption>All recorded queries of the chosen layer and "
    "head"
    "</caption>\n<thead><tr><th scope=\"col\">query</th><th scope=\"col\">keys visible</th><th "
    "scope=\"col\">one by "
    "one</th><th scope=\"col\">error expected</th><th scope=\"col\">true error</th><th "
    "scope=\"col\">entropy, bits</th>"
    "<th scope=\"col\">own chunk</th><th scope=\"col\">keys "
    "apart</th></tr></thead>\n<tbody><tr><td></td></tr></tbody>"
    "\n</table>\n</div>\n</details>\n</section>\n";

static void add_walk(const story *s, text *to) {
    page_section(
        to, "text", s->starts ? "The text" : "The queries",
        s->look.chunk
            ? "Choose a token: what it attends to lights up, the strongest keys by themselves and the rest "
              "by "
              "parts of the text. Underlined tokens were recorded; framed keys stand apart from the trees. "
              "Arrow keys move from token to token."
            : "Choose a token: what it attends to lights up, the strongest keys by themselves and the rest "
              "by "
              "parts of the text. Underlined tokens were recorded. Arrow keys move from token to token.");
    text_add_bytes(to, walk_head, sizeof walk_head - 1);
    page_section_end(to);
    text_add_bytes(to, walk_matrix, sizeof walk_matrix - 1);
    if (story_walks(&s->look))
        story_add_walks(s, to);
}

/* The numbers of every layer and head. */
static void add_heads(const story *s, text *to) {
    static const char *const columns[] = {"layer, head",   "keys one by one", "error expected", "true error",
                                          "entropy, bits", "own chunk",       "keys apart",     NULL};
    const look *l = &s->look;
    page_table(to, "Every layer and head, over the recorded queries", columns);
    for (size_t i = 0; i < l->layers * l->heads; ++i) {
        char name[64];
        look_sum sum = look_sum_up(l, i / l->heads, i % l->heads, 1);
        snprintf(name, sizeof name, "%s %zu, head %zu", s->layer_word, i / l->heads, i % l->heads);
        page_row(to, name);
        page_cell(to, "%.2f %%", sum.visible > 0 ? 100 * sum.exact / sum.visible : 100);
        page_cell(to, "%.5f", sum.expected);
        page_cell(to, "%.5f", sum.actual);
        page_cell(to, "%.2f", sum.entropy);
        page_cell(to, "%.1f %%", 100 * sum.own);
        page_cell(to, "%.1f %%", 100 * sum.apart);
        text_add(to, "</tr>\n");
    }
    page_table_end(to);
}

static void add_kernels(const story *s, text *to) {
    static const char *const columns[] = {"kernel", "launches", "seconds", "GFLOP/s", "GB/s", NULL};
    page_table(to, "Time of every kernel", columns);
    for (size_t i = 0; i < s->kernel_count; ++i) {
        const clsplat_profile_row *k = &s->kernels[i];
        double seconds = fmax(k->seconds, 1e-9);
        page_row(to, k->kernel);
        page_cell(to, "%llu", (unsigned long long)k->launches);
        page_cell(to, "%.4f", k->seconds);
        page_cell(to, "%.1f", 1e-9 * k->flops / seconds);
        page_cell(to, "%.1f", 1e-9 * k->bytes / seconds);
        text_add(to, "</tr>\n");
    }
    page_table_end(to);
}

static void add_pictures(const story *s, text *to) {
    for (size_t i = 0; i < STORY_PICTURES; ++i) {
        picture p;
        if (!story_pictures[i].draw(s, &p))
            continue;
        text_add(to, "<div>\n");
        page_picture(to, &p, story_pictures[i].words);
        if (strcmp(story_pictures[i].name, "time") == 0)
            add_kernels(s, to);
        if (strcmp(story_pictures[i].name, "entropy") == 0)
            add_heads(s, to);
        text_add(to, "</div>\n");
    }
}

void story_page(const void *of, text *to) {
    const story *s = of;
    page_begin(to, s->title, s->what);
    add_facts(s, to);
    add_walk(s, to);
    page_section(to, "layers", "Layers and heads, memory and time", NULL);
    text_add(to, "<div class=\"pictures\">\n");
    add_pictures(s, to);
    text_add(to, "</div>\n");
    page_section_end(to);
    text_add(to, "<script type=\"application/json\" id=\"data\">\n");
    story_data(s, to);
    text_add(to, "</script>\n");
    page_end(to, true);
}

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *row_json(const look *l, size_t layer, size_t head, size_t query) {
    const look_row *r = look_at(l, layer, head, query);
    json_t *keys = json_array();
    for (size_t i = 0; i < l->top && r->weight[i] > 0; ++i)
        keys = json_push(keys, json_pack("[I, f]", (json_int_t)r->key[i], (double)r->weight[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:f, s:f, s:f, s:o}", "layer", (json_int_t)layer,
                     "head", (json_int_t)head, "position", (json_int_t)l->positions[query], "visible_keys",
                     (json_int_t)r->visible, "exact_keys", (json_int_t)r->exact, "error_estimate",
                     number((double)r->expected), "error", number((double)r->actual), "own", (double)r->own,
                     "apart", (double)r->apart, "entropy", (double)r->entropy, "strongest", keys);
}

static json_t *heads_json(const look *l) {
    json_t *list = json_array();
    for (size_t i = 0; i < l->layers * l->heads; ++i) {
        look_sum sum = look_sum_up(l, i / l->heads, i % l->heads, 1);
        list = json_push(
            list, json_pack("{s:I, s:I, s:o, s:o, s:o, s:f}", "layer", (json_int_t)(i / l->heads), "head",
                            (json_int_t)(i % l->heads), "exact_keys_share",
                            number(sum.visible > 0 ? sum.exact / sum.visible : 1), "error_estimate",
                            number(sum.expected), "error", number(sum.actual), "entropy", sum.entropy));
    }
    return list;
}

static json_t *kernels_json(const story *s) {
    json_t *list = json_array();
    for (size_t i = 0; i < s->kernel_count; ++i)
        list =
            json_push(list, json_pack("{s:s, s:I, s:f}", "kernel", s->kernels[i].kernel, "launches",
                                      (json_int_t)s->kernels[i].launches, "seconds", s->kernels[i].seconds));
    return list;
}

static json_t *memory_json(const story *s) {
    json_t *list = json_array();
    for (size_t i = 0; i < STORY_PARTS && s->memory[i].name; ++i)
        list = json_push(list, json_pack("{s:s, s:I}", "name", s->memory[i].name, "bytes",
                                         (json_int_t)s->memory[i].bytes));
    return list;
}

json_t *story_json(const void *of) {
    const story *s = of;
    const look *l = &s->look;
    json_t *rows = json_array();
    for (size_t i = 0; i < l->layers * l->heads * l->count; ++i)
        rows = json_push(rows, row_json(l, i / l->count / l->heads, i / l->count % l->heads, i % l->count));
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:b, s:o, s:o, s:f, s:f, s:f, s:I, s:s, s:o, s:o, s:o, s:o, s:o}",
        "layers", (json_int_t)l->layers, "heads", (json_int_t)l->heads, "kv_heads", (json_int_t)l->kv_heads,
        "keys", (json_int_t)l->keys, "chunk", (json_int_t)l->chunk, "causal", l->causal, "bits_per_byte",
        number(s->bits_per_byte), "exact_keys_share", number(s->visible > 0 ? s->exact / s->visible : NAN),
        "seconds", s->seconds, "look_seconds", s->look_seconds, "kernel_seconds", s->kernel_seconds,
        "device_memory_peak", (json_int_t)s->peak, "device", s->device, "heads_of_layers", heads_json(l),
        "memory", memory_json(s), "kernels", kernels_json(s), "walks", story_walks_json(l), "rows", rows);
}
