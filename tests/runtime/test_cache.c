/* The binary cache: what was put comes back whole or not at all, whatever happened to the files. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/cache.h"
#include "suite.h"

/* A library handle, and a folder of its own as XDG_CACHE_HOME. */
typedef struct fixture {
    clsplat *lib;
    char *home, *xdg_before, *folder;
    int warnings;
} fixture;

static void count_warnings(void *user, clsplat_log_level level, const char *message) {
    (void)message;
    if (level == CLSPLAT_LOG_WARNING)
        ++*(int *)user;
    ck_assert_int_ne(level, CLSPLAT_LOG_ERROR);
}

static void begin(fixture *f) {
    const char *xdg = getenv("XDG_CACHE_HOME");
    *f = (fixture){.home = suite_folder(), .xdg_before = xdg ? strdup(xdg) : NULL};
    clsplat_options options = {.log = count_warnings, .user = &f->warnings};
    ck_assert_int_eq(clsplat_create(options, &f->lib), CLSPLAT_OK);
    setenv("XDG_CACHE_HOME", f->home, 1);
    unsetenv("CLSPLAT_CACHE");
    ck_assert_int_gt(asprintf(&f->folder, "%s/clsplat", f->home), 0);
}

static void end(fixture *f) {
    if (f->xdg_before)
        setenv("XDG_CACHE_HOME", f->xdg_before, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    clsplat_destroy(&f->lib);
    suite_remove(f->home);
    free(f->xdg_before);
    free(f->folder);
}

static void put(fixture *f, const char *key, const char *payload) {
    cache_put(f->lib, key, strlen(key), payload, strlen(payload));
}

/* The payload under the key as a string, NULL for a miss; the caller frees it. */
static char *get(fixture *f, const char *key) {
    void *bytes = NULL;
    size_t count = 0;
    if (!cache_get(f->lib, key, strlen(key), &bytes, &count))
        return NULL;
    char *payload = strndup(bytes, count);
    free(bytes);
    return payload;
}

static void expect(fixture *f, const char *key, const char *payload) {
    char *found = get(f, key);
    if (payload) {
        ck_assert_ptr_nonnull(found);
        ck_assert_str_eq(found, payload);
    } else {
        ck_assert_msg(found == NULL, "%s should not be found", key);
    }
    free(found);
}

/* How many files the cache has; the path of the last one seen, if asked, to be freed. */
static int files(const fixture *f, char **path) {
    DIR *folder = opendir(f->folder);
    int count = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        if (path && count == 0)
            ck_assert_int_gt(asprintf(path, "%s/%s", f->folder, entry->d_name), 0);
        ++count;
    }
    if (folder)
        closedir(folder);
    return count;
}

static size_t read_file(const char *path, char *bytes, size_t size) {
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size_t count = fread(bytes, 1, size, file);
    fclose(file);
    return count;
}

static void write_file(const char *path, const char *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(what_was_put_comes_back) {
    fixture f;
    begin(&f);
    expect(&f, "one", NULL);
    put(&f, "one", "first payload");
    put(&f, "two", "second");
    expect(&f, "one", "first payload");
    expect(&f, "two", "second");
    expect(&f, "three", NULL);
    put(&f, "one", "another");
    expect(&f, "one", "another");
    put(&f, "three", "");
    expect(&f, "three", NULL);
    ck_assert_int_eq(files(&f, NULL), 2);
    ck_assert_int_eq(f.warnings, 0);
    end(&f);
}
END_TEST

START_TEST(any_flipped_bit_is_a_miss) {
    fixture f;
    char *path = NULL, whole[256], damaged[256];
    begin(&f);
    put(&f, "key", "payload");
    ck_assert_int_eq(files(&f, &path), 1);
    size_t count = read_file(path, whole, sizeof whole);
    ck_assert_uint_gt(count, 10);
    for (size_t at = 0; at < count; at++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(damaged, whole, count);
            damaged[at] ^= (char)(1 << bit);
            write_file(path, damaged, count);
            expect(&f, "key", NULL);
        }
    }
    put(&f, "key", "payload"); /* a damaged entry is overwritten */
    expect(&f, "key", "payload");
    free(path);
    end(&f);
}
END_TEST

START_TEST(any_other_length_is_a_miss) {
    fixture f;
    char *path = NULL, whole[256] = {0};
    begin(&f);
    put(&f, "key", "payload");
    ck_assert_int_eq(files(&f, &path), 1);
    size_t count = read_file(path, whole, sizeof whole);
    for (size_t kept = 0; kept < count; kept++) {
        write_file(path, whole, kept);
        expect(&f, "key", NULL);
    }
    write_file(path, whole, count + 1);
    expect(&f, "key", NULL);
    write_file(path, whole, count);
    expect(&f, "key", "payload");
    free(path);
    end(&f);
}
END_TEST

/* A hash collision, a renamed file, a folder where the file should be, a dangling link. */
START_TEST(a_foreign_entry_is_a_miss) {
    fixture f;
    char *path = NULL, *other = NULL;
    begin(&f);
    put(&f, "mine", "my payload");
    ck_assert_int_eq(files(&f, &path), 1);
    ck_assert_int_eq(unlink(path), 0);
    put(&f, "nine", "its payload");
    ck_assert_int_eq(files(&f, &other), 1);
    ck_assert_str_ne(path, other);
    ck_assert_int_eq(rename(other, path), 0);
    expect(&f, "mine", NULL);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    expect(&f, "mine", NULL);
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(symlink("/nowhere/at/all", path), 0);
    expect(&f, "mine", NULL);
    ck_assert_int_eq(unlink(path), 0);
    put(&f, "mine", "my payload");
    expect(&f, "mine", "my payload");
    free(other);
    free(path);
    end(&f);
}
END_TEST

/* A file where the folder should be: as unwritable as a folder can be, also for root. */
START_TEST(an_unwritable_folder_is_a_miss) {
    fixture f;
    begin(&f);
    write_file(f.folder, "", 0);
    put(&f, "key", "payload");
    expect(&f, "key", NULL);
    ck_assert_int_eq(f.warnings, 1);
    ck_assert_str_eq(clsplat_last_error(f.lib), "");
    end(&f);
}
END_TEST

START_TEST(a_folder_without_permission_is_a_miss) {
    fixture f;
    if (geteuid() == 0) {
        suite_skipped("a cache folder without write permission", "root may write everywhere");
        return;
    }
    begin(&f);
    ck_assert_int_eq(chmod(f.home, 0500), 0);
    put(&f, "key", "payload");
    expect(&f, "key", NULL);
    ck_assert_int_eq(f.warnings, 1);
    ck_assert_int_eq(chmod(f.home, 0700), 0);
    end(&f);
}
END_TEST

START_TEST(it_can_be_switched_off) {
    fixture f;
    begin(&f);
    put(&f, "key", "payload");
    setenv("CLSPLAT_CACHE", "off", 1);
    expect(&f, "key", NULL);
    put(&f, "second", "payload");
    ck_assert_int_eq(files(&f, NULL), 1);
    unsetenv("CLSPLAT_CACHE");
    expect(&f, "key", "payload");
    setenv("XDG_CACHE_HOME", "relative/folder", 1); /* to be ignored, says its specification */
    char *home = strdup(getenv("HOME") ? getenv("HOME") : "");
    setenv("HOME", f.home, 1);
    put(&f, "key", "at home");
    expect(&f, "key", "at home");
    unsetenv("HOME");
    expect(&f, "key", NULL);
    setenv("HOME", home, 1);
    free(home);
    end(&f);
}
END_TEST

/* File times may be as coarse as the kernel's tick. */
static void let_time_pass(void) {
    struct timespec tick = {.tv_nsec = 25 * 1000 * 1000};
    nanosleep(&tick, NULL);
}

START_TEST(the_least_recently_used_goes_first) {
    static const char *const keys[] = {"a", "b", "c", "d"};
    fixture f;
    struct stat info;
    char *path = NULL;
    begin(&f);
    for (int i = 0; i < 4; i++, let_time_pass())
        put(&f, keys[i], "payload");
    ck_assert_int_eq(files(&f, &path), 4);
    ck_assert_int_eq(stat(path, &info), 0);
    uint64_t bytes = (uint64_t)info.st_size;
    expect(&f, "a", "payload"); /* used last */
    cache_evict(f.lib, 4 * bytes);
    ck_assert_int_eq(files(&f, NULL), 4);
    cache_evict(f.lib, 4 * bytes - 1);
    ck_assert_int_eq(files(&f, NULL), 3);
    expect(&f, "b", NULL);
    cache_evict(f.lib, bytes);
    ck_assert_int_eq(files(&f, NULL), 1);
    expect(&f, "a", "payload");
    cache_evict(f.lib, 0);
    ck_assert_int_eq(files(&f, NULL), 0);
    free(path);
    end(&f);
}
END_TEST

/* Somebody's notes stay; what a crashed writer left goes like any entry. */
START_TEST(eviction_knows_its_own) {
    fixture f;
    char *notes = NULL, *left = NULL;
    begin(&f);
    put(&f, "key", "payload");
    ck_assert_int_gt(asprintf(&notes, "%s/notes.txt", f.folder), 0);
    ck_assert_int_gt(asprintf(&left, "%s/0123456789abcdef0123456789abcdef.bin.Ab3xYz", f.folder), 0);
    write_file(notes, "keep", 4);
    write_file(left, "half an ent", 11);
    cache_evict(f.lib, 0);
    ck_assert_int_eq(files(&f, NULL), 1);
    ck_assert_int_eq(access(notes, F_OK), 0);
    free(left);
    free(notes);
    end(&f);
}
END_TEST

/* Ends the process: 0 if every entry it saw meanwhile was one of the two that are written, whole. */
static void write_often(fixture *f, int letter) {
    enum { ROUNDS = 200, MOST = 60000 };
    char *payload = malloc(MOST + 1);
    for (int round = 0; payload && round < ROUNDS; round++) {
        size_t count = letter == 'a' ? MOST : MOST / 3;
        void *seen = NULL;
        memset(payload, letter, count);
        cache_put(f->lib, "shared", 6, payload, count);
        if (!cache_get(f->lib, "shared", 6, &seen, &count))
            _exit(1);
        int first = *(char *)seen;
        size_t same = 0;
        while (same < count && ((char *)seen)[same] == first)
            same++;
        free(seen);
        if (same != count || count != (size_t)(first == 'a' ? MOST : MOST / 3))
            _exit(2);
    }
    _exit(payload ? 0 : 3);
}

START_TEST(concurrent_writers_leave_one_whole_entry) {
    fixture f;
    pid_t writers[4];
    begin(&f);
    for (int i = 0; i < 4; i++) {
        writers[i] = fork();
        ck_assert_int_ge(writers[i], 0);
        if (writers[i] == 0)
            write_often(&f, "ab"[i % 2]);
    }
    for (int i = 0; i < 4; i++) {
        int ended = 0;
        ck_assert_int_eq(waitpid(writers[i], &ended, 0), writers[i]);
        ck_assert_msg(WIFEXITED(ended) && WEXITSTATUS(ended) == 0, "writer %d ended with %d", i, ended);
    }
    ck_assert_int_eq(files(&f, NULL), 1);
    end(&f);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, what_was_put_comes_back);
    tcase_add_test(part, any_flipped_bit_is_a_miss);
    tcase_add_test(part, any_other_length_is_a_miss);
    tcase_add_test(part, a_foreign_entry_is_a_miss);
    tcase_add_test(part, an_unwritable_folder_is_a_miss);
    tcase_add_test(part, a_folder_without_permission_is_a_miss);
    tcase_add_test(part, it_can_be_switched_off);
    tcase_add_test(part, the_least_recently_used_goes_first);
    tcase_add_test(part, eviction_knows_its_own);
    tcase_add_test(part, concurrent_writers_leave_one_whole_entry);
}

int main(void) {
    static const suite_part parts[] = {{"cache", add_all}};
    return suite_run("cache", parts, sizeof parts / sizeof *parts);
}
