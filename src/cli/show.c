#include "cli/show.h"

#include <math.h>

/* Means of equal shares. Returns: how many. */
static size_t gather(const double *numbers, size_t count, double means[SHOW_WIDTH]) {
    size_t width = count < SHOW_WIDTH ? count : SHOW_WIDTH;
    for (size_t i = 0; i < width; ++i) {
        double sum = 0;
        size_t held = 0;
        for (size_t j = i * count / width; j < (i + 1) * count / width; ++j)
            if (isfinite(numbers[j])) {
                sum += numbers[j];
                ++held;
            }
        means[i] = held ? sum / (double)held : NAN;
    }
    return width;
}

void show_line(text *to, const char *name, const double *numbers, size_t count, const char *unit) {
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    enum { BLOCKS = sizeof blocks / sizeof *blocks };
    double means[SHOW_WIDTH], least = INFINITY, most = -INFINITY;
    size_t width = gather(numbers, count, means);
    for (size_t i = 0; i < width; ++i) {
        least = fmin(least, isnan(means[i]) ? INFINITY : means[i]);
        most = fmax(most, isnan(means[i]) ? -INFINITY : means[i]);
    }
    if (!(least <= most))
        return;
    text_add(to, "%-20s %8.3g ", name, least);
    for (size_t i = 0; i < width; ++i) {
        double share = most > least ? (means[i] - least) / (most - least) : 0;
        text_add(to, "%s", isnan(means[i]) ? " " : blocks[(int)fmin(share * BLOCKS, BLOCKS - 1)]);
    }
    text_add(to, " %.3g%s\n", most, unit);
}
