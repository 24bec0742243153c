/* Which layer attends how, in models that clsplat train makes. */
#ifndef CLSPLAT_MODEL_PATTERN_H
#define CLSPLAT_MODEL_PATTERN_H

#include "format/json.h"
#include "model/config.h"

/* Fills windowed, window, splatted, splats, splat_chunk, near_far, its tolerance and its chunk from the keys
 * of config.json:
 *
 *     "attention": ["splat", "splat", "softmax"]
 *
 * a kind for each layer, from the beginning again where there are more layers; or one kind; or "hybrid",
 * which is that list, or "linear", where its softmax is near_far.
 *
 *     "is_decoder": true      tokens see those before them; false: all of their text
 *
 *     "sliding_window": 256   keys that a layer of kind "window" sees; in an encoder one of kind "splat",
 * too, half of them before and half behind the token
 *
 *     "splats": 128           of a key head in a layer of kind "splat" (op/splat/splat_layer.h)
 *
 *     "splat_chunk": 128      keys of a chunk there; in an encoder splats see the whole text
 *
 *     "near_far_tolerance": 0.1, "near_far_chunk": 0
 *
 * what a layer of kind "near_far" is trained with; a chunk of 0 is the library's choice.
 *
 *     "adaptation": {…}                            of those splats: "adaptation_frequency" (100 steps of
 * training between two cycles) and "adaptation_tokens" (256 tokens of a session), 0 for never;
 * "enable_adaptation"; "max_adaptations_per_cycle" (8), "death_threshold" (0.01), "consecutive_batches" (3),
 * "mitosis_threshold" (0.1), "birth_threshold" (0), "least_gain" (0.005): model_adaptation says what they
 * are. Without the object nothing adapts
 *
 * config->windowed has room for all layers. Returns: FORMAT, UNSUPPORTED, MEMORY. */
clsplat_status pattern_load(const json_place *at, model_config *config);

/* Of a configuration of any family: a layer's kind in the words above, and whether it is splat's. */
const char *pattern_kind(const model_config *config, size_t layer);
bool pattern_is_splatted(const model_config *config, size_t layer);
bool pattern_has_splats(const model_config *config);

#endif
