/* Models of earlier steps: FOLDER/step-00001000 and the like, each a model's folder. */
#ifndef CLSPLAT_TRAIN_KEEP_H
#define CLSPLAT_TRAIN_KEEP_H

#include "train/checkpoint.h"

/* Adds one of this step, and removes the oldest until `most` are left. Returns: IO, MEMORY, OPENCL. */
clsplat_status train_keep(const trainee *t, const char *folder, uint64_t step, size_t most);

#endif
