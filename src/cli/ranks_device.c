/* Which device each of the processes that mpirun started takes. */
#include "cli/ranks_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/launch.h"

/* Several devices like the best one, in one machine: every process takes another one. */
static clsplat_status choose_device(cli *c, size_t place, char which[32]) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device_info *list = NULL;
    size_t count = 0, best = 0, alike = 0;
    TRY(clsplat_device_list(c->lib, &list, &count));
    for (size_t i = 1; i < count; ++i)
        if (list[i].score > list[best].score)
            best = i;
    for (size_t i = 0; i < count; ++i)
        alike += list[i].available && strcmp(list[i].name, list[best].name) == 0 &&
                 strcmp(list[i].platform, list[best].platform) == 0;
    for (size_t i = 0, seen = 0; i < count && alike > 0; ++i) {
        if (!list[i].available || strcmp(list[i].name, list[best].name) != 0 ||
            strcmp(list[i].platform, list[best].platform) != 0)
            continue;
        if (seen++ == place % alike)
            snprintf(which, 32, "%zu", i);
    }
fail:
    clsplat_device_list_free(&list);
    return status;
}

static clsplat_status open_device(cli *c, size_t place, clsplat_device **device) {
    clsplat_status status = CLSPLAT_OK;
    char which[32] = "";
    const char *environment = getenv("CLSPLAT_DEVICE");
    if (!c->device && !(environment && environment[0]))
        TRY(choose_device(c, place, which));
    TRY(clsplat_device_open(c->lib, which[0] ? which : c->device, device));
fail:
    return status;
}

clsplat_status ranks_open_device(cli *c, clsplat_ranks *ranks, clsplat_device **device) {
    clsplat_status status = CLSPLAT_OK;
    size_t place = 0;
    TRY(launch_place(ranks, &place));
    TRY(clsplat_ranks_agree(ranks, open_device(c, place, device)));
fail:
    return status;
}
