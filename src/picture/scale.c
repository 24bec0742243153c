#include "picture/scale.h"

#include <math.h>
#include <stdio.h>

/* The end of a logarithmic scale where nothing is above 0. */
static const double LEAST = 1e-30;

scale scale_over(const double *numbers, size_t count, bool log) {
    scale s = {.low = INFINITY, .high = -INFINITY, .log = log};
    for (size_t i = 0; i < count; ++i)
        scale_widen(&s, numbers[i]);
    return s;
}

void scale_widen(scale *s, double number) {
    if (!isfinite(number) || (s->log && number <= LEAST))
        return;
    s->low = fmin(s->low, number);
    s->high = fmax(s->high, number);
}

static double along(const scale *s, double number) {
    return s->log ? log10(fmax(number, LEAST)) : number;
}

double scale_at(const scale *s, double number) {
    double low = along(s, s->low), high = along(s, s->high);
    if (!(low < high))
        return (s->from + s->to) / 2;
    double share = (along(s, number) - low) / (high - low);
    return s->from + fmin(fmax(share, 0), 1) * (s->to - s->from);
}

static size_t log_ticks(const scale *s, size_t most, double *ticks) {
    int first = (int)ceil(log10(s->low) - 1e-9), last = (int)floor(log10(s->high) + 1e-9), step = 1;
    size_t count = 0;
    while ((size_t)((last - first) / step + 1) > most)
        ++step;
    for (int e = first; e <= last && count < most; e += step)
        ticks[count++] = pow(10, e);
    return count;
}

static size_t linear_ticks(const scale *s, size_t most, double *ticks) {
    static const double round_steps[] = {1, 2, 5, 10};
    double rough = (s->high - s->low) / (double)most, unit = pow(10, floor(log10(rough))), step = 10 * unit;
    size_t count = 0;
    for (int i = 3; i >= 0; --i)
        if (round_steps[i] * unit >= rough)
            step = round_steps[i] * unit;
    for (double i = ceil(s->low / step - 1e-9); i * step <= s->high * (1 + 1e-9) && count < most; ++i)
        ticks[count++] = i * step + 0.0;
    return count;
}

size_t scale_ticks(const scale *s, size_t most, double ticks[SCALE_TICKS]) {
    size_t count = 0;
    most = most < 2 ? 2 : most > SCALE_TICKS ? SCALE_TICKS : most;
    if (!isfinite(s->low) || !isfinite(s->high))
        return 0;
    if (s->log)
        count = log_ticks(s, most, ticks);
    if (count < 2 && s->high > s->low)
        count = linear_ticks(s, most, ticks);
    if (count >= 2)
        return count;
    ticks[0] = s->low;
    ticks[1] = s->high;
    return s->high > s->low ? 2 : 1;
}

const char *scale_words(double number, char words[SCALE_WORDS]) {
    static const char units[] = " kMGTP";
    double size = fabs(number);
    int unit = 0;
    if (size >= 1e4)
        for (; size >= 999.5 && unit < 5; ++unit, number /= 1000)
            size /= 1000;
    if (unit)
        snprintf(words, SCALE_WORDS, "%.3g%c", number, units[unit]);
    else
        snprintf(words, SCALE_WORDS, "%.*g", size >= 1000 ? 4 : 3, number);
    return words;
}
