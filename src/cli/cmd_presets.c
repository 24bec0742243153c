/* clsplat presets: hierarchies by name, and what they take. */
#include <clsplat/clsplat.h>
#include <stdio.h>

#include "cli/report.h"

static const char summary[] = "Lists the hierarchies that `clsplat init --preset NAME` makes: levels, splats "
                              "in each and their weights, the\n"
                              "keys that --sparse-topk may be, and what their splats take: the file, and the "
                              "state of a head while decoding.";

typedef struct presets_request {
    char *tokens, *dim, *value_dim, *heads;
} presets_request;

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

static json_t *preset_json(const clsplat_preset *p, const clsplat_hierarchy *h, const layer_size *size) {
    json_t *levels = json_array();
    size_t splats = splats_of(h);
    for (size_t l = 0; l < h->levels; ++l)
        levels =
            report_append(levels, json_pack("{s:o, s:I, s:f}", "name", report_text(h->names[l]), "splats",
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

static clsplat_status presets(cli *c, const presets_request *r) {
    clsplat_status status = CLSPLAT_OK;
    layer_size size = {.tokens = 4096, .dim = 64, .value_dim = 64, .heads = 1};
    json_t *all = json_array();
    clsplat_hierarchy h = {0};
    TRY(read_request(c, r, &size));
    for (size_t i = 0; clsplat_preset_at(i); ++i) {
        const clsplat_preset *p = clsplat_preset_at(i);
        TRY(clsplat_hierarchy_preset(c->lib, p->name, size.tokens, &h));
        if (c->json)
            all = report_append(all, preset_json(p, &h, &size));
        else
            print_preset(p, &h, &size);
        clsplat_hierarchy_free(&h);
    }
    if (c->json)
        return report_json(c, all);
    status = cli_flush(c);
fail:
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
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "[OPTION...]", options, .without_device = true};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = presets(c, &r);
    cli_free(options);
    return status;
}
