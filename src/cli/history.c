#include "cli/history.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/log.h"
#include "format/json.h"

clsplat_status history_open(clsplat *lib, const char *path, const char *const *levels, bool more,
                            history *h) {
    *h = (history){.lib = lib, .path = path, .levels = levels, .file = fopen(path, more ? "a" : "w")};
    if (!h->file)
        return log_error(lib, CLSPLAT_IO, "%s: %s", path, strerror(errno));
    return CLSPLAT_OK;
}

static void write_line(history *h, json_t *line) {
    bool written = line && json_dumpf(line, h->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
                   fputc('\n', h->file) != EOF && fflush(h->file) == 0 && !ferror(h->file);
    h->failed |= !written;
    json_decref(line);
}

static json_t *numbers(const uint64_t pair[2]) {
    json_t *array = json_array();
    for (size_t i = 0; i < 2; ++i)
        if (pair[i])
            array = json_push(array, json_integer((json_int_t)pair[i]));
    return array;
}

/* JSON has no infinity: an error that could not be computed is null. */
static json_t *real(double value) {
    json_t *number = json_real(value);
    return number ? number : json_null();
}

/* What ended when a decision was kept: a splat that dies, merges or splits has lived as long as the event
 * says. */
static void count(history *h, const clsplat_adapt_event *e) {
    history_cycle *c = &h->now;
    bool ends = e->kept && (e->decision == CLSPLAT_DEATH || e->decision == CLSPLAT_MERGE ||
                            e->decision == CLSPLAT_MITOSIS);
    ++(e->kept ? c->kept : c->undone)[e->decision];
    c->ended += ends;
    c->age += ends ? e->age : 0;
    c->oldest = ends && e->age > c->oldest ? e->age : c->oldest;
}

/* Statistics of the cycle that is over. */
static void tell_cycle(history *h) {
    const history_cycle *c = &h->now;
    json_t *kept = json_object(), *undone = json_object();
    for (int d = 0; d < CLSPLAT_DECISIONS; ++d) {
        const char *name = clsplat_decision_name((clsplat_decision)d);
        kept = json_put(kept, name, json_integer((json_int_t)c->kept[d]));
        undone = json_put(undone, name, json_integer((json_int_t)c->undone[d]));
    }
    write_line(h, json_pack("{s:i, s:o, s:o, s:{s:i, s:o, s:i}}", "cycle", (int)h->cycle, "kept", kept,
                            "undone", undone, "lifetimes", "ended", (int)c->ended, "mean",
                            c->ended ? json_real((double)c->age / (double)c->ended) : json_null(), "longest",
                            (int)c->oldest));
    h->now = (history_cycle){0};
}

void history_add(void *user, const clsplat_adapt_event *e) {
    history *h = user;
    if (h->cycle && h->cycle != e->cycle)
        tell_cycle(h);
    h->cycle = e->cycle;
    count(h, e);
    if (++h->lines > HISTORY_LINES) {
        ++h->untold;
        return;
    }
    json_t *line =
        json_pack("{s:i, s:s}", "cycle", (int)e->cycle, "decision", clsplat_decision_name(e->decision));
    if (e->decision != CLSPLAT_ADJUST) {
        if (h->levels)
            line = json_put(line, "level", json_string(h->levels[e->level]));
        else
            line = json_put(line, "layer", json_integer((json_int_t)e->layer));
        h->failed |=
            json_object_update_new(line, json_pack("{s:i, s:o, s:o, s:i, s:{s:o, s:o, s:o, s:o, s:o}}",
                                                   "head", (int)e->head, "from", numbers(e->from), "to",
                                                   numbers(e->to), "age", (int)e->age, "reason", "use",
                                                   real(e->use), "entropy", real(e->entropy), "leave_one_out",
                                                   real(e->leave_one_out), "coverage", real(e->coverage),
                                                   "expected_gain", real(e->expected_gain))) != 0;
    } else {
        line = json_put(line, "moved", real(e->moved));
    }
    h->failed |= json_object_update_new(line, json_pack("{s:o, s:o, s:b}", "error_before",
                                                        real(e->error_before), "error_after",
                                                        real(e->error_after), "kept", (int)e->kept)) != 0;
    write_line(h, line);
}

void history_fail(history *h) {
    if (h->file)
        write_line(h, json_pack("{s:b}", "failed", 1));
}

clsplat_status history_end(history *h) {
    if (!h->file)
        return CLSPLAT_OK;
    if (h->cycle)
        tell_cycle(h);
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
