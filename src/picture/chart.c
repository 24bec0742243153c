#include "picture/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "picture/scale.h"

enum { WIDTH = 640, LEFT = 64, RIGHT = 16, TOP = 44, FONT = 12, SMALL = 11 };

/* Letters of the font are about so wide. */
static double width_of(const char *words, double size) {
    return 0.58 * size * (double)strlen(words);
}

static picture_role series_role(size_t i) {
    return (picture_role)(PICTURE_SERIES + i % PICTURE_SERIES_COUNT);
}

static void draw_title(picture *p, const char *title) {
    picture_text(p, PICTURE_INK, PICTURE_START, 14, 8, 18, "%s", title);
}

static void draw_segment(picture *p, picture_role role, double width, double x0, double y0, double x1,
                         double y1) {
    double points[] = {x0, y0, x1, y1};
    picture_line(p, role, width, points, 2);
}

/* A name after its colour; returns where the next one goes. */
static double draw_key(picture *p, picture_role role, double x, double y, const char *words) {
    picture_rect(p, role, 1, x, y - 9, 10, 10);
    picture_text(p, PICTURE_INK, PICTURE_START, SMALL, x + 14, y, "%s", words);
    return x + 28 + width_of(words, SMALL);
}

static void draw_axes(picture *p, const scale *x, const scale *y, const chart_xy *c) {
    double ticks[SCALE_TICKS];
    char words[SCALE_WORDS];
    size_t count = scale_ticks(y, 6, ticks);
    for (size_t i = 0; i < count; ++i) {
        double at = scale_at(y, ticks[i]);
        draw_segment(p, PICTURE_GRID, 1, x->from, at, x->to, at);
        picture_text(p, PICTURE_MUTED, PICTURE_END, SMALL, x->from - 6, at + 4, "%s",
                     scale_words(ticks[i], words));
    }
    count = scale_ticks(x, 9, ticks);
    for (size_t i = 0; i < count; ++i) {
        double at = scale_at(x, ticks[i]);
        draw_segment(p, PICTURE_MUTED, 1, at, y->from, at, y->from + 4);
        picture_text(p, PICTURE_MUTED, PICTURE_MIDDLE, SMALL, at, y->from + 17, "%s",
                     scale_words(ticks[i], words));
    }
    draw_segment(p, PICTURE_MUTED, 1, x->from, y->from, x->to, y->from);
    picture_text(p, PICTURE_MUTED, PICTURE_MIDDLE, FONT, (x->from + x->to) / 2, y->from + 34, "%s",
                 c->x_label);
    picture_text(p, PICTURE_MUTED, PICTURE_END, FONT, WIDTH - RIGHT, 18, "%s", c->y_label);
}

static bool is_shown(const chart_series *s, size_t i, const scale *x, const scale *y) {
    return isfinite(s->x[i]) && isfinite(s->y[i]) && (!x->log || s->x[i] > 0) && (!y->log || s->y[i] > 0);
}

static void draw_series(picture *p, const chart_series *s, picture_role role, const scale *x,
                        const scale *y) {
    char at_x[SCALE_WORDS], at_y[SCALE_WORDS];
    double last_x = 0, last_y = 0;
    bool begun = false;
    for (size_t i = 0; i < s->count; ++i) {
        if (!is_shown(s, i, x, y)) {
            begun = false;
            continue;
        }
        double px = scale_at(x, s->x[i]), py = scale_at(y, s->y[i]);
        if (!s->points && begun)
            draw_segment(p, role, 1.5, last_x, last_y, px, py);
        if (s->points || s->count <= 64) {
            picture_ellipse(p, role, s->points ? 0.8 : 1, px, py, 3, 3, 0);
            picture_hint(p, "%s: %s at %s", s->name, scale_words(s->y[i], at_y), scale_words(s->x[i], at_x));
        }
        begun = true;
        last_x = px;
        last_y = py;
    }
}

void chart_draw_xy(picture *p, const chart_xy *c) {
    enum { HEIGHT = 300 };
    scale x = scale_over(NULL, 0, c->log_x), y = scale_over(NULL, 0, c->log_y);
    picture_begin(p, WIDTH, HEIGHT, c->title);
    draw_title(p, c->title);
    for (size_t i = 0; i < c->count; ++i)
        for (size_t j = 0; j < c->series[i].count; ++j) {
            scale_widen(&x, c->series[i].x[j]);
            scale_widen(&y, c->series[i].y[j]);
        }
    if (!isnan(c->rule))
        scale_widen(&y, c->rule);
    if (!c->log_y && y.low > 0 && y.low < y.high / 2)
        y.low = 0;
    x.from = LEFT;
    x.to = WIDTH - RIGHT;
    y.from = HEIGHT - 42;
    y.to = TOP + 8;
    draw_axes(p, &x, &y, c);
    if (!isnan(c->rule)) {
        double at = scale_at(&y, c->rule);
        draw_segment(p, PICTURE_INK, 1, x.from, at, x.to, at);
        picture_text(p, PICTURE_INK, PICTURE_END, SMALL, x.to, at - 4, "%s", c->rule_name);
    }
    double key = LEFT;
    for (size_t i = 0; i < c->count; ++i) {
        draw_series(p, &c->series[i], series_role(i), &x, &y);
        key = draw_key(p, series_role(i), key, TOP - 6, c->series[i].name);
    }
}

static double largest(const chart_heat *c) {
    double most = 0;
    for (size_t i = 0; i < c->rows * c->columns; ++i)
        if (isfinite(c->values[i]))
            most = fmax(most, c->values[i]);
    return most;
}

/* The steps of the colours, with the numbers at both ends. */
static void draw_legend(picture *p, double most, double unit, const char *name) {
    char words[SCALE_WORDS];
    double x = WIDTH - RIGHT - 14 * PICTURE_HEATS - 60;
    picture_text(p, PICTURE_MUTED, PICTURE_END, SMALL, x - 4, 18, "0");
    for (int i = 0; i < PICTURE_HEATS; ++i)
        picture_rect(p, (picture_role)(PICTURE_HEAT + i), 1, x + 14 * i, 9, 14, 10);
    picture_text(p, PICTURE_MUTED, PICTURE_START, SMALL, x + 14 * PICTURE_HEATS + 4, 18, "%s%s",
                 scale_words(most * unit, words), name);
}

static const char *name_of(const double *values, size_t i, char words[SCALE_WORDS]) {
    if (values)
        return scale_words(values[i], words);
    snprintf(words, SCALE_WORDS, "%zu", i);
    return words;
}

static void draw_cells(picture *p, const chart_heat *c, double most, double cell, double high) {
    double unit = c->unit > 0 ? c->unit : 1, power = c->power > 0 ? c->power : 1;
    char words[SCALE_WORDS], row[SCALE_WORDS], column[SCALE_WORDS];
    for (size_t i = 0; i < c->rows; ++i)
        for (size_t j = 0; j < c->columns; ++j) {
            double value = c->values[i * c->columns + j];
            if (!isfinite(value))
                continue;
            picture_rect(p, picture_heat(most > 0 ? pow(fmax(value / most, 0), power) : 0), 1,
                         LEFT + cell * (double)j, TOP + high * (double)i, cell - (cell > 6),
                         high - (high > 6));
            picture_hint(p, "%s %s, %s %s: %s%s", c->row_label, name_of(c->row_values, i, row),
                         c->column_label, name_of(c->column_values, j, column),
                         scale_words(value * unit, words), c->unit_name);
        }
}

void chart_draw_heat(picture *p, const chart_heat *c) {
    double most = c->most > 0 ? c->most : largest(c), unit = c->unit > 0 ? c->unit : 1;
    double cell = fmin((WIDTH - LEFT - RIGHT) / (double)c->columns, 48);
    double high = fmax(fmin(fmin(cell, 24), 480.0 / (double)c->rows), 2);
    double bottom = TOP + high * (double)c->rows;
    char words[SCALE_WORDS];
    size_t every = c->rows > 16 ? (c->rows + 15) / 16 : 1, across = 1;
    while (cell * (double)across < 24)
        across *= 2;
    picture_begin(p, WIDTH, ceil(bottom) + 44, c->title);
    draw_title(p, c->title);
    draw_legend(p, most, unit, c->unit_name);
    draw_cells(p, c, most, cell, high);
    for (size_t i = 0; i < c->rows; i += every)
        picture_text(p, PICTURE_MUTED, PICTURE_END, SMALL, LEFT - 6, TOP + high * ((double)i + 0.5) + 4, "%s",
                     name_of(c->row_values, i, words));
    for (size_t j = 0; j < c->columns; j += across)
        picture_text(p, PICTURE_MUTED, PICTURE_MIDDLE, SMALL, LEFT + cell * ((double)j + 0.5), bottom + 15,
                     "%s", name_of(c->column_values, j, words));
    picture_text(p, PICTURE_MUTED, PICTURE_START, FONT, 8, TOP - 8, "%s", c->row_label);
    picture_text(p, PICTURE_MUTED, PICTURE_MIDDLE, FONT, LEFT + cell * (double)c->columns / 2, bottom + 32,
                 "%s", c->column_label);
}

void chart_draw_parts(picture *p, const char *title, const chart_part *parts, size_t count) {
    double whole = 0, x = 8, key = 8, y = 84;
    char words[128];
    for (size_t i = 0; i < count; ++i)
        whole += parts[i].value;
    picture_begin(p, WIDTH, 84 + 18 * (double)count, title);
    draw_title(p, title);
    for (size_t i = 0; i < count; ++i) {
        double width = whole > 0 ? parts[i].value / whole * (WIDTH - 16) : 0;
        picture_rect(p, series_role(i), 1, x, 30, fmax(width - 1, 0.5), 28);
        picture_hint(p, "%s: %s", parts[i].name, parts[i].words);
        x += width;
        snprintf(words, sizeof words, "%s: %s (%.1f %%)", parts[i].name, parts[i].words,
                 whole > 0 ? 100 * parts[i].value / whole : 0);
        draw_key(p, series_role(i), key, y, words);
        y += 18;
    }
}

void chart_draw_flame(picture *p, const char *title, const chart_bar *bars, size_t count) {
    enum { ROW = 26 };
    double whole = 0;
    unsigned deepest = 0;
    for (size_t i = 0; i < count; ++i) {
        whole = fmax(whole, bars[i].begin + bars[i].value);
        deepest = bars[i].depth > deepest ? bars[i].depth : deepest;
    }
    picture_begin(p, WIDTH, 32 + ROW * (deepest + 1) + 8, title);
    draw_title(p, title);
    for (size_t i = 0; i < count && whole > 0; ++i) {
        const chart_bar *b = &bars[i];
        double x = 8 + b->begin / whole * (WIDTH - 16), width = b->value / whole * (WIDTH - 16),
               y = 32 + ROW * (double)b->depth;
        picture_rect(p, b->depth ? series_role(b->depth + i) : PICTURE_MUTED, 0.35, x, y,
                     fmax(width - 1, 0.5), ROW - 2);
        picture_hint(p, "%s: %s", b->name, b->words);
        if (width_of(b->name, SMALL) + 8 < width)
            picture_text(p, PICTURE_INK, PICTURE_START, SMALL, x + 4, y + 16, "%s", b->name);
    }
}
