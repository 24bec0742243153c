/* Configurations of levels: the default, files, and what is wrong with a file. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/files.h"

static clsplat_status load(files *f, const char *json, clsplat_hierarchy *h) {
    files_put(f, json, strlen(json));
    return clsplat_hierarchy_load(f->lib, f->path, h);
}

static void expect_level(const clsplat_hierarchy *h, size_t l, const char *name, size_t count,
                         double weight) {
    ck_assert_uint_lt(l, h->levels);
    ck_assert_str_eq(h->names[l], name);
    ck_assert_uint_eq(h->counts[l], count);
    ck_assert_double_eq_tol(h->weights[l], weight, 1e-12);
}

START_TEST(the_default_has_four_levels) {
    files f = files_begin("config.json");
    clsplat_hierarchy h;
    suite_ok(f.lib, clsplat_hierarchy_default(f.lib, &h));
    ck_assert_uint_eq(h.levels, 4);
    expect_level(&h, 0, "Token", 100, 0.4);
    expect_level(&h, 1, "Phrase", 50, 0.3);
    expect_level(&h, 2, "Section", 20, 0.2);
    expect_level(&h, 3, "Document", 5, 0.1);
    clsplat_hierarchy_free(&h);
    ck_assert_uint_eq(h.levels, 0);
    ck_assert(!h.names && !h.counts && !h.weights);
    clsplat_hierarchy_free(&h);
    files_end(&f);
}
END_TEST

START_TEST(a_configuration_is_loaded) {
    static const char *const configs[] = {
        "{\"hierarchy\": {\"levels\": [\"A\", \"B\\u00e9\"], \"init_splats_per_level\": [3, 16777216],"
        " \"level_weights\": [3, 1.0], \"other\": {}}, \"levels\": 7, \"adaptation\": {\"x\": [1, null]}}",
        "{\"sparse_topk\": 9, \"levels\": [\"A\", \"B\\u00e9\"], \"init_splats_per_level\": [3, 16777216],"
        " \"level_weights\": [0.3, 1e-1]}"};
    files f = files_begin("config.json");
    clsplat_hierarchy h;
    suite_ok(f.lib, load(&f, configs[_i], &h));
    ck_assert_uint_eq(h.levels, 2);
    expect_level(&h, 0, "A", 3, 0.75);
    expect_level(&h, 1, "B\xc3\xa9", 16777216, 0.25);
    clsplat_hierarchy_free(&h);
    files_end(&f);
}
END_TEST

START_TEST(weights_far_apart_stay_above_zero) {
    files f = files_begin("config.json");
    clsplat_hierarchy h;
    suite_ok(f.lib, load(&f,
                         "{\"levels\":[\"A\",\"B\",\"C\"],\"init_splats_per_level\":[1,1,1],"
                         "\"level_weights\":[1e9,1e-9,1e9]}",
                         &h));
    expect_level(&h, 0, "A", 1, 0.5);
    ck_assert_double_gt(h.weights[1], 0);
    clsplat_hierarchy_free(&h);
    files_end(&f);
}
END_TEST

#define CONFIG(levels, counts, weights)                                                                      \
    "{\"levels\":" levels ",\"init_splats_per_level\":" counts ",\"level_weights\":" weights "}"
#define NESTED(levels, counts, weights) "{\"hierarchy\":" CONFIG(levels, counts, weights) "}"

/* A configuration and words of the refusal. */
static const struct {
    const char *json, *words;
} wrong[] = {
    {"", "JSON"},
    {"{\n  \"levels\": [,]}", ":2:"},
    {"[]", "JSON object"},
    {"{}", "hierarchy.levels must be a list"},
    {"{\"hierarchy\":[]}", "hierarchy must be an object"},
    {"{\"hierarchy\":{},\"levels\":[]}", "hierarchy.levels must be a list"},
    {"{\"levels\":[\"A\"]}", " init_splats_per_level must be a list"},
    {"{\"hierarchy\":{\"levels\":[\"A\"],\"init_splats_per_level\":[1]}}",
     "hierarchy.level_weights must be a list"},
    {"{\"levels\":7,\"levels\":[]}", " levels must be a list with one entry"}, /* the last one counts */
    {CONFIG("[]", "[]", "[]"), " levels must be a list"},
    {CONFIG("\"A\"", "[1]", "[1]"), " levels must be a list"},
    {NESTED("[\"A\"]", "{}", "[1]"), "hierarchy.init_splats_per_level must be a list"},
    {NESTED("[\"A\",\"B\"]", "[1]", "[1]"), "hierarchy.levels has 2 entries, init_splats_per_level 1"},
    {CONFIG("[\"A\"]", "[1]", "[1,1]"), "level_weights 2"},
    {NESTED("[\"A\",7]", "[1,1]", "[1,1]"), "hierarchy.levels[1] must be a name"},
    {NESTED("[\"\",\"A\"]", "[1,1]", "[1,1]"), "hierarchy.levels[0] must be a name"},
    {CONFIG("[\"A\\u0000\"]", "[0]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[0]", "[1]"), " init_splats_per_level[0] must be a whole number from 1"},
    {CONFIG("[\"A\"]", "[-1]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[1.5]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[\"1\"]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[true]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[16777217]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[9223372036854775807]", "[1]"), " init_splats_per_level[0]"},
    {CONFIG("[\"A\"]", "[9223372036854775808]", "[1]"), " init_splats_per_level[0]"},
    {NESTED("[\"A\",\"B\"]", "[1,1]", "[1,0]"),
     "hierarchy.level_weights[1] must be a number from 1e-09 to 1e+09"},
    {CONFIG("[\"A\"]", "[1]", "[-0.5]"), " level_weights[0]"},
    {CONFIG("[\"A\"]", "[1]", "[null]"), " level_weights[0]"},
    {CONFIG("[\"A\"]", "[1]", "[\"1\"]"), " level_weights[0]"},
    {CONFIG("[\"A\"]", "[1]", "[1e300]"), " level_weights[0]"},
    {CONFIG("[\"A\"]", "[1]", "[1e-300]"), " level_weights[0]"},
    {CONFIG("[\"A\"]", "[1]", "[1e999]"), " level_weights[0] must be a number"},
    {CONFIG("[\"A\"]", "[1]", "[NaN]"), " level_weights[0] must be a number"},
};

START_TEST(a_wrong_configuration_is_refused_with_words) {
    files f = files_begin("config.json");
    clsplat_hierarchy h;
    ck_assert_msg(load(&f, wrong[_i].json, &h) == CLSPLAT_FORMAT, "not refused: %s", wrong[_i].json);
    files_expect_words(&f, wrong[_i].words);
    ck_assert(h.levels == 0 && !h.names && !h.counts && !h.weights);
    files_end(&f);
}
END_TEST

START_TEST(nesting_and_size_have_limits) {
    files f = files_begin("config.json");
    clsplat_hierarchy h;
    text deep = {0}, many = {0};
    for (int i = 0; i < 100000; ++i)
        text_add(&deep, "[");
    ck_assert_int_eq(load(&f, deep.data, &h), CLSPLAT_FORMAT);
    files_expect_words(&f, "depth");
    text_add(&many, "{\"levels\":[\"A\"");
    for (int i = 0; i < 5000; ++i)
        text_add(&many, ",\"A\"");
    text_add(&many, "]}");
    ck_assert_int_eq(load(&f, many.data, &h), CLSPLAT_FORMAT);
    files_expect_words(&f, " levels must be a list with one entry per level, 1 to 4096 of them");
    text_free(&deep);
    text_free(&many);
    files_end(&f);
}
END_TEST

START_TEST(what_is_no_file_cannot_be_loaded) {
    files f = files_begin("config.json");
    clsplat_hierarchy h;
    ck_assert_int_eq(clsplat_hierarchy_load(f.lib, f.path, &h), CLSPLAT_IO);
    files_expect_words(&f, "No such file");
    ck_assert_int_eq(clsplat_hierarchy_load(f.lib, f.folder, &h), CLSPLAT_IO);
    ck_assert_int_eq(clsplat_hierarchy_load(f.lib, "/dev/zero", &h), CLSPLAT_IO);
    files_end(&f);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, the_default_has_four_levels);
    tcase_add_loop_test(part, a_configuration_is_loaded, 0, 2);
    tcase_add_test(part, weights_far_apart_stay_above_zero);
    tcase_add_loop_test(part, a_wrong_configuration_is_refused_with_words, 0, sizeof wrong / sizeof *wrong);
    tcase_add_test(part, nesting_and_size_have_limits);
    tcase_add_test(part, what_is_no_file_cannot_be_loaded);
}

int main(void) {
    static const suite_part parts[] = {{"hierarchy", add_all}};
    return suite_run("hierarchy", parts, sizeof parts / sizeof *parts);
}
