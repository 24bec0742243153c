/* Charts: data to pictures. Every call begins the picture, which the caller ends. */
#ifndef CLSPLAT_PICTURE_CHART_H
#define CLSPLAT_PICTURE_CHART_H

#include "picture/picture.h"

/* Lines or points over numbers. */
typedef struct chart_series {
    const char *name;
    const double *x, *y; /* [count]; what is not finite is left out */
    size_t count;
    bool points; /* not joined by lines */
} chart_series;
typedef struct chart_xy {
    const char *title, *x_label, *y_label;
    const chart_series *series; /* [count], at most PICTURE_SERIES_COUNT */
    size_t count;
    bool log_x, log_y;
    double rule; /* a horizontal line with a name; NaN: none */
    const char *rule_name;
} chart_xy;
void chart_draw_xy(picture *p, const chart_xy *chart);

/* Rows of cells, the more the darker. */
typedef struct chart_heat {
    const char *title, *row_label, *column_label;
    const double *values; /* [rows][columns]; NaN: no cell */
    size_t rows, columns;
    double most;                              /* that of the darkest; 0: the largest value */
    double power;                             /* of the share of it, so that small values show; 0: 1 */
    double unit;                              /* hints say values times this, 0: 1 … */
    const char *unit_name;                    /* … and this behind it */
    const double *row_values, *column_values; /* what they are called by; NULL: their numbers */
} chart_heat;
void chart_draw_heat(picture *p, const chart_heat *chart);

/* Parts of a whole, side by side. */
enum { CHART_WORDS = 48 };
typedef struct chart_part {
    const char *name;
    double value;
    char words[CHART_WORDS];
} chart_part;
void chart_draw_parts(picture *p, const char *title, const chart_part *parts, size_t count);

/* Bars under bars: a part of what is above it. */
typedef struct chart_bar {
    const char *name;
    double begin, value;
    unsigned depth;
    char words[CHART_WORDS];
} chart_bar;
void chart_draw_flame(picture *p, const char *title, const chart_bar *bars, size_t count);

#endif
