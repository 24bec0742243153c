/* Drivers that pip installs where no loader looks: found, told of if they do not load, and left alone where
 * the user names the drivers there are; and what is said where there is no device to open. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
    bool named = getenv("OCL_ICD_VENDORS") || getenv("OCL_ICD_FILENAMES");
    ck_assert_int_eq(warnings_with(folder), named ? 0 : 1);
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

/* What a process of this environment says that opens the best device, which it must not find: the loader
 * looks at its environment once per process, so it takes another one. */
static void child_refuses(const char *environment, char *words, size_t size) {
    char *command = NULL;
    ck_assert_int_gt(
        asprintf(&command, "RUSTICL_ENABLE= CLSPLAT_DEVICE= ASAN_OPTIONS=detect_leaks=0 %s /proc/%d/exe open",
                 environment, getpid()),
        0);
    FILE *child = popen(command, "r");
    ck_assert_ptr_nonnull(child);
    size_t count = fread(words, 1, size - 1, child);
    words[count] = '\0';
    int ended = pclose(child);
    ck_assert_msg(WIFEXITED(ended) && WEXITSTATUS(ended) == CLSPLAT_NO_DEVICE, "status %d: %s", ended, words);
    free(command);
}

/* Whether the loader looks for drivers where OCL_ICD_VENDORS says. NVIDIA's own copy does not, and knows no
 * layers either. */
static bool loader_listens(const char *test) {
    char *empty = suite_folder(), *command = NULL;
    ck_assert_int_gt(
        asprintf(&command, "OCL_ICD_FILENAMES= OCL_ICD_VENDORS='%s' /proc/%d/exe count", empty, getpid()), 0);
    int ended = system(command);
    bool listens = WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
    if (!listens)
        suite_skipped(test, "this loader does not listen to OCL_ICD_VENDORS");
    free(command);
    suite_remove(empty);
    return listens;
}

static int count_platforms(void) {
    cl_uint count = 0;
    clGetPlatformIDs(0, NULL, &count);
    return (int)count;
}

static int open_best(void) {
    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    if (clsplat_create(clsplat_options_defaults(), &lib) != CLSPLAT_OK)
        return EXIT_FAILURE;
    clsplat_status status = clsplat_device_open(lib, NULL, &device);
    puts(clsplat_last_error(lib));
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    return (int)status;
}

START_TEST(no_platform_is_said) {
    if (!loader_listens("no platform"))
        return;
    char *empty = suite_folder(), environment[256], words[1024];
    snprintf(environment, sizeof environment, "OCL_ICD_FILENAMES= OCL_ICD_VENDORS='%s'", empty);
    child_refuses(environment, words, sizeof words);
    ck_assert_msg(strstr(words, "no OpenCL platform") != NULL, "%s", words);
    ck_assert_msg(strstr(words, "pocl-opencl-icd") != NULL, "%s", words);
    ck_assert_msg(strstr(words, "/etc/OpenCL/vendors") != NULL, "%s", words);
    suite_remove(empty);
}
END_TEST

/* Mesa's two drivers have no device on a machine without a GPU that they know. */
static const struct platform {
    const char *name, *file;
} empty_platforms[] = {{"Clover", "/etc/OpenCL/vendors/mesa.icd"},
                       {"rusticl", "/etc/OpenCL/vendors/rusticl.icd"}};

START_TEST(a_platform_without_devices_is_said) {
    const struct platform *p = &empty_platforms[_i];
    char environment[256], words[1024];
    if (access(p->file, R_OK) != 0) {
        suite_skipped(p->name, "mesa-opencl-icd is not installed");
        return;
    }
    if (!loader_listens(p->name))
        return;
    snprintf(environment, sizeof environment, "OCL_ICD_FILENAMES= OCL_ICD_VENDORS=%s", p->file);
    child_refuses(environment, words, sizeof words);
    ck_assert_msg(strstr(words, "has a device") != NULL, "%s", words);
    ck_assert_msg(strstr(words, p->name) != NULL, "%s", words);
    ck_assert_msg(strstr(words, "pocl-opencl-icd") != NULL, "%s", words);
}
END_TEST

static const struct lack {
    const char *lacks, *says;
} lacks[] = {{"compiler", "its driver has no kernel compiler"}, {"device", "it is not available"}};

/* Through layer.c, which the build puts beside this program. */
START_TEST(a_device_that_cannot_be_opened_is_said) {
    char folder[512] = "", environment[640], words[2048];
    if (!loader_listens(lacks[_i].lacks))
        return;
    ck_assert_int_gt(readlink("/proc/self/exe", folder, sizeof folder - 1), 0);
    *strrchr(folder, '/') = '\0';
    snprintf(environment, sizeof environment, "CLSPLAT_TEST_LACKS=%s OPENCL_LAYERS='%s/layer.so'",
             lacks[_i].lacks, folder);
    child_refuses(environment, words, sizeof words);
    ck_assert_msg(strstr(words, lacks[_i].says) != NULL, "%s", words);
    ck_assert_msg(strstr(words, "0: ") != NULL, "%s", words);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, a_driver_that_does_not_load_is_told);
    tcase_add_test(part, named_drivers_are_all_there_are);
    tcase_add_test(part, no_platform_is_said);
    tcase_add_loop_test(part, a_platform_without_devices_is_said, 0, 2);
    tcase_add_loop_test(part, a_device_that_cannot_be_opened_is_said, 0, 2);
}

int main(int argc, char **argv) {
    static const suite_part parts[] = {{"platforms", add_all}};
    if (argc == 2 && strcmp(argv[1], "open") == 0)
        return open_best();
    if (argc == 2 && strcmp(argv[1], "count") == 0)
        return count_platforms();
    return suite_run("platforms", parts, sizeof parts / sizeof *parts);
}
