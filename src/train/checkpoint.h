/* Where training stands, in its folder:
 *
 *     model.safetensors      the weights: what generate, eval, chat and others read
 *     training.safetensors   the same weights with the optimiser's moments, who the splats are that adapt,
 * and in its metadata the step, the seconds and the settings: all that going on needs, in one file
 *
 * Each is written in one step, so that whenever the process dies, what is there is whole. */
#ifndef CLSPLAT_TRAIN_CHECKPOINT_H
#define CLSPLAT_TRAIN_CHECKPOINT_H

#include "train/adapt.h"
#include "train/trainee.h"

typedef struct train_progress {
    uint64_t step;  /* done so far */
    double seconds; /* that they took */
    uint64_t text;  /* what they learned from: corpus_digest; 0: not known */
} train_progress;

/* Whether the folder has a training to go on from; and whether it has a model at all. */
bool checkpoint_is_there(const char *folder);
bool checkpoint_is_model(const char *folder);

/* `adapting`: zeroed if no splats adapt. Blocks. Returns: IO, MEMORY, OPENCL. */
clsplat_status checkpoint_save(const trainee *t, const char *folder, const train_settings *settings,
                               train_progress progress, const train_adapting *adapting);
/* The weights alone. */
clsplat_status checkpoint_save_model(const trainee *t, const char *folder);

/* The settings and the progress; and the weights and moments, for a trainee of the folder's model. Returns:
 * IO, FORMAT (naming file and tensor or key), MEMORY, OPENCL. */
clsplat_status checkpoint_look(clsplat *lib, const char *folder, train_settings *settings,
                               train_progress *progress);
clsplat_status checkpoint_load(const trainee *t, const char *folder);
/* Numbers and births of splats, and the cycle; of a file from before they were kept, nothing. Returns: as
 * above. */
clsplat_status checkpoint_load_lives(clsplat *lib, const char *folder, train_adapting *adapting);

#endif
