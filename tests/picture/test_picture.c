/* Pictures: scales and their ticks, what charts draw, and SVG that stays SVG whatever the words. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "picture/chart.h"
#include "picture/scale.h"
#include "suite.h"

START_TEST(ticks_are_round_and_inside) {
    static const double ends[][2] = {{0, 1}, {3, 17}, {-2.5, 1e4}, {0.001, 0.0011}, {1e-9, 5e8}, {7, 7}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; ++i)
        for (int log = 0; log < 2; ++log) {
            scale s = scale_over(ends[i], 2, log);
            double ticks[SCALE_TICKS];
            size_t count = scale_ticks(&s, 6, ticks);
            s.to = 100;
            ck_assert(count >= 1 && count <= SCALE_TICKS);
            for (size_t t = 0; t < count; ++t) {
                char words[SCALE_WORDS];
                ck_assert_double_ge(ticks[t], s.low - 1e-8 * fabs(s.high));
                ck_assert_double_le(ticks[t], s.high + 1e-8 * fabs(s.high));
                ck_assert(t == 0 || ticks[t] > ticks[t - 1]);
                ck_assert_uint_gt(strlen(scale_words(ticks[t], words)), 0);
            }
        }
}
END_TEST

START_TEST(numbers_are_where_they_belong) {
    const double numbers[] = {2, NAN, 12, INFINITY};
    scale s = scale_over(numbers, 4, false), l = {.low = 0.01, .high = 100, .from = 0, .to = 8, .log = true};
    s.from = 100;
    s.to = 0;
    ck_assert_double_eq_tol(scale_at(&s, 2), 100, 1e-9);
    ck_assert_double_eq_tol(scale_at(&s, 7), 50, 1e-9);
    ck_assert_double_eq_tol(scale_at(&s, 1e9), 0, 1e-9);
    ck_assert_double_eq_tol(scale_at(&l, 1), 4, 1e-9);
    ck_assert_double_eq_tol(scale_at(&l, 0), 0, 1e-9);
}
END_TEST

START_TEST(words_have_three_digits) {
    static const struct {
        double number;
        const char *words;
    } cases[] = {{0, "0"},         {0.0213, "0.0213"}, {4096, "4096"},
                 {65536, "65.5k"}, {1.5e6, "1.5M"},    {-2e9, "-2G"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char words[SCALE_WORDS];
        ck_assert_str_eq(scale_words(cases[i].number, words), cases[i].words);
    }
}
END_TEST

static void add_scales(TCase *part) {
    tcase_add_test(part, ticks_are_round_and_inside);
    tcase_add_test(part, numbers_are_where_they_belong);
    tcase_add_test(part, words_have_three_digits);
}

static size_t count_of(const char *words, const char *part) {
    size_t count = 0;
    for (const char *at = words; (at = strstr(at, part)); at += strlen(part))
        ++count;
    return count;
}

START_TEST(hostile_words_stay_words) {
    static const char hostile[] = "</title><script>\"'&\xff\xc3(\x01\xe2\x80\xae";
    picture p;
    text svg = {0};
    picture_begin(&p, 100, 50, hostile);
    picture_text(&p, PICTURE_INK, PICTURE_START, 12, 1, 2, "%s", hostile);
    picture_rect(&p, PICTURE_SERIES, 0.5, 0, 0, 10, -3);
    picture_hint(&p, "%s", hostile);
    picture_svg(&p, true, &svg);
    picture_end(&p);
    ck_assert(text_ok(&svg));
    ck_assert_uint_eq(count_of(svg.data, "<script"), 0);
    ck_assert_uint_eq(count_of(svg.data, "&#60;/title&#62;&#60;script&#62;&#34;&#39;&#38;\xef\xbf\xbd"), 3);
    ck_assert_uint_eq(count_of(svg.data, "</title>"), 2);
    ck_assert_uint_eq(count_of(svg.data, "height=\"0\""), 1);
    text_free(&svg);
}
END_TEST

START_TEST(charts_draw_what_is_there) {
    double x[] = {1, 2, 3, 4}, y[] = {1, NAN, 100, 0};
    chart_series series = {"loss", x, y, 4, false};
    picture p;
    text svg = {0};
    chart_draw_xy(&p, &(chart_xy){.title = "t",
                                  .x_label = "x",
                                  .y_label = "y",
                                  .series = &series,
                                  .count = 1,
                                  .log_y = true,
                                  .rule = NAN});
    picture_svg(&p, false, &svg);
    ck_assert_uint_eq(count_of(svg.data, "<ellipse"), 2);
    picture_end(&p);
    text_free(&svg);
    chart_draw_heat(&p, &(chart_heat){.title = "t",
                                      .row_label = "r",
                                      .column_label = "c",
                                      .values = y,
                                      .rows = 2,
                                      .columns = 2,
                                      .unit_name = ""});
    picture_svg(&p, false, &svg);
    ck_assert_uint_eq(count_of(svg.data, "<title>r "), 3);
    picture_end(&p);
    text_free(&svg);
}
END_TEST

START_TEST(nothing_to_draw_is_no_harm) {
    picture p;
    text svg = {0};
    chart_draw_xy(&p, &(chart_xy){.title = "", .x_label = "", .y_label = "", .rule = NAN, .log_x = true});
    picture_svg(&p, true, &svg);
    picture_end(&p);
    chart_draw_flame(&p, "", NULL, 0);
    picture_svg(&p, true, &svg);
    picture_end(&p);
    chart_draw_parts(&p, "", NULL, 0);
    picture_svg(&p, true, &svg);
    picture_end(&p);
    ck_assert(text_ok(&svg));
    ck_assert_uint_eq(count_of(svg.data, "nan"), 0);
    ck_assert_uint_eq(count_of(svg.data, "inf"), 0);
    text_free(&svg);
}
END_TEST

static void add_charts(TCase *part) {
    tcase_add_test(part, hostile_words_stay_words);
    tcase_add_test(part, charts_draw_what_is_there);
    tcase_add_test(part, nothing_to_draw_is_no_harm);
}

int main(void) {
    static const suite_part parts[] = {{"scale", add_scales}, {"chart", add_charts}};
    return suite_run("picture", parts, sizeof parts / sizeof *parts);
}
