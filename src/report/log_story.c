#include "report/log_story.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "format/json.h"
#include "picture/chart.h"

enum { LOG_LIMIT = 1 << 28, DRAWN = 512, TOLD = 400 };

static const char *const decisions[] = {"mitosis", "birth", "death", "merge", "adjust"};
enum { DECISIONS = sizeof decisions / sizeof *decisions };

static void add_line(log_story *s, const char *line, size_t bytes) {
    json_t *object = bytes ? json_loadb(line, bytes, 0, NULL) : NULL;
    if (!json_is_object(object) || json_array_append(s->lines, object) != 0)
        s->damaged += bytes > 0;
    json_decref(object);
}

clsplat_status log_story_load(clsplat *lib, const char *path, const char *title, log_story *s) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    *s = (log_story){.title = text_copy(title), .lines = json_array()};
    if (!s->title || !s->lines)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: there is no memory for it", path));
    TRY(file_load(lib, path, LOG_LIMIT, &bytes, &count));
    for (size_t begin = 0, end; begin < count; begin = end + 1) {
        const char *stop = memchr(bytes + begin, '\n', count - begin);
        end = stop ? (size_t)(stop - bytes) : count;
        add_line(s, bytes + begin, end - begin);
    }
    json_t *first = json_array_get(s->lines, 0);
    s->history = json_object_get(first, "decision") != NULL;
    if (!s->history && !json_object_get(first, "step"))
        TRY(log_error(
            lib, CLSPLAT_FORMAT,
            "%s: its first line is neither of `clsplat train` (a JSON object with the key step) nor of "
            "`clsplat adapt --history` (with decision)",
            path));
fail:
    free(bytes);
    return status;
}

void log_story_free(log_story *s) {
    free(s->title);
    json_decref(s->lines);
    *s = (log_story){0};
}

/* NaN where the line has no such number. */
static double number_of(const log_story *s, size_t line, const char *key) {
    json_t *value = json_object_get(json_array_get(s->lines, line), key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* A key over another, at most so many of them: the mean of what lies between, so that a long log stays a
 * small picture. Ownership: x and y are one allocation at *x. Returns: how many. */
static size_t series_of(const log_story *s, const char *over, const char *key, double **x, double **y) {
    size_t lines = json_array_size(s->lines), every = (lines + DRAWN - 1) / DRAWN, count = 0, held = 0;
    double sum = 0;
    *x = calloc(2 * DRAWN + 2, sizeof **x);
    *y = *x ? *x + DRAWN + 1 : NULL;
    for (size_t i = 0; *x && i < lines; ++i) {
        double value = number_of(s, i, key);
        if (isfinite(value)) {
            sum += value;
            ++held;
        }
        if (held == 0 || ((i + 1) % every != 0 && i + 1 < lines) || count > DRAWN)
            continue;
        (*x)[count] = number_of(s, i, over);
        (*y)[count++] = sum / (double)held;
        sum = 0;
        held = 0;
    }
    return count;
}

typedef struct curve {
    const char *key, *name;
} curve;

/* Up to two keys over the steps. */
static bool draw_curves(const log_story *s, picture *p, const char *title, const char *unit,
                        const curve *curves, size_t count, bool log_y) {
    chart_series series[2];
    double *x[2], *y[2];
    size_t there = 0;
    for (size_t i = 0; i < count; ++i) {
        size_t points = series_of(s, "step", curves[i].key, &x[i], &y[i]);
        if (points)
            series[there++] = (chart_series){curves[i].name, x[i], y[i], points, points == 1};
    }
    if (there)
        chart_draw_xy(p, &(chart_xy){.title = title,
                                     .x_label = "step",
                                     .y_label = unit,
                                     .series = series,
                                     .count = there,
                                     .log_y = log_y,
                                     .rule = NAN});
    for (size_t i = 0; i < count; ++i)
        free(x[i]);
    return there > 0;
}

static bool draw_loss(const void *of, picture *p) {
    static const curve curves[] = {{"bits_per_byte", "training"}, {"validation_bits_per_byte", "validation"}};
    return draw_curves(of, p, "Loss", "bits per byte", curves, 2, false);
}

static bool draw_rate(const void *of, picture *p) {
    static const curve curves[] = {{"rate", "learning rate"}};
    return draw_curves(of, p, "Learning rate", "", curves, 1, false);
}

static bool draw_norm(const void *of, picture *p) {
    static const curve curves[] = {{"norm", "norm of the gradients"}};
    return draw_curves(of, p, "Gradients", "norm before clipping", curves, 1, true);
}

static bool draw_speed(const void *of, picture *p) {
    static const curve curves[] = {{"tokens_per_second", "tokens a second"}};
    return draw_curves(of, p, "Speed", "tokens a second", curves, 1, false);
}

const page_drawing training_pictures[TRAINING_PICTURES] = {
    {"loss", "Validation where the model was saved.", draw_loss},
    {"rate", NULL, draw_rate},
    {"norm", NULL, draw_norm},
    {"speed", NULL, draw_speed},
};

static const char *decision_of(const log_story *s, size_t line) {
    const char *words = json_string_value(json_object_get(json_array_get(s->lines, line), "decision"));
    return words ? words : "";
}

static bool is_kept(const log_story *s, size_t line) {
    return json_is_true(json_object_get(json_array_get(s->lines, line), "kept"));
}

/* How many of each kind had been kept by the end of each cycle. */
static bool draw_decisions(const void *of, picture *p) {
    const log_story *s = of;
    size_t lines = json_array_size(s->lines), cycles = 1;
    chart_series series[DECISIONS];
    for (size_t i = 0; i < lines; ++i) {
        double cycle = number_of(s, i, "cycle");
        if (cycle >= 0 && cycle < 1e5)
            cycles = fmax((double)cycles, cycle + 1) > (double)cycles ? (size_t)cycle + 1 : cycles;
    }
    double *x = calloc((DECISIONS + 1) * cycles, sizeof *x);
    if (!x)
        return false;
    for (size_t d = 0; d < DECISIONS; ++d) {
        double *y = x + (d + 1) * cycles;
        for (size_t i = 0; i < lines; ++i) {
            double cycle = number_of(s, i, "cycle");
            if (cycle >= 0 && cycle < (double)cycles && is_kept(s, i) &&
                strcmp(decision_of(s, i), decisions[d]) == 0)
                ++y[(size_t)cycle];
        }
        for (size_t c = 1; c < cycles; ++c)
            y[c] += y[c - 1];
        series[d] = (chart_series){decisions[d], x, y, cycles, cycles == 1};
    }
    for (size_t c = 0; c < cycles; ++c)
        x[c] = (double)c;
    chart_draw_xy(p, &(chart_xy){.title = "Decisions that were kept, summed up",
                                 .x_label = "cycle",
                                 .y_label = "decisions",
                                 .series = series,
                                 .count = DECISIONS,
                                 .rule = NAN});
    free(x);
    return true;
}

/* Whose error a line tells: a head, of a layer where a model adapts. */
typedef struct whose {
    double layer, head; /* layer: −1 if there is but one */
} whose;

static whose whose_of(const log_story *s, size_t line) {
    double layer = number_of(s, line, "layer");
    return (whose){layer >= 0 ? layer : -1, number_of(s, line, "head")};
}

static bool is_same(whose a, whose b) {
    return a.layer >= b.layer && a.layer <= b.layer && a.head >= b.head && a.head <= b.head;
}

/* The first heads that the log tells of, in its order. Returns: how many. */
static size_t find_heads(const log_story *s, whose *heads, size_t most) {
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(s->lines) && count < most; ++i) {
        whose one = whose_of(s, i);
        bool is_new = is_kept(s, i) && one.head >= 0;
        for (size_t h = 0; h < count; ++h)
            is_new &= !is_same(one, heads[h]);
        if (is_new)
            heads[count++] = one;
    }
    return count;
}

/* Errors of one head after its decisions that were kept, over the number of all of those. Returns: how many.
 */
static size_t errors_of(const log_story *s, whose head, double *x, double *y) {
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < json_array_size(s->lines); ++i) {
        double error = number_of(s, i, "error_after");
        if (!is_kept(s, i))
            continue;
        ++kept;
        if (!is_same(whose_of(s, i), head) || !isfinite(error))
            continue;
        x[count] = (double)kept;
        y[count++] = error;
    }
    return count;
}

static bool draw_error(const void *of, picture *p) {
    const log_story *s = of;
    whose heads[PICTURE_SERIES_COUNT];
    char names[PICTURE_SERIES_COUNT][64];
    size_t lines = json_array_size(s->lines), there = 0, count = find_heads(s, heads, PICTURE_SERIES_COUNT);
    double *numbers = calloc(2 * PICTURE_SERIES_COUNT * (lines + 1), sizeof *numbers);
    chart_series series[PICTURE_SERIES_COUNT];
    for (size_t i = 0; numbers && i < count; ++i) {
        double *x = numbers + 2 * i * (lines + 1), *y = x + lines + 1;
        size_t points = errors_of(s, heads[i], x, y), every = (points + DRAWN - 1) / DRAWN, kept = 0;
        for (size_t n = 0; n < points; n += every, ++kept) {
            x[kept] = x[n];
            y[kept] = y[n];
        }
        snprintf(names[i], sizeof *names, heads[i].layer < 0 ? "head %.0f" : "head %.0f, layer %.0f",
                 heads[i].head, heads[i].layer);
        if (kept)
            series[there++] = (chart_series){names[i], x, y, kept, kept == 1};
    }
    if (there)
        chart_draw_xy(p, &(chart_xy){.title = "Error after each decision that was kept",
                                     .x_label = "decisions kept",
                                     .y_label = "error",
                                     .series = series,
                                     .count = there,
                                     .log_y = true,
                                     .rule = NAN});
    free(numbers);
    return there > 0;
}

const page_drawing history_pictures[HISTORY_PICTURES] = {
    {"decisions", NULL, draw_decisions},
    {"error", "Heads of layers have errors of their own; each is judged by itself. The first six are shown.",
     draw_error},
};

/* A value of a line, as words. */
static void add_value(const json_t *value, text *to) {
    if (json_is_number(value)) {
        page_cell(to, "%.6g", json_number_value(value));
    } else if (json_is_string(value)) {
        page_cell(to, "%.100s", json_string_value(value));
    } else if (json_is_boolean(value)) {
        page_cell(to, "%s", json_is_true(value) ? "yes" : "no");
    } else {
        char *words = json_write(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));
        to->failed = to->failed || (value && !words);
        page_cell(to, "%.200s", words ? words : "–");
        free(words);
    }
}

static const char *const training_columns[] = {
    "step", "seconds",           "goal", "loss", "bits_per_byte", "validation_bits_per_byte", "rate",
    "norm", "tokens_per_second", NULL};
static const char *const history_columns[] = {"cycle",       "decision", "kept", "layer", "head",
                                              "level",       "from",     "to",   "age",   "error_before",
                                              "error_after", "reason",   NULL};

/* The lines, or as many evenly spaced ones. */
static void add_lines(const log_story *s, const char *const *columns, text *to) {
    size_t lines = json_array_size(s->lines), every = lines > TOLD ? (lines + TOLD - 1) / TOLD : 1;
    char caption[96];
    snprintf(caption, sizeof caption, every > 1 ? "Every %zuth of %zu lines" : "Line %zu to %zu", every,
             lines);
    page_table(to, caption, columns);
    for (size_t i = 0; i < lines; i += every) {
        const json_t *line = json_array_get(s->lines, i);
        char first[32];
        snprintf(first, sizeof first, "%.10g", number_of(s, i, columns[0]));
        page_row(to, first);
        for (size_t c = 1; columns[c]; ++c)
            add_value(json_object_get(line, columns[c]), to);
        text_add(to, "</tr>\n");
    }
    page_table_end(to);
}

void log_story_page(const void *story, text *to) {
    const log_story *s = story;
    const page_drawing *all = s->history ? history_pictures : training_pictures;
    size_t count = s->history ? HISTORY_PICTURES : TRAINING_PICTURES;
    char what[128];
    snprintf(what, sizeof what, "%s, %zu lines%s",
             s->history ? "How splats adapted" : "How a model was trained", json_array_size(s->lines),
             s->damaged ? "; some are damaged and left out" : "");
    page_begin(to, s->title, what);
    page_section(to, "curves", s->history ? "Decisions" : "Curves", NULL);
    text_add(to, "<div class=\"pictures\">\n");
    for (size_t i = 0; i < count; ++i) {
        picture p;
        if (all[i].draw(s, &p))
            page_picture(to, &p, all[i].words);
    }
    text_add(to, "</div>\n");
    add_lines(s, s->history ? history_columns : training_columns, to);
    page_section_end(to);
    page_end(to, false);
}

json_t *log_story_json(const void *story) {
    const log_story *s = story;
    return json_pack("{s:s, s:I, s:I, s:O}", "kind", s->history ? "adaptation" : "training", "lines",
                     (json_int_t)json_array_size(s->lines), "damaged", (json_int_t)s->damaged, "log",
                     s->lines);
}
