/* What every subcommand shares: its library handle, its options, and how it speaks to a person.
 *
 * A subcommand is a function that returns a status. It prints nothing about failures: it leaves the words
 * with log_error (or cli_misuse for a wrong command line), and main prints them. Exit status 0 is
 * success, 1 a failure, 2 a wrong command line. */
#ifndef CLSPLAT_CLI_CLI_H
#define CLSPLAT_CLI_CLI_H

#include <popt.h>

#include "base/log.h"
#include "cli/progress.h"

enum { CLI_ARGUMENTS = 256 };

typedef struct cli {
    const char *command; /* "attend" */
    clsplat *lib;
    char *arguments[CLI_ARGUMENTS]; /* what is not an option */
    char *device;                   /* --device; NULL: the library's choice */
    char *trace;                    /* --trace; NULL: nothing is traced */
    int json, verbose;              /* int because popt writes them */
    bool raw;                       /* a model's control characters reach the terminal */
    bool quiet;                     /* another rank says it */
    bool misused;                   /* the failure is one of the command line */
    unsigned warnings;              /* printed so far */
    progress progress;
    const char *interrupted; /* what is said after Ctrl-C; NULL: that nothing was written */
} cli;

typedef clsplat_status cli_command(cli *c, int argc, const char **argv);
cli_command cmd_attend, cmd_bench, cmd_chat, cmd_compare, cmd_convert, cmd_devices, cmd_embed, cmd_eval,
    cmd_generate, cmd_init, cmd_plan, cmd_selftest, cmd_train, cmd_tune;
cli_command cmd_report;
cli_command cmd_adapt, cmd_distill, cmd_metrics, cmd_presets; /* splats */

typedef struct cli_syntax {
    const char *summary;        /* above the options in --help */
    const char *usage;          /* "INPUT -o OUT [OPTION…]" */
    struct poptOption *options; /* ends with POPT_TABLEEND; strings are freed by cli_free */
    size_t arguments;           /* so many besides the options, at most CLI_ARGUMENTS */
    bool without_device;        /* there is no --device */
    size_t optional;            /* so many more arguments may follow; those that do not are NULL */
} cli_syntax;

/* A row of a table of options: another table, under a heading of its own in --help. */
#define CLI_GROUP(heading, table)                                                                            \
    { NULL, 0, POPT_ARG_INCLUDE_TABLE, table, 0, heading, NULL }

/* Fills in the options and the arguments. False: the command is over, either successfully (--help) or not;
 * *status says which. */
bool cli_parse(cli *c, int argc, const char **argv, const cli_syntax *syntax, clsplat_status *status);
void cli_free(struct poptOption *options);

/* How many processes of this command a launcher such as mpirun started; 1: no launcher did. */
size_t cli_ranks(void);

/* Like log_error, for a wrong command line. */
clsplat_status cli_misuse(cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The value of an option in words; `names` ends with NULL. NULL values leave *choice as it is. */
clsplat_status cli_choice(cli *c, const char *option, const char *value, const char *const *names,
                          int *choice);
/* A finite number, and a whole number from `least` up. NULL values leave *number as it is. */
clsplat_status cli_number(cli *c, const char *option, const char *value, double *number);
clsplat_status cli_count(cli *c, const char *option, const char *value, uint64_t least, uint64_t *number);
/* Bytes: a number with K, M, G or T behind it (powers of 1024; iB or B may follow), above 0. NULL leaves
 * *bytes as it is. */
clsplat_status cli_size(cli *c, const char *option, const char *value, uint64_t *bytes);
/* The value of --tolerance: 0 and more, and `inf`. NULL leaves *tolerance as it is. */
clsplat_status cli_tolerance(cli *c, const char *value, float *tolerance);

/* Text that a model wrote, to standard output. On a terminal control characters are shown as ?, so that no
 * model moves the cursor, renames the window or answers in the person's place, unless c->raw; files and pipes
 * get every byte. */
void cli_show(cli *c, const char *bytes, size_t count);

/* Returns: IO if what was printed did not reach stdout. */
clsplat_status cli_flush(cli *c);

/* The library's log: warnings always (a few), the rest with --verbose; errors are left to main. */
clsplat_log_callback cli_log;
/* The last error in at most five lines; with --verbose whole. */
void cli_print_error(cli *c, clsplat_status status);

#endif
