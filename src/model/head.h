/* Whether the embedding is the head, too: what config.json says of it against the matrices that are there. */
#ifndef CLSPLAT_MODEL_HEAD_H
#define CLSPLAT_MODEL_HEAD_H

#include "model/folder.h"

/* `embedding` and `head` are the names of the two; *tied is what the configuration says, and then what holds.
 * Tied, the one matrix may be under either name, and is found under both from here on; two that differ are
 * not tied, with a warning. Untied, they are one if the file's metadata say that one name stands for the
 * other. Source: PreTrainedModel.tie_weights in Hugging Face transformers 5. Returns: IO. */
clsplat_status model_head_tie(clsplat *lib, model_folder *folder, const char *embedding, const char *head,
                              bool *tied);

#endif
