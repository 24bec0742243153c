/* clsplat train: a language model learns from texts. */
#include <clsplat/clsplat.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "cli/report.h"
#include "cli/train.h"
#include "format/json.h"
#include "model/convert.h"
#include "train/adapt.h"
#include "train/create.h"
#include "train/distill.h"

enum { CONFIG_LIMIT = 1 << 20 };

static const char summary[] =
    "Trains a language model on files and folders and writes it to DIR, a model's folder that generate, eval "
    "and "
    "chat read: from nothing, as --config describes it (vocab_size, hidden_size, num_hidden_layers, "
    "num_attention_heads, intermediate_size, and under \"training\" how it learns), from another model's "
    "weights with "
    "--from, or on from where it stopped with --resume. The tokens are bytes, or a tokeniser's with "
    "--tokenizer. Ctrl-C saves; log.jsonl in DIR "
    "has a line "
    "for every report.";

/* Options that what is resumed has decided already. */
static clsplat_status refuse_beside_resume(cli *c, const train_options *o) {
    const struct {
        const char *name, *value;
    } given[] = {{"--config", o->config},       {"--from", o->from},
                 {"--tokenizer", o->tokenizer}, {"--seed", o->seed},
                 {"--rate", o->rate},           {"--batch", o->batch},
                 {"--context", o->context},     {"--accumulate", o->accumulate},
                 {"--dtype", o->dtype}};
    for (size_t i = 0; i < sizeof given / sizeof *given; ++i)
        if (given[i].value)
            return cli_misuse(
                c, "%s: --resume goes on as training began; leave it away, or begin in another folder",
                given[i].name);
    return CLSPLAT_OK;
}

/* The configuration's file, and how it says to train. */
static clsplat_status read_config(cli *c, const train_options *o, json_t **config, train_settings *s) {
    clsplat_status status = CLSPLAT_OK;
    if (!o->config) {
        *config = json_object();
        return *config ? CLSPLAT_OK
                       : log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for a configuration");
    }
    TRY(json_file(c->lib, o->config, CONFIG_LIMIT, config));
    const json_t *training = json_object_get(*config, "training");
    if (training && !json_is_object(training))
        TRY(log_error(c->lib, CLSPLAT_FORMAT, "%s: key training must be an object", o->config));
    if (training)
        TRY(train_settings_read(c->lib, o->config, training, s));
fail:
    return status;
}

/* Another model's weights, in float32. */
static clsplat_status take_over(cli *c, const train_options *o) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0};
    char *folder = text_copy(o->folder);
    model_config config = {0};
    text_add(&path, "%s/model.safetensors", o->folder);
    if (!folder || !text_ok(&path))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its path", o->folder));
    TRY(model_config_load(c->lib, o->from, &config));
    TRY(trainee_check(c->lib, o->from, &config));
    file_make_folder(folder);
    TRY(model_convert(c->lib, &(convert_request){.from = o->from,
                                                 .to = path.data,
                                                 .type = block_type_named("F32"),
                                                 .progress = progress_step,
                                                 .progress_user = &c->progress}));
fail:
    model_config_free(&config);
    text_free(&path);
    free(folder);
    return status;
}

/* What is to be trained, and how, before anything is written. */
static clsplat_status decide(cli *c, const train_options *o, json_t **config, train_request *r) {
    clsplat_status status = CLSPLAT_OK;
    bool there = checkpoint_is_there(o->folder);
    if (o->resume && there && distill_is_there(o->folder))
        return log_error(
            c->lib, CLSPLAT_INVALID,
            "%s: is a distillation's, which `clsplat distill MODEL DATA... -o %s --resume` goes on "
            "with; --from %s and another folder train its model on",
            o->folder, o->folder, o->folder);
    if (o->resume && there) {
        TRY(refuse_beside_resume(c, o));
        TRY(checkpoint_look(c->lib, o->folder, &r->settings, &r->progress));
        return train_read_budget(c, o->budget, &r->settings);
    }
    if (there)
        return log_error(
            c->lib, CLSPLAT_INVALID,
            "%s: a model is being trained there already: --resume goes on, or choose another folder",
            o->folder);
    if (checkpoint_is_model(o->folder))
        return log_error(
            c->lib, CLSPLAT_INVALID,
            "%s: holds a model already, and no training.safetensors to go on from: choose another folder "
            "(with --from %s to train that model on)",
            o->folder, o->folder);
    if (o->tokenizer && o->from)
        return cli_misuse(c, "--tokenizer: the model of --from brings its own; leave one of them away");
    if (o->config && o->from)
        return cli_misuse(c, "--config and --from both say what to begin with; leave one of them away");
    TRY(read_config(c, o, config, &r->settings));
    TRY(train_read_numbers(c, o, &r->settings));
    TRY(train_read_budget(c, o->budget, &r->settings));
fail:
    return status;
}

/* Before anything is written. */
static clsplat_status check_tokens(cli *c, const train_options *o, const json_t *config) {
    enum { BYTES = 256, MOST = 1 << 24 };
    const json_t *given = json_object_get(config, "vocab_size");
    json_int_t vocabulary = json_is_integer(given) ? json_integer_value(given) : BYTES;
    if (o->tokenizer && vocabulary > 0 && vocabulary < MOST)
        return corpus_check_tokenizer(c->lib, o->tokenizer, (size_t)vocabulary);
    return vocabulary == BYTES ? CLSPLAT_OK
                               : log_error(c->lib, CLSPLAT_INVALID,
                                           "%s: key vocab_size is %lld: a tokeniser of so many tokens is "
                                           "needed (--tokenizer); without one tokens are the 256 bytes",
                                           o->config, (long long)vocabulary);
}

/* The folder becomes one that has a model to train. */
static clsplat_status prepare(cli *c, const train_options *o, const json_t *config, const train_request *r) {
    clsplat_status status = CLSPLAT_OK;
    if (!config)
        return CLSPLAT_OK;
    if (o->from)
        return take_over(c, o);
    TRY(check_tokens(c, o, config));
    TRY(train_create(c->lib, o->folder, o->config ? o->config : "the configuration", config, &r->settings,
                     NULL));
    if (o->tokenizer)
        TRY(corpus_take_tokenizer(c->lib, o->tokenizer, o->folder));
fail:
    return status;
}

/* What OK means for all processes of a team. */
static clsplat_status agree(const train_request *r, clsplat_status status) {
    return r->team.count ? r->team.agree(r->team.user, status) : status;
}

/* The folder's model, where it stands, and texts as its tokens. */
static clsplat_status open_trainee(const train_options *o, clsplat_device *device, corpus *data, corpus *held,
                                   trainee *t) {
    clsplat_status status = CLSPLAT_OK;
    TRY(trainee_open(device, o->folder, NULL, NULL, t));
    if (o->resume && checkpoint_is_there(o->folder))
        TRY(checkpoint_load(t, o->folder));
    TRY(corpus_encode(data, t->model));
    TRY(corpus_encode(held, t->model));
fail:
    return status;
}

static clsplat_status open_history(cli *c, const train_options *o, const trainee *t, train_show *show) {
    clsplat_status status = CLSPLAT_OK;
    text decisions = {0};
    text_add(&decisions, "%s/adaptation.jsonl", o->folder);
    if (!text_ok(&decisions))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its path", o->folder));
    if (train_adapts(t))
        TRY(history_open(c->lib, decisions.data, NULL, true, &show->decisions));
fail:
    text_free(&decisions);
    return status;
}

static clsplat_status learn(cli *c, const train_options *o, clsplat_device *device, corpus *data,
                            corpus *held, train_request *r) {
    clsplat_status status = CLSPLAT_OK;
    trainee t = {0};
    train_report last = {0};
    train_show show = {.c = c};
    TRY(agree(r, open_trainee(o, device, data, held, &t)));
    trainee_take_type(&t, r->settings.type);
    log_info(c->lib, "%s: %.1f million parameters on %s in %s, %zu tokens a step", o->folder,
             1e-6 * (double)t.model->info.parameters, clsplat_device_describe(device)->name,
             t.type == CLSPLAT_F32 ? "float32" : "bfloat16",
             r->settings.batch * r->settings.context * r->settings.accumulate);
    c->interrupted = "interrupted; what was learned so far is saved, and --resume goes on from there";
    r->user = &show;
    r->report = train_show_report;
    r->stopped = train_show_stopped;
    r->adapted = train_show_adapted;
    TRY(agree(r, open_history(c, o, &t, &show)));
    clsplat_profile_set(device, c->verbose);
    status = train_run(&t, r, &last);
    train_show_end(&show);
    clsplat_status told = history_end(&show.decisions); /* of a run that was interrupted, too */
    status = status == CLSPLAT_OK ? told : status;
    if (c->verbose && !c->quiet)
        train_show_profile(&show, device);
    TRY(status);
    if (c->json && !c->quiet)
        TRY(train_show_json(&show, &last, device));
fail:
    history_close(&show.decisions);
    trainee_close(&t);
    return status;
}

/* Everything before the first step. */
static clsplat_status look(cli *c, const train_options *o, json_t **config, train_request *r, corpus *data,
                           corpus *held) {
    clsplat_status status = CLSPLAT_OK;
    if (!o->folder)
        return cli_misuse(c, "-o DIR is needed: the folder that the model goes to");
    TRY(train_read_saving(c, o, r));
    TRY(decide(c, o, config, r));
    TRY(train_read_texts(c, o, &r->settings, 0, data, held));
    TRY(train_check(c->lib, r));
fail:
    return status;
}

static clsplat_status open_device(cli *c, const train_request *r, clsplat_device **device) {
    return r->team.count ? train_team_device(c, &r->team, device)
                         : clsplat_device_open(c->lib, c->device, device);
}

static clsplat_status train(cli *c, const train_options *o) {
    clsplat_status status = CLSPLAT_OK;
    corpus data = {0}, held = {0};
    clsplat_device *device = NULL;
    json_t *config = NULL;
    train_request r = {.settings = train_settings_defaults(), .text = &data, .held_out = &held};
    if (cli_ranks() > 1)
        TRY(train_team_begin(c, &r.team));
    TRY(agree(&r, look(c, o, &config, &r, &data, &held)));
    if (r.team.count)
        TRY(train_team_compare(&r.team, &r));
    progress_begin(&c->progress);
    TRY(open_device(c, &r, &device));
    TRY(agree(&r, r.team.own == 0 ? prepare(c, o, config, &r) : CLSPLAT_OK));
    TRY(learn(c, o, device, &data, &held, &r));
fail:
    if (status != CLSPLAT_OK && r.team.count) { /* before any rank can end: a launcher then ends the others */
        cli_print_error(c, status);
        c->quiet = true;
    }
    clsplat_device_close(&device);
    json_decref(config);
    train_free_texts(o, &data, &held);
    if (r.team.count)
        train_team_end(&r.team);
    return status;
}

#ifndef CLSPLAT_MPI
clsplat_status train_team_begin(cli *c, train_team *team) {
    (void)team;
    return log_error(c->lib, CLSPLAT_UNSUPPORTED,
                     "there is no MPI in it: build it with -Dmpi=enabled, or leave mpirun away");
}
void train_team_end(train_team *team) {
    (void)team;
}
clsplat_status train_team_device(cli *c, const train_team *team, clsplat_device **device) {
    (void)team;
    return clsplat_device_open(c->lib, c->device, device);
}
clsplat_status train_team_compare(const train_team *team, const train_request *request) {
    (void)team, (void)request;
    return CLSPLAT_OK;
}
#endif

clsplat_status cmd_train(cli *c, int argc, const char **argv) {
    train_options o = {0};
    struct poptOption learning[] = {TRAIN_LEARNING_OPTIONS(o), POPT_TABLEEND};
    struct poptOption options[] = {TRAIN_OPTIONS(o), TRAIN_BEGIN_OPTIONS(o),
                                   CLI_GROUP("How it learns:", learning), POPT_TABLEEND};
    cli_syntax syntax = {summary, "DATA... -o DIR [OPTION...]", options, .arguments = 1,
                         .optional = CLI_ARGUMENTS - 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = train(c, &o);
    cli_free(options);
    return status;
}
