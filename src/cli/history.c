#include "cli/history.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/log.h"

clsplat_status history_open(clsplat *lib, const char *path, const char *const *levels, history *h) {
    *h = (history){.lib = lib, .path = path, .levels = levels, .file = fopen(path, "w")};
    if (!h->file)
        return log_error(lib, CLSPLAT_IO, "%s: %s", path, strerror(errno));
    return CLSPLAT_OK;
}

static void write_line(history *h, json_t *line) {
    bool written = line && json_dumpf(line, h->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
                   fputc('\n', h->file) != EOF && fflush(h->file) == 0;
    h->failed |= !written;
    json_decref(line);
}

static json_t *numbers(const uint64_t pair[2]) {
    json_t *array = json_array();
    for (size_t i = 0; i < 2; ++i)
        if (pair[i])
            json_array_append_new(array, json_integer((json_int_t)pair[i]));
    return array;
}

/* JSON has no infinity: an error that could not be computed is null. */
static json_t *real(double value) {
    json_t *number = json_real(value);
    return number ? number : json_null();
}

void history_add(void *user, const clsplat_adapt_event *e) {
    history *h = user;
    if (++h->lines > HISTORY_LINES) {
        ++h->untold;
        return;
    }
    json_t *line =
        json_pack("{s:i, s:s}", "cycle", (int)e->cycle, "decision", clsplat_decision_name(e->decision));
    if (e->decision != CLSPLAT_ADJUST)
        json_object_update_new(line, json_pack("{s:i, s:s, s:o, s:o, s:i, s:{s:o, s:o, s:o, s:o, s:o}}",
                                               "head", (int)e->head, "level", h->levels[e->level], "from",
                                               numbers(e->from), "to", numbers(e->to), "age", (int)e->age,
                                               "reason", "use", real(e->use), "entropy", real(e->entropy),
                                               "leave_one_out", real(e->leave_one_out), "coverage",
                                               real(e->coverage), "expected_gain", real(e->expected_gain)));
    json_object_update_new(line, json_pack("{s:o, s:o, s:b}", "error_before", real(e->error_before),
                                           "error_after", real(e->error_after), "kept", (int)e->kept));
    write_line(h, line);
}

clsplat_status history_end(history *h) {
    if (!h->file)
        return CLSPLAT_OK;
    if (h->untold)
        write_line(h, json_pack("{s:I}", "not_told", (json_int_t)h->untold));
    if (h->failed)
        return log_error(h->lib, CLSPLAT_IO, "%s: not every decision could be written", h->path);
    return CLSPLAT_OK;
}

void history_close(history *h) {
    if (h->file)
        fclose(h->file);
    h->file = NULL;
}
