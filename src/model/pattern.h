/* Which layer attends how, in models that clsplat train makes. */
#ifndef CLSPLAT_MODEL_PATTERN_H
#define CLSPLAT_MODEL_PATTERN_H

#include "format/json.h"
#include "model/config.h"

/* Fills windowed, window, splatted, splats and splat_chunk from the keys of config.json:
 *
 *     "attention": ["splat", "splat", "softmax"]   a kind for each layer, from the beginning again where
 * there are more layers; or one kind; or "hybrid", which is the list above "sliding_window": 256 keys that a
 * layer of kind "window" sees "splats": 128, "splat_chunk": 128            splats of a key head in a layer of
 * kind "splat", and the keys of a chunk
 *
 * config->windowed has room for all layers. Returns: FORMAT, UNSUPPORTED, MEMORY. */
clsplat_status pattern_load(const json_place *at, model_config *config);

#endif
