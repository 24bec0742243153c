#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/number.h"
#include "base/text.h"
#include "cli/help.h"
#include "cli/output.h"
#include "runtime/trace.h"

enum { ERROR_LINES = 5, WARNINGS = 2 };

clsplat_status cli_misuse(cli *c, const char *format, ...) {
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    c->misused = true;
    return log_error(c->lib, CLSPLAT_INVALID, "%s\n(`clsplat %s --help` lists the options)", sentence,
                     c->command);
}

static clsplat_status take_arguments(cli *c, poptContext options, const cli_syntax *syntax) {
    const char **given = poptGetArgs(options);
    size_t count = 0;
    while (given && given[count])
        ++count;
    if (count < syntax->arguments)
        return cli_misuse(c, "an argument is missing: clsplat %s %s", c->command, syntax->usage);
    size_t most = syntax->arguments + syntax->optional;
    if (count > most)
        return cli_misuse(c, "%s: one argument too many: clsplat %s %s", given[most], c->command,
                          syntax->usage);
    for (size_t i = 0; i < count; ++i) {
        if (given[i][0] == '\0')
            return cli_misuse(c, "argument %zu is empty; it must be a file or a folder", i + 1);
        c->arguments[i] = text_copy(given[i]);
        if (!c->arguments[i])
            return log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for the arguments");
    }
    return CLSPLAT_OK;
}

static clsplat_status begin_trace(cli *c) {
    clsplat_status status = CLSPLAT_OK;
    TRY(output_check(c->lib, c->trace));
    TRY(trace_begin(c->lib));
fail:
    return status;
}

bool cli_parse(cli *c, int argc, const char **argv, const cli_syntax *syntax, clsplat_status *status) {
    int help = 0;
    size_t skipped = syntax->without_device ? 2 : 0;
    struct poptOption common[] = {
        {"device", 'd', POPT_ARG_STRING, &c->device, 0,
         "an index of `clsplat devices`, cpu, gpu, accelerator, or part of a name", "DEVICE"},
        {"trace", 0, POPT_ARG_STRING, &c->trace, 0,
         "where a trace of kernels, copies, builds and host steps goes, for Perfetto or chrome://tracing",
         "FILE"},
        {"json", 0, POPT_ARG_NONE, &c->json, 0, "print one JSON value on stdout", NULL},
        {"verbose", 'v', POPT_ARG_NONE, &c->verbose, 0, "say what was done, on what, and how long it took",
         NULL},
        {"help", 'h', POPT_ARG_NONE, &help, 0, "show this and stop", NULL},
        POPT_TABLEEND,
    };
    struct poptOption all[] = {
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, syntax->options, 0, "Options:", NULL},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, common + skipped, 0, "Common options:", NULL},
        POPT_TABLEEND,
    };
    poptContext options = poptGetContext("clsplat", argc, argv, all, 0);
    int code = poptGetNextOpt(options);
    *status = CLSPLAT_OK;
    if (code < -1)
        *status = cli_misuse(c, "%s: %s", poptBadOption(options, POPT_BADOPTION_NOALIAS), poptStrerror(code));
    else if (help)
        help_print(c, syntax, common + skipped);
    else
        *status = take_arguments(c, options, syntax);
    if (*status == CLSPLAT_OK && !help && c->trace)
        *status = begin_trace(c);
    poptFreeContext(options);
    return *status == CLSPLAT_OK && !help;
}

void cli_free(struct poptOption *options) {
    for (struct poptOption *o = options; o->longName || o->shortName || o->arg; ++o)
        if ((o->argInfo & POPT_ARG_MASK) == POPT_ARG_INCLUDE_TABLE)
            cli_free(o->arg);
        else if ((o->argInfo & POPT_ARG_MASK) == POPT_ARG_STRING)
            free(*(char **)o->arg);
}

clsplat_status cli_choice(cli *c, const char *option, const char *value, const char *const *names,
                          int *choice) {
    if (!value)
        return CLSPLAT_OK;
    char list[256];
    size_t used = 0;
    for (int i = 0; names[i]; ++i) {
        if (strcmp(value, names[i]) == 0) {
            *choice = i;
            return CLSPLAT_OK;
        }
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    return cli_misuse(c, "%s: `%s` is not one of %s", option, value, list);
}

clsplat_status cli_number(cli *c, const char *option, const char *value, double *number) {
    if (!value)
        return CLSPLAT_OK;
    char *end = NULL;
    double parsed = number_read(value, &end);
    if (end == value || *end != '\0' || !isfinite(parsed) || !isfinite((float)parsed))
        return cli_misuse(c, "%s: `%s` is not a finite number", option, value);
    *number = parsed;
    return CLSPLAT_OK;
}

clsplat_status cli_tolerance(cli *c, const char *value, float *tolerance) {
    clsplat_status status = CLSPLAT_OK;
    double number = (double)*tolerance;
    if (value && strcmp(value, "inf") == 0)
        number = INFINITY;
    else
        TRY(cli_number(c, "--tolerance", value, &number));
    if (number < 0)
        return cli_misuse(c, "--tolerance: `%s` is below 0, which is already exact", value);
    *tolerance = (float)number;
fail:
    return status;
}

clsplat_status cli_count(cli *c, const char *option, const char *value, uint64_t least, uint64_t *number) {
    if (!value)
        return CLSPLAT_OK;
    char *end = NULL;
    errno = 0;
    uint64_t parsed = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || parsed < least)
        return cli_misuse(c, "%s: `%s` is not a whole number from %" PRIu64 " up", option, value, least);
    *number = parsed;
    return CLSPLAT_OK;
}

clsplat_status cli_size(cli *c, const char *option, const char *value, uint64_t *bytes) {
    static const char units[] = "KMGT";
    if (!value)
        return CLSPLAT_OK;
    char *end = NULL;
    double number = number_read(value, &end), unit = 1;
    const char *found = *end ? strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end) : NULL;
    for (const char *u = units; found && u <= found; ++u)
        unit *= 1024;
    const char *rest = found ? end + 1 : end;
    bool known = !*rest || strcasecmp(rest, "B") == 0 || (found && strcasecmp(rest, "iB") == 0);
    if (end == value || value[0] < '0' || value[0] > '9' || !known || !(number * unit >= 1) ||
        !(number * unit < 0x1p60))
        return cli_misuse(c, "%s: `%s` is not a size, as 512M or 1.5G", option, value);
    *bytes = (uint64_t)(number * unit);
    return CLSPLAT_OK;
}

clsplat_status cli_flush(cli *c) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLSPLAT_OK;
    return log_error(c->lib, CLSPLAT_IO, "standard output: %s", strerror(errno));
}

/* What a text may hold that a terminal acts upon: C0 but for line ends and tabs, DEL, and C1, which is two
 * bytes in UTF-8. Returns: how many bytes it is; 0 if the text begins with something else. */
static size_t control_at(const char *bytes, size_t count) {
    unsigned char c = (unsigned char)bytes[0], next = count > 1 ? (unsigned char)bytes[1] : 0;
    if (c == 0xc2 && next >= 0x80 && next < 0xa0)
        return 2;
    return (c < ' ' && c != '\n' && c != '\t') || c == 127;
}

static void print_plain(const char *bytes, size_t count, FILE *to) {
    for (size_t i = 0, control; i < count; i += control ? control : 1) {
        control = control_at(bytes + i, count - i);
        fputc(control ? '?' : bytes[i], to);
    }
}

void cli_show(cli *c, const char *bytes, size_t count) {
    if (c->raw || !isatty(STDOUT_FILENO))
        fwrite(bytes, 1, count, stdout);
    else
        print_plain(bytes, count, stdout);
}

/* Names in files may hold anything: what would move the cursor is not printed. */
static void print_line(const char *begin, size_t length) {
    print_plain(begin, length, stderr);
    fputc('\n', stderr);
}

void cli_log(void *user, clsplat_log_level level, const char *message) {
    cli *c = user;
    if (c->quiet || level == CLSPLAT_LOG_ERROR || (level == CLSPLAT_LOG_INFO && !c->verbose))
        return;
    if (level == CLSPLAT_LOG_WARNING && ++c->warnings > WARNINGS && !c->verbose)
        return;
    progress_clear(&c->progress);
    fprintf(stderr, "clsplat %s: %s", c->command, level == CLSPLAT_LOG_WARNING ? "warning: " : "");
    print_line(message, strcspn(message, c->verbose ? "" : "\n"));
}

size_t cli_ranks(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
        const char *words = getenv(names[i]);
        unsigned long ranks = words ? strtoul(words, NULL, 10) : 0;
        if (ranks > 1)
            return ranks;
    }
    return 1;
}

void cli_print_error(cli *c, clsplat_status status) {
    if (c->quiet)
        return;
    progress_clear(&c->progress);
    unsigned limit =
        c->verbose ? UINT32_MAX : ERROR_LINES - (c->warnings < WARNINGS ? c->warnings : WARNINGS);
    const char *line = status != CLSPLAT_CANCELLED ? clsplat_last_error(c->lib)
                       : c->interrupted            ? c->interrupted
                                                   : "interrupted; nothing was written";
    if (!*line)
        line = clsplat_status_text(status);
    fprintf(stderr, "clsplat %s: ", c->command);
    for (unsigned printed = 1; *line; ++printed) {
        size_t length = strcspn(line, "\n");
        bool last = line[length] == '\0' || line[length + 1] == '\0';
        if (printed == limit && !last) {
            fputs("… (--verbose shows the rest)\n", stderr);
            return;
        }
        print_line(line, length);
        line += length + (line[length] == '\n');
    }
}
