/* Pictures: lists of shapes that become SVG or PNG. Lengths are in CSS pixels, the origin is top left.
 *
 *     picture p;
 *     picture_begin(&p, 640, 320, "Loss");
 *     picture_rect(&p, PICTURE_SERIES, 1, 10, 10, 80, 20);
 *     picture_hint(&p, "80 steps");
 *     picture_svg(&p, true, &out);
 *     picture_end(&p);
 *
 * Running out of memory is remembered: picture_ok tells at the end. Threads: a picture belongs to one. */
#ifndef CLSPLAT_PICTURE_PICTURE_H
#define CLSPLAT_PICTURE_PICTURE_H

#include "base/text.h"

enum { PICTURE_SERIES_COUNT = 6, PICTURE_HEATS = 9 };

/* What a colour is for; which one it is, light and dark, is colour.c's. Series are told apart by colour-blind
 * people (Okabe and Ito 2008); heats grow in lightness alone, from the background's. */
typedef enum picture_role {
    PICTURE_INK,
    PICTURE_MUTED,
    PICTURE_GRID,
    PICTURE_PAPER,
    PICTURE_SERIES, /* and the five after it */
    PICTURE_HEAT = PICTURE_SERIES + PICTURE_SERIES_COUNT,
    PICTURE_ROLES = PICTURE_HEAT + PICTURE_HEATS
} picture_role;

typedef enum picture_anchor { PICTURE_START, PICTURE_MIDDLE, PICTURE_END } picture_anchor;

typedef enum picture_kind {
    PICTURE_RECT,
    PICTURE_LINE,    /* through points */
    PICTURE_ELLIPSE, /* centre, half axes, angle in radians */
    PICTURE_TEXT     /* at its baseline */
} picture_kind;

typedef struct picture_shape {
    picture_kind kind;
    picture_role role;
    picture_anchor anchor;
    double opacity, x, y, w, h, angle; /* of a text, h is its size; of a line, w is its width */
    size_t first, count;               /* of points */
    size_t words, hint;                /* where in the picture's words, ended by NUL; SIZE_MAX: none */
} picture_shape;

typedef struct picture {
    double width, height;
    picture_shape *shapes;
    size_t shape_count, shape_capacity;
    double *points; /* x, y */
    size_t point_count, point_capacity;
    text words; /* begins with the title */
    bool failed;
} picture;

void picture_begin(picture *p, double width, double height, const char *title);
void picture_rect(picture *p, picture_role role, double opacity, double x, double y, double w, double h);
void picture_ellipse(picture *p, picture_role role, double opacity, double x, double y, double rx, double ry,
                     double angle);
/* `points` [count][2] are copied. */
void picture_line(picture *p, picture_role role, double width, const double *points, size_t count);
void picture_text(picture *p, picture_role role, picture_anchor anchor, double size, double x, double y,
                  const char *format, ...) __attribute__((format(printf, 7, 8)));
/* What a pointer over the last shape is told. */
void picture_hint(picture *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool picture_ok(const picture *p);
void picture_end(picture *p);

/* Adds the picture as an <svg>. `alone`: a file of its own, with its colours in it; otherwise the page around
 * it has them (picture_style). */
void picture_svg(const picture *p, bool alone, text *to);
/* CSS of all roles, light and dark: of the variables that pages may use, too. */
void picture_style(text *to);

/* "#rrggbb"; for dark backgrounds another. */
const char *picture_colour(picture_role role, bool dark);
/* The step of 0 … 1. */
picture_role picture_heat(double share);

/* Words of any kind as XML and HTML show them: what is not UTF-8, and what XML cannot have, becomes U+FFFD.
 */
void picture_escape(text *to, const char *words, size_t bytes);
/* The same, not escaped. */
void picture_mend(text *to, const char *words);

#endif
