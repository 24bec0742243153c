/* safetensors files: what is written can be read. Damaged ones have test_damage.c. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "format/files.h"
#include "format/safetensors.h"

static const float q[] = {1, -2, 3.5f, 0, 5, 6};
static const int32_t level[] = {0, -1, 2};
static const uint16_t half[] = {0x3f80, 0xbf80};
static const float one = 7;
static const safetensors_output outputs[] = {
    {.name = "q", .dtype = "F32", .rank = 3, .shape = {1, 3, 2}, .data = q},
    {.name = "level", .dtype = "I32", .rank = 1, .shape = {3}, .data = level},
    {.name = "nothing", .dtype = "F32", .rank = 2, .shape = {0, 4}},
    {.name = "\"h\xc3\xa4lf\"\n", .dtype = "BF16", .rank = 1, .shape = {2}, .data = half},
    {.name = "scalar", .dtype = "F32", .rank = 0, .data = &one},
};
enum { OUTPUTS = sizeof outputs / sizeof *outputs };
static const char *const metadata[][2] = {{"format", "clsplat"}, {"level.0", "T\xc3\xb6ken \"0\"\\"}};

START_TEST(what_is_written_is_read) {
    files f = files_begin("input.safetensors");
    safetensors *file = NULL;
    suite_ok(f.lib, safetensors_save(f.lib, f.path, outputs, OUTPUTS, metadata, 2));
    suite_ok(f.lib, safetensors_open(f.lib, f.path, &file));
    ck_assert_str_eq(safetensors_path(file), f.path);
    ck_assert_uint_eq(safetensors_count(file), OUTPUTS);
    uint64_t place = 0;
    for (size_t i = 0; i < OUTPUTS; ++i) {
        const safetensors_output *o = &outputs[i];
        const safetensors_entry *e = safetensors_find(file, o->name);
        ck_assert_ptr_nonnull(e);
        ck_assert_str_eq(e->dtype, o->dtype);
        ck_assert_uint_eq(e->rank, o->rank);
        for (size_t d = 0; d < o->rank; ++d)
            ck_assert_uint_eq(e->shape[d], o->shape[d]);
        char bytes[64];
        suite_ok(f.lib, safetensors_read(f.lib, file, e, bytes));
        ck_assert(e->bytes == 0 || memcmp(bytes, o->data, e->bytes) == 0);
        ck_assert_uint_eq(e->begin % 8,
                          place % 8); /* the data begin at a multiple of 8, in the given order */
        place += e->bytes;
    }
    ck_assert_ptr_null(safetensors_find(file, "k"));
    ck_assert_str_eq(safetensors_metadata(file, "format"), metadata[0][1]);
    ck_assert_str_eq(safetensors_metadata(file, "level.0"), metadata[1][1]);
    ck_assert_ptr_null(safetensors_metadata(file, "level.1"));
    safetensors_close(&file);
    safetensors_close(&file);
    safetensors_close(NULL);
    files_end(&f);
}
END_TEST

START_TEST(a_file_of_nothing_is_written_and_read) {
    files f = files_begin("input.safetensors");
    safetensors *file = NULL;
    suite_ok(f.lib, safetensors_save(f.lib, f.path, NULL, 0, NULL, 0));
    suite_ok(f.lib, safetensors_open(f.lib, f.path, &file));
    ck_assert_uint_eq(safetensors_count(file), 0);
    ck_assert_ptr_null(safetensors_metadata(file, "format"));
    safetensors_close(&file);
    files_end(&f);
}
END_TEST

START_TEST(a_failed_write_leaves_the_old_file) {
    enum { BYTES = 1 << 16 };
    static const char *const not_utf8[][2] = {{"name", "\xff"}};
    files f = files_begin("input.safetensors");
    safetensors *file = NULL;
    safetensors_output large = {
        .name = "q", .dtype = "U8", .rank = 1, .shape = {BYTES}, .data = calloc(1, BYTES)};
    suite_ok(f.lib, safetensors_save(f.lib, f.path, outputs, OUTPUTS, metadata, 2));
    ck_assert_int_eq(safetensors_save(f.lib, f.path, outputs, OUTPUTS, not_utf8, 1), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(f.lib), "'name'"));
    struct rlimit before, small;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = BYTES / 2, .rlim_max = before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    clsplat_status status = safetensors_save(f.lib, f.path, &large, 1, NULL, 0);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, CLSPLAT_IO);
    ck_assert_int_eq(safetensors_save(f.lib, f.folder, &large, 1, NULL, 0), CLSPLAT_IO);
    suite_ok(f.lib, safetensors_open(f.lib, f.path, &file));
    ck_assert_uint_eq(safetensors_count(file), OUTPUTS);
    safetensors_close(&file);
    ck_assert_int_eq(unlink(f.path), 0);
    ck_assert_int_eq(rmdir(f.folder), 0); /* it was the only file */
    free((void *)large.data);
    files_end(&f);
}
END_TEST

START_TEST(what_is_no_file_cannot_be_opened) {
    files f = files_begin("input.safetensors");
    safetensors *file = NULL;
    ck_assert_int_eq(safetensors_open(f.lib, f.path, &file), CLSPLAT_IO);
    ck_assert_int_eq(safetensors_open(f.lib, f.folder, &file), CLSPLAT_IO);
    ck_assert_int_eq(safetensors_open(f.lib, "/dev/zero", &file), CLSPLAT_IO);
    ck_assert_ptr_null(file);
    files_end(&f);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, what_is_written_is_read);
    tcase_add_test(part, a_file_of_nothing_is_written_and_read);
    tcase_add_test(part, a_failed_write_leaves_the_old_file);
    tcase_add_test(part, what_is_no_file_cannot_be_opened);
}

int main(void) {
    static const suite_part parts[] = {{"safetensors", add_all}};
    return suite_run("safetensors", parts, sizeof parts / sizeof *parts);
}
