/* The cache of a session that several processes hold together: what passes through the layers together goes
 * to one of them, the one that holds the fewest tokens, and a layer's attention is what all say of the keys
 * that they have. Everything but attention every process computes for itself.
 *
 * Near and far, each grows trees of the keys that it has, and keeps the tolerance for what it says of them:
 * the errors of all, by their shares of a row's mass, are that of the row.
 *
 * Queries go to the keys instead of keys to the queries: of a token and a layer H·(D + 2) numbers pass
 * between the processes, however long the text is. Of layers with a window of the model's own, and of those
 * with splats, every process has all.
 *
 * Source: states that merge (op.h); for decoding the same as in Shyam et al. 2024 (arXiv 2408.04093). */
#ifndef CLSPLAT_MODEL_DIVIDED_H
#define CLSPLAT_MODEL_DIVIDED_H

#include "model/attention.h"

/* The processes. Collective: `agree` says on all what the first says that does not say OK; `most` and `sum`
 * leave the same bits everywhere. */
typedef struct divided_team {
    size_t own, count;
    void *user;
    clsplat_status (*agree)(void *user, clsplat_status status);
    clsplat_status (*most)(void *user, float *numbers, size_t count);
    clsplat_status (*sum)(void *user, float *numbers, size_t count);
} divided_team;

typedef struct divided {
    divided_team team;
    clsplat_device *device;
    const attention_form *form; /* of the session, with its state and parameters */
    void *state;
    const clsplat_model_attention *parameters;
    size_t room;              /* tokens in the cache here */
    size_t part;              /* tokens at most that go through the layers together */
    size_t held, holder;      /* tokens here before the part on its way, and whose that part is */
    size_t length, *counts;   /* tokens so far, and [team.count] of each process */
    uint16_t *holders;        /* [capacity] of every token */
    op_tensor out, lse;       /* float32: what the keys here say of a part's queries */
    float *host, *lses, *top; /* [part·H·(D + 1)], [part·H] twice */
    double counted;           /* keys here that queries attended beside form->count */
    bool told;                /* the failure on its way is one that all know of */
} divided;

/* For sessions of so many tokens, of which `rows` may go through the layers together. Ownership: *d is the
 * caller's, also after a failure. Returns: MEMORY, UNSUPPORTED (more processes than can be numbered). */
clsplat_status divided_open(clsplat_device *device, const divided_team *team, const attention_shape *shape,
                            size_t rows, divided **d);
void divided_close(divided **d); /* accepts a NULL handle */

/* A failure that not all know of becomes one of all; once for each. Collective. */
clsplat_status divided_agree(divided *d, clsplat_status status);

/* So many tokens are on their way; they have passed; only the first ones remain. */
void divided_begin(divided *d);
void divided_end(divided *d, size_t count);
void divided_rewind(divided *d, size_t length);

/* The sum over the processes of a count. Collective. */
clsplat_status divided_sum(divided *d, double *count);

/* The first process's token is that of all: the others' devices may round otherwise. Collective. */
clsplat_status divided_token(divided *d, int32_t *token);

/* `step` is of the tokens here with those on their way behind them; `first`: the first of these among all.
 * Collective. */
clsplat_status divided_attend(queue *q, divided *d, size_t first, const attention_step *step);

#endif
