/* JSON as Python's writers make it, and numbers under a locale that writes a comma. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "format/json_text.h"
#include "suite.h"
#include "tune/database.h"

/* What Python writes, and what Jansson is given. */
static const struct {
    const char *python, *mended;
} cases[] = {
    {"{\"a\": 1, \"b\": -2.5e3}", "{\"a\": 1, \"b\": -2.5e3}"},
    {"[9223372036854775807, -9223372036854775808]", "[9223372036854775807, -9223372036854775808]"},
    {"[9223372036854775808]", "[9223372036854775808.0]"},
    {"[-9223372036854775809]", "[-9223372036854775809.0]"},
    {"1000000000000000019884624838656", "1000000000000000019884624838656.0"},
    {"[NaN, Infinity,-Infinity]", "[\"NaN\", \"Infinity\",\"-Infinity\"]"},
    {"[1e400, -1.5E+999, 1e-400]", "[\"Infinity\", \"-Infinity\", 1e-400]"},
    {"\"NaN 9999999999999999999999 \\\" Infinity\"", "\"NaN 9999999999999999999999 \\\" Infinity\""},
    {"{\"a\\u0000b\": \"\\u0000\"}", "{\"a" JSON_NUL "b\": \"" JSON_NUL "\"}"},
    {"\"\\\\u0000\"", "\"\\\\u0000\""},
    {"\"\\ud83d\\ude00 \\ud83d \\ude00\\ud83d\"", "\"\\ud83d\\ude00 \\ufffd \\ufffd\\ufffd\""},
    {"\"\\ud83d\\u12\"", "\"\\ufffd\\u12\""},
    {"\xef\xbb\xbf{}", "{}"},
    {"\"cut \\", "\"cut \\"},
    {"Nonsense -", "Nonsense -"},
    {"", ""},
};

START_TEST(what_python_writes_is_mended) {
    text to = {0};
    json_text_mend(cases[_i].python, strlen(cases[_i].python), JSON_NUMBERS_PYTHON, &to);
    ck_assert(text_ok(&to));
    ck_assert_str_eq(to.data, cases[_i].mended);
    text_free(&to);
}
END_TEST

START_TEST(numbers_may_stay) {
    static const char words[] = "[NaN, 9223372036854775808, \"\\u0000\"]";
    text to = {0};
    json_text_mend(words, strlen(words), JSON_NUMBERS_STRICT, &to);
    ck_assert_str_eq(to.data, "[NaN, 9223372036854775808, \"" JSON_NUL "\"]");
    text_free(&to);
}
END_TEST

START_TEST(nul_comes_back) {
    char words[] = JSON_NUL "a" JSON_NUL JSON_NUL "b\0c";
    size_t length = json_text_restore(words, sizeof words - 1);
    ck_assert_uint_eq(length, 7);
    ck_assert_mem_eq(words, "\0a\0\0b\0c", 8);
    char plain[] = "plain";
    ck_assert_uint_eq(json_text_restore(plain, 5), 5);
    ck_assert_str_eq(plain, "plain");
}
END_TEST

static unsigned warnings;

static void count_warnings(void *user, clsplat_log_level level, const char *message) {
    (void)user, (void)message;
    warnings += level == CLSPLAT_LOG_WARNING;
}

START_TEST(of_a_key_that_is_there_twice_the_last_counts) {
    static const char words[] = "{\"a\": 1,\n \"b\": {\"c\": 2, \"c\": 3}, \"a\": 4}";
    clsplat_options options = clsplat_options_defaults();
    clsplat *lib = NULL;
    json_t *root = NULL;
    options.log = count_warnings;
    warnings = 0;
    ck_assert_int_eq(clsplat_create(options, &lib), CLSPLAT_OK);
    suite_ok(lib, json_text_read(lib, "config.json", words, strlen(words), &root));
    ck_assert_int_eq(json_integer_value(json_object_get(root, "a")), 4);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(root, "b"), "c")), 3);
    ck_assert_uint_eq(warnings, 1);
    json_decref(root);
    clsplat_destroy(&lib);
}
END_TEST

/* A German locale in a folder, for as long as a test runs. */
static bool speak_german(const char *folder) {
    char command[512];
    snprintf(command, sizeof command, "localedef -c -i de_DE -f UTF-8 %s/de_DE.UTF-8 > /dev/null 2>&1",
             folder);
    int unused = system(command);
    (void)unused;
    setenv("LOCPATH", folder, 1);
    return setlocale(LC_ALL, "de_DE.UTF-8") && strcmp(localeconv()->decimal_point, ",") == 0;
}

START_TEST(a_decimal_comma_changes_nothing) {
    char *folder = suite_folder(), *end;
    tune_record record = {
        .op = "softmax",
        .variant = "wide",
        .parameters = "TILE=8",
        .seconds = 0.00125,
        .error = 1.5e-7,
        .shape = {.type = "f32", .form = "causal"},
        .on = {.device = "d", .vendor = "v", .platform = "p", .driver = "1", .kind = "CPU"}};
    tune_record back;
    text line = {0}, t = {0};
    bool german = speak_german(folder);
    if (!german)
        suite_skipped("a decimal comma", "there is no locale de_DE to be made");
    tune_record_write(&record, &line);
    ck_assert_msg(strstr(line.data, "seconds=0.00125; ") != NULL, "%s", line.data);
    ck_assert(tune_record_read(line.data, &back));
    ck_assert_double_eq(back.seconds, 0.00125);
    ck_assert_double_eq(number_read("2.5x", &end), 2.5);
    ck_assert_str_eq(end, "x");
    ck_assert_double_eq(number_read("2,5", &end), 2);
    number_add(&t, "%.3f", 0.5);
    ck_assert_str_eq(t.data, "0.500");
    ck_assert(!german || strcmp(localeconv()->decimal_point, ",") == 0);
    setlocale(LC_ALL, "C");
    unsetenv("LOCPATH");
    text_free(&t);
    text_free(&line);
    suite_remove(folder);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, what_python_writes_is_mended, 0, sizeof cases / sizeof *cases);
    tcase_add_test(part, numbers_may_stay);
    tcase_add_test(part, nul_comes_back);
    tcase_add_test(part, of_a_key_that_is_there_twice_the_last_counts);
    tcase_add_test(part, a_decimal_comma_changes_nothing);
}

int main(void) {
    static const suite_part parts[] = {{"json", add_all}};
    return suite_run("json_text", parts, sizeof parts / sizeof *parts);
}
