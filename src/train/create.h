/* A model's folder from a configuration: config.json, and weights that have learned nothing yet. */
#ifndef CLSPLAT_TRAIN_CREATE_H
#define CLSPLAT_TRAIN_CREATE_H

#include <jansson.h>

#include "model/folder.h"
#include "train/settings.h"

/* Makes the folder, unless it is there, with config.json (`config` with what it leaves out, but for
 * "training") and model.safetensors in float32: matrices normal with the deviation initializer_range, weights
 * of norms 1, biases 0. The same seed gives the same weights on every machine. The settings' windows must
 * suit the layers. `path` is where the configuration is from, for messages. `from` may be NULL: else tensors
 * are copied from there, splats that are not there or are others in number are new, and the configuration
 * leaves nothing out. Returns: IO, FORMAT, UNSUPPORTED, MEMORY. */
clsplat_status train_create(clsplat *lib, const char *folder, const char *path, const json_t *config,
                            const train_settings *settings, const model_folder *from);

/* Writes a JSON object to FOLDER/NAME in one step. */
clsplat_status train_save_json(clsplat *lib, const char *folder, const char *name, const json_t *object);

#endif
