#include "train/log.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "train/run.h"

clsplat_status train_log_open(clsplat *lib, const char *folder, train_log *log) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0};
    *log = (train_log){.told = clock_seconds()};
    text_add(&path, "%s/log.jsonl", folder);
    if (!text_ok(&path))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    log->file = fopen(path.data, "ae");
    if (!log->file)
        TRY(log_error(lib, CLSPLAT_IO, "%s: cannot be written: %s", path.data, strerror(errno)));
fail:
    text_free(&path);
    return status;
}

void train_log_add(train_log *log, const train_report *r) {
    fprintf(log->file,
            "{\"step\": %llu, \"seconds\": %.3f, \"loss\": %.6f, \"rate\": %.6g, \"norm\": %.6g, "
            "\"tokens_per_second\": %.1f",
            (unsigned long long)r->step, r->seconds, r->loss, r->rate, r->norm, r->speed);
    if (r->goal)
        fprintf(log->file, ", \"goal\": \"%s\"", r->goal);
    else
        fprintf(log->file, ", \"bits_per_byte\": %.6f", r->bits);
    if (isfinite(r->validation))
        fprintf(log->file, ", \"validation_bits_per_byte\": %.6f", r->validation);
    fputs("}\n", log->file);
    fflush(log->file);
}

void train_log_close(train_log *log) {
    if (log->file)
        fclose(log->file);
    *log = (train_log){0};
}
