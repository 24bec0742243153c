#include "parallel/group.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "runtime/device.h"
#include "runtime/quirks.h"

bool clsplat_group_named(const char *which) {
    return which && (strcmp(which, "all") == 0 || strchr(which, ','));
}

static clsplat_status add(clsplat_group *g, const char *which) {
    clsplat_status status = CLSPLAT_OK;
    member *members = realloc(g->members, (g->count + 1) * sizeof *members);
    if (!members)
        return log_error(g->lib, CLSPLAT_MEMORY, "no memory for a group of %zu devices", g->count + 1);
    g->members = members;
    member *m = &members[g->count];
    *m = (member){0};
    TRY(clsplat_device_open(g->lib, which, &m->device));
    g->count++;
fail:
    return status;
}

static clsplat_status add_all(clsplat_group *g) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device_info *list = NULL;
    size_t count = 0;
    TRY(clsplat_device_list(g->lib, &list, &count));
    for (size_t i = 0; i < count; ++i) {
        text index = {0};
        if (!list[i].available)
            continue;
        text_add(&index, "%zu", i);
        status = text_ok(&index) ? add(g, index.data) : CLSPLAT_MEMORY;
        text_free(&index);
        if (status != CLSPLAT_OK)
            goto fail;
        member *m = &g->members[g->count - 1];
        if (m->device->quirks & QUIRK_LOOP_LIMIT) {
            clsplat_device_close(&m->device);
            --g->count;
        }
    }
    if (g->count == 0)
        status = log_error(g->lib, CLSPLAT_NO_DEVICE, "no device can be opened; `clsplat devices` says why");
fail:
    clsplat_device_list_free(&list);
    return status;
}

static clsplat_status add_list(clsplat_group *g, const char *which) {
    clsplat_status status = CLSPLAT_OK;
    char *names = text_copy(which), *rest = names;
    if (!names)
        return log_error(g->lib, CLSPLAT_MEMORY, "no memory for the names of devices");
    for (char *name; (name = strsep(&rest, ","));) {
        if (name[0] == '\0')
            TRY(log_error(g->lib, CLSPLAT_NO_DEVICE, "`%.100s`: there is no name between two commas", which));
        TRY(add(g, name));
    }
fail:
    free(names);
    return status;
}

clsplat_status clsplat_group_open(clsplat *lib, const char *which, clsplat_group **group) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_group *g = calloc(1, sizeof *g);
    *group = NULL;
    if (!g)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a group of devices");
    g->lib = lib;
    TRY(strcmp(which, "all") == 0 ? add_all(g) : add_list(g, which));
    *group = g;
    return CLSPLAT_OK;
fail:
    clsplat_group_close(&g);
    return status;
}

void clsplat_group_close(clsplat_group **group) {
    if (!group || !*group)
        return;
    for (size_t i = 0; i < (*group)->count; ++i)
        clsplat_device_close(&(*group)->members[i].device);
    free((*group)->members);
    free(*group);
    *group = NULL;
}

size_t clsplat_group_count(const clsplat_group *group) {
    return group->count;
}

clsplat_device *clsplat_group_device(const clsplat_group *group, size_t index) {
    return group->members[index].device;
}

clsplat_group_share clsplat_group_share_of(const clsplat_group *group, size_t index) {
    const member *m = &group->members[index];
    return (clsplat_group_share){group->total > 0 ? m->work / group->total : 0, m->seconds, m->units};
}
