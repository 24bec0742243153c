/* clsplat report: what attention did, as a page to look at. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/make_report.h"
#include "cli/output.h"
#include "cli/report.h"

static const char summary[] = "Makes one HTML file of what attention did, which opens anywhere and needs no "
                              "network: of a MODEL that reads\n"
                              "FILE, or of queries q, keys k and values v in INPUT.safetensors, as `clsplat "
                              "attend` reads them. Some tokens,\n"
                              "spread over the text, are recorded: what each of them attends to, in every "
                              "layer and head, by which keys one by\n"
                              "one, and with which error beside exact attention.";

enum { MOST_ROWS = 4096, USUAL_ROWS = 256, LEAST_ROWS = 8, LAST_ROWS = 16, MANY_HEADS = 64 };

size_t report_top(size_t heads) {
    return heads > MANY_HEADS ? 8 : LOOK_TOP_MOST;
}

/* What a page has room for. */
static size_t usual_rows(size_t heads) {
    static const double BYTES = 3.4e6;
    size_t each = (24 + 5 * report_top(heads) + LOOK_BLOCKS) * 4 / 3 * heads,
           rows = (size_t)(BYTES / (double)each);
    return rows > USUAL_ROWS ? USUAL_ROWS : rows < LEAST_ROWS ? LEAST_ROWS : rows;
}

/* "100,200-210": marks what it names. */
static clsplat_status read_rows(cli *c, const char *rows, size_t total, uint8_t *chosen) {
    const char *at = rows;
    for (char *end; *at; at = *end ? end + 1 : end) {
        unsigned long long first = strtoull(at, &end, 10), last = first;
        bool good = end != at && *at != '-';
        if (good && *end == '-') {
            at = end + 1;
            last = strtoull(at, &end, 10);
            good = end != at;
        }
        if (!good || (*end && *end != ',') || last < first)
            return cli_misuse(c, "--rows: `%s` is not a list such as 100,200-210", rows);
        if (last >= total)
            return log_error(c->lib, CLSPLAT_INVALID, "--rows: there is no row %llu; the last one is %zu",
                             last, total - 1);
        for (; first <= last; ++first)
            chosen[first] = 1;
    }
    return CLSPLAT_OK;
}

static void spread_rows(size_t total, size_t rows, uint8_t *chosen) {
    size_t last = total < LAST_ROWS ? total : LAST_ROWS, spread = rows > last ? rows - last : 1;
    if (rows >= total) {
        memset(chosen, 1, total);
        return;
    }
    for (size_t i = 0; i < spread; ++i)
        chosen[i * (total - 1) / spread] = 1;
    for (size_t i = rows > last ? total - last : total - 1; i < total; ++i)
        chosen[i] = 1;
}

clsplat_status report_choose(cli *c, const char *rows, size_t total, size_t heads, uint32_t **list,
                             size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    uint8_t *chosen = calloc(total + 1, 1);
    *list = NULL;
    *count = 0;
    if (!chosen)
        return log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", total);
    if (rows)
        TRY(read_rows(c, rows, total, chosen));
    else
        spread_rows(total, usual_rows(heads), chosen);
    for (size_t i = 0; i < total; ++i)
        *count += chosen[i];
    if (*count == 0 || *count > MOST_ROWS)
        TRY(log_error(c->lib, CLSPLAT_INVALID, "--rows: %zu rows are not from 1 to %d", *count, MOST_ROWS));
    *list = malloc(*count * sizeof **list);
    if (!*list)
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", *count));
    for (size_t i = 0, at = 0; i < total; ++i)
        if (chosen[i])
            (*list)[at++] = (uint32_t)i;
fail:
    free(chosen);
    return status;
}

void report_count_kernels(story *s) {
    s->kernel_seconds = 0;
    for (size_t i = 0; i < s->kernel_count; ++i)
        s->kernel_seconds += s->kernels[i].seconds;
}

static clsplat_status save(cli *c, const char *path, const text *words) {
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {0};
    if (!text_ok(words))
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: there is no memory for it", path);
    TRY(file_create(c->lib, path, &file));
    status = file_write(c->lib, &file, words->data, words->length);
    if (status == CLSPLAT_OK)
        status = file_commit(c->lib, &file);
    file_discard(&file);
fail:
    return status;
}

static clsplat_status tell(cli *c, const report_request *r, const story *s, size_t bytes) {
    char size[REPORT_BYTES];
    progress_clear(&c->progress);
    if (c->json)
        return report_json_digits(c, story_json(s), 9);
    printf("%s: %s; %zu keys, %zu queries of %zu heads in %zu layers; %.3g s for the run, %.3g s to look "
           "closer\n",
           r->output, report_bytes(bytes, size), s->look.keys, s->look.count, s->look.heads, s->look.layers,
           s->seconds, s->look_seconds);
    return cli_flush(c);
}

static clsplat_status report(cli *c, report_request *r) {
    clsplat_status status = CLSPLAT_OK;
    story s = {0};
    text page = {0};
    if (!r->output || !r->output[0])
        return cli_misuse(c, "-o is missing; it says where the page goes: -o report.html");
    if (c->arguments[1] && (r->causal || r->scale))
        return cli_misuse(c, "--causal and --scale are for tensors; models have theirs");
    TRY(output_check(c->lib, r->output));
    if (c->arguments[1])
        TRY(report_model(c, r, c->arguments[0], c->arguments[1], &s));
    else
        TRY(report_tensors(c, r, c->arguments[0], &s));
    story_page(&s, &page);
    TRY(tell(c, r, &s, page.length));
    TRY(save(c, r->output, &page));
fail:
    text_free(&page);
    story_free(&s);
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
    struct poptOption options[] = {
        {"output", 'o', POPT_ARG_STRING, &r.output, 0,
         "where the page goes; it appears only when it is complete", "OUT.html"},
        {"rows", 0, POPT_ARG_STRING, &r.rows, 0,
         "which tokens to record, as 100,200-210; some spread over the text, and its last ones, if it is not "
         "given",
         "LIST"},
        CLI_GROUP(LANGUAGE_ATTENTION " near-far if it is not given", attention),
        CLI_GROUP(LANGUAGE_MODEL, model),
        CLI_GROUP("For INPUT.safetensors:", tensors),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL FILE | INPUT.safetensors -o OUT.html [OPTION...]", options,
                         .arguments = 1, .optional = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = report(c, &r);
    cli_free(options);
    return status;
}
