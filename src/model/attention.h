/* The attention of a layer: the one piece of the decoder that has several forms. A form is a row of constants
 * and functions; a session has one, and what it keeps for it. */
#ifndef CLSPLAT_MODEL_ATTENTION_H
#define CLSPLAT_MODEL_ATTENTION_H

#include <clsplat/model.h>

#include "op/op.h"

/* What a form may rely on for the life of a session. */
typedef struct attention_shape {
    size_t layers, heads, kv_heads, head_dim, capacity;
    size_t room, processes; /* keys of a layer that are here; how many hold a session together, or 1 */
    clsplat_dtype cache;
    const bool *windowed; /* [layers]: the model has a window of its own there */
    bool scaled;          /* scores are not q·k/√D */
    bool capped, sinks;   /* they are capped; heads have sinks */
} attention_shape;

/* Queries of consecutive tokens against all keys so far; `k` and `v` end with the last query's own token, or
 * later ones that it does not see. */
typedef struct attention_step {
    size_t layer, first; /* the first query's token, counted from the session's begin */
    op_tensor q;         /* [1,H,n,D], turned */
    op_tensor k, v;      /* [1,Hk,keys,D], keys turned */
    op_tensor out;       /* [1,H,n,D] */
    op_tensor lse;       /* [1,H,n,1], to be written over */
    size_t window;       /* the model's own in this layer; 0: none */
    float scale, cap;    /* of scores, as op_softmax has them */
    op_tensor sinks;     /* [1,H,1,1]: what a row's mass begins with is e^sink; absent: 0 */
    op_tensor zeros;     /* [1,1,1,D], with sinks */
} attention_step;

typedef struct attention_form {
    const char *name;
    bool scales, caps; /* it takes scores of any scale, and capped ones */
    bool hides_mass;   /* it leaves step.lse alone, which a sink would join */
    /* Checks the parameters and makes *state, which may stay NULL. */
    clsplat_status (*open)(clsplat_device *device, const attention_shape *shape,
                           const clsplat_model_attention *parameters, void **state);
    /* Keys and values of the tokens [first, k.shape[2]) of a layer have been written; NULL: nothing to do. */
    clsplat_status (*append)(queue *q, void *state, size_t layer, size_t first, op_tensor k, op_tensor v);
    clsplat_status (*attend)(queue *q, void *state, const clsplat_model_attention *parameters,
                             const attention_step *step);
    /* Of a session that processes hold together: what the first keys here, which all queries see, say of
     * them, into step.out and step.lse. *keys: of `held` keys, how many those are; the others are left to
     * softmax. NULL: all are. */
    clsplat_status (*attend_past)(queue *q, void *state, const clsplat_model_attention *parameters,
                                  const attention_step *step, size_t held, size_t *keys);
    bool divides; /* sessions may be held together */
    /* Only the first `length` tokens remain; NULL: nothing to do. */
    clsplat_status (*rewind)(queue *q, void *state, size_t length);
    /* Keys that query i of the step attends to one by one, as far as the host can tell; NULL: `count` tells.
     */
    size_t (*exact_keys)(const clsplat_model_attention *parameters, size_t visible);
    /* The sum over all steps since the session began or was rewound to 0. Blocks. */
    clsplat_status (*count)(queue *q, void *state, double *exact_keys);
    uint64_t (*bytes)(const void *state);                /* of device memory; NULL: 0 */
    void (*close)(clsplat_device *device, void **state); /* NULL if *state stays NULL */
} attention_form;

/* NULL if there is none for the method. */
const attention_form *attention_form_of(clsplat_model_method method);

/* Softmax over what a token sees, all of it or the last keys: op_softmax. */
extern const attention_form attention_exact, attention_window;
clsplat_status attention_softmax(queue *q, const attention_step *step, size_t window);

/* What of a model's layers a form cannot do, in words: "whose …"; NULL: nothing. */
const char *attention_lacks(const attention_form *form, const attention_shape *shape);
/* Lets the sinks join what a form has left in step.out and step.lse. A sink is one more key of every row, of
 * log-weight sink and value 0. Source: gpt-oss, arXiv 2508.10925. */
clsplat_status attention_sink(queue *q, const attention_step *step);

/* Through a forest per layer, which grows with the cache: op_gather, op_near_far. Layers with a window of the
 * model's own stay exact. */
extern const attention_form attention_near_far;
/* How its trees keep keys and values, beside a cache of this type. */
clsplat_dtype near_far_tree_dtype(clsplat_dtype cache, float tolerance);

/* Over the largest scores, key by key or block by block: op_topk. */
extern const attention_form attention_topk, attention_blocks;

#endif
