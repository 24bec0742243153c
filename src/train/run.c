#include "train/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "train/adapt.h"
#include "train/batch.h"
#include "train/gradients.h"
#include "train/keep.h"
#include "train/log.h"
#include "train/windows.h"

/* A run on its way. */
typedef struct run {
    const trainee *t;
    const train_request *r;
    pass pass;
    queue q;
    train_batch batch;
    train_progress progress;
    double sum, counted, since; /* since the last report: nats, tokens, and when that was */
    double rate, saved, validation;
    const train_goal *goal;    /* of the last step */
    bool stopped;              /* asked for, on any process */
    train_gradients gradients; /* of a team */
    train_log log;
    train_adapting adapting;
} run;

static size_t processes(const run *r) {
    return r->r->team.count ? r->r->team.count : 1;
}

static clsplat_status agree(const run *r, clsplat_status status) {
    const train_team *team = &r->r->team;
    return team->count ? team->agree(team->user, status) : status;
}

/* Whether this process writes and reports. */
static bool speaks(const run *r) {
    return r->r->team.own == 0;
}

/* An encoder reads whole windows only. */
static bool can_validate(const run *r) {
    bool whole = r->t->model->config.layer.encoder;
    return corpus_length(r->r->held_out) >= (whole ? r->pass.length : 2);
}

static clsplat_status validate(run *r, double *bits) {
    clsplat_status status = CLSPLAT_OK;
    const corpus *held = r->r->held_out;
    size_t all = corpus_length(held), most = all < r->r->validation_most ? all : r->r->validation_most;
    size_t at = 0, counted = 0;
    double sum = 0;
    while (at + 1 < most) {
        double part = 0;
        counted += train_batch_next(&r->batch, held, most, &at);
        TRY(pass_bring(&r->q, &r->pass, &r->batch.tokens));
        TRY(pass_forward(&r->q, &r->pass, NULL, NULL));
        TRY(pass_head(&r->q, &r->pass, 0));
        TRY(pass_likelihood(&r->q, &r->pass, &part));
        sum -= part;
    }
    *bits = counted ? sum / (double)counted * windows_bits(held) : (double)NAN;
fail:
    return status;
}

/* How far the budget is spent when the step that comes now ends. */
static double share(const run *r) {
    const train_settings *s = &r->r->settings;
    return s->steps ? ((double)r->progress.step + 1) / (double)s->steps : r->progress.seconds / s->seconds;
}

static bool is_over(const run *r) {
    const train_settings *s = &r->r->settings;
    return s->steps ? r->progress.step >= s->steps : r->progress.seconds >= s->seconds;
}

/* The next token of every row, in nats. */
static clsplat_status next_token(void *user, queue *q, const pass *p, const int32_t *ids, float scale,
                                 double *loss) {
    clsplat_status status = CLSPLAT_OK;
    (void)user, (void)ids;
    TRY(pass_forward(q, p, NULL, NULL));
    TRY(pass_head(q, p, scale));
    TRY(pass_backward(q, p));
    TRY(pass_likelihood(q, p, loss));
    *loss = -*loss;
fail:
    return status;
}

/* Of the step that comes now. */
static const train_goal *goal_of(const run *r) {
    static const train_goal only = {NULL, 1, next_token};
    const train_goal *goal = r->r->goals ? r->r->goals : &only;
    while (goal->until < 1 && share(r) > goal->until)
        ++goal;
    return goal;
}

/* The gradients of this process's windows, which the last part makes whole; *loss: theirs in all. */
static clsplat_status learn(run *r, double tokens, double *loss) {
    clsplat_status status = CLSPLAT_OK;
    const train_settings *s = &r->r->settings;
    r->goal = goal_of(r);
    *loss = 0;
    TRY(trainee_clear(&r->q, r->t));
    for (size_t part = 0; part < s->accumulate; ++part) {
        double its = 0;
        train_batch_draw(&r->batch, r->r->text, r->progress.step, part, r->r->team.own);
        TRY(pass_bring(&r->q, &r->pass, &r->batch.tokens));
        r->pass.behind = r->r->team.count && part + 1 == s->accumulate ? train_gradients_follow : NULL;
        r->pass.behind_user = &r->gradients;
        TRY(r->goal->learn(r->r->goal_user, &r->q, &r->pass, r->batch.tokens.ids, (float)(1 / tokens), &its));
        *loss += its;
    }
fail:
    return status;
}

static clsplat_status update(run *r) {
    clsplat_status status = CLSPLAT_OK;
    r->rate = train_rate(&r->r->settings, share(r));
    TRY(trainee_step(&r->q, r->t, &r->r->settings, r->rate, r->progress.step + 1));
    TRY(clsplat_device_finish(r->t->device));
fail:
    return status;
}

/* The losses of all, whether any is to stop, and the first one's clock. */
static clsplat_status meet(run *r, double *nats, double seconds) {
    clsplat_status status = CLSPLAT_OK;
    const train_team *team = &r->r->team;
    bool stopped = r->r->stopped && r->r->stopped(r->r->user);
    double numbers[3] = {*nats, stopped, speaks(r) ? seconds : 0};
    if (team->count)
        TRY(team->meet(team->user, numbers, 3));
    *nats = numbers[0];
    r->stopped = r->stopped || numbers[1] > 0;
    r->progress.seconds += numbers[2];
fail:
    return status;
}

static clsplat_status step(run *r) {
    clsplat_status status = CLSPLAT_OK;
    double begin = clock_seconds(), nats = 0,
           tokens = (double)(r->pass.asked * processes(r) * r->r->settings.accumulate);
    status = learn(r, tokens, &nats);
    TRY(r->r->team.count ? train_gradients_finish(&r->q, &r->gradients, status) : status);
    TRY(meet(r, &nats, 0));
    if (!isfinite(nats))
        return log_error(
            r->t->device->lib, CLSPLAT_NOT_FINITE,
            "%s: the loss of step %llu is no number; what was saved before stays: a lower learning rate, or "
            "a longer warm-up, may help",
            r->r->folder, (unsigned long long)r->progress.step + 1);
    TRY(agree(r, update(r)));
    r->sum += nats;
    r->counted += tokens;
    nats = 0;
    TRY(meet(r, &nats, clock_seconds() - begin));
    ++r->progress.step;
fail:
    return status;
}

/* With the windows of the next step. */
static clsplat_status adapt(run *r) {
    clsplat_status status = CLSPLAT_OK;
    size_t every = r->t->model->config.adaptation.steps;
    train_adapted result;
    if (!r->adapting.t || r->progress.step % every != 0)
        return CLSPLAT_OK;
    double begin = clock_seconds();
    train_batch_draw(&r->batch, r->r->text, r->progress.step, 0, 0);
    TRY(pass_bring(&r->q, &r->pass, &r->batch.tokens));
    TRY(train_adapt(&r->q, &r->pass, &r->adapting, &result));
    r->progress.seconds += clock_seconds() - begin;
    log_info(r->t->device->lib, "step %llu: %zu decisions about splats, %zu undone; loss %.5f, before %.5f",
             (unsigned long long)r->progress.step, result.kept, result.undone,
             result.after / (double)r->pass.rows, result.before / (double)r->pass.rows);
fail:
    return status;
}

/* Tokens that are read for one that counts. */
static double read_of_asked(const run *r) {
    return (double)r->pass.rows / (double)r->pass.asked;
}

static clsplat_status tell(run *r, train_report *report) {
    clsplat_status status = CLSPLAT_OK;
    const train_settings *s = &r->r->settings;
    double now = clock_seconds(), spent = r->progress.seconds - r->since, done = (double)r->progress.step;
    *report =
        (train_report){.step = r->progress.step,
                       .steps = s->steps,
                       .goal = r->goal->name,
                       .loss = r->sum / r->counted,
                       .bits = r->goal->name ? (double)NAN : r->sum / r->counted * windows_bits(r->r->text),
                       .validation = r->validation,
                       .rate = r->rate,
                       .speed = spent > 0 ? r->counted / spent * read_of_asked(r) : 0,
                       .seconds = r->progress.seconds};
    report->left = s->steps ? r->progress.seconds / done * ((double)s->steps - done)
                            : fmax(s->seconds - r->progress.seconds, 0);
    TRY(trainee_norm(&r->q, r->t, &report->norm));
    train_log_add(&r->log, report);
    if (r->r->report)
        r->r->report(r->r->user, report);
    r->sum = r->counted = 0;
    r->since = r->progress.seconds;
    r->log.told = now;
    r->validation = (double)NAN;
fail:
    return status;
}

static clsplat_status save(run *r) {
    clsplat_status status = CLSPLAT_OK;
    r->saved = clock_seconds();
    TRY(checkpoint_save(r->t, r->r->folder, &r->r->settings, r->progress, &r->adapting));
    if (r->r->keep && r->progress.step > 0)
        TRY(train_keep(r->t, r->r->folder, r->progress.step, r->r->keep));
fail:
    return status;
}

static bool save_is_due(const run *r) {
    if (r->r->save_steps)
        return r->progress.step % r->r->save_steps == 0;
    return r->r->save_every > 0 && clock_seconds() - r->saved >= r->r->save_every;
}

/* On the way a full disk is no reason to lose what is in memory. */
static clsplat_status save_or_warn(run *r) {
    clsplat_status status = save(r);
    if (status != CLSPLAT_IO)
        return status;
    log_warning(r->t->device->lib, "step %llu could not be saved, and training goes on: %.300s",
                (unsigned long long)r->progress.step, clsplat_last_error(r->t->device->lib));
    return CLSPLAT_OK;
}

/* What the first process does after a step: reports, and saves. */
static clsplat_status look_after(run *r, train_report *report) {
    clsplat_status status = CLSPLAT_OK;
    bool over = is_over(r), due = save_is_due(r), last = r->stopped || over;
    if ((over || (due && !r->stopped)) && can_validate(r))
        TRY(validate(r, &r->validation));
    if (last || due || goal_of(r) != r->goal || clock_seconds() - r->log.told >= r->r->report_every)
        TRY(tell(r, report));
    if (last)
        TRY(save(r));
    else if (due)
        TRY(save_or_warn(r));
fail:
    return status;
}

static clsplat_status steps(run *r, train_report *report) {
    clsplat_status status = CLSPLAT_OK;
    while (!is_over(r)) {
        TRY(step(r));
        TRY(agree(r, adapt(r)));
        TRY(agree(r, speaks(r) ? look_after(r, report) : CLSPLAT_OK));
        if (r->stopped && !is_over(r))
            return log_error(r->t->device->lib, CLSPLAT_CANCELLED,
                             "stopped at step %llu, which is saved: --resume goes on from there",
                             (unsigned long long)r->progress.step);
    }
fail:
    return status;
}

clsplat_status train_check(clsplat *lib, const train_request *request) {
    size_t count = corpus_length(request->text), length = request->settings.context;
    if (count <= length)
        return log_error(lib, CLSPLAT_INVALID,
                         "the text has %zu %s to learn from, which is no more than a window of %zu: "
                         "more text, or a smaller --context",
                         count, request->text->tokens ? "tokens" : "bytes", length);
    if (request->team.count && request->settings.batch % request->team.count != 0)
        return log_error(
            lib, CLSPLAT_INVALID,
            "a batch of %zu windows does not divide by %zu processes; choose another --batch, or "
            "another number of them",
            request->settings.batch, request->team.count);
    return CLSPLAT_OK;
}

static bool is_short(const clsplat_device *device) {
    return (double)clsplat_device_memory(device).now > (double)device->info.limits.global_memory;
}

/* Where there is no room for what all layers leave for the way back, they share one place, and are run again.
 * Some devices hand out memory that they do not have. */
static clsplat_status open_pass(run *r) {
    const train_settings *s = &r->r->settings;
    clsplat_device *device = r->t->device;
    size_t windows = s->batch / processes(r), asked = train_batch_asked(r->t, s);
    clsplat_status status = pass_open(r->t, windows, s->context, asked, r->r->again, &r->pass);
    bool is_out = status == CLSPLAT_MEMORY || (status == CLSPLAT_OK && is_short(device));
    if (!is_out || r->r->again)
        return status;
    log_info(device->lib, "memory is short for a step of %zu tokens: layers are run again on the way back",
             windows * s->context);
    pass_close(&r->pass);
    return pass_open(r->t, windows, s->context, asked, true, &r->pass);
}

/* Everything that steps need. */
static clsplat_status begin(run *r) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = r->t->device->lib;
    TRY(open_pass(r));
    TRY(train_batch_open(r->t, &r->r->settings, r->pass.batch, processes(r), &r->batch));
    if (r->r->team.count)
        TRY(train_gradients_open(r->t, &r->r->team, &r->gradients));
    if (r->r->held_out->count > 1 && !can_validate(r))
        log_warning(lib,
                    "what is held out is shorter than a window of %zu: there is no validation; "
                    "--validation names a longer text",
                    r->pass.length);
    if (speaks(r))
        TRY(train_log_open(lib, r->r->folder, &r->log));
    if (train_adapts(r->t) && r->r->team.count)
        TRY(log_error(lib, CLSPLAT_UNSUPPORTED,
                      "%s: splats do not adapt over several processes: set adaptation.enable_adaptation to "
                      "false in its config.json, or leave mpirun away",
                      r->r->folder));
    if (train_adapts(r->t))
        TRY(train_adapting_open(r->t, r->r->adapted, r->r->user, &r->adapting));
    if (r->adapting.t && r->progress.step > 0)
        TRY(checkpoint_load_lives(lib, r->r->folder, &r->adapting));
    r->since = r->progress.seconds;
    r->saved = clock_seconds();
    /* Who stopped at the end may have died before the model was written. */
    if (speaks(r) && (r->progress.step == 0 || is_over(r)))
        TRY(save(r));
fail:
    return status;
}

/* Resuming goes on to the bits of a training that was never stopped only with its text. */
static void compare_text(run *r) {
    uint64_t digest = corpus_digest(r->r->text);
    if (r->progress.text && r->progress.text != digest && speaks(r))
        log_warning(r->t->device->lib,
                    "%s: learned from another text up to here, and goes on with this one; to go on as if it "
                    "had not stopped, name the same files, and --validation or --match as before",
                    r->r->folder);
    r->progress.text = digest;
}

clsplat_status train_run(const trainee *t, const train_request *request, train_report *last) {
    clsplat_status status = CLSPLAT_OK;
    train_report report = {0};
    run r = {.t = t, .r = request, .progress = request->progress, .validation = (double)NAN};
    TRY(train_check(t->device->lib, request));
    compare_text(&r);
    queue_begin(t->device, 0, NULL, &r.q);
    TRY(agree(&r, begin(&r)));
    TRY(steps(&r, &report));
fail:
    if (last)
        *last = report;
    train_log_close(&r.log);
    train_batch_close(&r.batch);
    train_gradients_close(&r.q, &r.gradients);
    train_adapting_close(&r.adapting);
    pass_close(&r.pass);
    return status;
}
