/* The device of one of several processes. */
#ifndef CLSPLAT_CLI_RANKS_DEVICE_H
#define CLSPLAT_CLI_RANKS_DEVICE_H

#include <clsplat/ranks.h>

#include "cli/cli.h"

/* The one that is asked for; else, where a machine has several like the best one, each process of it takes
 * another one. Ownership: *device is the caller's. Collective. */
clsplat_status ranks_open_device(cli *c, clsplat_ranks *ranks, clsplat_device **device);

#endif
