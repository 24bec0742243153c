/* clsplat compare: how far the tensors of one file are from those of another. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/text.h"
#include "cli/input.h"
#include "cli/report.h"

static const char summary[] =
    "Compares the F32, F16 and BF16 tensors that two files both have, a of FILE with r of REFERENCE: the "
    "relative error is\n"
    "|a - r| / |r| over the whole tensor. Places where r is -inf or another number that is not finite\n"
    "are left out of it, and must hold the same in a: `odd` counts those that do not.";

typedef struct distance {
    double relative; /* ‖a − r‖ / ‖r‖; the numerator alone where r is 0 */
    double largest;  /* max |a − r| */
    uint64_t odd;    /* places where one of the two is not finite, and they differ */
} distance;

static double number_at(const clsplat_tensor *t, size_t i) {
    if (t->dtype == CLSPLAT_F32)
        return (double)((const float *)t->host)[i];
    uint16_t bits = ((const uint16_t *)t->host)[i];
    return (double)(t->dtype == CLSPLAT_F16 ? half_from_f16(bits) : half_from_bf16(bits));
}

static distance measure(const clsplat_tensor *a, const clsplat_tensor *r, size_t count) {
    distance d = {0};
    double error = 0, norm = 0;
    for (size_t i = 0; i < count; ++i) {
        double x = number_at(a, i), y = number_at(r, i);
        if (isfinite(x) && isfinite(y)) {
            error += (x - y) * (x - y);
            norm += y * y;
            d.largest = fmax(d.largest, fabs(x - y));
        } else if (!(x == y || (isnan(x) && isnan(y))))
            ++d.odd;
    }
    d.relative = norm > 0 ? sqrt(error / norm) : sqrt(error);
    return d;
}

static bool same_shape(const safetensors_entry *a, const safetensors_entry *r) {
    return a->rank == r->rank && memcmp(a->shape, r->shape, a->rank * sizeof *a->shape) == 0;
}

static clsplat_status compare_tensor(cli *c, const safetensors *file, const safetensors_entry *entry,
                                     const safetensors *reference, distance *d) {
    clsplat_status status = CLSPLAT_OK;
    input a = {0}, r = {0};
    TRY(input_find_any(c->lib, file, entry->name, &a));
    TRY(input_find_any(c->lib, reference, entry->name, &r));
    if (!same_shape(a.entry, r.entry))
        TRY(log_error(c->lib, CLSPLAT_SHAPE, "%s: tensor '%s' has another shape in %s",
                      safetensors_path(file), entry->name, safetensors_path(reference)));
    TRY(input_read(c->lib, &a));
    TRY(input_read(c->lib, &r));
    *d = measure(&a.tensor, &r.tensor, entry->count);
fail:
    input_free(&a);
    input_free(&r);
    return status;
}

static clsplat_status compare_files(cli *c, const safetensors *file, const safetensors *reference,
                                    json_t **report) {
    clsplat_status status = CLSPLAT_OK;
    size_t common = 0;
    for (size_t i = 0; i < safetensors_count(file); ++i) {
        const safetensors_entry *entry = safetensors_at(file, i);
        if (!input_is_number(entry) || !safetensors_find(reference, entry->name))
            continue;
        distance d;
        TRY(compare_tensor(c, file, entry, reference, &d));
        ++common;
        if (!c->json)
            printf("%-12s relative error %.3e, largest difference %.3e, odd %llu\n",
                   text_show(entry->name).bytes, d.relative, d.largest, (unsigned long long)d.odd);
        *report = json_put(*report, entry->name,
                           json_pack("{s:o, s:o, s:I}", "relative", report_number(d.relative), "largest",
                                     report_number(d.largest), "odd", (json_int_t)d.odd));
    }
    if (common == 0)
        return log_error(c->lib, CLSPLAT_FORMAT, "%s and %s have no tensor of numbers in common",
                         safetensors_path(file), safetensors_path(reference));
fail:
    return status;
}

static clsplat_status compare(cli *c) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *file = NULL, *reference = NULL;
    json_t *report = json_object();
    TRY(safetensors_open(c->lib, c->arguments[0], &file));
    TRY(safetensors_open(c->lib, c->arguments[1], &reference));
    TRY(compare_files(c, file, reference, &report));
    if (c->json)
        TRY(report_json(c, json_incref(report)));
fail:
    json_decref(report);
    safetensors_close(&file);
    safetensors_close(&reference);
    return status;
}

clsplat_status cmd_compare(cli *c, int argc, const char **argv) {
    struct poptOption options[] = {POPT_TABLEEND};
    cli_syntax syntax = {summary, "FILE.safetensors REFERENCE.safetensors [OPTION...]", options,
                         .arguments = 2, .without_device = true};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = compare(c);
    return status;
}
