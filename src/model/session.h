/* A session: the cache of keys and values, and where in its text it stands. */
#ifndef CLSPLAT_MODEL_SESSION_H
#define CLSPLAT_MODEL_SESSION_H

#include "model/attention.h"
#include "model/compare.h"
#include "model/divided.h"
#include "model/keep.h"
#include "model/model.h"
#include "model/splats.h"

struct clsplat_session {
    clsplat_model *model;
    size_t capacity, length;
    clsplat_model_attention attention;
    const attention_form *form;
    void *state;         /* the form's */
    splat_store *splats; /* NULL: no layer has any */
    op_tensor *k, *v;    /* [layers] of [1,Hk,capacity,D]; of splat layers with their store's room */
    divided *divided;    /* NULL: all keys are here. Of layers that are divided k and v have its room */
    op_tensor last;      /* [1,1,1,hidden]: the last token's row, normalised for the head */
    op_tensor logits;    /* float32 [1,1,1,V]: of that row, once somebody asked */
    bool has_last, has_logits;
    cl_mem ids, targets, log_likelihood, greedy, token; /* [capacity] each; [1] */
    double visible_keys, exact_keys;                    /* what the host knows of */
    attention_distance *distances;                      /* [layers]; NULL: they are not measured */
    query_keeper *keeper;                               /* not the session's; NULL: none are kept */
    uint64_t tokens, bytes;
    size_t sure; /* tokens whose keys and values are known to be whole: all that made them was looked at */
    uint64_t failures; /* of the device, when that was so: runtime/trail.h */
};

/* A command that failed on the device, the session's or another's, may have spoilt what the session read
 * since it was last sure: it goes back there, so that the caller who feeds the rest again gets the very same
 * numbers.
 *
 * session_begin: at the head of a call; OPENCL if the session had to go back. session_mend: the same without
 * the complaint. session_end: at the end of a call, hands its status on; settled: what was read so far has
 * been looked at. */
clsplat_status session_begin(clsplat_session *s);
clsplat_status session_mend(clsplat_session *s);
clsplat_status session_end(clsplat_session *s, clsplat_status status, bool settled);
bool session_is_divided(const clsplat_session *s, size_t layer);
/* Whether what is on its way through the layers stays here. */
bool session_keeps(const clsplat_session *s, size_t layer);
/* Of the cache, and of what the form keeps beside it, the first tokens remain. */
clsplat_status session_shorten(queue *q, clsplat_session *s, size_t length);
bool session_is_splatted(const clsplat_session *s, size_t layer);
bool session_is_whole(const clsplat_session *s);

/* How splats adapt: as the caller said, or else the configuration. They begin to; and a cycle of theirs, if
 * one is due. */
model_adaptation session_adaptation(const clsplat_session *s);
clsplat_status session_open_adaptation(clsplat_session *s);
clsplat_status session_adapt(queue *q, clsplat_session *s);

/* clsplat_session_open_sized, divided if there is a team; `whole`: keys and values of all tokens stay, in any
 * layer, for who looks at them later. */
clsplat_status session_open(clsplat_model *model, size_t capacity, const clsplat_model_attention *attention,
                            const divided_team *team, bool whole, clsplat_session **session);

/* What attention may rely on in a session of so many tokens. */
attention_shape session_shape(const clsplat_model *model, size_t capacity);

#endif
