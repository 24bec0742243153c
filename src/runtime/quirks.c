#include "runtime/quirks.h"

#include <string.h>

#include "base/text.h"

const quirk quirks[] = {
    {.name = "zero-event-times",
     .platform = "rusticl",
     .driver = "22.",
     .flags = QUIRK_WALL_CLOCK,
     .why = "Mesa 22.3.6 on llvmpipe: CL_PROFILING_COMMAND_END equals CL_PROFILING_COMMAND_START"},
    {.name = "software-rasteriser",
     .device = "llvmpipe",
     .flags = QUIRK_SOFTWARE,
     .why = "Mesa 22.3.6: calls itself a CPU, but a launch costs 300 µs and there is no hardware fma, where "
            "PoCL "
            "on the same cores needs 55 µs and has it"},
    {.name = "loops-end-early",
     .device = "llvmpipe",
     .flags = QUIRK_LOOP_LIMIT,
     .why = "Mesa 22.3.6: loops of a work-item end after 65,535 iterations in all, silently. At D = 64 exact "
            "attention over 960 keys is right and over 990 wrong"},
    {.name = "spills-at-128-registers",
     .vendor = "Intel",
     .device = "Arc(TM)",
     .flags = QUIRK_LARGE_REGISTERS,
     .why = "IGC 1.0.12504 for dg2: kernels in local memory spill 5 to 15 of 128 registers, none of 256; a "
            "kernel "
            "that spills builds some 50 times slower (intel-graphics-compiler issue 420)"},
    {.name = "spills-at-128-registers",
     .vendor = "Intel",
     .device = "Data Center GPU",
     .flags = QUIRK_LARGE_REGISTERS,
     .why =
         "IGC 1.0.12504 for pvc: rows on matrix units keep 8 to 16 KiB of a thread's sums in memory with 128 "
         "registers, nothing with 256"},
    {.name = "buffers-up-to-4-gib",
     .vendor = "Intel",
     .device = "Graphics",
     .flags = QUIRK_BUFFER_LIMIT,
     .buffer = UINT64_C(4) << 30,
     .why =
         "drivers that allow more compute nonsense beyond 4 GiB unless a program asks for slower addressing "
         "(compute-runtime issue 627, oneDNN issue 1638)"},
    {.name = "buffers-up-to-4-gib",
     .vendor = "Intel",
     .device = "Data Center GPU",
     .flags = QUIRK_BUFFER_LIMIT,
     .buffer = UINT64_C(4) << 30,
     .why = "as on Intel's other GPUs"},
    {.name = "damaged-folder-unnoticed",
     .platform = "Portable Computing",
     .flags = QUIRK_TRUSTS_FOLDER,
     .why = "PoCL 3.1: of a program that its folder keeps only a part of, a build succeeds and the kernel "
            "is not there"},
    {.name = "failures-are-complete",
     .platform = "Intel(R) OpenCL",
     .driver = "202",
     .flags = QUIRK_FAILURES_COMPLETE,
     .why = "Intel's CPU runtime 2026.2: of a command that was not run, since an event it waited for failed, "
            "CL_EVENT_COMMAND_EXECUTION_STATUS is CL_COMPLETE; clWaitForEvents answers with the error"},
};
const size_t quirk_count = sizeof quirks / sizeof *quirks;

static bool matches(const quirk *row, const clsplat_device_info *info) {
    return (!row->platform || text_contains(info->platform, row->platform)) &&
           (!row->vendor || text_contains(info->vendor, row->vendor)) &&
           (!row->device || text_contains(info->name, row->device)) &&
           (!row->driver || strncmp(info->driver, row->driver, strlen(row->driver)) == 0);
}

/* Adds a name to the list if there is room for all of it. */
static void add_name(char *list, size_t size, const char *name) {
    size_t used = strlen(list);
    if (used + strlen(name) + 2 > size)
        return;
    if (used)
        list[used++] = ',';
    strcpy(list + used, name);
}

unsigned quirks_apply(clsplat_device_info *info) {
    unsigned flags = 0;
    info->quirks[0] = '\0';
    for (size_t i = 0; i < quirk_count; ++i) {
        if (!matches(&quirks[i], info))
            continue;
        flags |= quirks[i].flags;
        if (quirks[i].buffer && info->limits.max_allocation > quirks[i].buffer)
            info->limits.max_allocation = quirks[i].buffer;
        add_name(info->quirks, sizeof info->quirks, quirks[i].name);
    }
    return flags;
}
