#include "suite.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOUR = 3600 }; /* seconds */

int suite_run(const char *name, const suite_part *parts, size_t count) {
    Suite *suite = suite_create(name);
    for (size_t i = 0; i < count; i++) {
        TCase *part = tcase_create(parts[i].name);
        parts[i].add(part);
        suite_add_tcase(suite, part);
    }
    alarm(suite_tier_wanted() == SUITE_LONG ? 6 * HOUR : HOUR);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    printf("%s: %d passed, %d failed\n", name, run - failed, failed);
    return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

suite_tier suite_tier_wanted(void) {
    const char *tier = getenv("CLSPLAT_TEST_TIER");
    if (tier && strcmp(tier, "small") == 0)
        return SUITE_SMALL;
    return tier && strcmp(tier, "long") == 0 ? SUITE_LONG : SUITE_NORMAL;
}

void suite_skipped(const char *what, const char *why) {
    printf("skipped: %s: %s\n", what, why);
}

static void show(void *user, clsplat_log_level level, const char *message) {
    (void)user;
    static const char *const names[] = {"error", "warning", "info"};
    fprintf(stderr, "%s: %s\n", names[level], message);
}

clsplat *suite_library(void) {
    clsplat_options options = clsplat_options_defaults();
    if (getenv("CLSPLAT_TEST_VERBOSE"))
        options.log = show;
    clsplat *lib = NULL;
    clsplat_status status = clsplat_create(options, &lib);
    ck_assert_msg(status == CLSPLAT_OK, "clsplat_create: %s", clsplat_status_text(status));
    return lib;
}

clsplat_device *suite_device(clsplat *lib) {
    clsplat_device *device = NULL;
    suite_ok(lib, clsplat_device_open(lib, NULL, &device));
    return device;
}

void suite_ok(const clsplat *lib, clsplat_status status) {
    ck_assert_msg(status == CLSPLAT_OK, "%s: %s", clsplat_status_text(status), clsplat_last_error(lib));
}

char *suite_folder(void) {
    const char *parent = getenv("TMPDIR");
    char *folder = NULL;
    ck_assert_int_gt(asprintf(&folder, "%s/clsplat-test-XXXXXX", parent ? parent : "/tmp"), 0);
    ck_assert_msg(mkdtemp(folder) != NULL, "no temporary folder %s", folder);
    return folder;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at) {
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

void suite_remove(char *folder) {
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}
