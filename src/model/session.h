/* A session: the cache of keys and values, and where in its text it stands. */
#ifndef CLSPLAT_MODEL_SESSION_H
#define CLSPLAT_MODEL_SESSION_H

#include "model/attention.h"
#include "model/compare.h"
#include "model/model.h"

struct clsplat_session {
    clsplat_model *model;
    size_t capacity, length;
    clsplat_model_attention attention;
    const attention_form *form;
    void *state;      /* the form's */
    op_tensor *k, *v; /* [layers] of [1,Hk,capacity,D] */
    op_tensor last;   /* [1,1,1,hidden]: the last token's row, normalised for the head */
    op_tensor logits; /* float32 [1,1,1,V]: of that row, once somebody asked */
    bool has_last, has_logits;
    cl_mem ids, targets, log_likelihood, greedy, token; /* [capacity] each; [1] */
    double visible_keys, exact_keys;                    /* what the host knows of */
    attention_distance *distances;                      /* [layers]; NULL: they are not measured */
    uint64_t tokens, bytes;
};

#endif
