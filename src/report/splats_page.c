/* The page and the pictures of a splat set. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "picture/chart.h"
#include "picture/scale.h"
#include "report/splats_story.h"

enum { WIDTH = 640, HEIGHT = 460, MOST = 600, PAGE_HEADS = 8 };

static picture_role level_role(size_t level) {
    return (picture_role)(PICTURE_SERIES + level % PICTURE_SERIES_COUNT);
}

/* Only a word's worth of a name that a file brought. */
static void name_levels(const splats_story *s, picture *p, double y) {
    double x = 8;
    for (size_t level = 0; level < s->p.shape.levels; ++level) {
        char name[40];
        snprintf(name, sizeof name, "%.30s", s->p.level_names[level]);
        picture_rect(p, level_role(level), 1, x, y - 9, 10, 10);
        picture_text(p, PICTURE_INK, PICTURE_START, 11, x + 14, y, "%s", name);
        x += 30 + 6.5 * (double)strlen(name);
    }
}

/* Amplitude as ink, thin enough that what lies below hundreds of others still shows. */
static double ink_of(const splats_story *s, size_t head, size_t splat) {
    double most = 0, thin = fmin(0.4, fmax(6 / (double)s->p.shape.count, 0.02));
    for (size_t i = 0; i < s->p.shape.count; ++i)
        most = fmax(most, splats_story_at(s, head, i)->share);
    return most > 0 ? thin * (0.4 + 0.6 * sqrt(splats_story_at(s, head, splat)->share / most)) : thin;
}

static void hint_splat(const splats_story *s, picture *p, size_t head, size_t splat) {
    const splat_view *v = splats_story_at(s, head, splat);
    picture_hint(p, "splat %zu, %.30s: amplitude %.3g %%, temperature %.3g, width %.3g", splat,
                 s->p.level_names[s->p.level[splat]], 100 * v->share, v->temperature, v->width);
}

static void draw_cloud(const splats_story *s, size_t head, picture *p) {
    scale x = scale_over(NULL, 0, false), y = x;
    char title[96];
    for (size_t i = 0; i < s->p.shape.count; ++i) {
        const splat_view *v = splats_story_at(s, head, i);
        for (int side = -1; side <= 1; side += 2) {
            scale_widen(&x, v->x + side * v->wide);
            scale_widen(&y, v->y + side * v->wide);
        }
    }
    double unit =
        fmin((WIDTH - 16) / fmax(x.high - x.low, 1e-30), (HEIGHT - 64) / fmax(y.high - y.low, 1e-30));
    snprintf(title, sizeof title,
             "Splats of head %zu on their principal axes (%.0f %% of the means' variance)", head,
             100 * s->explained[head]);
    picture_begin(p, WIDTH, HEIGHT, title);
    picture_text(p, PICTURE_INK, PICTURE_START, 14, 8, 18, "%s", title);
    name_levels(s, p, 38);
    for (int dots = 0; dots < 2; ++dots)
        for (size_t level = s->p.shape.levels; level-- > 0;) /* coarse ones below */
            for (size_t i = 0; i < s->p.shape.count && i < MOST; ++i) {
                const splat_view *v = splats_story_at(s, head, i);
                if ((size_t)s->p.level[i] != level)
                    continue;
                double px = WIDTH / 2.0 + unit * (v->x - (x.low + x.high) / 2),
                       py = 52 + (HEIGHT - 56) / 2.0 - unit * (v->y - (y.low + y.high) / 2),
                       size = 1.2 + 8 * sqrt(v->share);
                if (dots)
                    picture_ellipse(p, level_role(level), 1, px, py, size, size, 0);
                else
                    picture_ellipse(p, level_role(level), ink_of(s, head, i), px, py,
                                    fmax(unit * v->wide, 1.5), fmax(unit * v->high, 1.5), -v->angle);
                if (dots)
                    hint_splat(s, p, head, i);
            }
}

static bool draw_first_cloud(const void *of, picture *p) {
    draw_cloud(of, 0, p);
    return true;
}

/* Where the splats of a level stand in the tree: below their parents, in their order. */
static void place_level(const splats_story *s, size_t level, double *x) {
    size_t count = 0, placed = 0;
    double last = -INFINITY;
    for (size_t i = 0; i < s->p.shape.count; ++i)
        count += (size_t)s->p.level[i] == level;
    for (size_t n = 0; n < count; ++n) {
        double next = INFINITY;
        for (size_t i = 0; i < s->p.shape.count; ++i) {
            size_t parent = splats_story_at(s, 0, i)->parent;
            double key = (parent == SIZE_MAX ? 0 : x[parent]) + 1e-6 * (double)i;
            if ((size_t)s->p.level[i] == level && key > last && key < next)
                next = key;
        }
        for (size_t i = 0; i < s->p.shape.count; ++i) {
            size_t parent = splats_story_at(s, 0, i)->parent;
            double key = (parent == SIZE_MAX ? 0 : x[parent]) + 1e-6 * (double)i;
            if ((size_t)s->p.level[i] == level && key == next)
                x[i] = 16 + (WIDTH - 32) * ((double)placed++ + 0.5) / (double)count;
        }
        last = next;
    }
}

static bool draw_tree(const void *of, picture *p) {
    const splats_story *s = of;
    size_t levels = s->p.shape.levels, count = s->p.shape.count;
    double *x = calloc(count + 1, sizeof *x), row = 90;
    if (!x || count > 4 * MOST || levels < 2) {
        free(x);
        return false;
    }
    for (size_t level = levels; level-- > 0;)
        place_level(s, level, x);
    picture_begin(p, WIDTH, 90 + row * (double)(levels - 1), "The hierarchy of head 0");
    picture_text(p, PICTURE_INK, PICTURE_START, 14, 8, 18,
                 "The hierarchy of head 0: each splat below the nearest of "
                 "the next coarser level");
    name_levels(s, p, 38);
    for (size_t i = 0; i < count; ++i) {
        const splat_view *v = splats_story_at(s, 0, i);
        double y = 70 + row * (double)(levels - 1 - (size_t)s->p.level[i]);
        if (v->parent == SIZE_MAX)
            continue;
        double points[] = {x[i], y, x[v->parent], y - row};
        picture_line(p, PICTURE_GRID, 1, points, 2);
    }
    for (size_t i = 0; i < count; ++i) {
        double size = 2 + 10 * sqrt(splats_story_at(s, 0, i)->share);
        picture_ellipse(p, level_role((size_t)s->p.level[i]), 1, x[i],
                        70 + row * (double)(levels - 1 - (size_t)s->p.level[i]), size, size, 0);
        hint_splat(s, p, 0, i);
    }
    free(x);
    return true;
}

static bool draw_levels(const void *of, picture *p) {
    const splats_story *s = of;
    size_t levels = s->p.shape.levels;
    chart_part *parts = calloc(levels, sizeof *parts);
    if (!parts)
        return false;
    for (size_t i = 0; i < levels; ++i) {
        splat_level sum = splats_story_level(s, i);
        parts[i] = (chart_part){.name = s->p.level_names[i], .value = sum.share};
        snprintf(parts[i].words, sizeof parts[i].words, "%zu splats, weight %.3g", sum.count, sum.weight);
    }
    chart_draw_parts(p, "What each level contributes: weight times amplitude", parts, levels);
    free(parts);
    return true;
}

const page_drawing splats_pictures[SPLATS_PICTURES] = {
    {"splats",
     "Ellipses of one deviation, temperature included; the darker, and the larger the dot in its middle, the "
     "larger "
     "the amplitude. At most 600 are drawn.",
     draw_first_cloud},
    {"tree", "The larger the dot, the larger the amplitude.", draw_tree},
    {"levels", "Before anything is attended to: which keys the splats meet changes it.", draw_levels},
};

static void add_levels(const splats_story *s, text *to) {
    static const char *const columns[] = {"level",      "splats",           "weight", "contribution",
                                          "mean width", "mean temperature", NULL};
    page_table(to, "The levels", columns);
    for (size_t i = 0; i < s->p.shape.levels; ++i) {
        splat_level sum = splats_story_level(s, i);
        page_row(to, s->p.level_names[i]);
        page_cell(to, "%zu", sum.count);
        page_cell(to, "%.4f", sum.weight);
        page_cell(to, "%.2f %%", 100 * sum.share);
        page_cell(to, "%.4g", sum.width);
        page_cell(to, "%.4g", sum.temperature);
        text_add(to, "</tr>\n");
    }
    page_table_end(to);
}

static void add_splats(const splats_story *s, size_t head, text *to) {
    static const char *const columns[] = {"splat", "level",       "amplitude", "temperature",
                                          "width", "on the axes", "below",     NULL};
    page_table(to, "The splats of this head", columns);
    for (size_t i = 0; i < s->p.shape.count && i < MOST; ++i) {
        const splat_view *v = splats_story_at(s, head, i);
        char name[24];
        snprintf(name, sizeof name, "%zu", i);
        page_row(to, name);
        page_cell(to, "%.60s", s->p.level_names[s->p.level[i]]);
        page_cell(to, "%.3f %%", 100 * v->share);
        page_cell(to, "%.4g", v->temperature);
        page_cell(to, "%.4g", v->width);
        page_cell(to, "%.3g, %.3g", v->x, v->y);
        v->parent == SIZE_MAX ? page_cell(to, "–") : page_cell(to, "%zu", v->parent);
        text_add(to, "</tr>\n");
    }
    page_table_end(to);
}

static void add_drawing(const splats_story *s, const page_drawing *d, text *to) {
    picture p;
    if (d->draw(s, &p))
        page_picture(to, &p, d->words);
}

void splats_story_page(const void *story, text *to) {
    const splats_story *s = story;
    clsplat_splats_shape shape = s->p.shape;
    char what[160];
    picture p;
    snprintf(what, sizeof what, "%zu splats of %s covariance in %zu levels, %s; %zu dimensions", shape.count,
             shape.covariance == CLSPLAT_ISOTROPIC  ? "isotropic"
             : shape.covariance == CLSPLAT_DIAGONAL ? "diagonal"
                                                    : "full",
             shape.levels, shape.heads == 1 ? "shared by the heads" : "for each head", shape.dim);
    page_begin(to, s->title, what);
    page_section(to, "levels", "Levels", NULL);
    add_drawing(s, &splats_pictures[2], to);
    add_levels(s, to);
    add_drawing(s, &splats_pictures[1], to);
    page_section_end(to);
    page_section(to, "splats", "Splats", splats_pictures[0].words);
    text_add(to, "<div class=\"pictures\">\n");
    for (size_t head = 0; head < shape.heads && head < PAGE_HEADS; ++head) {
        text_add(to, "<div>\n");
        draw_cloud(s, head, &p);
        page_picture(to, &p, NULL);
        add_splats(s, head, to);
        text_add(to, "</div>\n");
    }
    text_add(to, "</div>\n");
    page_section_end(to);
    page_end(to, false);
}

json_t *splats_story_json(const void *story) {
    const splats_story *s = story;
    json_t *levels = json_array(), *splats = json_array();
    for (size_t i = 0; i < s->p.shape.levels; ++i) {
        splat_level sum = splats_story_level(s, i);
        levels = json_push(levels,
                           json_pack("{s:s, s:I, s:f, s:f}", "name", s->p.level_names[i], "splats",
                                     (json_int_t)sum.count, "weight", sum.weight, "contribution", sum.share));
    }
    for (size_t i = 0; i < s->p.shape.heads * s->p.shape.count; ++i) {
        const splat_view *v = &s->views[i];
        splats = json_push(splats, json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "head",
                                             (json_int_t)(i / s->p.shape.count), "splat",
                                             (json_int_t)(i % s->p.shape.count), "amplitude", v->share,
                                             "temperature", v->temperature, "width", v->width, "x", v->x, "y",
                                             v->y, "wide", v->wide, "high", v->high, "angle", v->angle));
    }
    return json_pack("{s:o, s:o}", "levels", levels, "splats", splats);
}
