/* Splat sets: made, named, filled and checked. */
#include <math.h>
#include <string.h>

#include "attention/sets.h"

/* Check's fixtures have no argument, so what they open must live here. */
static clsplat *lib;

static void open_stage(void) {
    lib = suite_library();
}

static void close_stage(void) {
    clsplat_destroy(&lib);
}

static void ck_words(const char *word) {
    const char *words = clsplat_last_error(lib);
    ck_assert_msg(strstr(words, word) != NULL, "\"%s\" does not name %s", words, word);
}

START_TEST(a_new_set_is_zero) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[_i]);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    sets_array arrays[SETS_ARRAYS];
    sets_list(set, arrays);
    ck_assert_int_eq(memcmp(&p.shape, &sets_shapes[_i], sizeof p.shape), 0);
    ck_assert((p.log_var == NULL) == (p.shape.covariance == CLSPLAT_FULL));
    ck_assert((p.precision_chol != NULL) == (p.shape.covariance == CLSPLAT_FULL));
    for (size_t a = 0; a < SETS_ARRAYS; a++)
        for (size_t i = 0; i < arrays[a].count; i++) {
            size_t row = i / p.shape.dim % p.shape.dim, column = i % p.shape.dim;
            float expected = arrays[a].data == p.precision_chol && row == column ? 1 : 0;
            ck_assert_msg(((float *)arrays[a].data)[i] == expected, "%s at %zu", arrays[a].name, i);
        }
    for (size_t l = 0; l < p.shape.levels; l++)
        ck_assert_uint_gt(strlen(p.level_names[l]), 0);
    suite_ok(lib, clsplat_splats_changed(set));
    clsplat_splats_destroy(&set);
    ck_assert_ptr_null(set);
    clsplat_splats_destroy(&set);
    clsplat_splats_destroy(NULL);
}
END_TEST

START_TEST(an_impossible_shape_is_refused) {
    static const clsplat_splats_shape impossible[] = {
        {CLSPLAT_DIAGONAL, 0, 1, 1, 1},
        {CLSPLAT_DIAGONAL, 1, 0, 1, 1},
        {CLSPLAT_DIAGONAL, 1, 1, 0, 1},
        {CLSPLAT_DIAGONAL, 1, 1, 1, 0},
        {(clsplat_covariance)3, 1, 1, 1, 1},
        {CLSPLAT_ISOTROPIC, (size_t)1 << 63, 1, 1, 1},
        {CLSPLAT_ISOTROPIC, 1, (size_t)1 << 40, 1, 1},
        {CLSPLAT_FULL, (size_t)1 << 30, 1 << 30, 1 << 10, 1},
        {CLSPLAT_DIAGONAL, 1, 1, 1, (size_t)1 << 40},
    };
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        clsplat_splats *set = (clsplat_splats *)lib;
        ck_assert_msg(clsplat_splats_create(lib, impossible[i], &set) == CLSPLAT_INVALID, "shape %zu", i);
        ck_assert_ptr_null(set);
    }
}
END_TEST

/* One bad number anywhere, in turn the first and the last of every array. */
START_TEST(changed_names_what_is_not_finite) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    clsplat_splats *set = sets_create(lib, &sets_shapes[_i]);
    sets_array arrays[SETS_ARRAYS];
    sets_list(set, arrays);
    for (size_t a = 0; a < SETS_ARRAYS - 1; a++)
        for (size_t b = 0; arrays[a].count && b < 6; b++) {
            float *at = (float *)arrays[a].data + (b / 3 ? arrays[a].count - 1 : 0), kept = *at;
            *at = bad[b % 3];
            ck_assert_int_eq(clsplat_splats_changed(set), CLSPLAT_INVALID);
            ck_words(arrays[a].name);
            *at = kept;
            suite_ok(lib, clsplat_splats_changed(set));
        }
    clsplat_splats_destroy(&set);
}
END_TEST

START_TEST(changed_names_a_level_out_of_range) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[_i]);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    const int32_t bad[] = {-1, (int32_t)p.shape.levels, INT32_MIN, INT32_MAX};
    for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
        p.level[p.shape.count - 1] = bad[b];
        ck_assert_int_eq(clsplat_splats_changed(set), CLSPLAT_INVALID);
        ck_words("level");
    }
    p.level[p.shape.count - 1] = (int32_t)p.shape.levels - 1;
    suite_ok(lib, clsplat_splats_changed(set));
    clsplat_splats_destroy(&set);
}
END_TEST

START_TEST(level_names) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[1]);
    suite_ok(lib, clsplat_splats_set_level_name(set, 2, "Phrase"));
    ck_assert_str_eq(clsplat_splats_get(set).level_names[2], "Phrase");
    ck_assert_int_eq(clsplat_splats_set_level_name(set, 2, NULL), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_splats_set_level_name(set, 2, ""), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_splats_set_level_name(set, 3, "Page"), CLSPLAT_INVALID);
    ck_assert_str_eq(clsplat_splats_get(set).level_names[2], "Phrase");
    clsplat_splats_destroy(&set);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_unchecked_fixture(part, open_stage, close_stage);
    tcase_add_loop_test(part, a_new_set_is_zero, 0, SETS_SHAPES);
    tcase_add_test(part, an_impossible_shape_is_refused);
    tcase_add_loop_test(part, changed_names_what_is_not_finite, 0, SETS_SHAPES);
    tcase_add_loop_test(part, changed_names_a_level_out_of_range, 0, SETS_SHAPES);
    tcase_add_test(part, level_names);
}

int main(void) {
    static const suite_part parts[] = {{"splats", add_all}};
    return suite_run("splats", parts, sizeof parts / sizeof *parts);
}
