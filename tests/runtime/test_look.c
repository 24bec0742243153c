/* The first thing that this process does with OpenCL is done by several threads at once, each with a handle
 * of its own; and what is said of a folder that PoCL cannot work in. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "runtime/pocl.h"
#include "suite.h"

enum { THREADS = 8 };

static void *look(void *user) {
    clsplat_status *status = user;
    clsplat *lib = NULL;
    clsplat_device_info *list = NULL;
    clsplat_device *device = NULL;
    size_t count = 0;
    *status = clsplat_create(clsplat_options_defaults(), &lib);
    if (*status == CLSPLAT_OK)
        *status = clsplat_device_list(lib, &list, &count);
    clsplat_device_list_free(&list);
    if (*status == CLSPLAT_OK)
        *status = clsplat_device_open(lib, NULL, &device);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    return NULL;
}

START_TEST(threads_may_look_at_once) {
    pthread_t threads[THREADS];
    clsplat_status statuses[THREADS];
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, look, &statuses[i]), 0);
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(statuses[i], CLSPLAT_OK);
}
END_TEST

START_TEST(a_folder_that_pocl_cannot_use_is_said) {
    static const char *const bad[] = {"/dev/null", "/dev/null/below", "/proc/nowhere"};
    char *folder = suite_folder(),
         *before = getenv("POCL_CACHE_DIR") ? text_copy(getenv("POCL_CACHE_DIR")) : NULL;
    text words = {0}, below = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        setenv("POCL_CACHE_DIR", bad[i], 1);
        ck_assert_msg(pocl_folder_problem(&words), "%s", bad[i]);
        ck_assert(strstr(words.data, bad[i]) && strstr(words.data, "POCL_CACHE_DIR"));
        text_free(&words);
    }
    text_add(&below, "%s/not/there/yet", folder);
    setenv("POCL_CACHE_DIR", below.data, 1);
    ck_assert(!pocl_folder_problem(&words) && words.length == 0);
    before ? setenv("POCL_CACHE_DIR", before, 1) : unsetenv("POCL_CACHE_DIR");
    free(before);
    text_free(&below);
    suite_remove(folder);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, threads_may_look_at_once);
    tcase_add_test(part, a_folder_that_pocl_cannot_use_is_said);
}

int main(void) {
    static const suite_part parts[] = {{"look", add_all}};
    return suite_run("look", parts, sizeof parts / sizeof *parts);
}
