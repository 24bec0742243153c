#include "cli/report.h"

#include <clsplat/splats.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "base/utf8.h"

clsplat_status report_json(cli *c, json_t *value) {
    return report_json_digits(c, value, 6);
}

clsplat_status report_json_digits(cli *c, json_t *value, unsigned digits) {
    clsplat_status status = CLSPLAT_OK;
    bool written = value && json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) == 0;
    json_decref(value);
    if (written)
        putchar('\n');
    TRY(cli_flush(c));
    if (!written) /* dumping takes memory, too */
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for the JSON report"));
fail:
    return status;
}

json_t *report_words(const char *words, size_t bytes) {
    text mended = {0};
    size_t wrong = utf8_add_mended(&mended, words ? words : "", words ? bytes : 0);
    json_t *value = text_ok(&mended) ? json_stringn(wrong   ? mended.data
                                                    : words ? words
                                                            : "",
                                                    wrong   ? mended.length
                                                    : words ? bytes
                                                            : 0)
                                     : NULL;
    text_free(&mended);
    return value;
}

json_t *report_text(const char *words) {
    return report_words(words, strlen(words));
}

json_t *report_number(double number) {
    return isfinite(number) ? json_real(number) : json_null();
}

const char *report_bytes(uint64_t bytes, char words[REPORT_BYTES]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024; ++unit)
        value /= 1024;
    snprintf(words, REPORT_BYTES, value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return words;
}

const char *report_covariance(int covariance) {
    return covariance == CLSPLAT_ISOTROPIC  ? "isotropic"
           : covariance == CLSPLAT_DIAGONAL ? "diagonal"
                                            : "full";
}
