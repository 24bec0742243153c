/* The self-test as it is printed: by itself, and within `clsplat devices --report`. */
#ifndef CLSPLAT_CLI_SELFTEST_H
#define CLSPLAT_CLI_SELFTEST_H

#include <jansson.h>

#include "cli/cli.h"
#include "tuning/selftest.h"

/* Lines on stdout; or, with an array, an object for each result in it. Returns: UNSUPPORTED if a variant is
 * wrong. */
clsplat_status selftest_print(cli *c, clsplat_device *device, json_t **array);

#endif
