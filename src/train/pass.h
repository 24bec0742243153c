/* Windows of tokens through the layers and back.
 *
 * Forward keeps of a layer what backward reads: its rows before attention and before the feed-forward
 * network, the turned heads, attention's out and lse, and the products before the activation. Norms and
 * activations are computed again. With `again`, layers share one place for all of that but the rows, and
 * backward runs each layer's forward anew: less memory, a third more work. */
#ifndef CLSPLAT_TRAIN_PASS_H
#define CLSPLAT_TRAIN_PASS_H

#include "train/trainee.h"

/* Rows are those of all windows, one below the other: [1,1,batch·length,…], of the pass's type but for mid
 * and lse, which are float32. */
typedef struct pass_layer {
    op_tensor mid, qkv, attended, lse, gate_up; /* lse [batch,H,length,1], in splat layers [n,H,chunk,1] */
    struct pass_splats *splats;                 /* NULL in layers of other kinds */
    struct pass_trees *trees;                   /* likewise */
} pass_layer;

struct pass;
/* Called after every layer of a pass. */
typedef clsplat_status pass_visitor(queue *q, const struct pass *p, size_t layer, void *user);

/* What is brought to a pass: `asked` are the rows that the head reads, window after
 * window, and `places` where each row is among them, or behind them all; NULL: the head reads every row. */
typedef struct pass_tokens {
    const int32_t *ids, *targets; /* [rows], [asked]: a target below 0 does not count */
    const int32_t *asked, *places;
} pass_tokens;

typedef struct pass {
    const trainee *model;
    clsplat_dtype type;         /* the trainee's: of what layers keep and products take; F32 or BF16 */
    size_t batch, length, rows; /* rows: batch · length */
    size_t asked;               /* rows that the head reads; less than all of them only in an encoder */
    bool again;
    op_tensor *x;       /* [layers + 1]: the residual stream before each layer, and behind the last; F32 */
    pass_layer *layers; /* [layers], or with `again` one */
    op_tensor h, gated; /* what is computed again */
    op_tensor dx, dh, dqkv, dattended, dgate_up, dgated; /* dx: F32 */
    op_tensor logits;                                    /* of some of the rows at a time */
    op_tensor turn, stats;
    op_tensor product, weight; /* of one weight: parts of its gradient, and itself rounded to the type */
    op_tensor more;            /* of splat layers: what p->dh receives besides */
    op_tensor narrow;          /* dx rounded to the type, unless that is float32 */
    cl_mem ids, targets, log_likelihood; /* [rows], [asked] */
    cl_mem asked_rows, places;           /* as pass_tokens has them; NULL: the head reads every row */
    op_tensor head, dhead;               /* the rows that the head reads, and one of zeros behind dhead's */
    struct pass_splats_scratch *splats;  /* NULL: no layer has any */
    float *host;                         /* [asked] */
    pass_visitor *behind; /* of pass_backward, the last layer first, once what makes its gradients whole has
                             been enqueued; NULL: nobody */
    void *behind_user;
} pass;

/* For so many windows of `length` tokens, of each of which the head reads `asked` rows. Ownership: the
 * caller's, also after a failure, for pass_close. Returns: MEMORY, OPENCL. */
clsplat_status pass_open(const trainee *model, size_t batch, size_t length, size_t asked, bool again,
                         pass *p);
/* Accepts a zeroed struct. */
void pass_close(pass *p);

/* The windows' tokens, and what is asked of them. Blocks. */
clsplat_status pass_bring(queue *q, const pass *p, const pass_tokens *tokens);
/* Runs them through the layers; leaves the rows for the head in p->h. `visit`, unless it is NULL, is called
 * after every layer. */
clsplat_status pass_forward(queue *q, const pass *p, pass_visitor *visit, void *user);
/* The head, and unless scale is 0 what the gradient of −scale Σ ln p(target) is for p->dh and the head's
 * weights, which are added to. Leaves the log-likelihoods. */
clsplat_status pass_head(queue *q, const pass *p, float scale);
/* The same of scale times the divergences from what `teacher`, another model's pass of the same shape, tells
 * of the same windows. Leaves these in the place of the log-likelihoods. */
clsplat_status pass_head_like(queue *q, const pass *p, const pass *teacher, float scale);
/* The sum of what either left. Blocks. */
clsplat_status pass_likelihood(queue *q, const pass *p, double *sum);
/* From p->dh back to the embedding; all gradients are added to. */
clsplat_status pass_backward(queue *q, const pass *p);

/* Within the floor. One layer forward, from p->x[layer] to p->x[layer + 1] and to p->h what its norm gives
 * for the next; backward's parts of it. */
bool pass_is_splatted(const pass *p, size_t layer);
bool pass_is_near_far(const pass *p, size_t layer);
pass_layer *pass_layer_of(const pass *p, size_t layer);
clsplat_status pass_layer_forward(queue *q, const pass *p, size_t layer);
/* Its two halves: from p->h to the heads' outputs, and from these, on top of p->x[layer], to its end.
 * Backward of the first: from p->dattended; p->dx is added to. */
clsplat_status pass_attend(queue *q, const pass *p, size_t layer);
clsplat_status pass_behind(queue *q, const pass *p, size_t layer);
clsplat_status pass_attend_back(queue *q, const pass *p, size_t layer);
clsplat_status pass_norm(queue *q, const pass *p, op_tensor x, const model_norm *norm, op_tensor out);
/* Rows of all windows as heads from `first` on: [batch,heads,length,D]. */
op_tensor pass_heads(const pass *p, op_tensor rows, size_t first, size_t heads);
op_softmax_args pass_attention(const pass *p, size_t layer);

#endif
