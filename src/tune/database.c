#include "tune/database.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static const char HEADER[] =
    "# CLSplat tuning records; `clsplat tune` adds to them, and a line may be removed.\n";

static bool same_device(const tune_device *a, const tune_device *b) {
    return tune_device_match(a, b) == TUNE_SAME;
}

static bool same_candidate(const tune_record *a, const tune_record *b) {
    return strcmp(a->variant, b->variant) == 0 && strcmp(a->parameters, b->parameters) == 0;
}

/* There is one best for a class of shapes on a device, but any number that crashed, or that were tried. */
static bool same_use(const tune_database *db, const tune_record *a, const tune_record *b) {
    bool crashed = isinf(a->seconds);
    return strcmp(a->op, b->op) == 0 && memcmp(&a->shape, &b->shape, sizeof a->shape) == 0 &&
           same_device(&a->on, &b->on) &&
           (db->tried ? same_candidate(a, b)
                      : crashed == (bool)isinf(b->seconds) && (!crashed || same_candidate(a, b)));
}

const tune_record *tune_database_same(const tune_database *db, const tune_record *record) {
    for (size_t i = 0; i < db->count; ++i)
        if (same_use(db, &db->records[i], record))
            return &db->records[i];
    return NULL;
}

clsplat_status tune_database_add(clsplat *lib, tune_database *db, const tune_record *record) {
    const tune_record *old = tune_database_same(db, record);
    if (old) {
        db->records[old - db->records] = *record;
        return CLSPLAT_OK;
    }
    if (db->count == db->capacity) {
        size_t capacity = db->capacity ? 2 * db->capacity : 32;
        tune_record *grown = realloc(db->records, capacity * sizeof *grown);
        if (!grown)
            return log_error(lib, CLSPLAT_MEMORY, "no memory for %zu tuning records", capacity);
        db->records = grown;
        db->capacity = capacity;
    }
    db->records[db->count++] = *record;
    return CLSPLAT_OK;
}

static clsplat_status add_line(clsplat *lib, tune_database *db, const char *origin, size_t number,
                               const char *line) {
    tune_record record;
    if (line[0] == '\0' || line[0] == '#')
        return CLSPLAT_OK;
    if (tune_record_read(line, &record))
        return tune_database_add(lib, db, &record);
    log_warning(lib, "%s:%zu: this is no tuning record, and is left out: %s", origin, number,
                text_show(line).bytes);
    return CLSPLAT_OK;
}

clsplat_status tune_database_parse(clsplat *lib, tune_database *db, const char *origin, const char *lines) {
    clsplat_status status = CLSPLAT_OK;
    text line = {0};
    for (size_t number = 1; *lines; ++number) {
        size_t length = strcspn(lines, "\n");
        text_free(&line);
        text_add_bytes(&line, lines, length);
        if (!text_ok(&line))
            TRY(log_error(lib, CLSPLAT_MEMORY, "no memory for a line of %s", origin));
        TRY(add_line(lib, db, origin, number, line.data));
        lines += length + (lines[length] == '\n');
    }
fail:
    text_free(&line);
    return status;
}

clsplat_status tune_database_load(clsplat *lib, tune_database *db, const char *path) {
    enum { LIMIT = 16 << 20 };
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    TRY(file_load(lib, path, LIMIT, &bytes, &count));
    for (char *nul; (nul = memchr(bytes, '\0', count));) /* one line becomes bad, not the rest of the file */
        *nul = '\1';
    TRY(tune_database_parse(lib, db, path, bytes));
fail:
    free(bytes);
    return status;
}

clsplat_status tune_database_save(clsplat *lib, const tune_database *db, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {.descriptor = -1};
    text lines = {0};
    text_add(&lines, "%s", HEADER);
    for (size_t i = 0; i < db->count; ++i) {
        tune_record_write(&db->records[i], &lines);
        text_add(&lines, "\n");
    }
    if (!text_ok(&lines))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory to write it", path));
    TRY(file_create(lib, path, &file));
    TRY(file_write(lib, &file, lines.data, lines.length));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    text_free(&lines);
    return status;
}

clsplat_status tune_database_load_tried(clsplat *lib, tune_database *db, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    text users = tune_user_path("tried.txt");
    db->tried = true;
    if (path || (users.data && file_is_there(users.data)))
        status = tune_database_load(lib, db, path ? path : users.data);
    text_free(&users);
    return status;
}

void tune_database_free(tune_database *db) {
    free(db->records);
    *db = (tune_database){0};
}

text tune_user_path(const char *name) {
    text path = {0};
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && data[0] == '/')
        text_add(&path, "%s/clsplat/%s", data, name);
    else if (home && home[0] == '/')
        text_add(&path, "%s/.local/share/clsplat/%s", home, name);
    return path;
}

clsplat_status tune_database_load_user(clsplat *lib, tune_database *db) {
    clsplat_status status = CLSPLAT_OK;
    text path = tune_user_path("tuning.txt");
    if (path.data && file_is_there(path.data))
        status = tune_database_load(lib, db, path.data);
    text_free(&path);
    return status;
}

/* Lower is better, place by place. */
typedef struct rank {
    double by[4];
} rank;

static bool is_better(const rank *a, const rank *b) {
    for (int i = 0; i < 4; ++i)
        if (a->by[i] != b->by[i])
            return a->by[i] < b->by[i];
    return false;
}

const tune_record *tune_database_find(const tune_database *db, const tune_query *query) {
    const double farthest_shape = 8;
    const tune_record *best = NULL;
    rank best_rank = {{DBL_MAX}};
    for (size_t i = 0; i < db->count; ++i) {
        const tune_record *r = &db->records[i];
        rank own = {{tune_device_match(&r->on, &query->on), tune_device_distance(&r->on, &query->on),
                     tune_shape_distance(&r->shape, &query->shape), r->seconds}};
        if (strcmp(r->op, query->op) == 0 && own.by[0] < TUNE_FOREIGN && own.by[2] <= farthest_shape &&
            isfinite(r->seconds) && is_better(&own, &best_rank) && query->accept(query->user, r)) {
            best = r;
            best_rank = own;
        }
    }
    return best;
}
