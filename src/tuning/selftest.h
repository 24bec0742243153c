/* Whether the rows of the operations compute on this device what they should: for whoever meets a device that
 * nobody has tried. */
#ifndef CLSPLAT_TUNING_SELFTEST_H
#define CLSPLAT_TUNING_SELFTEST_H

#include "tuning/example.h"

/* One row on one problem. */
typedef struct selftest_result {
    const char *op, *problem, *type, *variant; /* "softmax", "causal", "f32", "local" */
    double error, bound; /* relative, against row 0 or, for row 0 of softmax, against the host's doubles; NaN:
                            row 0 is what others are compared with */
    const char *why;     /* NULL: it is right */
    double done;         /* the finished share of all */
} selftest_result;

/* Told of each; anything but OK ends the run with it. */
typedef clsplat_status selftest_listener(void *user, const selftest_result *result);

/* Every row that fits, of every operation that has several, on small problems: some seconds, and on a slow
 * compiler a minute. Blocks. Returns: MEMORY, OPENCL if not even row 0 runs; what the listener returns. */
clsplat_status selftest_run(clsplat_device *device, selftest_listener *listener, void *user);

/* The same for the rows of one problem's family; `result` has op, problem, type, bound and done.
 * `host`: row 0 is compared with the host's softmax. */
clsplat_status selftest_rows(example *e, selftest_result result, bool host, selftest_listener *listener,
                             void *user);

#endif
