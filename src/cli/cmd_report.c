/* clsplat report: what attention did, as a page to look at. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/make_report.h"
#include "cli/output.h"
#include "format/safetensors.h"
#include "picture/png.h"
#include "report/log_story.h"
#include "report/splats_story.h"
#include "report/tuning_story.h"

static const char summary[] = "Makes one HTML file of what attention did, which opens anywhere and needs no "
                              "network: of a MODEL that reads\n"
                              "FILE, or of queries q, keys k and values v in INPUT.safetensors, as `clsplat "
                              "attend` reads them. Some tokens,\n"
                              "spread over the text, are recorded: what each of them attends to, in every "
                              "layer and head, by which keys one by\n"
                              "one, and with which error beside exact attention.";

/* Whether what was asked for goes together. */
static clsplat_status check_request(cli *c, const report_request *r) {
    clsplat_status status = CLSPLAT_OK;
    const char *const outputs[] = {r->output, r->svg, r->png};
    if (!r->output && !r->svg && !r->png)
        return cli_misuse(c, "-o is missing; it says where the page goes: -o report.html");
    if (r->which && !r->svg && !r->png)
        return cli_misuse(c, "--picture says which one goes to --svg FILE or --png FILE");
    if (r->dark && !r->png)
        return cli_misuse(c, "--dark is for --png FILE; pages and SVG follow their reader");
    if (c->arguments[1] && (r->causal || r->scale))
        return cli_misuse(c, "--causal and --scale are for tensors; models have theirs");
    if (r->png && !picture_has_png())
        return log_error(
            c->lib, CLSPLAT_UNSUPPORTED,
            "--png: this build has no Cairo; --svg FILE works without, or build with libcairo2-dev");
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; ++i)
        if (outputs[i])
            TRY(output_check(c->lib, outputs[i]));
fail:
    return status;
}

static bool is_folder(const char *path) {
    struct stat there;
    return stat(path, &there) == 0 && S_ISDIR(there.st_mode);
}

static clsplat_status report_log(cli *c, const report_request *r, const char *path) {
    static const report_kind kinds[] = {
        {training_pictures, TRAINING_PICTURES, log_story_page, log_story_json},
        {history_pictures, HISTORY_PICTURES, log_story_page, log_story_json}};
    clsplat_status status = CLSPLAT_OK;
    log_story s = {0};
    text file = {0};
    char line[64];
    text_add(&file, is_folder(path) ? "%s/log.jsonl" : "%s", path);
    if (!text_ok(&file))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "%s: there is no memory for its name", path));
    TRY(log_story_load(c->lib, file.data, path, &s));
    snprintf(line, sizeof line, "%zu lines", json_array_size(s.lines));
    TRY(report_deliver(c, r, &kinds[s.history], &s, line));
fail:
    text_free(&file);
    log_story_free(&s);
    return status;
}

static clsplat_status report_tuning(cli *c, const report_request *r) {
    static const report_kind kind = {tuning_pictures, TUNING_PICTURES, tuning_story_page, tuning_story_json};
    clsplat_status status = CLSPLAT_OK;
    tuning_story s = {0};
    char line[96];
    TRY(check_request(c, r));
    TRY(tuning_story_load(c->lib, c->arguments[0], &s));
    snprintf(line, sizeof line, "%zu candidates for %zu classes of problems", s.tried.count, s.count);
    TRY(report_deliver(c, r, &kind, &s, line));
fail:
    tuning_story_free(&s);
    return status;
}

static clsplat_status report_splats(cli *c, const report_request *r, const char *path) {
    static const report_kind kind = {splats_pictures, SPLATS_PICTURES, splats_story_page, splats_story_json};
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *splats = NULL;
    splats_story s = {0};
    char line[96];
    TRY(clsplat_splats_load(c->lib, path, &splats));
    TRY(splats_story_create(c->lib, splats, path, &s));
    snprintf(line, sizeof line, "%zu splats in %zu levels", s.p.shape.count, s.p.shape.levels);
    TRY(report_deliver(c, r, &kind, &s, line));
fail:
    splats_story_free(&s);
    clsplat_splats_destroy(&splats);
    return status;
}

static clsplat_status report_attention(cli *c, report_request *r) {
    static const report_kind kind = {story_pictures, STORY_PICTURES, story_page, story_json};
    clsplat_status status = CLSPLAT_OK;
    story s = {0};
    char line[200];
    if (c->arguments[1])
        TRY(report_model(c, r, c->arguments[0], c->arguments[1], &s));
    else
        TRY(report_tensors(c, r, c->arguments[0], &s));
    snprintf(line, sizeof line,
             "%zu keys, %zu queries of %zu heads in %zu layers; %.3g s for the run, %.3g s to look closer",
             s.look.keys, s.look.count, s.look.heads, s.look.layers, s.seconds, s.look_seconds);
    TRY(report_deliver(c, r, &kind, &s, line));
fail:
    story_free(&s);
    return status;
}

/* What kind of file it is, by what is in it. */
static clsplat_status report(cli *c, report_request *r) {
    clsplat_status status = CLSPLAT_OK;
    const char *path = c->arguments[0];
    safetensors *file = NULL;
    if (r->tuning)
        return c->arguments[1] ? cli_misuse(c, "--tuning takes one file, or none") : report_tuning(c, r);
    if (!path)
        return cli_misuse(c, "an argument is missing: clsplat report MODEL FILE, or another of --help");
    size_t length = strlen(path);
    TRY(check_request(c, r));
    if (c->arguments[1])
        return report_attention(c, r);
    if (is_folder(path) || (length > 6 && strcmp(path + length - 6, ".jsonl") == 0))
        return report_log(c, r, path);
    TRY(safetensors_open(c->lib, path, &file));
    bool splats = safetensors_find(file, "log_amplitude") != NULL;
    safetensors_close(&file);
    return splats ? report_splats(c, r, path) : report_attention(c, r);
fail:
    return status;
}

clsplat_status cmd_report(cli *c, int argc, const char **argv) {
    report_request r = {0};
    struct poptOption attention[] = {LANGUAGE_ATTENTION_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption model[] = {LANGUAGE_MODEL_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption tensors[] = {
        {"causal", 0, POPT_ARG_NONE, &r.causal, 0, "query i sees the keys up to i + (M - N)", NULL},
        {"scale", 0, POPT_ARG_STRING, &r.scale, 0, "factor on q.k; 1/sqrt(D) if it is not given", "X"},
        POPT_TABLEEND,
    };
    struct poptOption pictures[] = {
        {"svg", 0, POPT_ARG_STRING, &r.svg, 0, "as SVG, which follows the light and the dark of its reader",
         "FILE"},
        {"png", 0, POPT_ARG_STRING, &r.png, 0, "as PNG, two dots a pixel", "FILE"},
        {"picture", 0, POPT_ARG_STRING, &r.which, 0,
         "which one: matrix (if it is not given), errors, keys, head-errors, entropy, walk, memory, time; of "
         "splats splats, "
         "tree, levels; of training loss, rate, norm, speed; of a history decisions, error; of tuning "
         "landscape, "
         "neighbours, candidates",
         "NAME"},
        {"dark", 0, POPT_ARG_NONE, &r.dark, 0, "a PNG for dark backgrounds", NULL},
        POPT_TABLEEND,
    };
    struct poptOption options[] = {
        {"output", 'o', POPT_ARG_STRING, &r.output, 0,
         "where the page goes; it appears only when it is complete", "OUT.html"},
        {"rows", 0, POPT_ARG_STRING, &r.rows, 0,
         "which tokens to record, as 100,200-210; some spread over the text, and its last ones, if it is not "
         "given",
         "LIST"},
        {"tuning", 0, POPT_ARG_NONE, &r.tuning, 0,
         "of what `clsplat tune` tried, which it keeps; or of FILE, a copy of that", NULL},
        CLI_GROUP("A picture by itself:", pictures),
        CLI_GROUP(LANGUAGE_ATTENTION " near-far if it is not given", attention),
        CLI_GROUP(LANGUAGE_MODEL, model),
        CLI_GROUP("For INPUT.safetensors:", tensors),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary,
                         "MODEL FILE | INPUT.safetensors | DIR | HISTORY.jsonl | --tuning [FILE] -o OUT.html "
                         "[OPTION...]",
                         options, .optional = 2};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = report(c, &r);
    cli_free(options);
    return status;
}
