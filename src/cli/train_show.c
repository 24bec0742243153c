#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/report.h"
#include "cli/train.h"

/* "2:05:09", "5:09" */
static const char *clock_of(double seconds, char words[32]) {
    unsigned long long s = (unsigned long long)(seconds < 1e12 ? seconds + 0.5 : 0);
    if (s >= 3600)
        snprintf(words, 32, "%llu:%02llu:%02llu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(words, 32, "%llu:%02llu", s / 60, s % 60);
    return words;
}

void train_show_report(void *user, const train_report *r) {
    train_show *show = user;
    const progress *p = &show->c->progress;
    char of[32] = "", left[32], held[48] = "", loss[64];
    if (r->steps)
        snprintf(of, sizeof of, "/%llu", (unsigned long long)r->steps);
    if (isfinite(r->validation))
        snprintf(held, sizeof held, "  held out %.4f", r->validation);
    if (r->goal)
        snprintf(loss, sizeof loss, "%s off by %.4g", r->goal, r->loss);
    else
        snprintf(loss, sizeof loss, "loss %.4f  %.4f bits/byte", r->loss, r->bits);
    fprintf(stderr, "%sstep %llu%s  %s%s  %.0f tokens/s  %s left%s", p->terminal ? "\r\033[K" : "",
            (unsigned long long)r->step, of, loss, held, r->speed, clock_of(r->left, left),
            p->terminal && !held[0] ? "" : "\n");
    fflush(stderr);
    show->drawn = p->terminal && !held[0];
}

void train_show_adapted(void *user, const clsplat_adapt_event *event) {
    train_show *show = user;
    if (show->decisions.file)
        history_add(&show->decisions, event);
}

bool train_show_stopped(void *user) {
    const train_show *show = user;
    return progress_stopped(&show->c->progress);
}

void train_show_end(train_show *show) {
    if (show->drawn)
        fputc('\n', stderr);
    show->drawn = false;
}

static int by_seconds(const void *a, const void *b) {
    const clsplat_profile_row *x = a, *y = b;
    return x->seconds > y->seconds ? -1 : x->seconds < y->seconds;
}

void train_show_profile(train_show *show, clsplat_device *device) {
    clsplat_profile_row *rows = NULL;
    size_t count = 0;
    if (clsplat_profile_read(device, &rows, &count) != CLSPLAT_OK)
        return;
    if (count > 0)
        qsort(rows, count, sizeof *rows, by_seconds);
    for (size_t i = 0; i < count; ++i)
        log_info(show->c->lib, "%-26s %8.3f s in %7llu launches, %8.2f GFLOP/s, %8.2f GB/s", rows[i].kernel,
                 rows[i].seconds, (unsigned long long)rows[i].launches,
                 1e-9 * rows[i].flops / rows[i].seconds, 1e-9 * rows[i].bytes / rows[i].seconds);
    clsplat_profile_free(&rows);
}

clsplat_status train_show_json(train_show *show, const train_report *r, const clsplat_device *device) {
    json_t *json =
        json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:o}", "steps", (json_int_t)r->step, "loss",
                  report_number(r->loss), "bits_per_byte", report_number(r->bits), "validation_bits_per_byte",
                  report_number(r->validation), "tokens_per_second", report_number(r->speed), "seconds",
                  report_number(r->seconds), "peak_bytes", (json_int_t)clsplat_device_memory(device).peak,
                  "device", report_text(clsplat_device_describe(device)->name));
    return report_json(show->c, json);
}
