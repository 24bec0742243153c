/* The page and the pictures of what a tuner tried. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture/chart.h"
#include "picture/scale.h"
#include "report/tuning_story.h"

enum { VALUES = 16, TOLD = 400 };

/* Values of a parameter that were tried with the champion's variant, rising. Returns: how many. */
static size_t values_of(const tuning_group *g, size_t parameter, double values[VALUES]) {
    size_t count = 0;
    for (size_t i = 0; i < g->count; ++i) {
        if (g->tries[i].differs == SIZE_MAX)
            continue;
        double value = g->tries[i].settings[parameter].value;
        size_t at = 0;
        while (at < count && values[at] < value)
            ++at;
        if ((at < count && values[at] <= value) || count == VALUES)
            continue;
        memmove(values + at + 1, values + at, (count - at) * sizeof *values);
        values[at] = value;
        ++count;
    }
    return count;
}

/* The two parameters of which most values were tried. */
static bool choose_axes(const tuning_group *g, size_t axes[2]) {
    size_t most[2] = {1, 1}, there = 0;
    double values[VALUES];
    if (g->champion == SIZE_MAX)
        return false;
    for (size_t p = 0; p < g->tries[g->champion].count; ++p) {
        size_t count = values_of(g, p, values);
        if (count > most[0]) {
            axes[1] = axes[0];
            most[1] = most[0];
            axes[0] = p;
            most[0] = count;
            ++there;
        } else if (count > most[1]) {
            axes[1] = p;
            most[1] = count;
            ++there;
        }
    }
    return there >= 2;
}

bool tuning_draw_landscape(const tuning_group *g, picture *p) {
    size_t axes[2] = {0, 0}, counts[2];
    double values[2][VALUES], cells[VALUES * VALUES];
    char title[160];
    if (!choose_axes(g, axes))
        return false;
    const tuning_try *champion = &g->tries[g->champion];
    for (int a = 0; a < 2; ++a)
        counts[a] = values_of(g, axes[a], values[a]);
    for (size_t i = 0; i < counts[0] * counts[1]; ++i)
        cells[i] = NAN;
    for (size_t i = g->count - g->rejected; i-- > 0;) { /* the fastest last */
        const tuning_try *t = &g->tries[i];
        size_t at[2] = {0, 0};
        for (int a = 0; t->differs != SIZE_MAX && a < 2; ++a)
            while (at[a] + 1 < counts[a] && values[a][at[a]] < t->settings[axes[a]].value)
                ++at[a];
        if (t->differs != SIZE_MAX)
            cells[at[0] * counts[1] + at[1]] = t->record->seconds;
    }
    snprintf(title, sizeof title, "%.20s: the least time for each %s and %s", champion->record->variant,
             champion->settings[axes[0]].name, champion->settings[axes[1]].name);
    chart_draw_heat(p, &(chart_heat){.title = title,
                                     .row_label = champion->settings[axes[0]].name,
                                     .column_label = champion->settings[axes[1]].name,
                                     .values = cells,
                                     .rows = counts[0],
                                     .columns = counts[1],
                                     .unit = 1e3,
                                     .unit_name = " ms",
                                     .row_values = values[0],
                                     .column_values = values[1]});
    return true;
}

/* The time with one setting changed: NaN if it was not tried, INFINITY if it was rejected. */
static double time_with(const tuning_group *g, size_t parameter, double value) {
    const tuning_try *champion = &g->tries[g->champion];
    for (size_t i = 0; i < g->count; ++i) {
        const tuning_try *t = &g->tries[i];
        double own = t->differs <= 1 ? t->settings[parameter].value : NAN;
        bool same = own >= value && own <= value;
        double champions = champion->settings[parameter].value;
        if (same && t->differs == (champions < value || champions > value ? 1 : 0))
            return t->record->seconds;
    }
    return NAN;
}

enum { WIDTH = 640, LEFT = 96, TOP = 40, ROW = 44 };

static void draw_value(const tuning_group *g, picture *p, size_t parameter, double value, double x, double y,
                       double width) {
    const tuning_try *champion = &g->tries[g->champion];
    double seconds = time_with(g, parameter, value), best = champion->record->seconds,
           own = champion->settings[parameter].value;
    char number[SCALE_WORDS], time[SCALE_WORDS] = "rejected";
    bool is_own = own >= value && own <= value;
    if (isfinite(seconds))
        scale_words(1e3 * seconds, time);
    else if (isnan(seconds))
        snprintf(time, sizeof time, "not tried");
    if (is_own)
        picture_rect(p, (picture_role)(PICTURE_SERIES + 1), 1, x - 2, y - 2, width + 1, ROW - 6);
    picture_rect(
        p, isfinite(seconds) ? picture_heat(fmin(fmax(0.3 * log2(seconds / best), 0), 0.4)) : PICTURE_PAPER,
        1, x, y, width - 3, ROW - 10);
    picture_hint(p, "%s=%s: %s%s", champion->settings[parameter].name, scale_words(value, number), time,
                 isfinite(seconds) ? " ms" : "");
    picture_text(p, PICTURE_INK, PICTURE_MIDDLE, 12, x + (width - 3) / 2, y + 14, "%s",
                 scale_words(value, number));
    picture_text(p, PICTURE_INK, PICTURE_MIDDLE, 10, x + (width - 3) / 2, y + 28, "%s", time);
}

bool tuning_draw_neighbours(const tuning_group *g, picture *p) {
    if (g->champion == SIZE_MAX || g->tries[g->champion].count == 0)
        return false;
    const tuning_try *champion = &g->tries[g->champion];
    picture_begin(p, WIDTH, TOP + ROW * (double)champion->count + 4, "The champion and its neighbours");
    picture_text(p, PICTURE_INK, PICTURE_START, 14, 8, 18,
                 "The champion, framed, and its neighbours: ms with one setting changed");
    for (size_t a = 0; a < champion->count; ++a) {
        double values[VALUES], y = TOP + ROW * (double)a;
        size_t count = values_of(g, a, values);
        double width = fmin((WIDTH - LEFT - 8.0) / (double)(count ? count : 1), 72);
        picture_text(p, PICTURE_MUTED, PICTURE_END, 11, LEFT - 8, y + 20, "%s", champion->settings[a].name);
        for (size_t v = 0; v < count; ++v)
            draw_value(g, p, a, values[v], LEFT + width * (double)v, y, width);
    }
    return true;
}

/* Time over rank, a colour for each variant. */
bool tuning_draw_candidates(const tuning_group *g, picture *p) {
    size_t timed = g->count - g->rejected, there = 0;
    double *numbers = calloc(2 * PICTURE_SERIES_COUNT * (timed + 1), sizeof *numbers);
    chart_series series[PICTURE_SERIES_COUNT];
    for (size_t i = 0; numbers && i < timed; ++i) {
        const char *variant = g->tries[i].record->variant;
        size_t s = 0;
        while (s < there && strcmp(series[s].name, variant) != 0)
            ++s;
        if (s == PICTURE_SERIES_COUNT)
            continue;
        if (s == there) {
            double *x = numbers + 2 * s * (timed + 1);
            series[there++] = (chart_series){.name = variant, .x = x, .y = x + timed + 1, .points = true};
        }
        ((double *)series[s].x)[series[s].count] = (double)i + 1;
        ((double *)series[s].y)[series[s].count++] = 1e3 * g->tries[i].record->seconds;
    }
    if (there)
        chart_draw_xy(p, &(chart_xy){.title = "All that could be timed, the fastest first",
                                     .x_label = "candidate",
                                     .y_label = "ms",
                                     .series = series,
                                     .count = there,
                                     .log_y = true,
                                     .rule = NAN});
    free(numbers);
    return there > 0;
}

static bool first_landscape(const void *of, picture *p) {
    return tuning_draw_landscape(((const tuning_story *)of)->groups, p);
}

static bool first_neighbours(const void *of, picture *p) {
    return tuning_draw_neighbours(((const tuning_story *)of)->groups, p);
}

static bool first_candidates(const void *of, picture *p) {
    return tuning_draw_candidates(((const tuning_story *)of)->groups, p);
}

const page_drawing tuning_pictures[TUNING_PICTURES] = {
    {"landscape", "Whatever the other settings; empty cells were not tried, or rejected.", first_landscape},
    {"neighbours", "The darker, the slower.", first_neighbours},
    {"candidates", NULL, first_candidates},
};

static void add_group(const tuning_group *g, size_t number, text *to) {
    static const char *const columns[] = {"place", "variant", "settings", "ms", "of the champion's",
                                          "error", "",        NULL};
    static bool (*const draw[])(const tuning_group *, picture *) = {
        tuning_draw_landscape, tuning_draw_neighbours, tuning_draw_candidates};
    char name[160], id[32], caption[96];
    picture p;
    text title = {0};
    double best = g->champion == SIZE_MAX ? NAN : g->tries[g->champion].record->seconds;
    tuning_group_name(g, name, sizeof name);
    picture_escape(&title, name, strlen(name));
    snprintf(id, sizeof id, "tuned-%zu", number);
    page_section(to, id, text_ok(&title) ? title.data : "", NULL);
    text_free(&title);
    page_fact facts[4] = {
        {.name = "champion"}, {.name = "milliseconds"}, {.name = "tried"}, {.name = "rejected"}};
    if (isfinite(best)) {
        const tune_record *r = g->tries[g->champion].record;
        snprintf(facts[0].words, sizeof facts[0].words, "%.20s %.40s", r->variant, r->parameters);
        snprintf(facts[1].words, sizeof facts[1].words, "%.4g", 1e3 * best);
    }
    snprintf(facts[2].words, sizeof facts[2].words, "%zu", g->count);
    snprintf(facts[3].words, sizeof facts[3].words, "%zu", g->rejected);
    page_facts(to, facts, 4);
    text_add(to, "<div class=\"pictures\">\n");
    for (size_t i = 0; i < TUNING_PICTURES; ++i)
        if (draw[i](g, &p))
            page_picture(to, &p, tuning_pictures[i].words);
    text_add(to, "</div>\n");
    snprintf(caption, sizeof caption, "What was tried: %zu of %zu candidates",
             g->count < TOLD ? g->count : TOLD, g->count);
    page_table(to, caption, columns);
    for (size_t i = 0; i < g->count && i < TOLD; ++i) {
        const tune_record *r = g->tries[i].record;
        snprintf(id, sizeof id, "%zu", i + 1);
        page_row(to, id);
        page_cell(to, "%s", r->variant);
        page_cell(to, "%s", r->parameters);
        isfinite(r->seconds) ? page_cell(to, "%.4g", 1e3 * r->seconds) : page_cell(to, "rejected");
        isfinite(r->seconds) ? page_cell(to, "%.2f", r->seconds / best) : page_cell(to, "–");
        isfinite(r->error) ? page_cell(to, "%.1e", r->error) : page_cell(to, "–");
        page_cell(to, "%s", i == g->champion ? "champion" : g->tries[i].differs == 1 ? "neighbour" : "");
        text_add(to, "</tr>\n");
    }
    page_table_end(to);
    page_section_end(to);
}

void tuning_story_page(const void *story, text *to) {
    const tuning_story *s = story;
    char what[160];
    snprintf(what, sizeof what, "What the tuner tried: %zu candidates for %zu classes of problems",
             s->tried.count, s->count);
    page_begin(to, s->title, what);
    for (size_t i = 0; i < s->count; ++i)
        add_group(&s->groups[i], i, to);
    page_end(to, false);
}
