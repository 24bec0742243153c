/* From numbers to places, and the round numbers between. */
#ifndef CLSPLAT_PICTURE_SCALE_H
#define CLSPLAT_PICTURE_SCALE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct scale {
    double low, high; /* numbers */
    double from, to;  /* where they are */
    bool log;
} scale;

enum { SCALE_TICKS = 12, SCALE_WORDS = 24 };

/* From the least to the most of what is given, a little wider where that is nothing; `log` scales leave out
 * what is not above 0. */
scale scale_over(const double *numbers, size_t count, bool log);
/* The same scale over more. */
void scale_widen(scale *s, double number);
double scale_at(const scale *s, double number);
/* Round numbers within it, rising: how many. */
size_t scale_ticks(const scale *s, size_t most, double ticks[SCALE_TICKS]);

/* "0.02", "1.5k", "64M": three digits that count. */
const char *scale_words(double number, char words[SCALE_WORDS]);

#endif
