/* Drivers that pip installs where no loader looks: found, told of if they do not load, and left alone where
 * the user names the drivers there are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/platforms.h"
#include "suite.h"

/* How many messages were about the driver. */
static void count_message(void *user, clsplat_log_level level, const char *message) {
    if (level == CLSPLAT_LOG_WARNING && strstr(message, "libintelocl.so") && strstr(message, "does not load"))
        ++*(int *)user;
}

/* A Python environment whose driver is no library. */
static char *broken_environment(void) {
    char path[512];
    char *folder = suite_folder();
    snprintf(path, sizeof path, "%s/lib", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/lib/libintelocl.so", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs("not a library\n", file);
    fclose(file);
    return folder;
}

static int warnings_with(const char *environment) {
    int warnings = 0;
    clsplat *lib = NULL;
    cl_platform_id *platforms = NULL;
    size_t count = 0;
    ck_assert_int_eq(setenv("VIRTUAL_ENV", environment, 1), 0);
    ck_assert_int_eq(clsplat_create((clsplat_options){.log = count_message, .user = &warnings}, &lib),
                     CLSPLAT_OK);
    suite_ok(lib, platforms_read(lib, &platforms, &count));
    ck_assert_uint_gt(count, 0);
    free(platforms);
    clsplat_destroy(&lib);
    unsetenv("VIRTUAL_ENV");
    return warnings;
}

START_TEST(a_driver_that_does_not_load_is_told) {
    char *folder = broken_environment();
    ck_assert_int_eq(warnings_with(folder), getenv("OCL_ICD_VENDORS") ? 0 : 1);
    ck_assert_int_eq(warnings_with("/nowhere"), 0);
    ck_assert_int_eq(warnings_with("not/absolute"), 0);
    suite_remove(folder);
}
END_TEST

/* The loader has read its own settings by now. */
START_TEST(named_drivers_are_all_there_are) {
    char *folder = broken_environment(), *was = getenv("OCL_ICD_VENDORS");
    was = was ? strdup(was) : NULL;
    ck_assert_int_eq(setenv("OCL_ICD_VENDORS", "/etc/OpenCL/vendors", 1), 0);
    ck_assert_int_eq(warnings_with(folder), 0);
    if (was)
        setenv("OCL_ICD_VENDORS", was, 1);
    else
        unsetenv("OCL_ICD_VENDORS");
    free(was);
    suite_remove(folder);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, a_driver_that_does_not_load_is_told);
    tcase_add_test(part, named_drivers_are_all_there_are);
}

int main(void) {
    static const suite_part parts[] = {{"platforms", add_all}};
    return suite_run("platforms", parts, sizeof parts / sizeof *parts);
}
