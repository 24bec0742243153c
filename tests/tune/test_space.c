/* Parameter spaces: numbering, neighbours, words, and those of the operations. */
#include <string.h>

#include "op/families.h"
#include "suite.h"

static bool product_is_small(const clsplat_limits *limits, const tune_point *point) {
    return point->value[0] * point->value[1] <= limits->max_work_group;
}

static const tune_space space = {3, {{"A", {0, 16, 32}}, {"B", {4, 2}}, {"C", {7}}}, product_is_small};

START_TEST(points_and_numbers_agree) {
    ck_assert_uint_eq(tune_space_size(&space), 6);
    for (size_t i = 0; i < 6; i++) {
        tune_point point = tune_point_at(&space, i);
        ck_assert_uint_eq(tune_point_index(&space, &point), i);
    }
    tune_point first = tune_point_at(&space, 0), foreign = {{5, 4, 7}};
    ck_assert_uint_eq(first.value[0], 0);
    ck_assert_uint_eq(first.value[1], 4);
    ck_assert_uint_eq(first.value[2], 7);
    ck_assert_uint_eq(tune_point_index(&space, &foreign), 6);
}
END_TEST

START_TEST(neighbours_differ_in_one_parameter) {
    for (size_t i = 0; i < tune_space_size(&space); i++)
        for (size_t p = 0; p < space.count; p++)
            for (size_t v = 0; v < tune_values(&space.parameters[p]); v++) {
                size_t other = tune_neighbour(&space, i, p, v);
                ck_assert_uint_lt(other, tune_space_size(&space));
                tune_point a = tune_point_at(&space, i), b = tune_point_at(&space, other);
                ck_assert_uint_eq(b.value[p], space.parameters[p].values[v]);
                a.value[p] = b.value[p];
                ck_assert_mem_eq(&a, &b, sizeof a);
            }
}
END_TEST

START_TEST(words_are_read_as_written) {
    for (size_t i = 0; i < tune_space_size(&space); i++) {
        tune_point point = tune_point_at(&space, i), read;
        text words = {0};
        tune_point_write(&space, &point, &words);
        ck_assert(tune_point_read(&space, words.data, &read));
        ck_assert_mem_eq(&point, &read, sizeof point);
        text_free(&words);
    }
    tune_point none;
    ck_assert(tune_point_read(&tune_nothing, "-", &none));
}
END_TEST

static const char *const bad_words[] = {"",
                                        "-",
                                        "A=16",
                                        "A=16 B=4",
                                        "A=16 B=4 C=7 ",
                                        "A=16 B=4 C=8",
                                        "B=4 A=16 C=7",
                                        "A=16  B=4 C=7",
                                        "A=-16 B=4 C=7",
                                        "A=16 B=4 C=7 D=1",
                                        "A=0x10 B=4 C=7",
                                        "a=16 B=4 C=7",
                                        "A= B=4 C=7",
                                        "A=99999999999999999999 B=4 C=7"};

START_TEST(other_words_are_refused) {
    tune_point point;
    ck_assert_msg(!tune_point_read(&space, bad_words[_i], &point), "`%s` was read", bad_words[_i]);
}
END_TEST

START_TEST(limits_are_asked) {
    clsplat_limits limits = {.max_work_group = 64};
    tune_point small = {{16, 4, 7}}, large = {{32, 4, 7}};
    ck_assert(tune_space_allows(&space, &limits, &small));
    ck_assert(!tune_space_allows(&space, &limits, &large));
    ck_assert(tune_space_allows(&tune_nothing, &limits, &large));
}
END_TEST

/* Every row has a space, whose default any device of its own kind allows, and a name and source to be known
 * by. */
START_TEST(tables_are_complete) {
    clsplat_limits limits = {
        .max_work_group = 64, .max_work_item_sizes = {64, 1, 1}, .local_memory = 32 << 10};
    for (size_t f = 0; f < op_family_count; f++) {
        const op_family *family = op_families[f];
        ck_assert(family->variants[0].fits == op_fits_all);
        for (size_t r = 0; r < family->count; r++) {
            const op_variant *v = &family->variants[r];
            ck_assert_ptr_nonnull(v->space);
            tune_point point = tune_default(v->space, &limits);
            ck_assert_msg(tune_space_allows(v->space, &limits, &point), "%s %s: the default is not allowed",
                          family->name, v->name);
            for (size_t p = 0; p < v->space->count; p++)
                ck_assert_uint_gt(strlen(v->space->parameters[p].name), 0);
            for (size_t other = 0; other < r; other++)
                ck_assert_str_ne(v->name, family->variants[other].name);
        }
    }
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, points_and_numbers_agree);
    tcase_add_test(part, neighbours_differ_in_one_parameter);
    tcase_add_test(part, words_are_read_as_written);
    tcase_add_loop_test(part, other_words_are_refused, 0, sizeof bad_words / sizeof *bad_words);
    tcase_add_test(part, limits_are_asked);
    tcase_add_test(part, tables_are_complete);
}

int main(void) {
    static const suite_part parts[] = {{"space", add_all}};
    return suite_run("space", parts, sizeof parts / sizeof *parts);
}
