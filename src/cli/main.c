/* clsplat: attention over long contexts on any OpenCL device, from the command line. */
#include <clsplat/clsplat.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/pocl_folder.h"
#include "runtime/trace.h"

typedef struct subcommand {
    const char *name;
    cli_command *run;
    const char *summary;
} subcommand;

static const subcommand subcommands[] = {
    {"adapt", cmd_adapt, "splats that come nearer to softmax attention on given tokens"},
    {"attend", cmd_attend, "attention of the queries, keys and values in a tensor file"},
    {"bench", cmd_bench, "how fast attention runs here, variant by variant"},
    {"chat", cmd_chat, "a conversation with a language model"},
    {"compare", cmd_compare, "how far the tensors of two files are from each other"},
    {"convert", cmd_convert, "a language model in another type or file format"},
    {"devices", cmd_devices, "the OpenCL devices there are, and which one is taken"},
    {"distill", cmd_distill, "layers of a language model as splats or near-far, fitted to it"},
    {"embed", cmd_embed, "a vector for every line of a text"},
    {"eval", cmd_eval, "how well a language model predicts a text"},
    {"generate", cmd_generate, "a text goes on, as a language model would write it"},
    {"init", cmd_init, "splats from the queries and keys in a tensor file"},
    {"metrics", cmd_metrics, "what splats do for given tokens: entropies, divergences, who contributes"},
    {"plan", cmd_plan, "what a context would take on how many devices, before it is run"},
    {"presets", cmd_presets, "hierarchies of splats by name, and what they take"},
    {"report", cmd_report, "a page to look at: what attention did, token by token"},
    {"selftest", cmd_selftest, "whether every variant of every operation is right on a device"},
    {"train", cmd_train, "a language model learns from texts"},
    {"tune", cmd_tune, "the fastest variants on a device, found once and remembered"},
};
enum { SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

enum { FAILED = 1, MISUSED = 2 };

static void print_usage(FILE *to) {
    fprintf(to, "usage: clsplat SUBCOMMAND [OPTION...]\n\n");
    for (size_t i = 0; i < SUBCOMMANDS; ++i)
        fprintf(to, "  %-9s %s\n", subcommands[i].name, subcommands[i].summary);
    fprintf(to, "\n`clsplat SUBCOMMAND --help` tells more, `man clsplat` everything, `clsplat --version` the "
                "version.\n");
}

/* How many letters differ, counting from the front and from the back what is alike. */
static size_t difference(const char *a, const char *b) {
    size_t la = strlen(a), lb = strlen(b), front = 0, back = 0;
    size_t shorter = la < lb ? la : lb;
    while (front < shorter && a[front] == b[front])
        ++front;
    while (front + back < shorter && a[la - 1 - back] == b[lb - 1 - back])
        ++back;
    return (la > lb ? la : lb) - front - back;
}

static int unknown(const char *name) {
    const subcommand *nearest = &subcommands[0];
    for (size_t i = 1; i < SUBCOMMANDS; ++i)
        if (difference(name, subcommands[i].name) < difference(name, nearest->name))
            nearest = &subcommands[i];
    fprintf(stderr, "clsplat: `%.200s` is not a subcommand", name);
    if (difference(name, nearest->name) <= 2)
        fprintf(stderr, "; did you mean `%s`?\n", nearest->name);
    else
        fprintf(stderr, "; `clsplat --help` lists those there are\n");
    return MISUSED;
}

/* What mpirun may start several of: the others would all do the same and write the same file. */
static bool runs_over_ranks(const subcommand *s) {
    return s->run == cmd_attend || s->run == cmd_devices || s->run == cmd_eval || s->run == cmd_generate ||
           s->run == cmd_plan || s->run == cmd_selftest || s->run == cmd_train;
}

static int run(const subcommand *s, int argc, const char **argv) {
    cli c = {.command = s->name};
    clsplat_options options = clsplat_options_defaults();
    options.log = cli_log;
    options.user = &c;
    clsplat_status status = clsplat_create(options, &c.lib);
    if (status != CLSPLAT_OK) {
        fprintf(stderr, "clsplat %s: %s\n", s->name, clsplat_status_text(status));
        return FAILED;
    }
    lent_folder lent = pocl_folder_lend();
    double began = clock_seconds();
    if (runs_over_ranks(s) || cli_ranks() == 1)
        status = s->run(&c, argc, argv);
    else
        status = cli_misuse(&c,
                            "it was started %zu times at once, and is one process's work: leave mpirun away; "
                            "`clsplat attend`, `eval`, `generate` and `train` run over several",
                            cli_ranks());
    pocl_folder_tell(&c, &lent);
    if (status == CLSPLAT_OK)
        status = cli_flush(&c);
    trace_step(c.lib, s->name, began);
    if (status == CLSPLAT_OK && trace_is_on(c.lib))
        status = trace_save(c.lib, c.trace);
    if (status != CLSPLAT_OK)
        cli_print_error(&c, status);
    trace_end(c.lib);
    clsplat_destroy(&c.lib);
    pocl_folder_remove(&lent);
    free(c.device);
    free(c.trace);
    for (int i = 0; i < CLI_ARGUMENTS; ++i)
        free(c.arguments[i]);
    return status == CLSPLAT_OK ? EXIT_SUCCESS : c.misused ? MISUSED : FAILED;
}

int main(int argc, const char **argv) {
    /* A closed pipe and a file-size limit are failed writes with words, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* whole lines, where several ranks write to one terminal */
    if (argc < 2) {
        print_usage(stderr);
        return MISUSED;
    }
    const char *name = argv[1];
    for (size_t i = 0; i < SUBCOMMANDS; ++i)
        if (strcmp(name, subcommands[i].name) == 0)
            return run(&subcommands[i], argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0)
        printf("clsplat %s\n", clsplat_version());
    else if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        print_usage(stdout);
    else
        return unknown(name);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_SUCCESS;
    fprintf(stderr, "clsplat: standard output: %s\n", strerror(errno));
    return FAILED;
}
