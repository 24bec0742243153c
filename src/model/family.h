/* What sets the families of models apart, as data: adding one is a row of this table, and a test. */
#ifndef CLSPLAT_MODEL_FAMILY_H
#define CLSPLAT_MODEL_FAMILY_H

#include <stdbool.h>
#include <stddef.h>

#include "op/op.h"

/* Which norms queries and keys have of their own. */
typedef enum layer_qk { QK_AS_THEY_ARE, QK_HEAD_BY_HEAD, QK_ALL_HEADS } layer_qk;

/* One layer: h = norm(x), y = result(attention(h)), x += y; then the same with the feed-forward network.
 * Norms that a family has no name for are left out. */
typedef struct layer_kind {
    bool encoder; /* tokens see all others; else those before. Positions are learned where there is a name for
                     their table, else rotary */
    bool position_after_pad; /* the first token's position is the one behind the padding's, as in RoBERTa */
    bool centred;            /* its norms are LayerNorm; else root mean square */
    bool sums;               /* results are normalised after they were added: x = result(x + attention(h)) */
    float offset;            /* added to the weights of norms */
    layer_qk qk;
    op_activation activation; /* as config.json has it, if it says */
    bool gated;
    op_activation
        head_activation;   /* of the layer before an encoder's head; as activation if the family says none */
    float embedding_scale; /* of embeddings; 0: 1 */
    float logit_cap;       /* logits are cap tanh(logit / cap); 0: as they are */
    float score_cap;       /* scores of queries and keys, likewise */
} layer_kind;

/* Names of tensors without their last word (.weight, .bias); NULL: there is none. Those of a layer are
 * relative to it, those of the head absolute, the rest relative to the prefix. */
typedef struct model_names {
    const char *prefixes[3]; /* the first under which the embedding is found; the last may be "" */
    const char *layer;       /* printf's, with the layer's number: "layers.%zu." */
    const char *embedding, *positions, *types, *embedding_norm, *norm;
    const char *head, *head_dense, *head_norm, *head_bias;
    const char *attention_norm, *q, *k, *v, *q_norm, *k_norm, *out, *attention_result;
    const char *sinks; /* the whole name; layers may have it */
    const char *splat_shift, *splat_mean, *splat_precision, *splat_amplitude, *splat_strength,
        *splat_decay;                                     /* of splat layers */
    const char *mlp_norm, *gate, *up, *down, *mlp_result; /* gate NULL: there is none */
    const char *qkv, *gate_up; /* stand for q, k and v, for gate and up in one matrix */
    const char *unused[4];     /* beginnings of names that may be there, and are not missed */
} model_names;

/* The keys of config.json by what they mean. */
typedef struct model_keys {
    const char *layers, *hidden, *heads, *intermediate, *epsilon, *activation;
} model_keys;

/* The rest is how config.json is read; its keys may leave out what has a default. Source: the configuration
 * classes in Hugging Face transformers. */
typedef struct model_family {
    const char *name; /* model_type */
    layer_kind layer;
    const model_names *names;
    const model_keys *keys;
    size_t context, kv_heads, head_dim; /* 0: the key is needed; as many as heads; hidden / heads */
    double epsilon;
    bool qkv_bias; /* always; a family with bias_key has a key for it, and for the output's */
    bool out_bias, mlp_bias;
    bool bias_key, mlp_bias_key;
    bool window_always; /* every layer has the window; others say which */
    bool window_some;
    bool window_unsaid; /* there is none unless the key says how wide it is */
    bool patterns; /* keys say how each layer attends: model/pattern.h, and whether tokens see those after */
    size_t
        window_pattern; /* every so many layers one has no window, unless layer_types says which; 0: none */
    bool local_turn;    /* layers with a window turn heads by frequencies of their own */
    bool caps;          /* has keys for caps of logits and scores, and for the scores' scale */
    float caps_scores, caps_logits; /* unless they say otherwise */
    bool embedding_scaled;          /* by the root of hidden */
    bool gelu_is_tanh;              /* "gelu" means the tanh form, as in Gemma's first files */
    bool tied;                      /* head and embedding are one unless config.json says otherwise */
} model_family;

extern const model_family model_families[];
extern const size_t model_family_count;
/* NULL if there is none of that name. */
const model_family *model_family_find(const char *name);

#endif
