/* clsplat init: splats from the queries and keys they will stand between. */
#include <clsplat/clsplat.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/layer_input.h"
#include "cli/output.h"
#include "cli/report.h"

enum { METHOD_GROW = CLSPLAT_INIT_TOKEN_AWARE + 1 };
static const char *const methods[] = {[CLSPLAT_INIT_RANDOM] = "random",
                                      [CLSPLAT_INIT_KMEANS] = "kmeans",
                                      [CLSPLAT_INIT_PCA] = "pca",
                                      [CLSPLAT_INIT_SPECTRAL] = "spectral",
                                      [CLSPLAT_INIT_TOKEN_AWARE] = "token-aware",
                                      [METHOD_GROW] = "grow",
                                      NULL};
static const char *const covariances[] = {
    [CLSPLAT_ISOTROPIC] = "isotropic", [CLSPLAT_DIAGONAL] = "diagonal", [CLSPLAT_FULL] = "full", NULL};

static const char *const matches[] = {
    [CLSPLAT_MATCH_TOKENS] = "tokens", [CLSPLAT_MATCH_SOFTMAX] = "softmax", NULL};

static const char summary[] =
    "Reads keys k [B,Hk,M,D] and, if they are there, queries q [B,H,N,D], and writes splats for\n"
    "`clsplat attend --splats`: means, variances and amplitudes of clusters of the tokens, in levels. With\n"
    "--init grow the file has values v [B,Hk,M,Dv], too, and splats are added where the error falls most.";

typedef struct init_request {
    const char *input;
    char *output, *config, *method, *covariance, *seed, *steps, *sample, *match, *variance_scale, *splats,
        *preset;
    int shared, coarsen, causal;
    bool grow;
} init_request;

static clsplat_status read_request(cli *c, init_request *r, clsplat_init *init) {
    clsplat_status status = CLSPLAT_OK;
    int method = (int)init->method, covariance = (int)init->covariance, match = (int)init->match;
    uint64_t steps = init->lloyd_steps, sample = init->sample;
    double variance_scale = (double)init->variance_scale;
    TRY(cli_choice(c, "--init", r->method, methods, &method));
    TRY(cli_choice(c, "--covariance", r->covariance, covariances, &covariance));
    match = method == METHOD_GROW ? CLSPLAT_MATCH_SOFTMAX : match; /* what it grows towards */
    TRY(cli_choice(c, "--match", r->match, matches, &match));
    TRY(cli_count(c, "--seed", r->seed, 0, &init->seed));
    TRY(cli_count(c, "--steps", r->steps, 0, &steps));
    TRY(cli_count(c, "--sample", r->sample, 1, &sample));
    TRY(cli_number(c, "--variance-scale", r->variance_scale, &variance_scale));
    if (!r->output || r->output[0] == '\0')
        return cli_misuse(c, "-o is missing; it says where the splats go: -o SPLATS.safetensors");
    if (!((float)variance_scale > 0))
        return cli_misuse(c, "--variance-scale: `%s` is not a positive number", r->variance_scale);
    if (steps > UINT32_MAX)
        return cli_misuse(c, "--steps: `%s` is too many", r->steps);
    r->grow = method == METHOD_GROW;
    if (r->causal && !r->grow)
        return cli_misuse(c, "--causal is for --init grow; leave it away");
    if ((r->splats != NULL) + (r->config != NULL) + (r->preset != NULL) > 1)
        return cli_misuse(
            c, "--splats, --config and --preset each say how many splats there are; leave all but one away");
    init->method = r->grow ? CLSPLAT_INIT_KMEANS : (clsplat_init_method)method;
    init->covariance = (clsplat_covariance)covariance;
    init->match = (clsplat_match)match;
    init->shared = r->shared;
    init->lloyd_steps = (unsigned)steps;
    init->sample = sample;
    init->variance_scale = (float)variance_scale;
fail:
    return status;
}

/* One level of so many. */
static clsplat_status plain_levels(cli *c, const char *splats, clsplat_hierarchy *h) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t count = 0;
    TRY(cli_count(c, "--splats", splats, 1, &count));
    *h = (clsplat_hierarchy){.levels = 1,
                             .names = calloc(1, sizeof *h->names),
                             .counts = malloc(sizeof *h->counts),
                             .weights = malloc(sizeof *h->weights)};
    if (!h->names || !h->counts || !h->weights || !(h->names[0] = text_copy("Token")))
        return log_error(c->lib, CLSPLAT_MEMORY, "no memory for a level");
    h->counts[0] = count;
    h->weights[0] = 1;
fail:
    return status;
}

static clsplat_status read_tokens(clsplat *lib, const safetensors *file, input *q, input *k) {
    clsplat_status status = CLSPLAT_OK;
    TRY(input_find(lib, file, "k", 4, k));
    TRY(input_find_optional(lib, file, "q", 4, q));
    if (q->entry) {
        TRY(input_match(lib, k, q, INPUT_BATCH));
        TRY(input_match(lib, k, q, INPUT_COLUMNS));
        TRY(input_match_heads(lib, q, k));
    }
    TRY(input_read_finite(lib, q, false));
    TRY(input_read_finite(lib, k, false));
fail:
    return status;
}

static clsplat_status report(cli *c, const clsplat_device *device, const clsplat_hierarchy *h,
                             clsplat_splats_shape shape, double seconds) {
    const char *name = clsplat_device_describe(device)->name;
    if (c->json) {
        json_t *levels = json_array();
        for (size_t l = 0; l < h->levels; ++l)
            levels =
                json_push(levels, json_pack("{s:o, s:I, s:f}", "name", report_text(h->names[l]), "splats",
                                            (json_int_t)h->counts[l], "weight", h->weights[l]));
        return report_json(c, json_pack("{s:o, s:f, s:s, s:I, s:I, s:I, s:o}", "device", report_text(name),
                                        "seconds", seconds, "covariance", report_covariance(shape.covariance),
                                        "heads", (json_int_t)shape.heads, "dim", (json_int_t)shape.dim,
                                        "splats", (json_int_t)shape.count, "levels", levels));
    }
    if (!c->verbose)
        return CLSPLAT_OK;
    printf("%zu splats of %s covariance, %s, in %.3f s on %s\n", shape.count,
           report_covariance(shape.covariance), shape.heads == 1 ? "shared by the heads" : "for each head",
           seconds, name);
    for (size_t l = 0; l < h->levels; ++l)
        printf("  %-12s %6zu splats, weight %.3f\n", h->names[l], h->counts[l], h->weights[l]);
    return cli_flush(c);
}

static clsplat_status grow(clsplat_device *device, bool causal, const clsplat_init *init,
                           const layer_input *t, clsplat_splats **splats) {
    clsplat_adapt how = clsplat_adapt_defaults();
    how.cycles = 1;
    how.seed = init->seed;
    how.causal = causal;
    how.progress = init->progress;
    how.progress_user = init->progress_user;
    return clsplat_splats_grow(device, *init, how, layer_input_tensors(t), splats, NULL);
}

static clsplat_status make(cli *c, const init_request *r, const clsplat_init *init, const layer_input *t) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    clsplat_splats *splats = NULL;
    TRY(clsplat_device_open(c->lib, c->device, &device));
    double begin = clock_seconds();
    TRY(r->grow ? grow(device, r->causal, init, t, &splats)
                : clsplat_splats_init(device, *init, t->q.tensor, t->k.tensor, &splats));
    if (r->coarsen)
        TRY(clsplat_splats_coarsen(c->lib, splats, init->seed));
    double seconds = clock_seconds() - begin;
    progress_clear(&c->progress);
    TRY(report(c, device, init->hierarchy, clsplat_splats_get(splats).shape, seconds));
    TRY(clsplat_splats_save(splats, r->output));
fail:
    clsplat_splats_destroy(&splats);
    clsplat_device_close(&device);
    return status;
}

/* Queries and keys, and what growing looks at besides. */
static clsplat_status read_layer(clsplat *lib, const init_request *r, layer_input *t) {
    clsplat_status status = CLSPLAT_OK;
    if (r->grow)
        return layer_input_read(lib, r->input, t);
    TRY(safetensors_open(lib, r->input, &t->file));
    TRY(read_tokens(lib, t->file, &t->q, &t->k));
fail:
    return status;
}

/* How many splats there shall be. A preset is for the tokens there are. */
static clsplat_status read_hierarchy(cli *c, const init_request *r, const layer_input *t,
                                     clsplat_hierarchy *h) {
    if (r->config)
        return clsplat_hierarchy_load(c->lib, r->config, h);
    if (r->splats)
        return plain_levels(c, r->splats, h);
    if (r->preset)
        return clsplat_hierarchy_preset(c->lib, r->preset, t->k.tensor.shape[2], h);
    return clsplat_hierarchy_default(c->lib, h);
}

static clsplat_status init(cli *c, init_request *r) {
    clsplat_status status = CLSPLAT_OK;
    layer_input t = {0};
    clsplat_hierarchy hierarchy = {0};
    clsplat_init parameters = clsplat_init_defaults();
    TRY(read_request(c, r, &parameters));
    TRY(output_check(c->lib, r->output));
    TRY(read_layer(c->lib, r, &t));
    TRY(read_hierarchy(c, r, &t, &hierarchy));
    progress_begin(&c->progress);
    parameters.hierarchy = &hierarchy;
    parameters.progress = progress_step;
    parameters.progress_user = &c->progress;
    TRY(make(c, r, &parameters, &t));
fail:
    layer_input_free(&t);
    clsplat_hierarchy_free(&hierarchy);
    return status;
}

clsplat_status cmd_init(cli *c, int argc, const char **argv) {
    init_request r = {0};
    struct poptOption options[] = {
        {"output", 'o', POPT_ARG_STRING, &r.output, 0, "where the splats go", "SPLATS"},
        {"init", 0, POPT_ARG_STRING, &r.method, 0,
         "random, kmeans, pca, spectral, token-aware or grow: how the means are found; kmeans if it is not "
         "given",
         "HOW"},
        {"covariance", 0, POPT_ARG_STRING, &r.covariance, 0,
         "isotropic, diagonal or full; diagonal if it is not given", "KIND"},
        {"match", 0, POPT_ARG_STRING, &r.match, 0,
         "tokens or softmax: what variances and amplitudes follow; tokens if it is not given", "WHAT"},
        {"config", 0, POPT_ARG_STRING, &r.config, 0, "levels, their splats and their weights", "FILE.json"},
        {"splats", 0, POPT_ARG_STRING, &r.splats, 0, "so many at one level, instead of --config", "N"},
        {"preset", 0, POPT_ARG_STRING, &r.preset, 0, "levels by name, as `clsplat presets` lists them",
         "NAME"},
        {"causal", 0, POPT_ARG_NONE, &r.causal, 0, "for --init grow: query i sees the keys up to i + (M - N)",
         NULL},
        {"coarsen", 0, POPT_ARG_NONE, &r.coarsen, 0,
         "levels after the first are made of the splats of the level before", NULL},
        {"shared", 0, POPT_ARG_NONE, &r.shared, 0, "one set for all heads", NULL},
        {"seed", 0, POPT_ARG_STRING, &r.seed, 0, "of every draw; 0 if it is not given", "N"},
        {"steps", 0, POPT_ARG_STRING, &r.steps, 0, "of Lloyd's algorithm; 10 if it is not given", "N"},
        {"sample", 0, POPT_ARG_STRING, &r.sample, 0, "tokens looked at per head; 65536 if it is not given",
         "N"},
        {"variance-scale", 0, POPT_ARG_STRING, &r.variance_scale, 0,
         "factor on every variance; 1 if it is not given", "X"},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "INPUT.safetensors -o SPLATS.safetensors [OPTION...]", options,
                         .arguments = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status)) {
        r.input = c->arguments[0];
        status = init(c, &r);
    }
    cli_free(options);
    return status;
}
