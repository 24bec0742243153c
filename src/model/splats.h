/* Splat layers in a session (op/splat_layer.h has what they compute): keys, values and features of the last
 * chunks, and the splats' states. What is older is in those states, so that a layer takes as much memory for
 * a long text as for a short one; but where splats adapt, old keys are read again, and all stay. */
#ifndef CLSPLAT_MODEL_SPLATS_H
#define CLSPLAT_MODEL_SPLATS_H

#include "model/attention.h"
#include "model/block.h"

typedef struct splat_layer {
    op_tensor mean, g, base; /* [1,Hk,S,D], [1,Hk,S,2·D], [1,Hk,S,1] */
    op_tensor unshifted; /* q, k and v of each token for itself, [1,1,room,(H+2·Hk)·D], if layers shift */
    op_tensor keys, gates, biases; /* [1,1,room,Hk·2·D], [1,1,room,2·Hk], of whole chunks [1,1,room,Hk] */
    op_tensor lse, value, falls;   /* [room / chunk,Hk,S,…], [room / chunk,Hk,1,1]: of a chunk */
    op_tensor prefix_lse, prefix, bias; /* the same: of what came before */
} splat_layer;

struct splat_adapting; /* model/splats_adapt.h */

typedef struct splat_store {
    const clsplat_model *model;
    size_t room;            /* tokens of whom there is everything at most; a multiple of a chunk */
    size_t base;            /* the first of them: the beginning of a chunk */
    splat_layer *layers;    /* [layers]; those of other kinds are empty */
    op_tensor queries;      /* [1,1,rows,H·D]: of the tokens that are being read, before they are turned */
    const op_tensor *k, *v; /* [layers] of [1,Hk,room,D]: the session's */
    op_tensor mixture, shared;       /* [n,Hk,chunk,…]: of the chunks that a pass completes */
    struct splat_adapting *adapting; /* NULL: they stay as they are */
} splat_store;

/* The means of a layer's splats, [1,Hk,S,D], as queries meet them. */
op_tensor splat_layer_means(const model_config *config, const model_layer *layer);
/* What they are to keys' features: g [Hk,S,2·D] and base [Hk,S], of op_splat_features. */
clsplat_status splat_layer_features(queue *q, const model_config *config, const model_layer *layer, cl_mem g,
                                    cl_mem base);

/* Gates of a key head: strength and, but in encoders, decay. */
size_t splat_gates(const model_config *config);
/* One row in so many chunks or texts. */
op_tensor splat_repeated(op_tensor t, size_t count);
/* Shares keys out among splats: lse of the features [n,Hk,chunk,2·D] over all splats' g and base,
 * [n,Hk,chunk,1]. `out` [n,Hk,chunk,splat_share_columns] is nothing that anybody reads. */
size_t splat_share_columns(const model_config *config);
op_softmax_args splat_share(op_tensor features, op_tensor g, op_tensor base, op_tensor out, op_tensor lse);
/* Writes keys to splats: their states' value and lse [n,Hk,S,…] from features, v [n,Hk,chunk,D] and the keys'
 * biases [n,Hk,chunk,1]. */
op_softmax_args splat_write(op_tensor g, op_tensor features, op_tensor v, op_tensor biases, op_tensor value,
                            op_tensor lse);

/* Tokens that the layers of a session of so many keep: all where `whole`, else what a pass needs. */
size_t splat_store_room(const clsplat_model *model, size_t capacity, bool whole);
/* A store of so many tokens of a session with keys `k` and values `v`. Ownership: *store is the caller's,
 * also after a failure, for splat_store_close; NULL for a model without such layers. Returns: UNSUPPORTED
 * (activations or a cache that are not float32), MEMORY, OPENCL. */
clsplat_status splat_store_open(const clsplat_model *model, size_t room, const op_tensor *k,
                                const op_tensor *v, splat_store **store);
/* Accepts NULL and a NULL handle; sets *store to NULL. */
void splat_store_close(splat_store **store);

/* Before a pass: makes room for `count` tokens behind the session's first `first`, by leaving old ones. */
clsplat_status splat_store_begin(queue *q, splat_store *s, size_t first, size_t count);
/* The least number of tokens that a session of `length` can go back to, beside 0. */
size_t splat_store_reach(const splat_store *s);

/* In these the first token of a session is the store's. First of all, once the rows' projections are in
 * scratch.qkv: something of the token before each comes to them. */
clsplat_status splat_store_shift(const block *b, splat_store *s, size_t layer, size_t first);
/* Before the block's heads are turned: queries, keys'
 * features, and how strongly each is written. `first`: the first row's token. */
clsplat_status splat_store_look(const block *b, splat_store *s, size_t layer, size_t first);
/* Once v, which ends with the block's last token, is there: the states of chunks that are complete now. */
clsplat_status splat_store_write(const block *b, splat_store *s, size_t layer, size_t first, op_tensor v);
/* Rows [1,1,n,heads·columns] as [1,heads,n,columns]; as chunks from `begin` on, [count,heads,chunk,columns];
 * and the states before each of the chunks [begin, end). */
op_tensor splat_store_heads(op_tensor rows, size_t heads, size_t columns);
op_tensor splat_store_chunks(op_tensor rows, size_t begin, size_t count, size_t chunk);
clsplat_status splat_store_scan(queue *q, const splat_store *s, size_t layer, size_t begin, size_t end);

/* In place of a form's attend. */
clsplat_status splat_store_attend(const block *b, splat_store *s, const attention_step *step);

#endif
