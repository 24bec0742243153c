/* config.json of a model's folder (and what generation_config.json adds), checked: what the decoder has to
 * know of an architecture. */
#ifndef CLSPLAT_MODEL_CONFIG_H
#define CLSPLAT_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "model/family.h"

/* adaptation.* of a configuration: model/colony.h has what it does. */
typedef struct model_adaptation {
    size_t steps, tokens;     /* of training, and of a session, between two cycles; 0: never */
    size_t most;              /* decisions of a head in a cycle */
    unsigned patience;        /* cycles of hardly any use after which a splat is the first to go */
    double death_threshold;   /* hardly any: below this share of the mean use */
    double mitosis_threshold; /* share of a head's error from which on a splat may split */
    double birth_threshold;   /* keys are born at below this coverage only, in φ: 0 or less */
    double least_gain;        /* relative fall of the error */
    double enough;            /* a head whose error is below this, in φ, is left as it is */
} model_adaptation;

typedef struct model_config {
    const char *family; /* model_type: see model_families */
    layer_kind layer;
    const model_names *names;
    size_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocabulary, context;
    size_t window;  /* keys that a token of a windowed layer sees at most; 0: there is no such layer */
    bool *windowed; /* [layers] */
    bool *splatted; /* [layers]: it attends through splats, too; such a layer is windowed, in chunks. NULL:
                       none is */
    bool *near_far; /* [layers]: trained through trees; a session attends as it is told. NULL:
                       none is */
    double near_far_tolerance;
    size_t near_far_chunk;       /* 0: the library's choice */
    size_t splats, splat_chunk;  /* of a key head; the keys of a chunk */
    model_adaptation adaptation; /* of those layers */
    float epsilon;               /* of the norms */
    float score_scale; /* scores are so many times q·k, 1/√D unless the family has a key for it */
    bool tied;         /* the embedding is the head, too */
    bool qkv_bias, out_bias, mlp_bias;
    size_t positions, types, first_position; /* rows of the tables of positions and of token types (0: none),
                                                 and the first token's position */
    float *frequencies;   /* [2, head_dim / 2], of rotary positions: of sessions up to short_context, and of
                             longer ones; NULL where positions are learned */
    bool local_turn;      /* the second frequencies are for layers with a window, not for long sessions */
    size_t short_context; /* tokens; 0: the first frequencies are for all sessions */
    float attention_scaling; /* of their cosines and sines */
    bool context_is_end;     /* beyond `context` the frequencies would have to change */
    int32_t begin, pad;      /* −1: none */
    int32_t mask;            /* encoders: stands for a token that is hidden; −1: the tokeniser says */
    int32_t *ends;           /* [end_count] */
    size_t end_count;
} model_config;

/* Returns: IO, FORMAT and UNSUPPORTED (naming the file and the key), MEMORY. */
clsplat_status model_config_load(clsplat *lib, const char *folder, model_config *config);
/* Accepts a zeroed struct. */
void model_config_free(model_config *config);

#endif
