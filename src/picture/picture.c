#include "picture/picture.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `more`; false without memory, which is remembered. */
static bool grow(picture *p, void **list, size_t *capacity, size_t needed, size_t each) {
    if (needed <= *capacity)
        return true;
    size_t larger = *capacity ? 2 * *capacity : 64;
    while (larger < needed)
        larger *= 2;
    void *grown = realloc(*list, larger * each);
    if (!grown) {
        p->failed = true;
        return false;
    }
    *list = grown;
    *capacity = larger;
    return true;
}

/* Keeps words with a NUL behind them, and says where. */
static size_t keep(picture *p, const char *format, va_list values) {
    char line[512];
    size_t at = p->words.length;
    vsnprintf(line, sizeof line, format, values);
    text_add_bytes(&p->words, line, strlen(line) + 1);
    return at;
}

static picture_shape *add(picture *p, picture_shape shape) {
    static picture_shape lost;
    shape.words = shape.hint = SIZE_MAX;
    void *list = p->shapes;
    bool room = grow(p, &list, &p->shape_capacity, p->shape_count + 1, sizeof shape);
    p->shapes = list;
    if (!room)
        return &lost;
    p->shapes[p->shape_count] = shape;
    return &p->shapes[p->shape_count++];
}

void picture_begin(picture *p, double width, double height, const char *title) {
    *p = (picture){.width = width, .height = height};
    text_add_bytes(&p->words, title, strlen(title) + 1);
}

void picture_rect(picture *p, picture_role role, double opacity, double x, double y, double w, double h) {
    add(p, (picture_shape){
               .kind = PICTURE_RECT, .role = role, .opacity = opacity, .x = x, .y = y, .w = w, .h = h});
}

void picture_ellipse(picture *p, picture_role role, double opacity, double x, double y, double rx, double ry,
                     double angle) {
    add(p, (picture_shape){.kind = PICTURE_ELLIPSE,
                           .role = role,
                           .opacity = opacity,
                           .x = x,
                           .y = y,
                           .w = rx,
                           .h = ry,
                           .angle = angle});
}

void picture_line(picture *p, picture_role role, double width, const double *points, size_t count) {
    void *list = p->points;
    bool room = grow(p, &list, &p->point_capacity, p->point_count + 2 * count, sizeof *points);
    p->points = list;
    if (!room || count == 0)
        return;
    memcpy(p->points + p->point_count, points, 2 * count * sizeof *points);
    add(p, (picture_shape){.kind = PICTURE_LINE,
                           .role = role,
                           .opacity = 1,
                           .w = width,
                           .first = p->point_count,
                           .count = count});
    p->point_count += 2 * count;
}

void picture_text(picture *p, picture_role role, picture_anchor anchor, double size, double x, double y,
                  const char *format, ...) {
    va_list values;
    va_start(values, format);
    size_t words = keep(p, format, values);
    va_end(values);
    add(p,
        (picture_shape){
            .kind = PICTURE_TEXT, .role = role, .anchor = anchor, .opacity = 1, .h = size, .x = x, .y = y})
        ->words = words;
}

void picture_hint(picture *p, const char *format, ...) {
    va_list values;
    if (p->shape_count == 0)
        return;
    va_start(values, format);
    p->shapes[p->shape_count - 1].hint = keep(p, format, values);
    va_end(values);
}

bool picture_ok(const picture *p) {
    return !p->failed && text_ok(&p->words);
}

void picture_end(picture *p) {
    free(p->shapes);
    free(p->points);
    text_free(&p->words);
    *p = (picture){0};
}
