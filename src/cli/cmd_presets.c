/* clsplat presets: hierarchies by name, and what they take. */
#include <clsplat/clsplat.h>
#include <stdio.h>

#include "base/text.h"
#include "cli/layer_input.h"
#include "cli/report.h"

static const char summary[] =
    "Lists the hierarchies that `clsplat init --preset NAME` makes: levels, splats "
    "in each and their weights, the\n"
    "keys that --sparse-topk may be, and what their splats take: the file, and the "
    "state of a head while decoding;\n"
    "for a layer (q, k and v in a file) also memory, time and error of one attention, "
    "estimated from parts of it.";

typedef struct presets_request {
    char *tokens, *dim, *value_dim, *heads, *layer;
    int causal, softmax;
} presets_request;

/* The layer of --layer, and what the preset at work would come to on it. */
typedef struct estimating {
    bool there;
    layer_input layer;
    clsplat_forecast forecast;
    size_t done;           /* presets that could be estimated */
    clsplat_status failed; /* of the last that could not */
} estimating;

typedef struct layer_size {
    uint64_t tokens, dim, value_dim, heads;
} layer_size;

static clsplat_status read_request(cli *c, const presets_request *r, layer_size *size) {
    clsplat_status status = CLSPLAT_OK;
    TRY(cli_count(c, "--tokens", r->tokens, 1, &size->tokens));
    TRY(cli_count(c, "--dim", r->dim, 1, &size->dim));
    TRY(cli_count(c, "--value-dim", r->value_dim, 1, &size->value_dim));
    TRY(cli_count(c, "--heads", r->heads, 1, &size->heads));
fail:
    return status;
}

static size_t splats_of(const clsplat_hierarchy *h) {
    size_t splats = 0;
    for (size_t l = 0; l < h->levels; ++l)
        splats += h->counts[l];
    return splats;
}

/* Of diagonal sets: means, variances, amplitudes and temperatures of all heads; and lse, mass and value of
 * one. */
static double file_bytes(const layer_size *s, size_t splats) {
    return 4 * (double)s->heads * (double)splats * (2 * (double)s->dim + 2);
}

static double state_bytes(const layer_size *s, size_t splats) {
    return 4 * (double)splats * ((double)s->value_dim + 2);
}

/* Reads the layer, whose sizes become those of the list. */
static clsplat_status open_layer(cli *c, const presets_request *r, layer_size *size, estimating *e) {
    clsplat_status status = CLSPLAT_OK;
    if (!r->layer) {
        if (r->causal || r->softmax)
            return cli_misuse(c, "%s is for --layer", r->causal ? "--causal" : "--match-softmax");
        return CLSPLAT_OK;
    }
    if (r->tokens || r->dim || r->value_dim || r->heads)
        return cli_misuse(c,
                          "--layer says how many tokens, columns and heads there are; leave the others away");
    TRY(layer_input_read(c->lib, r->layer, &e->layer));
    clsplat_attention_tensors t = layer_input_tensors(&e->layer);
    *size = (layer_size){t.k.shape[2], t.q.shape[3], t.v.shape[3], t.q.shape[1]};
    e->there = true;
fail:
    return status;
}

/* On a device of its own: what one has been lent for a preset it keeps for the next. */
static clsplat_status estimate(cli *c, const presets_request *r, const clsplat_hierarchy *h, estimating *e) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = NULL;
    clsplat_init init = clsplat_init_defaults();
    init.hierarchy = h;
    init.match = r->softmax ? CLSPLAT_MATCH_SOFTMAX : CLSPLAT_MATCH_TOKENS;
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(clsplat_splats_forecast(device, init, r->causal, layer_input_tensors(&e->layer), &e->forecast));
fail:
    clsplat_device_close(&device);
    return status;
}

static json_t *preset_json(const clsplat_preset *p, const clsplat_hierarchy *h, const layer_size *size) {
    json_t *levels = json_array();
    size_t splats = splats_of(h);
    for (size_t l = 0; l < h->levels; ++l)
        levels = json_push(levels, json_pack("{s:o, s:I, s:f}", "name", report_text(h->names[l]), "splats",
                                             (json_int_t)h->counts[l], "weight", h->weights[l]));
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:f, s:f}", "name", p->name, "for", p->purpose, "levels",
                     levels, "splats", (json_int_t)splats, "sparse_topk", (json_int_t)p->sparse_topk,
                     "file_bytes", file_bytes(size, splats), "state_bytes_per_head",
                     state_bytes(size, splats));
}

static void print_preset(const clsplat_preset *p, const clsplat_hierarchy *h, const layer_size *size) {
    size_t splats = splats_of(h);
    printf("%-18s %s; sparse top-k %zu\n ", p->name, p->purpose, p->sparse_topk);
    for (size_t l = 0; l < h->levels; ++l)
        printf(" %s %zu (%.2f)", h->names[l], h->counts[l], h->weights[l]);
    printf("\n  %zu splats: %.1f kB of %ju heads, %.1f kB of state a head\n", splats,
           file_bytes(size, splats) / 1e3, (uintmax_t)size->heads, state_bytes(size, splats) / 1e3);
}

static void add_estimate(cli *c, json_t **preset, const clsplat_forecast *f) {
    if (c->json)
        *preset = json_put(*preset, "estimate",
                           json_pack("{s:I, s:f, s:f}", "bytes", (json_int_t)f->bytes, "seconds", f->seconds,
                                     "error", f->error));
    else
        printf("  on the layer: about %.1f MB, %.3g s an attention, error %.3f\n", (double)f->bytes / 1e6,
               f->seconds, f->error);
}

static void add_reason(cli *c, json_t **preset, const char *why) {
    if (c->json) {
        *preset = json_put(*preset, "estimate", json_null());
        *preset = json_put(*preset, "why", report_text(why));
    } else {
        printf("  on the layer: it cannot be estimated: %s\n", text_show(why).bytes);
    }
}

/* What the layer, or the device, is too small for is said, and the next one estimated. */
static clsplat_status tell_estimate(cli *c, const presets_request *r, const clsplat_hierarchy *h,
                                    json_t **preset, estimating *e) {
    clsplat_status status = estimate(c, r, h, e);
    bool small = status == CLSPLAT_INVALID || status == CLSPLAT_MEMORY || status == CLSPLAT_UNSUPPORTED;
    if (small) {
        e->failed = status;
        add_reason(c, preset, clsplat_last_error(c->lib));
        return CLSPLAT_OK;
    }
    if (status == CLSPLAT_OK) {
        ++e->done;
        add_estimate(c, preset, &e->forecast);
    }
    return status;
}

static clsplat_status presets(cli *c, const presets_request *r) {
    clsplat_status status = CLSPLAT_OK;
    estimating e = {0};
    layer_size size = {.tokens = 4096, .dim = 64, .value_dim = 64, .heads = 1};
    json_t *all = json_array();
    clsplat_hierarchy h = {0};
    TRY(read_request(c, r, &size));
    TRY(open_layer(c, r, &size, &e));
    for (size_t i = 0; clsplat_preset_at(i); ++i) {
        const clsplat_preset *p = clsplat_preset_at(i);
        TRY(clsplat_hierarchy_preset(c->lib, p->name, size.tokens, &h));
        json_t *told = c->json ? preset_json(p, &h, &size) : NULL;
        if (!c->json)
            print_preset(p, &h, &size);
        if (e.there)
            status = tell_estimate(c, r, &h, &told, &e);
        if (c->json)
            all = json_push(all, told);
        TRY(status);
        clsplat_hierarchy_free(&h);
    }
    if (c->json)
        status = report_json(c, json_incref(all));
    else
        status = cli_flush(c);
    if (status == CLSPLAT_OK && e.there && e.done == 0) /* nothing of what was asked for: no success */
        status = e.failed;
fail:
    layer_input_free(&e.layer);
    clsplat_hierarchy_free(&h);
    json_decref(all);
    return status;
}

clsplat_status cmd_presets(cli *c, int argc, const char **argv) {
    presets_request r = {0};
    struct poptOption options[] = {
        {"tokens", 0, POPT_ARG_STRING, &r.tokens, 0, "that the splats shall serve; 4096", "N"},
        {"dim", 0, POPT_ARG_STRING, &r.dim, 0, "of queries and keys; 64", "N"},
        {"value-dim", 0, POPT_ARG_STRING, &r.value_dim, 0, "of values; 64", "N"},
        {"heads", 0, POPT_ARG_STRING, &r.heads, 0, "that have splats of their own; 1", "N"},
        {"layer", 0, POPT_ARG_STRING, &r.layer, 0, "the layer to estimate memory, time and error on", "FILE"},
        {"causal", 0, POPT_ARG_NONE, &r.causal, 0, "the layer is causal", NULL},
        {"match-softmax", 0, POPT_ARG_NONE, &r.softmax, 0, "splats as init --match softmax makes them", NULL},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "[OPTION...]", options, .arguments = 0};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = presets(c, &r);
    cli_free(options);
    return status;
}
