/* What every test program shares: the way it runs, a library handle, a device, a temporary folder.
 *
 *     static const suite_part parts[] = {{"hash", add_hash}, {"text", add_text}};
 *     int main(void) { return suite_run("base", parts, sizeof parts / sizeof *parts); }
 *
 * Environment: CLSPLAT_DEVICE chooses the device; CLSPLAT_TEST_TIER is small, normal (also if unset) or long;
 * CLSPLAT_TEST_GPU makes the device of test_softmax and the like look like a GPU: 0, or NVIDIA's compute
 * capability, 80 or 90, or wmma, mfma, dpas8, dpas16; CLSPLAT_TEST_VERBOSE shows the library's messages;
 * CK_RUN_CASE runs the parts of that name alone. */
#ifndef CLSPLAT_TESTS_SUITE_H
#define CLSPLAT_TESTS_SUITE_H

#include <check.h>
#include <clsplat/clsplat.h>

typedef struct suite_part {
    const char *name;
    void (*add)(TCase *part);
} suite_part;

/* Runs every part in this process (a context made before a fork hangs PoCL) and ends with the line
 * "NAME: N passed, N failed". After an hour, six in the long tier, a signal ends it. Returns: the exit status
 * for main; a suite without any test has failed. */
int suite_run(const char *name, const suite_part *parts, size_t count);

typedef enum suite_tier { SUITE_SMALL, SUITE_NORMAL, SUITE_LONG } suite_tier;
suite_tier suite_tier_wanted(void);

/* Says that a check could not be made here, and why; tests/run.sh counts these lines. */
void suite_skipped(const char *what, const char *why);

/* These two fail the running test if they cannot do it. */
clsplat *suite_library(void);
clsplat_device *suite_device(clsplat *lib);

/* Fails the running test, with the library's words, unless `status` is OK. */
void suite_ok(const clsplat *lib, clsplat_status status);

/* A fresh folder, and the end of it with all it holds. */
char *suite_folder(void);
void suite_remove(char *folder);

#endif
