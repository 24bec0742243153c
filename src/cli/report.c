#include "cli/report.h"

#include <clsplat/splats.h>
#include <stdio.h>

clsplat_status report_json(cli *c, json_t *value) {
    int failed = !value || json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) != 0;
    json_decref(value);
    if (!value)
        return log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for the JSON report");
    if (!failed)
        putchar('\n');
    return cli_flush(c);
}

const char *report_bytes(uint64_t bytes, char text[REPORT_BYTES]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024; ++unit)
        value /= 1024;
    snprintf(text, REPORT_BYTES, value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

const char *report_covariance(int covariance) {
    return covariance == CLSPLAT_ISOTROPIC  ? "isotropic"
           : covariance == CLSPLAT_DIAGONAL ? "diagonal"
                                            : "full";
}
