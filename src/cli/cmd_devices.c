/* clsplat devices: what the OpenCL loader shows. */
#include <clsplat/clsplat.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"
#include "cli/selftest.h"
#include "op/peak.h"
#include "runtime/describe.h"

static const char summary[] =
    "Lists the OpenCL devices of this machine. The one with the star is what the other commands take:\n"
    "--device, else the environment variable CLSPLAT_DEVICE, else the highest score.";

static const char *const unit_names[] = {[CLSPLAT_UNITS_NONE] = "",
                                         [CLSPLAT_UNITS_WMMA] = "wmma",
                                         [CLSPLAT_UNITS_MFMA] = "mfma",
                                         [CLSPLAT_UNITS_DPAS] = "dpas"};

static json_t *limits_json(const clsplat_limits *l) {
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:[I,I,I], s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:b, s:b, "
        "s:b, s:b, "
        "s:b}",
        "global_memory", (json_int_t)l->global_memory, "max_allocation", (json_int_t)l->max_allocation,
        "local_memory", (json_int_t)l->local_memory, "constant_memory", (json_int_t)l->constant_memory,
        "compute_units", (json_int_t)l->compute_units, "clock_mhz", (json_int_t)l->clock_mhz,
        "max_work_group", (json_int_t)l->max_work_group, "max_work_item_sizes",
        (json_int_t)l->max_work_item_sizes[0], (json_int_t)l->max_work_item_sizes[1],
        (json_int_t)l->max_work_item_sizes[2], "vector_width_float", (json_int_t)l->vector_width_float,
        "cache_line", (json_int_t)l->cache_line, "base_address_align", (json_int_t)l->base_address_align,
        "timer_resolution_ns", (json_int_t)l->timer_resolution_ns, "nvidia_capability",
        (json_int_t)l->nvidia_capability, "subgroup", (json_int_t)l->subgroup, "matrix_units",
        unit_names[l->matrix_units], "fast_fma", l->fast_fma, "half_arithmetic", l->half_arithmetic,
        "subgroups", l->subgroups, "int64", l->int64, "unified_memory", l->unified_memory, "cpu", l->cpu);
}

static json_t *device_json(const clsplat_device_info *d, size_t index, bool taken) {
    return json_pack("{s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:s, s:b, s:o, s:I, s:o, s:o}", "index",
                     (json_int_t)index, "default", taken, "name", report_text(d->name), "platform",
                     report_text(d->platform), "vendor", report_text(d->vendor), "version",
                     report_text(d->version), "driver", report_text(d->driver), "type", d->type, "available",
                     d->available, "problem", report_text(d->problem), "score", (json_int_t)d->score,
                     "quirks", report_text(d->quirks), "limits", limits_json(&d->limits));
}

static clsplat_status print_json(cli *c, const clsplat_device_info *list, size_t count, size_t taken) {
    json_t *devices = json_array();
    for (size_t i = 0; i < count; ++i)
        devices = json_push(devices, device_json(&list[i], i, i == taken));
    return report_json(c, devices);
}

static void print_device(const clsplat_device_info *d, size_t index, bool taken) {
    const clsplat_limits *l = &d->limits;
    char memory[REPORT_BYTES], buffer[REPORT_BYTES], local[REPORT_BYTES];
    printf("%c %-2zu %s\n", taken ? '*' : ' ', index, d->name);
    printf("     %s, %s, driver %s\n", d->platform, d->version, d->driver);
    printf("     %s, %" PRIu32 " compute units at %" PRIu32 " MHz, work-groups of up to %" PRIu32 "\n",
           d->type, l->compute_units, l->clock_mhz, l->max_work_group);
    printf("     memory %s, in one buffer %s, local %s\n", report_bytes(l->global_memory, memory),
           report_bytes(l->max_allocation, buffer),
           l->local_memory ? report_bytes(l->local_memory, local) : "none of its own");
    if (d->quirks[0])
        printf("     quirks: %s\n", d->quirks);
    if (!d->available)
        printf("     cannot be used: %s\n", d->problem);
}

static void print_details(const clsplat_device_info *d) {
    const clsplat_limits *l = &d->limits;
    printf("     vendor %s, score %" PRIu64 ", floats per vector %" PRIu32 ", timer steps of %" PRIu32
           " ns\n",
           d->vendor, d->score, l->vector_width_float, l->timer_resolution_ns);
    printf("     hardware fma %s, half arithmetic %s, subgroups %s, 64-bit integers %s, memory %s the host\n",
           l->fast_fma ? "yes" : "no", l->half_arithmetic ? "yes" : "no", l->subgroups ? "yes" : "no",
           l->int64 ? "yes" : "no", l->unified_memory ? "shared with" : "apart from");
}

/* The device that the other commands would take. */
static clsplat_status choose(cli *c, const clsplat_device_info *list, size_t count, size_t *taken) {
    const char *which = c->device, *origin = "--device";
    if (!which || !which[0]) {
        which = getenv("CLSPLAT_DEVICE");
        origin = "CLSPLAT_DEVICE";
    }
    return device_choose(c->lib, list, count, which ? which : "", origin, taken);
}

/* What belongs into an issue about a device: all that is known of it, what works there, and how fast it is.
 */
static clsplat_status report(cli *c, const clsplat_device_info *info, size_t index) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    op_peak peak;
    char which[24];
    snprintf(which, sizeof which, "%zu", index);
    printf("clsplat %s\n", clsplat_version());
    print_device(info, index, true);
    print_details(info);
    TRY(clsplat_device_open(c->lib, which, &device));
    TRY(op_peak_measure(device, &peak));
    printf("     reaches %.1f GFLOP/s of multiply-adds and %.1f GB/s of copying\n", 1e-9 * peak.flops,
           1e-9 * peak.bytes);
    TRY(selftest_print(c, device, NULL));
fail:
    clsplat_device_close(&device);
    return status;
}

static clsplat_status devices(cli *c, bool to_report) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device_info *list = NULL;
    size_t count = 0, taken = 0;
    TRY(clsplat_device_list(c->lib, &list, &count));
    TRY(choose(c, list, count, &taken));
    if (to_report)
        TRY(report(c, &list[taken], taken));
    else if (c->json)
        TRY(print_json(c, list, count, taken));
    for (size_t i = 0; i < count && !c->json && !to_report; ++i) {
        print_device(&list[i], i, i == taken);
        if (c->verbose)
            print_details(&list[i]);
    }
fail:
    clsplat_device_list_free(&list);
    return status;
}

clsplat_status cmd_devices(cli *c, int argc, const char **argv) {
    int to_report = 0;
    struct poptOption options[] = {
        {"report", 0, POPT_ARG_NONE, &to_report, 0,
         "a text about one device to paste into an issue: its limits and quirks, what works there, and "
         "speeds",
         NULL},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "[OPTION...]", options, .arguments = 0};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = devices(c, to_report);
    return status;
}
