/* clsplat metrics: what splats do for a layer. */
#include <clsplat/clsplat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/layer_input.h"
#include "cli/report.h"

static const char summary[] = "Reads splats, and q, k, v and, if it is there, key_bias as `clsplat adapt` "
                              "does, and tells what the splats do\n"
                              "for them: entropies of attention and of the use of splats, divergences "
                              "between attention and its splat form,\n"
                              "who contributes most, what levels share. An estimate over rows comes with its "
                              "error, in two of its deviations.";

typedef struct metrics_request {
    const char *splats, *input;
    char *sample, *pairs, *top, *scale;
    int causal;
} metrics_request;

static clsplat_status read_request(cli *c, const metrics_request *r, clsplat_measure *how, size_t *top) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t sample = how->sample, pairs = how->pairs, most = *top;
    double scale = NAN;
    TRY(cli_count(c, "--sample", r->sample, 1, &sample));
    TRY(cli_count(c, "--pairs", r->pairs, 1, &pairs));
    TRY(cli_count(c, "--top", r->top, 0, &most));
    TRY(cli_number(c, "--scale", r->scale, &scale));
    how->sample = sample;
    how->pairs = pairs;
    how->scale = (float)scale;
    how->causal = r->causal;
    *top = most;
fail:
    return status;
}

/* The splats of a head, those that contribute most first. */
typedef struct ranked {
    double score;
    size_t splat;
} ranked;

static int by_score(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->splat < y->splat ? -1 : x->splat > y->splat;
}

static ranked *rank(const clsplat_metrics *m, size_t head) {
    ranked *all = malloc(m->splats * sizeof *all);
    for (size_t s = 0; all && s < m->splats; ++s)
        all[s] = (ranked){m->head[head].leave_one_out[s], s};
    if (all)
        qsort(all, m->splats, sizeof *all, by_score);
    return all;
}

static json_t *estimate(clsplat_estimate e) {
    json_t *error = isfinite(e.error) ? json_real(e.error) : json_null();
    return json_pack("{s:f, s:o}", "value", e.value, "error", error);
}

static json_t *reals(const double *values, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; ++i)
        array = json_push(array, json_real(values[i]));
    return array;
}

static json_t *head_json(const clsplat_metrics *m, size_t head, clsplat_splats_parameters p, size_t top) {
    const clsplat_head_metrics *h = &m->head[head];
    json_t *best = json_array(), *flow = json_array(), *levels = json_array();
    ranked *order = rank(m, head);
    for (size_t i = 0; order && i < top && i < m->splats; ++i)
        best = json_push(best, json_pack("{s:I, s:o, s:f, s:f}", "splat", (json_int_t)order[i].splat, "level",
                                         report_text(p.level_names[p.level[order[i].splat]]), "use",
                                         h->use[order[i].splat], "leave_one_out", order[i].score));
    for (size_t l = 0; l < m->levels; ++l) {
        flow = json_push(flow, reals(h->flow + l * m->levels, m->levels));
        levels = json_push(levels, json_pack("{s:o, s:f}", "name", report_text(p.level_names[l]), "share",
                                             h->level_share[l]));
    }
    free(order);
    return json_pack("{s:I, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:f, s:f, s:f}, s:o, s:o, s:o}",
                     "head", (json_int_t)head, "output_error", h->output_error, "attention_entropy",
                     estimate(h->attention_entropy), "splat_form_entropy", estimate(h->splat_form_entropy),
                     "kullback_leibler", estimate(h->kullback_leibler), "jensen_shannon",
                     estimate(h->jensen_shannon), "use_entropy", estimate(h->use_entropy), "effective_splats",
                     estimate(h->effective_splats), "mutual_information", estimate(h->mutual_information),
                     "coverage", "mean", h->mean_coverage, "worst", h->worst_coverage, "covered", h->covered,
                     "levels", levels, "flow", flow, "top", best);
}

static void print_estimate(const char *name, clsplat_estimate e) {
    printf("  %-22s %10.4f", name, e.value);
    if (e.error > 0)
        printf("  within %.2g", e.error);
    printf("\n");
}

static void print_head(const clsplat_metrics *m, size_t head, clsplat_splats_parameters p, size_t top) {
    const clsplat_head_metrics *h = &m->head[head];
    printf("head %zu: error of the output %.4f\n", head, h->output_error);
    print_estimate("attention entropy", h->attention_entropy);
    print_estimate("splat form's entropy", h->splat_form_entropy);
    print_estimate("Kullback-Leibler", h->kullback_leibler);
    print_estimate("Jensen-Shannon", h->jensen_shannon);
    print_estimate("entropy of use", h->use_entropy);
    print_estimate("effective splats", h->effective_splats);
    print_estimate("mutual information", h->mutual_information);
    printf("  %-22s %10.4f  worst %.4f, covered %.1f %%\n", "coverage", h->mean_coverage, h->worst_coverage,
           100 * h->covered);
    for (size_t l = 0; l < m->levels; ++l) {
        printf("  level %-16s %9.1f %%  flow", p.level_names[l], 100 * h->level_share[l]);
        for (size_t o = 0; o < m->levels; ++o)
            printf(" %.4f", h->flow[l * m->levels + o]);
        printf("\n");
    }
    ranked *order = rank(m, head);
    for (size_t i = 0; order && i < top && i < m->splats; ++i)
        printf("  splat %-6zu use %.4f, without it %.4f nats are lost\n", order[i].splat,
               h->use[order[i].splat], order[i].score);
    free(order);
}

static clsplat_status report(cli *c, const clsplat_metrics *m, clsplat_splats *splats, size_t top) {
    clsplat_splats_parameters p = clsplat_splats_get(splats);
    if (c->json) {
        json_t *heads = json_array();
        for (size_t h = 0; h < m->heads; ++h)
            heads = json_push(heads, head_json(m, h, p, top));
        return report_json_digits(c,
                                  json_pack("{s:I, s:I, s:I, s:o}", "splats", (json_int_t)m->splats, "rows",
                                            (json_int_t)m->rows, "pair_rows", (json_int_t)m->pair_rows,
                                            "heads", heads),
                                  9);
    }
    for (size_t h = 0; h < m->heads; ++h)
        print_head(m, h, p, top);
    return cli_flush(c);
}

static clsplat_status metrics(cli *c, const metrics_request *r) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *splats = NULL;
    clsplat_device *device = NULL;
    layer_input t = {0};
    clsplat_metrics m = {0};
    clsplat_measure how = clsplat_measure_defaults();
    size_t top = 5;
    TRY(read_request(c, r, &how, &top));
    TRY(clsplat_splats_load(c->lib, r->splats, &splats));
    TRY(layer_input_read(c->lib, r->input, &t));
    TRY(clsplat_device_open(c->lib, c->device, &device));
    TRY(clsplat_splats_measure(device, how, layer_input_tensors(&t), splats, &m));
    TRY(report(c, &m, splats, top));
fail:
    clsplat_metrics_free(&m);
    layer_input_free(&t);
    clsplat_splats_destroy(&splats);
    clsplat_device_close(&device);
    return status;
}

clsplat_status cmd_metrics(cli *c, int argc, const char **argv) {
    metrics_request r = {0};
    struct poptOption options[] = {
        {"causal", 0, POPT_ARG_NONE, &r.causal, 0, "query i sees the keys up to i + (M - N)", NULL},
        {"top", 0, POPT_ARG_STRING, &r.top, 0, "how many of those that contribute most are named; 5", "N"},
        {"sample", 0, POPT_ARG_STRING, &r.sample, 0, "rows looked at, of each head; 1024", "N"},
        {"pairs", 0, POPT_ARG_STRING, &r.pairs, 0, "of them, rows compared with attention key by key; 32",
         "N"},
        {"scale", 0, POPT_ARG_STRING, &r.scale, 0, "factor on q.k of softmax attention; 1/sqrt(D)", "X"},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "SPLATS.safetensors INPUT.safetensors [OPTION...]", options,
                         .arguments = 2};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status)) {
        r.splats = c->arguments[0];
        r.input = c->arguments[1];
        status = metrics(c, &r);
    }
    cli_free(options);
    return status;
}
