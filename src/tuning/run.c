#include <clsplat/tune.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sized.h"
#include "op/choose.h"
#include "tuning/task.h"

/* What is tuned under each name of clsplat_tune_options.op. */
typedef struct subject {
    const char *op, *words;
    const example_kind *kind;
    clsplat_covariance covariance;
    bool causal;
} subject;

static const subject subjects[] = {
    {"softmax", "softmax", &example_softmax, CLSPLAT_DIAGONAL, false},
    {"softmax", "softmax causal", &example_softmax, CLSPLAT_DIAGONAL, true},
    {"gaussian", "write diagonal", &example_write, CLSPLAT_DIAGONAL, false},
    {"gaussian", "read diagonal", &example_read, CLSPLAT_DIAGONAL, false},
    {"gaussian", "log_density diagonal", &example_log_density, CLSPLAT_DIAGONAL, false},
    {"gaussian", "read causal", &example_read, CLSPLAT_DIAGONAL, true},
    {"gaussian-isotropic", "write isotropic", &example_write, CLSPLAT_ISOTROPIC, false},
    {"gaussian-isotropic", "read isotropic", &example_read, CLSPLAT_ISOTROPIC, false},
    {"gaussian-full", "write full", &example_write, CLSPLAT_FULL, false},
    {"gaussian-full", "read full", &example_read, CLSPLAT_FULL, false},
    {"near-far", "near-far causal", &example_near_far, CLSPLAT_DIAGONAL, true},
    {"gemm", "gemm", &example_gemm, CLSPLAT_DIAGONAL, false},
    {"softmax-backward", "softmax-backward", &example_softmax_backward, CLSPLAT_DIAGONAL, false},
    {"softmax-backward", "softmax-backward causal", &example_softmax_backward, CLSPLAT_DIAGONAL, true},
    {"near-far-backward", "near-far-backward causal", &example_near_far_backward, CLSPLAT_DIAGONAL, true},
};
enum {
    SUBJECTS = sizeof subjects / sizeof *subjects,
    KNOWN = 16,
    DIM_LIMIT = 1024,
    PANEL = 4096 /* queries that a causal read gets */
};

typedef struct session {
    clsplat *lib;
    const clsplat_tune_options *options;
    text path;        /* of the user's records */
    tune_database db; /* them */
    tune_journal journal;
    size_t tasks, done; /* how many there are, how many are over */
    double begun;
    tuning_task task; /* the current task's */
    double task_begun, task_seconds;
    tune_candidate saved;
    bool has_saved;
    tune_database tried; /* candidates of this and earlier runs, for those who want to look */
    clsplat_status tried_status;
} session;

void clsplat_tune_options_defaults_sized(clsplat_tune_options *defaults) {
    clsplat_tune_options own = {.batch = 1,
                                .heads = 4,
                                .queries = 4096,
                                .keys = 4096,
                                .dim = 64,
                                .value_dim = 64,
                                .splats = 256,
                                .seconds = 60};
    sized_write(&own, sizeof own, defaults);
}

static bool is_wanted(const clsplat_tune_options *o, const subject *t) {
    return !o->op || strcmp(o->op, t->op) == 0;
}

static clsplat_status save_best(session *s, const tune_result *r) {
    clsplat_status status = CLSPLAT_OK;
    if (!isfinite(r->seconds) ||
        (s->has_saved && s->saved.row == r->best.row && s->saved.index == r->best.index))
        return CLSPLAT_OK;
    tune_record record = task_record(&s->task, r->best, r->seconds);
    TRY(tune_database_add(s->lib, &s->db, &record));
    TRY(tune_database_save(s->lib, &s->db, s->path.data));
    s->saved = r->best;
    s->has_saved = true;
fail:
    return status;
}

static double share_done(const session *s, const tune_result *r) {
    double own = isfinite(s->task_seconds) ? (clock_seconds() - s->task_begun) / s->task_seconds
                                           : (double)r->tried / (double)s->task.points;
    return ((double)s->done + fmin(own, 1)) / (double)s->tasks;
}

static clsplat_status tell(session *s, const tune_result *r, bool finished) {
    const clsplat_tune_options *o = s->options;
    char best[sizeof(tune_record)] = "";
    if (!o->progress)
        return CLSPLAT_OK;
    if (isfinite(r->seconds)) {
        tune_record record = task_record(&s->task, r->best, r->seconds);
        snprintf(best, sizeof best, "%s %s", record.variant, record.parameters);
    }
    clsplat_tune_step step = {.op = s->task.words,
                              .best = best,
                              .best_seconds = r->seconds,
                              .first_seconds = r->first,
                              .tried = r->tried,
                              .rejected = r->rejected,
                              .done = finished ? (double)(s->done + 1) / (double)s->tasks : share_done(s, r),
                              .finished = finished};
    if (o->progress(o->progress_user, &step))
        return CLSPLAT_OK;
    return log_error(s->lib, CLSPLAT_CANCELLED, "tuning was stopped; what it found until then is kept");
}

static clsplat_status report(void *user, const tune_result *r) {
    session *s = user;
    clsplat_status status = CLSPLAT_OK;
    TRY(save_best(s, r));
    TRY(tell(s, r, false));
fail:
    return status;
}

static void remember(void *user, tune_candidate candidate, double seconds) {
    session *s = user;
    tune_record record = task_record(&s->task, candidate, seconds);
    if (s->tried_status == CLSPLAT_OK)
        s->tried_status = tune_database_add(s->lib, &s->tried, &record);
}

static clsplat_status save_tried(session *s) {
    clsplat_status status = s->tried_status;
    text path = tune_user_path("tried.txt");
    if (!path.data)
        status = log_error(s->lib, CLSPLAT_MEMORY, "no memory for what was tried");
    if (status == CLSPLAT_OK)
        status = tune_database_save(s->lib, &s->tried, path.data);
    text_free(&path);
    return status;
}

static example_shape shape_of(const clsplat_tune_options *o, const subject *t) {
    example_shape shape = {o->batch,  o->heads, o->queries,    o->keys,   o->dim,           o->value_dim,
                           o->splats, o->dtype, t->covariance, t->causal, t->kind->tolerant};
    if (t->causal && !t->kind->of_splats && shape.keys < shape.queries)
        shape.keys = shape.queries; /* each sees one */
    if (t->causal && t->kind->of_splats && shape.queries > PANEL)
        shape.queries = PANEL;
    return shape;
}

static clsplat_status run_task(session *s, clsplat_device *device, const subject *t) {
    clsplat_status status = CLSPLAT_OK;
    example_shape shape = shape_of(s->options, t);
    tune_candidate known[KNOWN];
    tune_database all = {0};
    tune_result result;
    tune_search search = {.limits = &device->info.limits,
                          .known = known,
                          .candidates = SIZE_MAX,
                          .exhaustive = !isfinite(s->options->seconds),
                          .listener = s,
                          .report = report,
                          .tried = remember};
    s->task = (tuning_task){.device = device, .words = t->words, .journal = &s->journal, .db = &s->db};
    s->has_saved = false;
    s->task_begun = clock_seconds();
    double left = s->options->seconds - (s->task_begun - s->begun);
    s->task_seconds =
        fmax(left / (double)(s->tasks - s->done), 1); /* there is time for one candidate always */
    TRY(task_open(&s->task, t->kind, &shape, &search));
    TRY(op_records_load(s->lib, &all));
    search.known_count = task_known(&s->task, &all, known, KNOWN);
    search.seconds = s->task_seconds - (clock_seconds() - s->task_begun);
    status = tune_search_run(s->lib, &search, &result);
    clsplat_status kept = save_tried(s);
    TRY(status == CLSPLAT_OK ? kept : status);
    if (!isfinite(result.seconds))
        TRY(log_error(s->lib, CLSPLAT_UNSUPPORTED, "no variant of %s runs here: %s", t->words,
                      log_quiet_words(s->lib)));
    TRY(tell(s, &result, true));
fail:
    tune_database_free(&all);
    task_close(&s->task);
    return status;
}

/* A candidate that did not end: the first time somebody may have ended the process, or something else; it is
 * tried once more. The second time it is not to be tried again. */
static clsplat_status suspect(session *s, const tune_record *crashed) {
    clsplat_status status = CLSPLAT_OK;
    tune_database suspects = {0};
    text path = tune_user_path("suspects.txt");
    if (!path.data)
        TRY(log_error(s->lib, CLSPLAT_MEMORY, "no memory for the tuner's journal"));
    if (access(path.data, F_OK) == 0)
        TRY(tune_database_load(s->lib, &suspects, path.data));
    bool again = tune_database_same(&suspects, crashed) != NULL;
    log_warning(s->lib, "%s %s did not end when it was tried last%s", crashed->op, crashed->parameters,
                again ? ", for the second time, and will not be tried again" : "; it is tried once more");
    TRY(tune_database_add(s->lib, again ? &s->db : &suspects, crashed));
    TRY(again ? tune_database_save(s->lib, &s->db, s->path.data)
              : tune_database_save(s->lib, &suspects, path.data));
fail:
    tune_database_free(&suspects);
    text_free(&path);
    return status;
}

/* The folder of the user's records, with a journal of our own; what a process before left in it has crashed.
 */
static clsplat_status open_session(session *s) {
    clsplat_status status = CLSPLAT_OK;
    text folder = tune_user_path(""), journal = tune_user_path("trying.txt"), left = {0};
    tune_record crashed;
    s->path = tune_user_path("tuning.txt");
    if (!folder.data || !journal.data || !s->path.data)
        TRY(log_error(
            s->lib, CLSPLAT_IO,
            "there is no place to keep tuning records: set HOME, or XDG_DATA_HOME, to a full path"));
    file_make_folder(folder.data);
    TRY(tune_journal_open(s->lib, journal.data, &s->journal, &left));
    TRY(tune_database_load_user(s->lib, &s->db));
    TRY(tune_database_load_tried(s->lib, &s->tried, NULL));
    if (left.data && tune_record_read(left.data, &crashed))
        TRY(suspect(s, &crashed));
    tune_journal_end(&s->journal);
fail:
    text_free(&left);
    text_free(&journal);
    text_free(&folder);
    return status;
}

static void close_session(session *s) {
    tune_journal_close(&s->journal);
    tune_database_free(&s->db);
    tune_database_free(&s->tried);
    text_free(&s->path);
}

/* "softmax, gaussian, …", each once. */
static text names_of(void) {
    text names = {0};
    for (size_t i = 0; i < SUBJECTS; ++i)
        if (i == 0 || strcmp(subjects[i].op, subjects[i - 1].op) != 0)
            text_add(&names, "%s%s", i ? ", " : "", subjects[i].op);
    return names;
}

static clsplat_status check_name(clsplat *lib, const char *op) {
    for (size_t i = 0; i < SUBJECTS; ++i)
        if (!op || strcmp(op, subjects[i].op) == 0)
            return CLSPLAT_OK;
    text names = names_of();
    clsplat_status status = log_error(lib, CLSPLAT_INVALID, "`%s` cannot be tuned; there are %s",
                                      text_show(op).bytes, text_ok(&names) ? names.data : "others");
    text_free(&names);
    return status;
}

static clsplat_status check_options(clsplat *lib, const clsplat_tune_options *o) {
    const size_t counts[] = {o->batch, o->heads, o->queries, o->keys, o->dim, o->value_dim, o->splats};
    static const char *const names[] = {"batch", "heads", "queries", "keys", "dim", "value_dim", "splats"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i)
        if (counts[i] < 1 || counts[i] > INT32_MAX)
            return log_error(lib, CLSPLAT_INVALID, "%s is %zu; it must be from 1 to %d", names[i], counts[i],
                             INT32_MAX);
    bool products = o->op && strcmp(o->op, "gemm") == 0;
    if (!products && (o->dim > DIM_LIMIT || o->value_dim > DIM_LIMIT))
        return log_error(lib, CLSPLAT_INVALID, "dim is %zu and value_dim %zu; attention has at most %d",
                         o->dim, o->value_dim, DIM_LIMIT);
    if (!(o->seconds > 0))
        return log_error(lib, CLSPLAT_INVALID, "the budget is %g seconds; it must be above 0", o->seconds);
    return CLSPLAT_OK;
}

clsplat_status clsplat_tune_sized(clsplat_device *device, const clsplat_tune_options *options_given) {
    clsplat_tune_options options = clsplat_tune_options_defaults();
    clsplat_status status = CLSPLAT_OK;
    session s = {
        .lib = device->lib, .options = &options, .journal = {.descriptor = -1}, .begun = clock_seconds()};
    TRY(SIZED_READ(device->lib, options, options_given));
    TRY(check_name(device->lib, options.op));
    TRY(check_options(device->lib, &options));
    for (size_t i = 0; i < SUBJECTS; ++i)
        s.tasks += is_wanted(&options, &subjects[i]);
    TRY(open_session(&s));
    for (size_t i = 0; i < SUBJECTS; ++i) {
        if (!is_wanted(&options, &subjects[i]))
            continue;
        TRY(run_task(&s, device, &subjects[i]));
        ++s.done;
    }
fail:
    close_session(&s);
    op_forget(device); /* so that the next call finds the new records */
    return status;
}

clsplat_status clsplat_tune_export(clsplat *lib, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    tune_database db = {0};
    TRY(tune_database_load_user(lib, &db));
    TRY(tune_database_save(lib, &db, path));
fail:
    tune_database_free(&db);
    return status;
}

clsplat_status clsplat_tune_import(clsplat *lib, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    session s = {.lib = lib, .journal = {.descriptor = -1}};
    tune_database more = {0};
    TRY(tune_database_load(lib, &more, path));
    TRY(open_session(&s));
    for (size_t i = 0; i < more.count; ++i) {
        const tune_record *new = &more.records[i], *old = tune_database_same(&s.db, new);
        if (!old || old->source != new->source || new->seconds < old->seconds)
            TRY(tune_database_add(lib, &s.db, new));
    }
    TRY(tune_database_save(lib, &s.db, s.path.data));
fail:
    close_session(&s);
    tune_database_free(&more);
    return status;
}
