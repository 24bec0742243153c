/* Files: what may be read, and that a written file is there whole or not at all. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "suite.h"

typedef struct fixture {
    clsplat *lib;
    char *folder;
    char path[4096];
} fixture;

static fixture begin(void) {
    return (fixture){.lib = suite_library(), .folder = suite_folder()};
}

static void end(fixture *f) {
    clsplat_destroy(&f->lib);
    suite_remove(f->folder);
}

/* Valid until the next call. */
static const char *in_folder(fixture *f, const char *name) {
    snprintf(f->path, sizeof f->path, "%s/%s", f->folder, name);
    return f->path;
}

static void put(const char *path, const char *content) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(content, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static void expect_content(fixture *f, const char *name, const char *content) {
    char *bytes = NULL;
    size_t count = 0;
    suite_ok(f->lib, file_load(f->lib, in_folder(f, name), 1 << 20, &bytes, &count));
    ck_assert_uint_eq(count, strlen(content));
    ck_assert_str_eq(bytes, content);
    free(bytes);
}

/* Exactly so many things lie in the folder: no temporary file is left. */
static void expect_files(fixture *f, int expected) {
    struct dirent *entry;
    DIR *folder = opendir(f->folder);
    int count = -2; /* "." and ".." */
    ck_assert_ptr_nonnull(folder);
    while ((entry = readdir(folder)))
        ++count;
    closedir(folder);
    ck_assert_int_eq(count, expected);
}

/* The last error is one line that begins with the path and has the reason. */
static void expect_words(const fixture *f, const char *path, const char *reason) {
    const char *words = clsplat_last_error(f->lib);
    ck_assert_msg(strncmp(words, path, strlen(path)) == 0 && words[strlen(path)] == ':', "%s", words);
    ck_assert_msg(strstr(words, reason) != NULL, "%s: not said in: %s", reason, words);
    ck_assert_ptr_null(strchr(words, '\n'));
}

static void expect_unreadable(fixture *f, const char *path, const char *reason) {
    file_reader file;
    char *bytes = NULL;
    size_t count;
    ck_assert_int_eq(file_open(f->lib, path, &file), CLSPLAT_IO);
    expect_words(f, path, reason);
    ck_assert_int_eq(file_load(f->lib, path, 100, &bytes, &count), CLSPLAT_IO);
    ck_assert_ptr_null(bytes);
}

START_TEST(a_file_is_loaded_whole) {
    fixture f = begin();
    put(in_folder(&f, "a"), "some words");
    expect_content(&f, "a", "some words");
    put(in_folder(&f, "empty"), "");
    expect_content(&f, "empty", "");
    char *bytes = NULL;
    size_t count = 0;
    ck_assert_int_eq(file_load(f.lib, in_folder(&f, "a"), 9, &bytes, &count), CLSPLAT_FORMAT);
    expect_words(&f, f.path, "has 10 bytes");
    ck_assert_ptr_null(bytes);
    suite_ok(f.lib, file_load(f.lib, in_folder(&f, "a"), 10, &bytes, &count));
    free(bytes);
    end(&f);
}
END_TEST

START_TEST(a_part_of_a_file_is_read) {
    fixture f = begin();
    file_reader file;
    char part[6] = "";
    put(in_folder(&f, "a"), "some words");
    suite_ok(f.lib, file_open(f.lib, f.path, &file));
    ck_assert_uint_eq(file.size, 10);
    suite_ok(f.lib, file_read(f.lib, &file, 5, part, 5));
    ck_assert_str_eq(part, "words");
    suite_ok(f.lib, file_read(f.lib, &file, 10, part, 0));
    ck_assert_int_eq(truncate(f.path, 7), 0);
    ck_assert_int_eq(file_read(f.lib, &file, 5, part, 5), CLSPLAT_IO);
    expect_words(&f, f.path, "shorter");
    file_close(&file);
    file_close(&file);
    end(&f);
}
END_TEST

START_TEST(what_is_no_file_is_refused) {
    fixture f = begin();
    expect_unreadable(&f, f.folder, "folder");
    expect_unreadable(&f, in_folder(&f, "missing"), strerror(ENOENT));
    expect_unreadable(&f, "", strerror(ENOENT));
    expect_unreadable(&f, "/dev/null", "regular");
    expect_unreadable(&f, "/dev/zero", "regular");
    ck_assert_int_eq(mkfifo(in_folder(&f, "pipe"), 0600), 0);
    expect_unreadable(&f, f.path, "regular");
    put(in_folder(&f, "a"), "a");
    expect_unreadable(&f, in_folder(&f, "a/b"), strerror(ENOTDIR));
    put(in_folder(&f, "hidden"), "a");
    ck_assert_int_eq(chmod(f.path, 0), 0);
    if (geteuid() != 0)
        expect_unreadable(&f, f.path, strerror(EACCES));
    else
        suite_skipped("a file without permission to read", "root may read it");
    end(&f);
}
END_TEST

START_TEST(a_file_appears_when_it_is_complete) {
    fixture f = begin();
    file_writer file;
    struct stat about;
    mode_t mask = umask(027);
    for (int again = 0; again < 2; ++again) {
        suite_ok(f.lib, file_create(f.lib, in_folder(&f, "a"), &file));
        suite_ok(f.lib, file_write(f.lib, &file, "some ", 5));
        suite_ok(f.lib, file_write(f.lib, &file, NULL, 0));
        suite_ok(f.lib, file_write(f.lib, &file, again ? "more" : "words", again ? 4 : 5));
        if (again)
            expect_content(&f, "a", "some words");
        else
            ck_assert_int_ne(access(f.path, F_OK), 0);
        expect_files(&f, again + 1);
        suite_ok(f.lib, file_commit(f.lib, &file));
        expect_files(&f, 1);
        file_discard(&file);
        expect_content(&f, "a", again ? "some more" : "some words");
        ck_assert_int_eq(stat(f.path, &about), 0);
        ck_assert_uint_eq(about.st_mode & 0777, 0640);
    }
    umask(mask);
    end(&f);
}
END_TEST

START_TEST(a_file_that_is_discarded_leaves_nothing) {
    fixture f = begin();
    file_writer file;
    suite_ok(f.lib, file_create(f.lib, in_folder(&f, "a"), &file));
    suite_ok(f.lib, file_write(f.lib, &file, "words", 5));
    file_discard(&file);
    file_discard(&file);
    expect_files(&f, 0);
    end(&f);
}
END_TEST

START_TEST(a_failed_write_leaves_the_old_file) {
    enum { MORE = 1 << 16 };
    fixture f = begin();
    file_writer file;
    struct rlimit before, small;
    char *bytes = calloc(1, MORE);
    put(in_folder(&f, "a"), "old");
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = MORE / 2, .rlim_max = before.rlim_max};
    suite_ok(f.lib, file_create(f.lib, f.path, &file));
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small); /* the device is full, as far as we can have it: a write is cut short */
    clsplat_status status = file_write(f.lib, &file, bytes, MORE);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, CLSPLAT_IO);
    expect_words(&f, f.path, strerror(EFBIG));
    file_discard(&file);
    expect_files(&f, 1);
    expect_content(&f, "a", "old");
    free(bytes);
    end(&f);
}
END_TEST

START_TEST(a_file_that_cannot_be_put_in_place_leaves_nothing) {
    fixture f = begin();
    file_writer file;
    suite_ok(f.lib, file_create(f.lib, in_folder(&f, "a"), &file));
    ck_assert_int_eq(mkdir(f.path, 0700), 0);
    ck_assert_int_eq(file_commit(f.lib, &file), CLSPLAT_IO);
    expect_words(&f, f.path, strerror(EISDIR));
    file_discard(&file);
    expect_files(&f, 1);
    end(&f);
}
END_TEST

START_TEST(writers_of_one_file_do_not_meet) {
    fixture f = begin();
    file_writer one, two;
    suite_ok(f.lib, file_create(f.lib, in_folder(&f, "a"), &one));
    suite_ok(f.lib, file_create(f.lib, in_folder(&f, "a"), &two));
    suite_ok(f.lib, file_write(f.lib, &two, "two", 3));
    suite_ok(f.lib, file_write(f.lib, &one, "one", 3));
    suite_ok(f.lib, file_commit(f.lib, &one));
    expect_content(&f, "a", "one");
    suite_ok(f.lib, file_commit(f.lib, &two));
    expect_content(&f, "a", "two");
    file_discard(&one);
    file_discard(&two);
    expect_files(&f, 1);
    end(&f);
}
END_TEST

START_TEST(a_link_stays_and_its_target_is_replaced) {
    fixture f = begin();
    file_writer file;
    struct stat about;
    char target[4096];
    ck_assert_int_eq(mkdir(in_folder(&f, "deep"), 0700), 0);
    strcpy(target, in_folder(&f, "deep/a"));
    put(target, "old");
    ck_assert_int_eq(symlink("deep/a", in_folder(&f, "link")), 0);
    suite_ok(f.lib, file_create(f.lib, f.path, &file));
    suite_ok(f.lib, file_write(f.lib, &file, "new", 3));
    suite_ok(f.lib, file_commit(f.lib, &file));
    file_discard(&file);
    ck_assert_int_eq(lstat(f.path, &about), 0);
    ck_assert(S_ISLNK(about.st_mode));
    expect_content(&f, "deep/a", "new");
    expect_files(&f, 2);
    end(&f);
}
END_TEST

static void expect_unwritable(fixture *f, const char *path, const char *reason) {
    file_writer file;
    ck_assert_int_eq(file_create(f->lib, path, &file), CLSPLAT_IO);
    expect_words(f, path, reason);
    file_discard(&file);
}

START_TEST(what_cannot_be_replaced_is_refused) {
    fixture f = begin();
    char name[257] = {0};
    expect_unwritable(&f, f.folder, "folder");
    expect_unwritable(&f, "/dev/null", "regular");
    expect_unwritable(&f, "", strerror(ENOENT));
    expect_unwritable(&f, in_folder(&f, "missing/a"), strerror(ENOENT));
    expect_unwritable(&f, in_folder(&f, "missing/"), strerror(ENOENT));
    expect_unwritable(&f, in_folder(&f, memset(name, 'n', 256)), strerror(ENAMETOOLONG));
    expect_files(&f, 0);
    ck_assert_int_eq(mkfifo(in_folder(&f, "pipe"), 0600), 0);
    expect_unwritable(&f, f.path, "regular");
    ck_assert_int_eq(symlink("nowhere", in_folder(&f, "link")), 0);
    expect_unwritable(&f, f.path, "link");
    ck_assert_int_eq(symlink("loop", in_folder(&f, "loop")), 0);
    expect_unwritable(&f, f.path, strerror(ELOOP));
    put(in_folder(&f, "a"), "old");
    expect_unwritable(&f, in_folder(&f, "a/b"), strerror(ENOTDIR));
    ck_assert_int_eq(chmod(in_folder(&f, "a"), 0444), 0);
    if (geteuid() != 0)
        expect_unwritable(&f, f.path, strerror(EACCES));
    else
        suite_skipped("a file without permission to write", "root may write it");
    expect_files(&f, 4);
    end(&f);
}
END_TEST

START_TEST(the_longest_name_is_written) {
    fixture f = begin();
    file_writer file;
    char name[256] = {0};
    memset(name, 'n', 255);
    suite_ok(f.lib, file_create(f.lib, in_folder(&f, name), &file));
    suite_ok(f.lib, file_write(f.lib, &file, "x", 1));
    suite_ok(f.lib, file_commit(f.lib, &file));
    file_discard(&file);
    expect_content(&f, name, "x");
    end(&f);
}
END_TEST

static void add_reading(TCase *part) {
    tcase_add_test(part, a_file_is_loaded_whole);
    tcase_add_test(part, a_part_of_a_file_is_read);
    tcase_add_test(part, what_is_no_file_is_refused);
}

static void add_writing(TCase *part) {
    tcase_add_test(part, a_file_appears_when_it_is_complete);
    tcase_add_test(part, a_file_that_is_discarded_leaves_nothing);
    tcase_add_test(part, a_failed_write_leaves_the_old_file);
    tcase_add_test(part, a_file_that_cannot_be_put_in_place_leaves_nothing);
    tcase_add_test(part, writers_of_one_file_do_not_meet);
    tcase_add_test(part, a_link_stays_and_its_target_is_replaced);
    tcase_add_test(part, what_cannot_be_replaced_is_refused);
    tcase_add_test(part, the_longest_name_is_written);
}

int main(void) {
    static const suite_part parts[] = {{"reading", add_reading}, {"writing", add_writing}};
    return suite_run("file", parts, sizeof parts / sizeof *parts);
}
