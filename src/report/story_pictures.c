/* The pictures of a story. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture/chart.h"
#include "report/story.h"

static double *numbers(size_t count) {
    return calloc(count + 1, sizeof(double));
}

/* Errors of the layers, expected and true. */
static bool draw_errors(const void *of, picture *p) {
    const story *s = of;
    const look *l = &s->look;
    double *x = numbers(3 * l->layers), *expected = x + l->layers, *actual = expected + l->layers;
    if (!l->chunk || !x) {
        free(x);
        return false;
    }
    for (size_t i = 0; i < l->layers; ++i) {
        look_sum sum = look_sum_up(l, i, 0, l->heads);
        x[i] = (double)i;
        expected[i] = sum.expected;
        actual[i] = sum.actual;
    }
    chart_series series[] = {{"expected", x, expected, l->layers, l->layers == 1},
                             {"true", x, actual, l->layers, l->layers == 1}};
    chart_draw_xy(p,
                  &(chart_xy){.title = "Error of each layer, beside exact attention",
                              .x_label = s->layer_word,
                              .y_label = "relative error",
                              .series = series,
                              .count = 2,
                              .log_y = true,
                              .rule = isfinite(s->tolerance) && s->tolerance > 0 ? (double)s->tolerance : NAN,
                              .rule_name = "tolerance"});
    free(x);
    return true;
}

typedef double value_of(const look_sum *sum);

static double share_of(const look_sum *sum) {
    return sum->visible > 0 ? sum->exact / sum->visible : NAN;
}

static double actual_of(const look_sum *sum) {
    return sum->actual;
}

static double entropy_of(const look_sum *sum) {
    return sum->entropy;
}

/* A number of each head of each layer. */
static bool draw_heads(const story *s, picture *p, const char *title, value_of *value, double unit,
                       const char *unit_name) {
    const look *l = &s->look;
    double *values = numbers(l->layers * l->heads);
    if (!values)
        return false;
    for (size_t i = 0; i < l->layers * l->heads; ++i) {
        look_sum sum = look_sum_up(l, i / l->heads, i % l->heads, 1);
        values[i] = value(&sum);
    }
    chart_draw_heat(p, &(chart_heat){.title = title,
                                     .row_label = s->layer_word,
                                     .column_label = "head",
                                     .values = values,
                                     .rows = l->layers,
                                     .columns = l->heads,
                                     .unit = unit,
                                     .unit_name = unit_name});
    free(values);
    return true;
}

static bool draw_keys(const void *of, picture *p) {
    const story *s = of;
    return s->look.chunk &&
           draw_heads(s, p, "Keys looked at one by one, of those visible", share_of, 100, " %");
}

static bool draw_head_errors(const void *of, picture *p) {
    const story *s = of;
    return s->look.chunk && draw_heads(s, p, "True error of each head", actual_of, 100, " %");
}

static bool draw_entropy(const void *of, picture *p) {
    const story *s = of;
    return draw_heads(s, p, "How spread out attention is: entropy of its weights", entropy_of, 1, " bits");
}

/* Weight of blocks of keys in the rows, averaged over layers and heads. */
static bool draw_matrix(const void *of, picture *p) {
    const story *s = of;
    const look *l = &s->look;
    size_t rows = l->count < LOOK_BLOCKS ? l->count : LOOK_BLOCKS;
    double *values = numbers(rows * LOOK_BLOCKS), *counts = numbers(rows);
    bool drawn = values && counts && rows;
    for (size_t i = 0; drawn && i < l->layers * l->heads * l->count; ++i) {
        size_t row = i % l->count * rows / l->count;
        ++counts[row];
        for (size_t j = 0; j < LOOK_BLOCKS; ++j)
            values[row * LOOK_BLOCKS + j] += (double)l->rows[i].blocks[j];
    }
    for (size_t i = 0; drawn && i < rows * LOOK_BLOCKS; ++i)
        values[i] = values[i] > 0 ? values[i] / counts[i / LOOK_BLOCKS] : NAN;
    if (drawn)
        chart_draw_heat(p, &(chart_heat){.title = "Where attention goes: mean of all layers and heads",
                                         .row_label = "queries",
                                         .column_label = "keys, in 32 parts of the text",
                                         .values = values,
                                         .rows = rows,
                                         .columns = LOOK_BLOCKS,
                                         .power = 0.5,
                                         .unit = 100,
                                         .unit_name = " %"});
    free(values);
    free(counts);
    return drawn;
}

static bool draw_memory(const void *of, picture *p) {
    const story *s = of;
    chart_part parts[STORY_PARTS];
    size_t count = 0;
    for (; count < STORY_PARTS && s->memory[count].name; ++count) {
        parts[count] = (chart_part){.name = s->memory[count].name, .value = (double)s->memory[count].bytes};
        snprintf(parts[count].words, sizeof parts[count].words, "%.1f MiB", parts[count].value / 1048576);
    }
    if (count)
        chart_draw_parts(p, "Device memory", parts, count);
    return count > 0;
}

/* Which part of the work a kernel belongs to, by how its name begins. */
static const struct {
    const char *begins, *part;
} parts_of[] = {{"near_far", "attention"},    {"softmax", "attention"}, {"topk", "attention"},
                {"read", "attention"},        {"write", "attention"},   {"scan", "attention"},
                {"log_density", "attention"}, {"collect", "attention"}, {"gather", "trees"},
                {"find_apart", "trees"},      {"count_apart", "trees"}, {"place_apart", "trees"},
                {"apart", "trees"},           {"covariance", "trees"},  {"gemm", "products"},
                {"score", "scores"}};
static const char *const part_names[] = {"attention", "trees", "products", "scores", "layers"};
enum { PARTS = sizeof part_names / sizeof *part_names };

static const char *part_of(const char *kernel) {
    for (size_t i = 0; i < sizeof parts_of / sizeof *parts_of; ++i)
        if (strncmp(kernel, parts_of[i].begins, strlen(parts_of[i].begins)) == 0)
            return parts_of[i].part;
    return part_names[PARTS - 1];
}

static chart_bar bar_of(const char *name, double begin, double seconds, unsigned depth, double whole) {
    chart_bar bar = {.name = name, .begin = begin, .value = seconds, .depth = depth};
    snprintf(bar.words, sizeof bar.words, "%.4g s, %.1f %%", seconds, whole > 0 ? 100 * seconds / whole : 0);
    return bar;
}

static bool draw_flame(const void *of, picture *p) {
    const story *s = of;
    chart_bar *bars = calloc(s->kernel_count + PARTS + 2, sizeof *bars);
    double begin = 0, whole = fmax(s->seconds, s->kernel_seconds);
    size_t count = 0;
    if (!bars || s->kernel_count == 0) {
        free(bars);
        return false;
    }
    bars[count++] = bar_of("the run", 0, whole, 0, whole);
    for (size_t part = 0; part < PARTS; ++part) {
        double sum = 0;
        size_t above = count++;
        for (size_t i = 0; i < s->kernel_count; ++i) {
            const clsplat_profile_row *k = &s->kernels[i];
            if (strcmp(part_of(k->kernel), part_names[part]) != 0)
                continue;
            bars[count++] = bar_of(k->kernel, begin + sum, k->seconds, 2, whole);
            sum += k->seconds;
        }
        bars[above] = bar_of(part_names[part], begin, sum, 1, whole);
        begin += sum;
    }
    if (whole > begin)
        bars[count++] = bar_of("host, copies, builds", begin, whole - begin, 1, whole);
    chart_draw_flame(p, "Where the time goes", bars, count);
    free(bars);
    return true;
}

const page_drawing story_pictures[STORY_PICTURES] = {
    {"matrix",
     "Rows are the recorded queries in their order, columns parts of the text; the darker, the more.",
     draw_matrix},
    {"errors", "Relative error of the output over the recorded queries.", draw_errors},
    {"keys", "Of the recorded queries; the rest of the past goes through nodes of the trees.", draw_keys},
    {"head-errors", "Over the recorded queries.", draw_head_errors},
    {"entropy", "2 to the power of it is the number of keys that a query looks at, so to speak.",
     draw_entropy},
    {"walk",
     "Orange: opened, down to the keys. Blue: left closed, the darker the more of its error a query "
     "accepts.",
     story_draw_walk},
    {"memory", NULL, draw_memory},
    {"time", "Kernels below the part of the work that they belong to; what is not in kernels is the host's.",
     draw_flame},
};
