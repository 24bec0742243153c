/* clsplat embed: texts as vectors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/language.h"
#include "cli/output.h"
#include "cli/report.h"
#include "format/safetensors.h"

enum { TEXT_LIMIT = 1 << 30 }; /* bytes */

static const char summary[] =
    "Makes a vector of every line of FILE (- or nothing is standard input) with an encoder: BERT, RoBERTa, "
    "XLM-R,\n"
    "DistilBERT, EuroBERT or one that train made, pooled and normalised as its folder says (modules.json, "
    "1_Pooling). A line of numbers goes "
    "to\n"
    "standard output for each, or all go to --output as an array [lines, columns] in float32.";

typedef struct embed_request {
    language_request model;
    char *pooling, *format, *output;
    int normalise;
} embed_request;

/* What is read, and what comes of it. */
typedef struct embed_lines {
    text words;
    clsplat_text *list;
    size_t count;
    float *vectors;
    double seconds;
} embed_lines;

static clsplat_status read_stream(cli *c, text *words) {
    char bytes[1 << 16];
    ssize_t got;
    while ((got = read(STDIN_FILENO, bytes, sizeof bytes)) > 0) {
        text_add_bytes(words, bytes, (size_t)got);
        if (words->length > TEXT_LIMIT)
            return log_error(c->lib, CLSPLAT_INVALID, "standard input: more than %d bytes", TEXT_LIMIT);
    }
    return got == 0 ? CLSPLAT_OK : log_error(c->lib, CLSPLAT_IO, "standard input: cannot be read");
}

/* Lines end with \n or \r\n; the last may lack it. */
static clsplat_status split(cli *c, embed_lines *lines) {
    const char *words = lines->words.data;
    size_t count = lines->words.length;
    for (size_t at = 0; at < count; ++at)
        lines->count += words[at] == '\n' || at + 1 == count;
    lines->list = calloc(lines->count + 1, sizeof *lines->list);
    if (!lines->list)
        return log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for %zu lines", lines->count);
    for (size_t i = 0, at = 0; i < lines->count; ++i) {
        const char *end = memchr(words + at, '\n', count - at);
        size_t bytes = end ? (size_t)(end - words) - at : count - at;
        bool carriage = bytes > 0 && words[at + bytes - 1] == '\r';
        lines->list[i] = (clsplat_text){words + at, bytes - carriage};
        at += bytes + 1;
    }
    return CLSPLAT_OK;
}

static clsplat_status read_lines(cli *c, const char *path, embed_lines *lines) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    if (!path || strcmp(path, "-") == 0)
        TRY(read_stream(c, &lines->words));
    else
        TRY(file_load(c->lib, path, TEXT_LIMIT, &bytes, &count));
    text_add_bytes(&lines->words, bytes ? bytes : "", count);
    if (!text_ok(&lines->words))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for the texts"));
    TRY(split(c, lines));
    if (lines->count == 0)
        TRY(log_error(c->lib, CLSPLAT_INVALID, "%s: there is no line to read",
                      path && strcmp(path, "-") != 0 ? path : "standard input"));
fail:
    free(bytes);
    return status;
}

/* NumPy's format, version 1.0: the header is padded so that numbers begin at a multiple of 64 bytes. */
static clsplat_status save_npy(cli *c, const char *path, const embed_lines *lines, size_t columns) {
    enum { ALIGNMENT = 64, PREFIX = 10 };
    clsplat_status status = CLSPLAT_OK;
    file_writer file;
    text header = {0};
    text_add(&header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", lines->count,
             columns);
    while (text_ok(&header) && (PREFIX + header.length + 1) % ALIGNMENT != 0)
        text_add(&header, " ");
    text_add(&header, "\n");
    if (!text_ok(&header)) {
        text_free(&header);
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its header", path);
    }
    const unsigned char prefix[PREFIX] = {0x93,
                                          'N',
                                          'U',
                                          'M',
                                          'P',
                                          'Y',
                                          1,
                                          0,
                                          (unsigned char)header.length,
                                          (unsigned char)(header.length >> 8)};
    TRY(file_create(c->lib, path, &file));
    TRY(file_write(c->lib, &file, prefix, sizeof prefix));
    TRY(file_write(c->lib, &file, header.data, header.length));
    TRY(file_write(c->lib, &file, lines->vectors, 4 * lines->count * columns));
    TRY(file_commit(c->lib, &file));
fail:
    file_discard(&file);
    text_free(&header);
    return status;
}

static void print_line(const float *vector, size_t columns) {
    for (size_t d = 0; d < columns; ++d)
        printf("%s%.9g", d ? " " : "", (double)vector[d]);
    putchar('\n');
}

static json_t *json_of(const embed_lines *lines, size_t columns) {
    json_t *rows = json_array();
    for (size_t i = 0; rows && i < lines->count; ++i) {
        json_t *row = json_array();
        for (size_t d = 0; d < columns; ++d)
            row = json_push(row, report_number((double)lines->vectors[i * columns + d]));
        rows = json_push(rows, row);
    }
    return rows;
}

static clsplat_status report(const language *l, const embed_request *r, const embed_lines *lines) {
    cli *c = l->c;
    size_t columns = l->info->hidden;
    const char *device = clsplat_device_describe(l->device)->name;
    double rate = lines->seconds > 0 ? (double)lines->count / lines->seconds : 0;
    progress_clear(&c->progress);
    if (c->json) {
        json_t *json =
            json_pack("{s:I, s:I, s:o, s:I, s:o}", "texts", (json_int_t)lines->count, "columns",
                      (json_int_t)columns, "texts_per_second", report_number(rate), "peak_bytes",
                      (json_int_t)clsplat_device_memory(l->device).peak, "device", report_text(device));
        if (!r->output)
            json = json_put(json, "embeddings", json_of(lines, columns));
        return report_json_digits(c, json, 9);
    }
    for (size_t i = 0; !r->output && i < lines->count; ++i)
        print_line(lines->vectors + i * columns, columns);
    if (c->verbose)
        fprintf(stderr, "%zu texts, %.1f a second; %s\n", lines->count, rate, device);
    return cli_flush(c);
}

static clsplat_status save(cli *c, const embed_request *r, const embed_lines *lines, size_t columns) {
    if (r->format && strcmp(r->format, "npy") == 0)
        return save_npy(c, r->output, lines, columns);
    return safetensors_save(
        c->lib, r->output,
        &(safetensors_output){"embeddings", "F32", 2, {lines->count, columns}, lines->vectors}, 1, NULL, 0);
}

static clsplat_status run(const language *l, const embed_request *r, clsplat_embedding how,
                          embed_lines *lines) {
    clsplat_status status = CLSPLAT_OK;
    cli *c = l->c;
    size_t columns = l->info->hidden;
    lines->vectors = malloc(lines->count * columns * sizeof *lines->vectors);
    if (!lines->vectors)
        return log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for %zu vectors", lines->count);
    how.attention = l->attention;
    how.progress = progress_step;
    how.progress_user = &c->progress;
    double begin = clock_seconds();
    TRY(clsplat_model_embed(l->model, how, lines->list, lines->count, lines->vectors));
    lines->seconds = clock_seconds() - begin;
    if (r->output)
        TRY(save(c, r, lines, columns));
    TRY(report(l, r, lines));
fail:
    return status;
}

static clsplat_status embed(cli *c, embed_request *r) {
    static const char *const poolings[] = {[CLSPLAT_POOLING_FOLDER] = "folder",
                                           [CLSPLAT_POOLING_MEAN] = "mean",
                                           [CLSPLAT_POOLING_CLS] = "cls",
                                           [CLSPLAT_POOLING_LAST] = "last",
                                           NULL};
    static const char *const formats[] = {"npy", "safetensors", NULL};
    clsplat_status status = CLSPLAT_OK;
    language l = {0};
    embed_lines lines = {0};
    clsplat_embedding how = clsplat_embedding_defaults();
    int pooling = CLSPLAT_POOLING_FOLDER, format = 0;
    TRY(cli_choice(c, "--pooling", r->pooling, poolings, &pooling));
    TRY(cli_choice(c, "--format", r->format, formats, &format));
    if (r->format && !r->output)
        return cli_misuse(c, "--format %s is for a file: name it with --output", r->format);
    how.pooling = (clsplat_pooling)pooling;
    how.normalise = r->normalise;
    if (r->output)
        TRY(output_check(c->lib, r->output));
    TRY(read_lines(c, c->arguments[1], &lines));
    TRY(language_open(c, &r->model, c->arguments[0], &l));
    TRY(run(&l, r, how, &lines));
fail:
    free(lines.vectors);
    free(lines.list);
    text_free(&lines.words);
    language_close(&l);
    return status;
}

clsplat_status cmd_embed(cli *c, int argc, const char **argv) {
    embed_request r = {0};
    struct poptOption attention[] = {LANGUAGE_ATTENTION_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption model[] = {LANGUAGE_MODEL_OPTIONS(r.model), POPT_TABLEEND};
    struct poptOption options[] = {
        {"pooling", 0, POPT_ARG_STRING, &r.pooling, 0,
         "mean, cls or last: what a text's vector is made of, all its tokens, the first or the last; or "
         "folder: as "
         "the folder says, also if not given",
         "HOW"},
        {"normalise", 0, POPT_ARG_NONE, &r.normalise, 0,
         "vectors of length 1, also where the folder has others", NULL},
        {"output", 'o', POPT_ARG_STRING, &r.output, 0, "a file for the vectors; standard output if not given",
         "OUT"},
        {"format", 0, POPT_ARG_STRING, &r.format, 0,
         "npy or safetensors: of that file; safetensors if not given", "FORMAT"},
        CLI_GROUP(LANGUAGE_ATTENTION, attention),
        CLI_GROUP(LANGUAGE_MODEL, model),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL [FILE] [OPTION...]", options, .arguments = 1, .optional = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = embed(c, &r);
    cli_free(options);
    return status;
}
