/* `clsplat train`: its options, and what it shows on the way. */
#ifndef CLSPLAT_CLI_TRAIN_H
#define CLSPLAT_CLI_TRAIN_H

#include "cli/cli.h"
#include "cli/language.h"
#include "train/run.h"

/* As given; NULL: not given. */
typedef struct train_options {
    char *folder, *config, *from, *tokenizer, *budget, *validation, *match, *save, *keep, *report;
    char *rate, *batch, *context, *accumulate, *seed, *dtype;
    int resume, recompute;
} train_options;

// clang-format off
#define TRAIN_BEGIN_OPTIONS(o)                                                                                        \
    LANGUAGE_ROW("config", 0, (o).config, "JSON", "the model, and how it is trained"),                                \
    LANGUAGE_ROW("from", 0, (o).from, "MODEL", "begin with this model's weights: a folder or a GGUF file"),           \
    LANGUAGE_ROW("tokenizer", 0, (o).tokenizer, "DIR",                                                                \
                 "a folder whose tokeniser makes the tokens, vocab_size of them; bytes if it is not given")

#define TRAIN_OPTIONS(o)                                                                                              \
    LANGUAGE_ROW("output", 'o', (o).folder, "DIR", "the folder that the model goes to"),                              \
    {"resume", 0, POPT_ARG_NONE, &(o).resume, 0, "go on from where DIR stands", NULL},                                \
    LANGUAGE_ROW("budget", 0, (o).budget, "STEPS|TIME",                                                               \
                 "how long in all: 1000, or 90s, 20m, 8h, 2d; 1000 steps if it is not given"),                        \
    LANGUAGE_ROW("validation", 0, (o).validation, "PATH",                                                             \
                 "a file or folder to judge by; the last fiftieth of DATA if it is not given"),                       \
    LANGUAGE_ROW("match", 0, (o).match, "PATTERN", "files in folders that count, as '*.py'; all if it is not given"), \
    LANGUAGE_ROW("save", 0, (o).save, "STEPS|TIME", "how often; 300s if it is not given"),              \
    LANGUAGE_ROW("keep", 0, (o).keep, "N", "models of so many saved steps stay, in DIR/step-…; 0 if it is not given"), \
    LANGUAGE_ROW("report", 0, (o).report, "SECONDS", "between two lines of progress; 10 if it is not given")

#define TRAIN_LEARNING_OPTIONS(o)                                                                                     \
    LANGUAGE_ROW("rate", 0, (o).rate, "X", "the highest learning rate; 0.003 if it is not given"),                    \
    LANGUAGE_ROW("batch", 0, (o).batch, "N", "windows that go through the layers together; 8 if it is not given"),    \
    LANGUAGE_ROW("accumulate", 0, (o).accumulate, "N", "such batches in a step; 1 if it is not given"),               \
    LANGUAGE_ROW("context", 0, (o).context, "N", "tokens of a window; 512 if it is not given"),                       \
    LANGUAGE_ROW("seed", 0, (o).seed, "N", "of the first weights and of the windows; 0 if it is not given"),          \
    LANGUAGE_ROW("dtype", 0, (o).dtype, "TYPE",                                                                       \
                 "what layers compute in, beside weights in float32: f32 or bf16; if it is not given, bf16 where the " \
                 "device has matrix units for it"),                                                                   \
    {"recompute", 0, POPT_ARG_NONE, &(o).recompute, 0,                                                                \
     "run layers forward again on the way back: less memory, a third more work", NULL}
// clang-format on

/* What the options say. A budget is steps, or with a letter behind it time. Texts are the arguments from
 * `first` on, and their last part is held out unless there are files for that; train_free_texts knows whose
 * the bytes are. */
clsplat_status train_read_budget(cli *c, const char *value, train_settings *s);
clsplat_status train_read_numbers(cli *c, const train_options *o, train_settings *s);
clsplat_status train_read_texts(cli *c, const train_options *o, const train_settings *s, size_t first,
                                corpus *data, corpus *held);
clsplat_status train_read_saving(cli *c, const train_options *o, train_request *r);
void train_free_texts(const train_options *o, corpus *data, corpus *held);

/* The line of progress: over the one before on a terminal, one below the other elsewhere. */
typedef struct train_show {
    cli *c;
    bool drawn;
    history decisions; /* of splats: DIR/adaptation.jsonl */
} train_show;

void train_show_report(void *user, const train_report *report);
bool train_show_stopped(void *user);
clsplat_adapt_listener train_show_adapted;
/* Leaves the last line standing. */
void train_show_end(train_show *show);
/* What the kernels took, the longest first. */
void train_show_profile(train_show *show, clsplat_device *device);
clsplat_status train_show_json(train_show *show, const train_report *last, const clsplat_device *device);

/* The processes that mpirun started, as a team; without MPI, UNSUPPORTED. What must be alike: version,
 * settings, texts and the step. Collective, all of them. */
clsplat_status train_team_begin(cli *c, train_team *team);
void train_team_end(train_team *team);
clsplat_status train_team_device(cli *c, const train_team *team, clsplat_device **device);
clsplat_status train_team_compare(const train_team *team, const train_request *request);

#endif
