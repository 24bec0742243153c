/* clsplat adapt: splats that come nearer to softmax attention on a layer's own tokens. */
#include <clsplat/clsplat.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/history.h"
#include "cli/layer_input.h"
#include "cli/output.h"
#include "cli/report.h"

static const char summary[] =
    "Reads splats, and queries q [B,H,N,D], keys k [B,Hk,M,D], values v [B,Hk,M,Dv] and, if it is there,\n"
    "key_bias [B,Hk,M]; writes splats whose attention is nearer to softmax attention on these tokens: some\n"
    "split, are born, merge or die, all may move. Each decision is measured; what does not help is undone.";

typedef struct adapt_request {
    const char *splats, *input;
    char *output, *history, *cycles, *every, *trades, *steps, *rate, *seed, *sample, *least, *most, *scale;
    char *death_threshold, *patience, *merge_distance, *least_gain, *save, *base, *top_down, *bottom_up;
    double down, up;
    int kind;
    int causal, check, repair, balance;
} adapt_request;

enum { SAVE_FULL, SAVE_DELTA, SAVE_COMPACT, SAVE_COMPACT8 };
static const char *const saves[] = {[SAVE_FULL] = "full",
                                    [SAVE_DELTA] = "delta",
                                    [SAVE_COMPACT] = "compact",
                                    [SAVE_COMPACT8] = "compact8",
                                    NULL};

static clsplat_status read_unsigned(cli *c, const char *option, const char *value, uint64_t least,
                                    unsigned *to) {
    uint64_t number = *to;
    clsplat_status status = cli_count(c, option, value, least, &number);
    if (status == CLSPLAT_OK && number > INT32_MAX)
        return cli_misuse(c, "%s: `%s` is too many", option, value);
    *to = (unsigned)number;
    return status;
}

static clsplat_status read_share(cli *c, const char *option, const char *value, double *to) {
    clsplat_status status = cli_number(c, option, value, to);
    if (status == CLSPLAT_OK && *to < 0)
        return cli_misuse(c, "%s: `%s` is below 0", option, value);
    return status;
}

static clsplat_status read_request(cli *c, adapt_request *r, clsplat_adapt *how) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t sample = how->sample;
    double scale = NAN;
    if (!r->check && (!r->output || r->output[0] == '\0'))
        return cli_misuse(c, "-o is missing; it says where the splats go: -o OUT.safetensors");
    TRY(cli_choice(c, "--save", r->save, saves, &r->kind));
    TRY(read_unsigned(c, "--cycles", r->cycles, 0, &how->cycles));
    TRY(read_unsigned(c, "--every", r->every, 1, &how->every));
    TRY(read_unsigned(c, "--trades", r->trades, 0, &how->trades));
    TRY(read_unsigned(c, "--steps", r->steps, 0, &how->steps));
    TRY(read_unsigned(c, "--patience", r->patience, 1, &how->patience));
    TRY(cli_count(c, "--seed", r->seed, 0, &how->seed));
    TRY(cli_count(c, "--sample", r->sample, 1, &sample));
    TRY(cli_number(c, "--scale", r->scale, &scale));
    TRY(cli_number(c, "--rate", r->rate, &how->rate));
    TRY(read_share(c, "--top-down", r->top_down, &r->down));
    TRY(read_share(c, "--bottom-up", r->bottom_up, &r->up));
    TRY(read_share(c, "--death-threshold", r->death_threshold, &how->death_threshold));
    TRY(read_share(c, "--merge-distance", r->merge_distance, &how->merge_distance));
    TRY(read_share(c, "--least-gain", r->least_gain, &how->least_gain));
    if (!(how->rate > 0))
        return cli_misuse(c, "--rate: `%s` is not above 0", r->rate);
    how->sample = sample;
    how->scale = (float)scale;
    how->causal = r->causal;
fail:
    return status;
}

/* "N" for each level, or "N,N,…", one for each. NULL leaves *counts NULL. */
static clsplat_status read_counts(cli *c, const char *option, char *value, size_t levels, size_t **counts) {
    clsplat_status status = CLSPLAT_OK;
    size_t given = 0;
    uint64_t number = 0;
    char *words = value, *rest = NULL;
    if (!value)
        return CLSPLAT_OK;
    *counts = calloc(levels, sizeof **counts);
    if (!*counts)
        return log_error(c->lib, CLSPLAT_MEMORY, "no memory for %zu levels", levels);
    for (char *word = strtok_r(words, ",", &rest); word; word = strtok_r(NULL, ",", &rest), ++given) {
        if (given == levels)
            return cli_misuse(c, "%s has more numbers than the splats have levels, %zu", option, levels);
        TRY(cli_count(c, option, word, 1, &number));
        (*counts)[given] = number;
    }
    if (given != 1 && given != levels)
        return cli_misuse(c, "%s has %zu numbers; one, or one for each of %zu levels, are needed", option,
                          given, levels);
    for (size_t l = given; l < levels; ++l)
        (*counts)[l] = (*counts)[0];
fail:
    return status;
}

static clsplat_status report(cli *c, const clsplat_device *device, clsplat_splats *set,
                             const clsplat_adapt_result *result, double seconds) {
    const char *name = clsplat_device_describe(device)->name;
    size_t splats = clsplat_splats_get(set).shape.count;
    if (c->json) {
        json_t *decisions = json_object();
        for (int d = 0; d < CLSPLAT_DECISIONS; ++d)
            decisions = json_put(decisions, clsplat_decision_name((clsplat_decision)d),
                                 json_pack("{s:I, s:I}", "kept", (json_int_t)result->kept[d], "undone",
                                           (json_int_t)result->undone[d]));
        return report_json(c, json_pack("{s:o, s:f, s:I, s:I, s:f, s:f, s:o}", "device", report_text(name),
                                        "seconds", seconds, "splats", (json_int_t)splats, "rows",
                                        (json_int_t)result->rows, "error_before", result->error_before,
                                        "error_after", result->error_after, "decisions", decisions));
    }
    printf("error %.4f, before %.4f, at %zu rows a head; %zu splats, in %.3f s on %s\n", result->error_after,
           result->error_before, result->rows, splats, seconds, name);
    for (int d = 0; d < CLSPLAT_DECISIONS; ++d)
        printf("  %-8s %6zu kept %6zu undone\n", clsplat_decision_name((clsplat_decision)d), result->kept[d],
               result->undone[d]);
    return cli_flush(c);
}

static clsplat_measure looking_as(const clsplat_adapt *how) {
    clsplat_measure measure = clsplat_measure_defaults();
    measure.causal = how->causal;
    measure.scale = how->scale;
    measure.sample = how->sample;
    return measure;
}

static clsplat_status report_health(cli *c, const clsplat_health *health, clsplat_splats_parameters p) {
    json_t *findings = json_array();
    if (!c->json)
        printf("health %.4f, %zu findings\n", health->score, health->findings);
    for (size_t i = 0; i < health->findings; ++i) {
        const clsplat_finding *f = &health->finding[i];
        const char *name = clsplat_failure_name(f->failure);
        json_t *splat = f->splat == SIZE_MAX ? json_null() : json_integer((json_int_t)f->splat);
        json_t *value = isfinite(f->value) ? json_real(f->value) : json_null();
        if (!c->json)
            printf(f->splat == SIZE_MAX ? "  %s: head %zu, level %s\n"
                                        : "  %s: head %zu, level %s, splat %zu\n",
                   name, f->head, p.level_names[f->level], f->splat);
        findings =
            json_push(findings, json_pack("{s:s, s:I, s:o, s:o, s:o}", "failure", name, "head",
                                          (json_int_t)f->head, "level", report_text(p.level_names[f->level]),
                                          "splat", splat, "value", value));
    }
    if (c->json)
        return report_json(c, json_pack("{s:f, s:o}", "health", health->score, "findings", findings));
    json_decref(findings);
    return cli_flush(c);
}

static clsplat_status check(cli *c, const clsplat_adapt *how, const layer_input *t, clsplat_splats *splats) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    clsplat_health health = {0};
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(clsplat_splats_examine(device, looking_as(how), layer_input_tensors(t), splats, NULL, 0, &health));
    progress_clear(&c->progress);
    TRY(report_health(c, &health, clsplat_splats_get(splats)));
fail:
    clsplat_health_free(&health);
    clsplat_device_close(&device);
    return status;
}

/* Says what could not be mended. */
static clsplat_status repair(cli *c, clsplat_device *device, const clsplat_adapt *how, const layer_input *t,
                             clsplat_splats *splats) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_health health = {0};
    TRY(clsplat_splats_repair(device, looking_as(how), layer_input_tensors(t), splats, &health));
    if (health.findings)
        log_warning(c->lib, "--repair: %zu findings are left, the first: %s, head %zu", health.findings,
                    clsplat_failure_name(health.finding[0].failure), health.finding[0].head);
fail:
    clsplat_health_free(&health);
    return status;
}

/* Level weights, once more by the error. */
static clsplat_status balance(clsplat_device *device, const clsplat_adapt *how, const layer_input *t,
                              clsplat_splats *splats, clsplat_adapt_result *result) {
    double error[2];
    clsplat_status status =
        clsplat_splats_balance(device, looking_as(how), layer_input_tensors(t), splats, NULL, error);
    if (status == CLSPLAT_OK)
        result->error_after = error[1];
    return status;
}

/* Says what is lost. */
static clsplat_status save(cli *c, const adapt_request *r, clsplat_splats *set, clsplat_splats *base) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_loss loss;
    if (r->kind == SAVE_FULL)
        return clsplat_splats_save(set, r->output);
    if (r->kind == SAVE_DELTA)
        return clsplat_splats_save_delta(set, base, r->output);
    TRY(clsplat_splats_save_compact(set, r->output, r->kind == SAVE_COMPACT ? 16 : 8, &loss));
    log_info(c->lib, "--save %s loses at most %.2g of a width of a mean, %.2g of a covariance, %.2g of ln a",
             r->save, loss.mean, loss.covariance, loss.log_amplitude);
fail:
    return status;
}

static clsplat_status make(cli *c, const adapt_request *r, const clsplat_adapt *how, const layer_input *t,
                           clsplat_splats *splats, clsplat_splats *base) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    clsplat_splats *adapted = NULL;
    clsplat_adapt_result result;
    TRY(clsplat_device_open(c->lib, c->device, &device));
    double begin = clock_seconds();
    if (r->repair)
        TRY(repair(c, device, how, t, splats));
    if (r->top_down || r->bottom_up)
        TRY(clsplat_splats_flow(c->lib, splats, r->down, r->up));
    TRY(clsplat_splats_adapt(device, *how, layer_input_tensors(t), splats, &adapted, &result));
    if (r->balance)
        TRY(balance(device, how, t, adapted, &result));
    double seconds = clock_seconds() - begin;
    progress_clear(&c->progress);
    TRY(report(c, device, adapted, &result, seconds));
    TRY(save(c, r, adapted, base));
fail:
    clsplat_splats_destroy(&adapted);
    clsplat_device_close(&device);
    return status;
}

static clsplat_status adapt(cli *c, adapt_request *r) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *splats = NULL, *base = NULL;
    size_t *least = NULL, *most = NULL;
    layer_input t = {0};
    history log = {0};
    clsplat_adapt how = clsplat_adapt_defaults();
    TRY(read_request(c, r, &how));
    if (!r->check)
        TRY(output_check(c->lib, r->output));
    if (r->base)
        TRY(clsplat_splats_load(c->lib, r->base, &base));
    TRY(base ? clsplat_splats_load_delta(c->lib, r->splats, base, &splats)
             : clsplat_splats_load(c->lib, r->splats, &splats));
    clsplat_splats_parameters p = clsplat_splats_get(splats);
    TRY(read_counts(c, "--least", r->least, p.shape.levels, &least));
    TRY(read_counts(c, "--most", r->most, p.shape.levels, &most));
    how.least = least;
    how.most = most;
    TRY(layer_input_read(c->lib, r->input, &t));
    if (r->history) {
        TRY(history_open(c->lib, r->history, p.level_names, false, &log));
        how.listener = history_add;
        how.listener_user = &log;
    }
    progress_begin(&c->progress);
    how.progress = progress_step;
    how.progress_user = &c->progress;
    TRY(r->check ? check(c, &how, &t, splats) : make(c, r, &how, &t, splats, base ? base : splats));
    TRY(history_end(&log));
fail:
    if (status != CLSPLAT_OK)
        history_fail(&log);
    history_close(&log);
    layer_input_free(&t);
    free(least);
    free(most);
    clsplat_splats_destroy(&base);
    clsplat_splats_destroy(&splats);
    return status;
}

clsplat_status cmd_adapt(cli *c, int argc, const char **argv) {
    adapt_request r = {0};
    struct poptOption options[] = {
        {"output", 'o', POPT_ARG_STRING, &r.output, 0, "where the adapted splats go", "OUT"},
        {"causal", 0, POPT_ARG_NONE, &r.causal, 0, "query i sees the keys up to i + (M - N)", NULL},
        {"check", 0, POPT_ARG_NONE, &r.check, 0, "only tells what is wrong with the splats; there is no OUT",
         NULL},
        {"repair", 0, POPT_ARG_NONE, &r.repair, 0, "mends what is wrong with them first", NULL},
        {"balance", 0, POPT_ARG_NONE, &r.balance, 0, "level weights that lower the error, at the end", NULL},
        {"bottom-up", 0, POPT_ARG_STRING, &r.bottom_up, 0,
         "first, means of coarse splats go this share of the way to those of their children; 0", "X"},
        {"top-down", 0, POPT_ARG_STRING, &r.top_down, 0,
         "and those of fine splats this share of the way to their parent's; 0", "X"},
        {"history", 0, POPT_ARG_STRING, &r.history, 0,
         "every decision as a line of JSON, written as it falls", "FILE"},
        {"cycles", 0, POPT_ARG_STRING, &r.cycles, 0, "how often to shrink, grow, trade and adjust; 4", "N"},
        {"every", 0, POPT_ARG_STRING, &r.every, 0, "splats come and go in every N-th cycle only; 1", "N"},
        {"trades", 0, POPT_ARG_STRING, &r.trades, 0,
         "rounds a cycle in which each head trades a splat or two for better ones; 4", "N"},
        {"steps", 0, POPT_ARG_STRING, &r.steps, 0, "gradient steps a cycle; 0", "N"},
        {"rate", 0, POPT_ARG_STRING, &r.rate, 0, "of the first step, in widths of a splat; 0.03", "X"},
        {"least", 0, POPT_ARG_STRING, &r.least, 0,
         "splats that a level has at least: N, or N,N,... for each; as many as now", "N"},
        {"most", 0, POPT_ARG_STRING, &r.most, 0, "splats that a level has at most; as many as now", "N"},
        {"sample", 0, POPT_ARG_STRING, &r.sample, 0, "rows looked at, of each head; 1024", "N"},
        {"seed", 0, POPT_ARG_STRING, &r.seed, 0, "of every draw; 0", "N"},
        {"save", 0, POPT_ARG_STRING, &r.save, 0,
         "full, delta (what differs from SPLATS, or from BASE), compact (16 bits) or compact8; full", "HOW"},
        {"base", 0, POPT_ARG_STRING, &r.base, 0, "SPLATS is the difference from these", "BASE"},
        {"scale", 0, POPT_ARG_STRING, &r.scale, 0, "factor on q.k of softmax attention; 1/sqrt(D)", "X"},
        {"death-threshold", 0, POPT_ARG_STRING, &r.death_threshold, 0,
         "a splat starves below this share of the mean use; 0.01", "X"},
        {"patience", 0, POPT_ARG_STRING, &r.patience, 0, "and dies after so many cycles; 2", "N"},
        {"merge-distance", 0, POPT_ARG_STRING, &r.merge_distance, 0,
         "Bhattacharyya distance below which two are one; 0.02", "X"},
        {"least-gain", 0, POPT_ARG_STRING, &r.least_gain, 0,
         "fall of the error, relative, that a decision must bring; 0.0001", "X"},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "SPLATS.safetensors INPUT.safetensors -o OUT.safetensors [OPTION...]",
                         options, .arguments = 2};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status)) {
        r.splats = c->arguments[0];
        r.input = c->arguments[1];
        status = adapt(c, &r);
    }
    cli_free(options);
    return status;
}
