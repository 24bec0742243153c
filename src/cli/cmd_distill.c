/* clsplat distill: layers of a language model as splats, windows or near-far, fitted to the model. */
#include <clsplat/clsplat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/report.h"
#include "cli/train.h"
#include "model/pattern.h"
#include "train/distill.h"

static const char summary[] =
    "Replaces the attention of a model's layers and fits them to it, on files and folders of text: each "
    "layer's heads "
    "first, on what the model itself feeds that layer, then the model's distribution of the next token. DIR "
    "becomes a model's folder that generate, eval, chat and train --from read. At the end a table says what "
    "each "
    "layer kept: of the bits a byte that the model loses with nothing in that layer's place, the share that "
    "it does "
    "not lose with the replacement. Ctrl-C saves, and --resume goes on.";

typedef struct distill_options {
    train_options train;
    char *attention, *layers, *splats, *chunk, *window, *tolerance, *learn, *heads, *measure;
} distill_options;

/* A distillation on its way. */
typedef struct fitting {
    cli *c;
    const distill_options *o;
    distill_plan plan;
    distill_change change;
    train_request r;
    corpus data, held;
    bool resumed;
} fitting;

static clsplat_status refuse_beside_resume(cli *c, const distill_options *o) {
    const struct {
        const char *name, *value;
    } given[] = {
        {"--attention", o->attention},   {"--layers", o->layers},     {"--splats", o->splats},
        {"--chunk", o->chunk},           {"--window", o->window},     {"--tolerance", o->tolerance},
        {"--learn", o->learn},           {"--heads", o->heads},       {"--measure", o->measure},
        {"--seed", o->train.seed},       {"--rate", o->train.rate},   {"--batch", o->train.batch},
        {"--context", o->train.context}, {"--dtype", o->train.dtype}, {"--accumulate", o->train.accumulate}};
    for (size_t i = 0; i < sizeof given / sizeof *given; ++i)
        if (given[i].value)
            return cli_misuse(c,
                              "%s: --resume goes on as it began; leave it away, or begin in another folder",
                              given[i].name);
    return CLSPLAT_OK;
}

static clsplat_status read_change(fitting *f) {
    clsplat_status status = CLSPLAT_OK;
    const distill_options *o = f->o;
    uint64_t splats = 0, chunk = 0, window = 0, measured = f->r.validation_most;
    f->change = (distill_change){.kinds = o->attention ? o->attention : "splat", .layers = o->layers};
    f->change.tolerance = -1;
    f->plan.learns = DISTILL_PROJECTIONS;
    f->plan.heads = 0.5;
    TRY(cli_count(f->c, "--splats", o->splats, 1, &splats));
    TRY(cli_count(f->c, "--chunk", o->chunk, 1, &chunk));
    TRY(cli_count(f->c, "--window", o->window, 1, &window));
    TRY(cli_number(f->c, "--tolerance", o->tolerance, &f->change.tolerance));
    TRY(cli_number(f->c, "--heads", o->heads, &f->plan.heads));
    TRY(cli_size(f->c, "--measure", o->measure, &measured));
    f->change.splats = splats;
    f->change.chunk = chunk;
    f->change.window = window;
    f->r.validation_most = measured;
    if (o->tolerance && f->change.tolerance < 0)
        return cli_misuse(f->c, "--tolerance: `%s` is below 0", o->tolerance);
    if (f->plan.heads < 0 || f->plan.heads > 1)
        return cli_misuse(f->c, "--heads: `%s` is no share of the budget, from 0 to 1", o->heads);
    if (o->learn && !distill_learning_named(o->learn, &f->plan.learns))
        return cli_misuse(f->c, "--learn: `%s` is neither splats, projections nor all", o->learn);
fail:
    return status;
}

/* What is to be done, before anything is written. */
static clsplat_status decide(fitting *f) {
    clsplat_status status = CLSPLAT_OK;
    cli *c = f->c;
    const train_options *o = &f->o->train;
    f->resumed = o->resume && checkpoint_is_there(o->folder);
    if (f->resumed) {
        if (!distill_is_there(o->folder))
            return log_error(
                c->lib, CLSPLAT_INVALID,
                "%s: has no distill.json: `clsplat train` began there, and `clsplat train DATA... "
                "-o %s --resume` goes on",
                o->folder, o->folder);
        TRY(refuse_beside_resume(c, f->o));
        TRY(checkpoint_look(c->lib, o->folder, &f->r.settings, &f->r.progress));
        TRY(distill_load(c->lib, &f->plan));
        f->r.validation_most = (size_t)f->plan.held;
        return train_read_budget(c, o->budget, &f->r.settings);
    }
    if (!checkpoint_is_there(o->folder) && checkpoint_is_model(o->folder))
        return log_error(
            c->lib, CLSPLAT_INVALID,
            "%s: holds a model, and no training.safetensors to go on from: choose another folder; "
            "or remove this one if a distillation began it, and begin again without --resume",
            o->folder);
    if (checkpoint_is_there(o->folder))
        return log_error(c->lib, CLSPLAT_INVALID,
                         "%s: holds a model already: choose another folder, or --resume to go on with a "
                         "distillation that was stopped",
                         o->folder);
    TRY(train_read_numbers(c, o, &f->r.settings));
    TRY(train_read_budget(c, o->budget, &f->r.settings));
    TRY(read_change(f));
fail:
    return status;
}

static clsplat_status look(fitting *f) {
    clsplat_status status = CLSPLAT_OK;
    const train_options *o = &f->o->train;
    if (!o->folder)
        return cli_misuse(f->c, "-o DIR is needed: the folder that the model goes to");
    f->plan.model = f->c->arguments[0];
    f->plan.folder = o->folder;
    f->r.settings = train_settings_defaults();
    f->r.settings.rate = 1e-3;
    f->r.settings.decay = 0; /* nothing draws a fitted layer to 0 */
    f->r.text = &f->data;
    f->r.held_out = &f->held;
    TRY(train_read_saving(f->c, o, &f->r));
    TRY(decide(f));
    TRY(train_read_texts(f->c, o, &f->r.settings, 1, &f->data, &f->held));
    TRY(train_check(f->c->lib, &f->r));
    if (f->held.count < f->r.settings.batch * f->r.settings.context)
        return log_error(
            f->c->lib, CLSPLAT_INVALID,
            "%zu bytes are held out to measure layers on, fewer than the %zu tokens of a batch: more "
            "text, --validation, or smaller --batch or --context",
            f->held.count, f->r.settings.batch * f->r.settings.context);
fail:
    return status;
}

/* Where the student stands now, unless that was before it stopped; the same teacher on the same text then. */
static clsplat_status measure_before(fitting *f, distillation *d) {
    clsplat_status status = CLSPLAT_OK;
    distill_worth worth = {0};
    distill_plan *plan = &f->plan;
    TRY(distill_measure(d, &f->r, false, &worth));
    if (f->resumed && fabs(worth.teacher / plan->teacher - 1) > 1e-3)
        TRY(log_error(
            f->c->lib, CLSPLAT_INVALID,
            "%s gives %.4f bits/byte on what is held out, and gave %.4f when this distillation began: "
            "name the model and the texts that it began with",
            plan->model, worth.teacher, plan->teacher));
    if (f->resumed)
        goto fail;
    plan->teacher = worth.teacher;
    plan->held = (double)f->r.validation_most;
    for (size_t i = 0; i < plan->count; ++i)
        plan->before[i] = worth.layers[i].error;
    TRY(distill_save(f->c->lib, plan));
fail:
    distill_worth_free(&worth);
    return status;
}

static const char *kind_of(const distillation *d, size_t layer) {
    return pattern_kind(&d->student.model->config, layer);
}

/* Of what the teacher loses with nothing in its place, what it does not lose with the replacement. */
static double kept(const distill_worth *w, const distill_layer *l) {
    return (l->without - l->alone) / (l->without - w->teacher);
}

static clsplat_status show_json(const fitting *f, const distillation *d, const distill_worth *w) {
    json_t *layers = json_array();
    for (size_t i = 0; i < f->plan.count; ++i) {
        const distill_layer *l = &w->layers[i];
        layers =
            json_push(layers, json_pack("{s:I, s:s, s:o, s:o, s:o, s:o, s:o}", "layer", (json_int_t)l->layer,
                                        "kind", kind_of(d, l->layer), "error_before",
                                        report_number(f->plan.before[i]), "error", report_number(l->error),
                                        "bits_per_byte", report_number(l->alone), "bits_per_byte_without",
                                        report_number(l->without), "kept", report_number(kept(w, l))));
    }
    return report_json(f->c, json_pack("{s:o, s:o, s:o, s:I, s:o}", "layers", layers, "teacher_bits_per_byte",
                                       report_number(w->teacher), "bits_per_byte", report_number(w->student),
                                       "measured_bytes", (json_int_t)w->bytes, "device",
                                       report_text(clsplat_device_describe(d->student.device)->name)));
}

static clsplat_status show(const fitting *f, const distillation *d, const distill_worth *w) {
    if (f->c->quiet)
        return CLSPLAT_OK;
    if (f->c->json)
        return show_json(f, d, w);
    printf("layer  kind      error of heads      bits/byte  without    kept\n");
    for (size_t i = 0; i < f->plan.count; ++i) {
        const distill_layer *l = &w->layers[i];
        printf("%5zu  %-8s  %6.4f -> %6.4f  %9.4f  %7.4f  %5.1f %%\n", l->layer, kind_of(d, l->layer),
               f->plan.before[i], l->error, l->alone, l->without, 100 * kept(w, l));
    }
    printf("all of them: %.4f bits/byte, the model: %.4f (%+.2f %%), on %zu bytes held out\n", w->student,
           w->teacher, 100 * (w->student / w->teacher - 1), w->bytes);
    return CLSPLAT_OK;
}

static clsplat_status open_both(fitting *f, clsplat_device *device, distillation *d) {
    clsplat_status status = CLSPLAT_OK;
    TRY(distill_open(device, &f->plan, &f->r.settings, d));
    if (f->resumed)
        TRY(checkpoint_load(&d->student, f->plan.folder));
    TRY(corpus_encode(&f->data, d->student.model));
    TRY(corpus_encode(&f->held, d->student.model));
    TRY(train_check(f->c->lib, &f->r)); /* tokens are fewer than bytes */
    f->r.goals = d->goals;
    f->r.goal_user = d;
    if (!f->resumed)
        TRY(distill_begin(d, &f->r));
    TRY(measure_before(f, d));
fail:
    return status;
}

/* A folder in which nothing has been learned yet is none to go on from. */
static clsplat_status open_all(fitting *f, clsplat_device *device, distillation *d) {
    clsplat_status status = CLSPLAT_OK;
    if (!f->resumed)
        TRY(distill_create(f->c->lib, &f->change, &f->r.settings, &f->plan));
    status = open_both(f, device, d);
    if (status != CLSPLAT_OK && !f->resumed)
        distill_discard(&f->plan);
fail:
    return status;
}

static clsplat_status fit(fitting *f, clsplat_device *device) {
    clsplat_status status = CLSPLAT_OK;
    distillation d = {0};
    distill_worth worth = {0};
    train_show shown = {.c = f->c};
    f->r.user = &shown;
    f->r.stopped = train_show_stopped;
    f->r.report = train_show_report;
    TRY(open_all(f, device, &d));
    f->c->interrupted = "interrupted; what was learned so far is saved, and --resume goes on from there";
    clsplat_profile_set(device, f->c->verbose);
    status = train_run(&d.student, &f->r, NULL);
    train_show_end(&shown);
    if (f->c->verbose && !f->c->quiet)
        train_show_profile(&shown, device);
    TRY(status);
    TRY(distill_measure(&d, &f->r, true, &worth));
    TRY(show(f, &d, &worth));
fail:
    distill_worth_free(&worth);
    distill_close(&d);
    return status;
}

static clsplat_status distill(cli *c, const distill_options *o) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    fitting f = {.c = c, .o = o};
    TRY(look(&f));
    progress_begin(&c->progress);
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(fit(&f, device));
fail:
    clsplat_device_close(&device);
    train_free_texts(&o->train, &f.data, &f.held);
    distill_plan_free(&f.plan);
    return status;
}

clsplat_status cmd_distill(cli *c, int argc, const char **argv) {
    distill_options o = {0};
    struct poptOption learning[] = {TRAIN_LEARNING_OPTIONS(o.train), POPT_TABLEEND};
    // clang-format off
    struct poptOption options[] = {
        LANGUAGE_ROW("attention", 0, o.attention, "KINDS",
                     "what layers become: softmax, window, splat, near_far, or a list of them, from its beginning "
                     "again where there are more layers; splat if it is not given"),
        LANGUAGE_ROW("layers", 0, o.layers, "LIST", "which ones, as 0,2-4; all if it is not given"),
        LANGUAGE_ROW("splats", 0, o.splats, "N", "splats of a key head; 128 if it is not given"),
        LANGUAGE_ROW("chunk", 0, o.chunk, "N", "keys of a chunk, in layers of kind splat and near_far; 128 or the "
                     "library's choice"),
        LANGUAGE_ROW("window", 0, o.window, "N", "keys that a layer of kind window sees; 256 if it is not given"),
        LANGUAGE_ROW("tolerance", 0, o.tolerance, "X", "of layers of kind near_far; 0.1 if it is not given"),
        LANGUAGE_ROW("learn", 0, o.learn, "WHAT",
                     "splats of these layers; projections, their q, k and v too, if it is not given; or all, the whole "
                     "model, with the logits"),
        LANGUAGE_ROW("heads", 0, o.heads, "SHARE",
                     "of the budget in which heads' outputs are learned, before the logits; 0.5 if it is not given"),
        LANGUAGE_ROW("measure", 0, o.measure, "BYTES", "of what is held out that layers are judged by; 64K if it is not "
                     "given"),
        TRAIN_OPTIONS(o.train),
        CLI_GROUP("How it learns:", learning),
        POPT_TABLEEND,
    };
    // clang-format on
    cli_syntax syntax = {summary, "MODEL DATA... -o DIR [OPTION...]", options, .arguments = 2,
                         .optional = CLI_ARGUMENTS - 2};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = distill(c, &o);
    cli_free(options);
    return status;
}
