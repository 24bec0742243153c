/* The frequencies of rotary positions, as config.json scales them. */
#ifndef CLSPLAT_MODEL_ROTARY_H
#define CLSPLAT_MODEL_ROTARY_H

#include "format/json.h"
#include "model/config.h"

/* Fills frequencies, short_context, attention_scaling and context_is_end from the root's rope_parameters, or
 * rope_theta and rope_scaling; with local_turn those of layers with a window, too. Returns: FORMAT,
 * UNSUPPORTED, MEMORY. Source: modeling_rope_utils.py of Hugging Face transformers; Peng et al. 2023 (arXiv
 * 2309.00071) for yarn, Ding et al. 2024 (arXiv 2402.13753) for longrope. */
clsplat_status rotary_load(const json_place *root, model_config *config);

#endif
